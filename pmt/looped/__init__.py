"""The looped linear transformer of arXiv 2606.00605: how training makes it the power method.

The model with full V and W and a choice of normalisations, its data, the manifold on which it is
the power method, the reduced dynamics of the two numbers (v, w), and training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pmt.looped.blocks import CONFINING, apply_blocks
from pmt.looped.config import TrainConfig
from pmt.looped.core import Weights, apply, embed, loop, looped
from pmt.looped.data import (
    OUTSIDE,
    Samples,
    covariance,
    leading_space,
    outside_samples,
    prescribed_samples,
    samples,
    uniform_samples,
    with_spectrum,
)
from pmt.looped.growth import Exponent, fitted_exponent
from pmt.looped.manifold import (
    Scalars,
    angle_to_line,
    angle_to_space,
    beside_manifold,
    distance_to_manifold,
    off_manifold,
    on_manifold,
    one_token_map,
    power_iterate,
    reduced,
    scalars,
)
from pmt.looped.norms import NORMS, normalized
from pmt.looped.objectives import OBJECTIVES, sample_losses
from pmt.looped.orbits import orbit_maps, orbit_size, with_images
from pmt.looped.start import STARTS, initial_weights
from pmt.looped.two_scalar import (
    ScalarPath,
    Slope,
    Spectra,
    integrate,
    manifold_loss,
    slope,
    spectra,
)

if TYPE_CHECKING:
    from pmt.looped.model import LoopedTransformer
    from pmt.looped.training import Training, test_set, train, train_set

# Loaded on first use: the statements need the functions above, and neither Flax nor Optax.
_LATER = {
    "LoopedTransformer": "model",
    "Training": "training",
    "test_set": "training",
    "train": "training",
    "train_set": "training",
}

__all__ = [
    "CONFINING",
    "NORMS",
    "OBJECTIVES",
    "OUTSIDE",
    "STARTS",
    "Exponent",
    "LoopedTransformer",
    "Samples",
    "ScalarPath",
    "Scalars",
    "Slope",
    "Spectra",
    "TrainConfig",
    "Training",
    "Weights",
    "angle_to_line",
    "angle_to_space",
    "apply",
    "apply_blocks",
    "beside_manifold",
    "covariance",
    "distance_to_manifold",
    "embed",
    "fitted_exponent",
    "initial_weights",
    "integrate",
    "leading_space",
    "loop",
    "looped",
    "manifold_loss",
    "normalized",
    "off_manifold",
    "on_manifold",
    "one_token_map",
    "orbit_maps",
    "orbit_size",
    "outside_samples",
    "power_iterate",
    "prescribed_samples",
    "reduced",
    "sample_losses",
    "samples",
    "scalars",
    "slope",
    "spectra",
    "test_set",
    "train",
    "train_set",
    "uniform_samples",
    "with_images",
    "with_spectrum",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        value = getattr(import_module(f"pmt.looped.{_LATER[name]}"), name)
        globals()[name] = value
        return value
    message = f"module 'pmt.looped' has no attribute {name!r}"
    raise AttributeError(message)
