"""Transformer layers as power methods: dynamics, equilibria, stability, and real checkpoints.

Importing this package is cheap and free of side effects: every name below is loaded on first use
(PEP 562), so that neither `import pmt` nor `pmt --help` loads JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmt import (
        attention,
        checkpoints,
        dynamics,
        equilibria,
        experiments,
        figures,
        looped,
        models,
        report,
        spectral,
        sphere,
        stability,
        steering,
    )
    from pmt.dynamics.simulate import run_to_equilibrium, simulate
    from pmt.dynamics.systems import LayerStack, MultiHead, Oja, SingleHead

__version__ = "0.1.0"

_FROM_DYNAMICS = frozenset(
    {"LayerStack", "MultiHead", "Oja", "SingleHead", "run_to_equilibrium", "simulate"}
)

_ROOMS = frozenset(
    {
        "attention",
        "checkpoints",
        "dynamics",
        "equilibria",
        "experiments",
        "figures",
        "looped",
        "models",
        "report",
        "spectral",
        "sphere",
        "stability",
        "steering",
    }
)

__all__ = [
    "LayerStack",
    "MultiHead",
    "Oja",
    "SingleHead",
    "__version__",
    "attention",
    "checkpoints",
    "dynamics",
    "equilibria",
    "experiments",
    "figures",
    "looped",
    "models",
    "report",
    "run_to_equilibrium",
    "simulate",
    "spectral",
    "sphere",
    "stability",
    "steering",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"pmt.{name}")
    if name in _FROM_DYNAMICS:
        value = getattr(import_module("pmt.dynamics"), name)
        globals()[name] = value
        return value
    message = f"module 'pmt' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
