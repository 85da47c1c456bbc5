"""What runs end at: an attractor, its share of the runs, and whether it is stable."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from pmt.equilibria import classify
from pmt.equilibria.classify import KINDS
from pmt.stability.intervals import Method, binomial_interval
from pmt.stability.tally import End, Seen
from pmt.stability.verdict import Verdict, analyze, has_closed_form

# Largest n(d - 1) whose dense multipliers are worth a verdict on one representative.
_LARGEST_DENSE = 256


@dataclass(frozen=True)
class Share:
    """A fraction of the samples.

    Attributes:
      count: how many samples.
      fraction: of all samples.
      low, high: confidence interval for the probability of the whole basin.
    """

    count: int
    fraction: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int, confidence: float, method: Method) -> "Share":
        """The share of ``count`` samples of ``total``, with ``binomial_interval``."""
        low, high = binomial_interval(count, total, confidence, method)
        return cls(count, count / total, low, high)


@dataclass(frozen=True)
class Attractor:
    """Where samples ended; the classes are those of ``pmt.equilibria.classify``.

    Attributes:
      name: in words, unique within a result.
      kind: ``consensus``, ``bipartite``, ``polygonal``, ``clustering``, ``cycle``; ``unresolved``:
        the budget ended first, nothing is claimed; ``undefined``: a token's update cancelled to
        zero; ``non-finite``: a number overflowed.
      index: k, from 0, where the tokens are along the real eigenvector v_k of F, else None.
      split: for consensus and bipartite points the numbers of tokens at +v_k and at −v_k (of token
        1's direction where there is no such k, in a repeated eigenspace), else None.
      collinear: all tokens on one line: also for antipodal pairs, which are polygonal.
      clusters: number of distinct points, for ``clustering``, else None.
      period: for ``cycle``, else None.
      share: count, fraction, interval.
      first: the smallest number of a sample that ended here.
      state: the last state of that sample, ``(n, d)``.
      verdict: linear stability of that state (``pmt.stability.analyze``): ``unstable`` marks a
        point where runs stay only because they started on it or nearly so. None where it is no
        equilibrium, or was not asked for, or its dense spectrum is too large.
      spectral_radius: as in ``Analysis``; None as ``verdict``.
    """

    name: str
    kind: str
    index: int | None
    split: tuple[int, int] | None
    collinear: bool
    clusters: int | None
    period: int | None
    share: Share
    first: int
    state: np.ndarray
    verdict: Verdict | None
    spectral_radius: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "share": vars(self.share), "state": self.state.tolist()}


def describe_end(system: Any, end: End, seen: Seen, share: Share, verdicts: bool) -> Attractor:
    """The attractor at a place where runs ended; ``verdicts``: with its linear stability."""
    tokens = len(seen.state)
    signed = end.kind in ("consensus", "bipartite")
    verdict, radius = _verdict(system, end, seen.state) if verdicts else (None, None)
    return Attractor(
        name=end.name(tokens),
        kind=end.kind,
        index=end.index if signed and end.index >= 0 else None,
        split=(end.positive, tokens - end.positive) if signed else None,
        collinear=end.collinear,
        clusters=end.clusters or None,
        period=end.period or None,
        share=share,
        first=seen.first,
        state=seen.state,
        verdict=verdict,
        spectral_radius=radius,
    )


def _verdict(system: Any, end: End, state: np.ndarray) -> tuple[Verdict | None, float | None]:
    n, d = state.shape
    large = n * (d - 1) > _LARGEST_DENSE
    if end.kind not in KINDS or (large and end.kind not in KINDS[:2]):
        return None, None
    x = jnp.asarray(state)
    known = classify(system, x)
    if large and not has_closed_form(system, known):
        return None, None
    if known.status != "equilibrium":
        # With a looser tolerance than that of ``classify`` a state is not close enough to say.
        return None, None
    answer = analyze(system, x, affordable=0)
    return answer.verdict, answer.spectral_radius
