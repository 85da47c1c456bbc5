"""The first-order law of the increments (theory.md II.8) beside what a model's layers show.

It says what the increment of the principal direction is to first order in the step size, whatever
the matrix: of layer 1, whose tokens are uniform on the sphere, and where no attention weight
depends on the tokens. Elsewhere nothing is predicted, and the reason is said.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmt.dynamics import MultiHead
from pmt.experiments.nulls import attention_weights
from pmt.spectral import Spectrum
from pmt.spectral.increments import law, plane_law

# Weights that differ by no more than so many roundings of 1 are the same.
_ROUNDINGS = 8
# Attention weights that are looked at, at most: 64 MB of them in float32.
_LOOKED_AT = 2**24

# Why it does not apply.
GIVEN = "the tokens were given, and are not known to be uniform on the sphere"
WHOLE = "layers of the whole model do more than attention, and its tokens are not uniform"
LATER = "the tokens that enter later layers are not uniform on the sphere"


@dataclass(frozen=True)
class FirstOrder:
    """What the law says of layer 1.

    Attributes:
      delta_rho: alpha times the derivative of the mean increment of rho with the principal
        direction at alpha = 0; None where the law does not apply.
      spread: by how much an attention weight differs between tokens, at most; None where the
        tokens are not random ones.
      reason: why the law does not apply; None where it does.
    """

    delta_rho: float | None
    spread: float | None
    reason: str | None


@dataclass(frozen=True)
class Prospect:
    """What layer 1 says of the law before its eigenproblem is solved.

    Attributes:
      alpha: step size.
      spread, reason: as of the law itself.
      heads: ``(d, d)``, the sum over heads of O_h V_h, each by the mean weight that its tokens give
        to themselves; None where the law does not apply.
    """

    alpha: float
    spread: float | None
    reason: str | None
    heads: np.ndarray | None = None

    def law(self, spectrum: Spectrum) -> FirstOrder:
        """The law for the principal direction of layer 1, or why there is none."""
        if self.heads is None:
            return FirstOrder(None, self.spread, self.reason)
        basis = np.asarray(spectrum.basis, np.float64)
        if spectrum.dimension == len(basis):
            # The line or plane is the whole space.
            return FirstOrder(0.0, self.spread, None)
        matrix = jnp.asarray(self.heads, jnp.result_type(float))
        frame = jnp.asarray(basis, matrix.dtype)
        slope = law(matrix, frame[:, 0]) if spectrum.dimension == 1 else plane_law(matrix, frame)
        return FirstOrder(self.alpha * float(slope), self.spread, None)


def look(
    layer: MultiHead, x: Float[Array, "prompts n d"], *, alpha: float, reason: str | None
) -> Prospect:
    """Whether the law applies to layer 1 on uniform tokens.

    Whether the weights depend on the tokens is seen from those of the prompts, or of some of very
    many, and of the same prompts with their tokens in another order, head by head and pair by pair.

    Args:
      layer: the first one.
      x: the tokens.
      alpha: step size.
      reason: why it does not apply whatever the layer is, such as ``GIVEN``; None where it may.
    """
    if reason is not None:
        return Prospect(alpha, None, reason)
    heads, dtype, n = len(layer.query), layer.query.dtype, x.shape[1]
    # All of them where that is possible, since null models compile the same for these.
    x = x[: max(1, _LOOKED_AT // (heads * n * n))]
    # (prompts, h, n, n)
    both = [attention_weights(layer, each, None) for each in (x, jnp.roll(x, 1, axis=1))]
    weights = np.concatenate([np.asarray(each, np.float64) for each in both])
    spread = float(np.max(np.ptp(weights, axis=0)))
    if spread > _ROUNDINGS * float(jnp.finfo(dtype).eps):
        reason = (
            "the attention of layer 1 depends on the tokens, its weights differ by up to "
            f"{spread:.2g} between tokens"
        )
        return Prospect(alpha, spread, reason)
    own = np.einsum("bhii->h", weights) / (len(weights) * n)
    maps = (np.asarray(array, np.float64) for array in (layer.output, layer.value))
    # Pair by pair, by matrix products: as one sum it would take h d² k steps of a loop.
    return Prospect(alpha, spread, None, np.einsum("h,hdk,hke->de", own, *maps, optimize=True))


def reason_of(found: FirstOrder, layer: int) -> str | None:
    """Why there is no law for a layer, from 1; None where there is."""
    return found.reason if layer == 1 or found.reason == WHOLE else LATER


def as_record(found: FirstOrder, measured: float, se: float | None, depth: int) -> dict[str, Any]:
    """As JSON has it, with what was measured and why no other layer has a law."""
    return {
        "layer": 1,
        "applies": found.reason is None,
        "reason": found.reason,
        "delta_rho": found.delta_rho,
        "measured_delta_rho": measured,
        "measured_delta_rho_se": se,
        "attention_spread": found.spread,
        "other_layers": None if depth == 1 else reason_of(found, 2),
    }


def clause(found: FirstOrder, measured: float, se: float | None, alpha: float, depth: int) -> str:
    """What there is to say about it, to stand within a sentence."""
    later = reason_of(found, 2)
    if found.delta_rho is None:
        more = f", and {later}" if depth > 1 and later != found.reason else ""
        return f"the first-order law does not apply: {found.reason}{more}"
    others = "layer 2" if depth == 2 else f"layers 2 to {depth}"
    error = "" if se is None else f" (standard error {se:.2g})"
    return (
        "the first-order law, which holds for any matrix under attention that does not depend on "
        f"the tokens, gives layer 1 the increment {found.delta_rho:+.3g} at alpha = {alpha:g}, "
        f"against {measured:+.3g}{error} measured"
        + (f"; it does not apply to {others}: {later}" if depth > 1 else "")
    )
