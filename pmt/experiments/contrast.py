"""Trained weights beside null models: by how much they differ, with what error, in one sentence.

`judge` is the one rule by which trained weights are told apart from a null model.

Low alignments are compared as rho / chance, so that lines and planes compare. Such a ratio cannot
exceed 1 / chance, which is lower for a plane; beyond a half rho itself is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from pmt.experiments.analysis import NullAlignment, NullRho
from pmt.spectral import Alignment, chance, standard_error

# Two-sided, of every single comparison.
_LEVEL = 0.95
BEYOND = "what one more draw of the null would show"
# From which rho on it is not divided by chance.
_HIGH = 0.5
NULL_NAMES = {"gaussian": "Gaussian", "rotated": "rotated"}


@dataclass(frozen=True)
class Judgement:
    """Whether a trained layer differs from a null model by more than one more draw would.

    Attributes:
      margin: the trained value less the null's mean over draws.
      error: standard error of the margin, with the trained matrix as one more draw.
      threshold: so many of these are a difference.
      stands_out: 1 above what one more draw would show, -1 below it, 0 within; None where it
        cannot be told.
      reason: why it cannot be told.
    """

    margin: float
    error: float | None
    threshold: float | None
    stands_out: int | None
    reason: str | None = None


def judge(
    margin: float, own_se: float | None, null_se: float | None, sd: float | None, draws: int
) -> Judgement:
    """Test whether the trained matrix may be one more draw of the null model.

    If it is, and draws are normal, the trained value less the mean of k draws has the variance
    own_se^2 + prompt_se^2 + sd^2 (1 + 1/k), and over the root of its estimate it has at k - 1
    degrees of freedom Student's distribution where sd dominates, and lighter tails where the
    prompts do. It is called different beyond the 97.5 % quantile, so that a null is called so in
    at most about 5 % of cases. The same tokens go through both, which makes the errors over
    prompts, added as independent, too large rather than too small. No correction is made for the
    number of layers and nulls that are compared.

    Args:
      margin: the trained value less the null's mean over draws.
      own_se: standard error of the trained value over prompts; None for a single prompt.
      null_se: that of the null's mean, over prompts and draws: its square is
        prompt_se^2 + sd^2 / k; None for a single prompt.
      sd: standard deviation between draws; None for a single draw.
      draws: k.

    Source: the prediction interval for one further observation from a normal sample.
    """
    if own_se is None or null_se is None:
        reason = "a single prompt or text has no standard error, so this tells nothing"
        return Judgement(margin, None, None, None, reason)
    if sd is None:
        reason = "a single draw of the null shows no spread, so this tells nothing"
        return Judgement(margin, None, None, None, reason)
    error = float(np.sqrt(own_se**2 + null_se**2 + sd**2))
    threshold = float(stdtrit(draws - 1, (1 + _LEVEL) / 2))
    if error == 0:
        reason = "neither prompts nor draws differ, so this tells nothing"
        return Judgement(margin, error, threshold, None, reason)
    beyond = abs(margin) > threshold * error
    return Judgement(margin, error, threshold, int(np.sign(margin)) if beyond else 0)


def judge_increment(own: Alignment, null: NullAlignment) -> Judgement:
    """The increment of a layer's alignment with its principal direction against a null model."""
    margin = own.delta_rho - null.delta_rho
    return judge(margin, own.delta_rho_se, null.se, null.sd, null.draws)


def contrast_after(name: str, own: Alignment, level: float, null: NullAlignment) -> "Contrast":
    """rho after a layer, of a direction whose chance is ``level``, against a null model."""
    return contrast(name, own.rho_after, own.rho_after_se, level, null.after)


@dataclass(frozen=True)
class Contrast:
    """The trained weights less a null model.

    Attributes:
      null: the name of the null model.
      unit: ``"rho / chance"`` or ``"rho"``, of all numbers here.
      own, expected: of both; margin: own less expected.
      draws: how many, of the null model.
      error, threshold, stands_out, reason: what `judge` says of the margin.
    """

    null: str
    unit: Literal["rho / chance", "rho"]
    own: float
    expected: float
    margin: float
    draws: int
    error: float | None
    threshold: float | None
    stands_out: int | None
    reason: str | None


def null_rho(values: np.ndarray, d: int, dimensions: Sequence[int]) -> NullRho:
    """Summarise ``values``, ``(draws, prompts, n)``, of draws with directions of ``dimensions``.

    What is masked, as padding is, counts in none of these statistics, here and below.
    """
    levels = np.array([chance(d, dimension) for dimension in dimensions])
    ratios = values / levels[:, None, None]
    return NullRho(
        rho=float(values.mean()),
        se=error_of_draws(values),
        sd=spread_of_draws(values),
        ratio=float(ratios.mean()),
        ratio_se=error_of_draws(ratios),
        ratio_sd=spread_of_draws(ratios),
        draws=len(values),
        dimension=dimensions[0] if len(set(dimensions)) == 1 else None,
    )


def error_of_draws(values: np.ndarray) -> float | None:
    """Standard error of the mean of ``(draws, prompts, n)``: over prompts, and over draws if there
    are several, in quadrature; None for a single prompt.
    """
    over_prompts = standard_error(values.mean(axis=0))
    over_draws = standard_error(values.reshape(len(values), -1)) or 0.0
    return None if over_prompts is None else float(np.hypot(over_prompts, over_draws))


def spread_of_draws(values: np.ndarray) -> float | None:
    """Standard deviation between the means of draws, ``(draws, ...)``; None for a single draw."""
    means = values.reshape(len(values), -1).mean(axis=1)
    return float(means.std(ddof=1)) if len(means) > 1 else None


def contrast(name: str, rho: float, se: float | None, level: float, null: NullRho) -> Contrast:
    """``rho`` of the layer's own direction, whose chance is ``level``, against a null model."""
    high = max(rho, null.rho) > _HIGH
    expected, null_se, sd = (
        (null.rho, null.se, null.sd) if high else (null.ratio, null.ratio_se, null.ratio_sd)
    )
    scale = 1.0 if high else level
    unit: Literal["rho / chance", "rho"] = "rho" if high else "rho / chance"
    margin = rho / scale - expected
    found = judge(margin, None if se is None else se / scale, null_se, sd, null.draws)
    return Contrast(name, unit, rho / scale, expected, draws=null.draws, **vars(found))


def sentence(found: Contrast, whose: str = "trained") -> str:
    """What the contrast says of the trained weights, or of those that are named."""
    digits = 3 if found.unit == "rho" else 2
    start = (
        f"{found.unit} {found.own:.{digits}f} against {found.expected:.{digits}f} under the "
        f"{NULL_NAMES[found.null]} null"
    )
    if found.stands_out is None:
        return f"{start}; {found.reason}"
    said = {1: "above", 0: "within", -1: "below"}[found.stands_out]
    error = f"{found.margin:+.{digits}f}, standard error of one more draw {found.error:.{digits}f}"
    verdict = f"the {whose} weights are {said} {BEYOND} (95 %, {found.draws} draws)"
    return f"{start} ({error}): {verdict}"


def mean_chance(values: np.ndarray) -> float:
    """What the mean of rho over all eigendirections is for a uniform token.

    Args:
      values: ``(d,)``, all eigenvalues; every complex one stands for its plane.
    """
    d, planes = len(values), int(np.count_nonzero(np.imag(values)))
    total = (d - planes) * chance(d)
    return float((total + planes * chance(d, 2)) / d if planes else total / d)


def alignment_columns(nulls: Mapping[str, NullAlignment], before: str = "") -> dict[str, Any]:
    """Columns of a CSV file, ``gaussian_delta_rho`` and so on, with ``before`` before the names."""
    found: dict[str, Any] = {}
    for name, null in nulls.items():
        for key in ("delta_rho", "p_increase", "se", "sd", "draws"):
            value = getattr(null, key)
            found[f"{before}{name}_{key}"] = "" if value is None else value
        found |= columns({f"{before}{name}_after": null.after})
    return found


def columns(null: Mapping[str, NullRho]) -> dict[str, Any]:
    """Columns of a CSV file, ``gaussian_rho`` and so on."""
    return {
        f"{name}_{key}": "" if value is None else value
        for name, each in null.items()
        for key, value in vars(each).items()
    }
