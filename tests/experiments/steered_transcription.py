"""Sec. 2.3 on a BERT checkpoint in plain NumPy, with the inverse written out; no code of pmt."""

import numpy as np

from tests.experiments import transcription


def states_before(path, tokens, *, layers, heads, index):
    """The tokens when they enter layer ``index``, and the maps of that layer."""
    maps = transcription.read_layers(path, layers, biases=False)
    x = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    for each in maps[:index]:
        x = np.stack([transcription.step(each, heads, 1.0, prompt) for prompt in x])
    return x, maps[index]


def edited_output(maps, w, z, c):
    """O + c w z' V^-1 for unit w and z, in float64."""
    w, z = w / np.linalg.norm(w), z / np.linalg.norm(z)
    return maps["dense"][0] + c * np.outer(w, z) @ np.linalg.inv(maps["value"][0])


def alignment(x, maps, w, z, c, heads):
    """The mean of |cos(x_i', w)| after the edited layer."""
    changed = maps | {"dense": (edited_output(maps, w, z, c), maps["dense"][1])}
    after = np.stack([transcription.step(changed, heads, 1.0, prompt) for prompt in x])
    return float(np.abs(after @ w / np.linalg.norm(w)).mean())
