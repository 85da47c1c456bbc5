"""Rotary positions as configs describe them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.errors import RequestError

# What each kind of scaling is described by, in the order of `RotaryFrequencies.scaling`.
_SCALINGS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


@dataclass(frozen=True)
class RotaryFrequencies:
    """The angles per token of rotary positions, as a config gives them.

    Attributes:
      planes: how many planes of a head are turned.
      theta: plane p has the frequency theta^(-p / planes) before any scaling.
      scaling: ``("default",)``, ``("linear", factor)``, or ``("llama3", factor, low, high,
        original)``: frequencies of more than original / low tokens a turn are divided by the
        factor, those of fewer than original / high are kept, with a linear passage in between.
    """

    planes: int
    theta: float
    scaling: tuple[Any, ...] = ("default",)

    def values(self) -> np.ndarray:
        """Radians per token, float64, ``(planes,)``."""
        plain = self.theta ** -(np.arange(self.planes) / self.planes)
        if self.scaling[0] == "linear":
            return plain / self.scaling[1]
        if self.scaling[0] == "llama3":
            _, factor, low, high, original = self.scaling
            turns = original * plain / (2 * np.pi)
            kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
            return (1 - kept) * plain / factor + kept * plain
        return plain


def take_rotary(raw: Mapping[str, Any], *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config without what it says of rotary positions, and that.

    Newer configs have all of it in ``rope_parameters``, older ones in ``rope_theta`` and
    ``rope_scaling``.

    Args:
      raw: the parsed config.json.
      names: what ``rope_parameters`` may hold besides the base and the scaling.

    Returns:
      The rest of the config; and ``rope_theta``, ``rope_scaling`` as `RotaryFrequencies.scaling`
      and those of ``names`` that are given.

    Raises:
      RequestError: a kind of scaling or a parameter that is not known, a value that is no positive
        number.
    """
    rest = dict(raw)
    given = rest.pop("rope_parameters", None) or {}
    scaling = rest.pop("rope_scaling", None) or {}
    found: dict[str, Any] = {"rope_theta": rest.pop("rope_theta", 10000.0)}
    if not isinstance(given, dict) or not isinstance(scaling, dict):
        raise RequestError(
            f"rope_parameters is {given!r} and rope_scaling is {scaling!r} in the config; "
            "each must be an object of settings"
        )
    settings = scaling | given
    kind = settings.pop("rope_type", None) or settings.pop("type", "default")
    settings.pop("type", None)
    found |= {name: settings.pop(name) for name in ("rope_theta", *names) if name in settings}
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise RequestError(
            f"the rotary positions of the model are scaled by {kind!r}; "
            f"supported are {', '.join(_SCALINGS)}"
        )
    if settings.keys() != set(_SCALINGS[kind]):
        raise RequestError(
            f"rotary scaling {kind!r} has the parameters {sorted(settings)} in the config; "
            f"expected {sorted(_SCALINGS[kind])}"
        )
    values = [found["rope_theta"], *settings.values()]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values):
        raise RequestError(
            f"the parameters of the rotary positions are {values} in the config; "
            "all must be positive numbers"
        )
    numbers = [float(settings[name]) for name in _SCALINGS[kind]]
    if kind == "llama3" and not numbers[1] < numbers[2]:
        raise RequestError(
            f"low_freq_factor is {numbers[1]} and high_freq_factor {numbers[2]} in the config; "
            "the first must be the smaller one"
        )
    return rest, found | {"rope_scaling": (kind, *numbers)}


def rotary_as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ``rope_parameters`` of a config with the fields that `take_rotary` makes."""
    kind, *numbers = settings["rope_scaling"]
    found = {"rope_type": kind, "rope_theta": settings["rope_theta"]}
    found |= dict(zip(_SCALINGS[kind], numbers, strict=True))
    if "rotary_pct" in settings:
        found["partial_rotary_factor"] = settings["rotary_pct"]
    return found
