"""The maps written as loops over tokens, heads and coordinates in plain NumPy."""

import numpy as np


def softmax_row(logits, seen):
    top = max(logits[j] for j in seen)
    e = {j: np.exp(logits[j] - top) for j in seen}
    total = sum(e.values())
    return {j: e[j] / total for j in seen}


def step(x, heads, alpha, sees, biases=None):
    """One layer.

    heads: list of (Q, K, V, O, scale); sees(h, i, j): whether token i attends to j in head h.
    """
    n = len(x)
    out = np.zeros_like(x)
    for i in range(n):
        y = np.array(x[i], float)
        for h, (q, k, v, o, scale) in enumerate(heads):
            bq, bk, bv = (b[h] for b in biases[:3]) if biases else (0.0, 0.0, 0.0)
            query = q @ x[i] + bq
            logits = {j: scale * query @ (k @ x[j] + bk) for j in range(n)}
            weights = softmax_row(logits, [j for j in range(n) if sees(h, i, j)])
            mixed = sum(w * (v @ x[j] + bv) for j, w in weights.items())
            y = y + alpha * (o @ mixed)
        if biases:
            y = y + alpha * biases[3]
        out[i] = y / np.linalg.norm(y)
    return out
