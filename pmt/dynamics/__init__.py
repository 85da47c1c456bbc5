"""The maps and how to run them."""

from pmt.attention import Boolean, Causal, Full, LocalWindow
from pmt.dynamics.bifurcation import Bifurcation, bifurcation
from pmt.dynamics.cycles import (
    LyapunovRun,
    PeriodRun,
    detect_period,
    largest_lyapunov_exponent,
)
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
    "Bifurcation",
    "Boolean",
    "Causal",
    "EquilibriumRun",
    "Full",
    "ImplicitDerivative",
    "LayerStack",
    "LocalWindow",
    "LyapunovRun",
    "MultiHead",
    "Oja",
    "Outcome",
    "PeriodRun",
    "Simulation",
    "SingleHead",
    "bifurcation",
    "detect_period",
    "head_attention",
    "head_maps",
    "implicit_derivative",
    "largest_lyapunov_exponent",
    "run_to_equilibrium",
    "simulate",
    "tangent_jacobian",
]
