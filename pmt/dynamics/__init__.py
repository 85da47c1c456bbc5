"""The maps and how to run them."""

from pmt.attention import Boolean, Causal, Full, LocalWindow
from pmt.dynamics.implicit import ImplicitDerivative, implicit_derivative
from pmt.dynamics.linearization import tangent_jacobian
from pmt.dynamics.outcome import Outcome
from pmt.dynamics.simulate import (
    OBSERVABLES,
    EquilibriumRun,
    Simulation,
    run_to_equilibrium,
    simulate,
)
from pmt.dynamics.systems import LayerStack, MultiHead, Oja, SingleHead, head_attention, head_maps

__all__ = [
    "OBSERVABLES",
    "Boolean",
    "Causal",
    "EquilibriumRun",
    "Full",
    "ImplicitDerivative",
    "LayerStack",
    "LocalWindow",
    "MultiHead",
    "Oja",
    "Outcome",
    "Simulation",
    "SingleHead",
    "head_attention",
    "head_maps",
    "implicit_derivative",
    "run_to_equilibrium",
    "simulate",
    "tangent_jacobian",
]
