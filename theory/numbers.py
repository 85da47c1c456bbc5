"""Every number of both papers, and of what goes beyond them, that a statement must cover.

A number is covered by the statement with that id, or by one that names it in ``covers``.
"""

from collections.abc import Mapping
from types import MappingProxyType

MAIN_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "equation-1": "a layer, and the layer matrix F = sum_h O_h V_h (Supplementary A)",
        "equation-2": "shared weights",
        "equation-3": "the autonomous map",
        "equation-4": "increment of the correlation",
        "equation-5": "probability of an increment",
        "equation-6": "correlation with the plane of a complex pair",
        "equation-7": "correlation with the plane of two nearly equal eigenvalues",
        "equation-8": "single-head self-attention",
        "section-2.1": "the principal eigenvalue by real part attracts",
        "section-2.1.1": "bipartite points along the other eigenvectors",
        "section-2.1.2": "layer-varying weights: averages over all eigenvectors as a baseline",
        "section-2.3": "rank-1 steering with a gap of an order of magnitude",
        "section-3": "increments as evidence about trained weights",
        "section-5": "pre-compensation of the feed-forward block",
        "figure-8": "products of layer matrices",
        "theorem-1": "multi-head consensus",
    }
)

SUPPLEMENT: Mapping[str, str] = MappingProxyType(
    {f"equation-{i}": "an equation of Supplementary D" for i in range(9, 22)}
    | {f"lemma-{i}": "a lemma of Supplementary D" for i in range(1, 16)}
    | {f"remark-{i}": "a remark of Supplementary D" for i in range(1, 11)}
    | {
        "theorem-2": "the Oja system",
        "theorem-3": "single-head self-attention",
        "proposition-1": "clustering equilibria",
        "section-d.4.1": "multi-head bipartite points",
        "section-d.4.2": "the size of bipartite basins",
        "section-d.4.3": "asymmetric layer matrices",
    }
)

BEYOND: Mapping[str, str] = MappingProxyType(
    {
        "ii.1": "exact Lyapunov identity and sharp step range of the Oja system",
        "ii.2": "global convergence of the Oja system",
        "ii.3": "basin of the antipodal pairs in closed form",
        "ii.4": "exact stability of bipartite points, full and causal attention",
        "ii.5": "multi-head bipartite points: existence, stability, robustness",
        "ii.6": "consensus spectrum for any mask and asymmetric F; rates",
        "ii.7": "balanced pairs on the quadric",
        "ii.8": "first-order law of the increments",
        "ii.9": "large steps: cycles and chaos",
        "ii.10": "clustering equilibria",
        "ii.11": "layer-varying maps near consensus",
    }
)

LOOPED: Mapping[str, str] = MappingProxyType(
    {
        "theorem-4.1": "gradient descent with Norm chooses the power method",
        "theorem-4.2": "without Norm the loss of one layer stays positive",
        "theorem-4.3": "with Norm it becomes arbitrarily small",
        "theorem-4.6": "contraction of the angle without Norm",
        "theorem-4.7": "contraction of the angle with Norm",
    }
)

NUMBERS: Mapping[str, str] = MappingProxyType({**MAIN_TEXT, **SUPPLEMENT, **BEYOND, **LOOPED})

# The rows of "Discrepancies at a glance": what is claimed, and the number it belongs to.
DISCREPANCIES: Mapping[str, str] = MappingProxyType(
    {
        "ordering": "section-2.1",
        "bipartite may be stable at v_2..v_d": "section-2.1.1",
        "steering: a gap of ten suffices": "section-2.3",
        "feed-forward block invertible": "section-5",
        "product of F": "figure-8",
        "increments as evidence": "section-3",
        "Lemma 1: iff collinear": "lemma-1",
        "Lemmas 3, 4: points with 1 + alpha lam_k < 0": "lemma-3",
        "Lemma 5: n = 2, lam_2 < 0": "lemma-5",
        "Lemma 6: collinear balanced pairs": "lemma-6",
        "Lemma 7: truncated": "lemma-7",
        "Theorem 2: n = 2, lam_2 < 0": "theorem-2",
        "Lemma 8.3: polygonal class": "lemma-8",
        "Remark 6: 1-clustering": "remark-6",
        "Proposition 1: iff singular": "proposition-1",
        "Lemma 9: ranks": "lemma-9",
        "Theorem 3: conditions 1 and 3": "theorem-3",
        "Lemma 15: always unstable": "lemma-15",
        "Remark 10: lam_k < 0": "remark-10",
        "D.4.1: no stable multi-head bipartite point": "section-d.4.1",
        "D.4.2: rare, tiny basins": "section-d.4.2",
        "Theorem 1: any attention graph": "theorem-1",
    }
)
