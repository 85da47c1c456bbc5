"""Pre-compensation: the direction that what follows the attention maps to the target, if any.

Sec. 5 of arXiv 2605.25619 steers towards v = phi⁻¹(w), with phi what the feed-forward block and the
norms do to a token's direction. phi need not be onto, however wide the block is: with
FFN(x) = -x + relu(x) + relu(-x) the image of normalize(x + FFN(x)) is the positive orthant. It is
onto if x + t FFN(x) is not zero for |x| = 1 and t in [0, 1], for instance if |FFN| < 1 there
(degree one). Where phi ends in an affine layer norm, as in BERT, that norm alone forbids nearly
every direction: `pmt.steering.norm_range` decides it. And phi is not odd: phi(-v) is not -w, so
the tokens' sign must be fixed too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from pmt import sphere
from pmt.errors import RequestError
from pmt.numerics import epsilon
from pmt.steering.design import unit
from pmt.steering.norm_range import Reach

# Steps from one start; towards a preimage the convergence is quadratic and takes a few.
_STEPS = 50
# |image - target| below which a preimage counts as found, in roundings of the run's dtype.
_FOUND = 2.0**10
# The error of a cosine that is nearly one.
_COSINE = 8 * epsilon("float64")


@dataclass(frozen=True)
class Preimage:
    """The best direction that was found.

    Attributes:
      direction: ``(d,)``. v, of unit length, float64.
      cosine: cos(phi(v), w).
      residual: |phi(v)/|phi(v)| - w|; 0 for a preimage, 2 at most.
      found: whether the residual is rounding. If not, no preimage was found from any start, which
        proves nothing by itself; see ``condition_holds`` and ``excluded``.
      opposite: cos(phi(-v), w): what tokens on the wrong side get; -1 only for an odd phi.
      plain: cos(phi(w), w): without pre-compensation.
      evaluations: of phi, in all starts together.
      starts: how many starts were used.
      bound: the upper bound of |FFN(x)| / |x| that was given, or None.
      dtype: that phi was computed in.
      reach: how near the norm that phi ends in comes to the target, whatever it is given; None
        where it ends in none.
    """

    direction: np.ndarray
    cosine: float
    residual: float
    found: bool
    opposite: float
    plain: float
    evaluations: int
    starts: int
    bound: float | None
    dtype: str
    reach: Reach | None

    @property
    def excluded(self) -> bool:
        """Whether it is certain that there is no preimage, since no output of the norm is one.

        False for a target that is nearer to an output than what counts as found: a state of the
        model itself, rounded, is hardly ever an output to the last bit (see ``reach.excluded``).
        """
        norm = self.reach
        if norm is None or not norm.excluded or self.found:
            return False
        # The cosine is known to some roundings.
        short = max(1.0 - norm.cosine - _COSINE, 0.0)
        return float(np.sqrt(2 * short)) > _FOUND * epsilon(self.dtype)

    @property
    def condition_holds(self) -> bool | None:
        """True where |FFN(x)| < |x|, so that N(x + FFN(x)) is onto with N the l2 norm; else None.

        An upper bound above 1 disproves nothing. In pre-norm models, where phi(x) is x + FFN(x) at
        one length of x, True proves that there is a preimage. Where phi ends in a norm with gain
        and bias it proves nothing; there see ``excluded``.
        """
        return True if self.bound is not None and self.bound < 1 else None


def precompensate(
    phi: Callable[[jax.Array], jax.Array],
    target: np.ndarray,
    *,
    dtype: str,
    starts: int = 3,
    seed: int = 0,
    bound: float | None = None,
    reach: Reach | None = None,
) -> Preimage:
    """The v with phi(v) || w, by nonlinear least squares (`scipy.optimize.least_squares`).

    Minimises |N(phi(N(v))) - w|² over v, N(v) = v/|v|, from w, from -w, and from random directions,
    until one start reaches zero. The Jacobian is phi's own, by forward differentiation: d
    evaluations and d³ operations a step.

    Args:
      phi: traceable by JAX, ``(d,)`` to ``(d,)``.
      target: ``(d,)``. w, of any length but zero.
      dtype: in which phi is computed; float64 needs JAX's 64-bit mode.
      starts: how many at most.
      seed: of the random ones.
      bound: an upper bound of |FFN(x)| / |x| if there is one, for the record; where phi(x) is
        exactly N(x + FFN(x)) with the l2 norm, one below 1 proves that there is a preimage.
      reach: of the norm that phi ends in (`pmt.steering.reach`), for the record.

    Raises:
      RequestError: a target that is no direction, fewer than one start, a phi that is not finite
        at any start.
    """
    d = len(np.asarray(target))
    w = unit("the target", target, d)
    if starts < 1:
        raise RequestError(f"starts is {starts}; it must be at least 1")
    wanted = jnp.asarray(w, dtype)

    def image(v: jax.Array) -> jax.Array:
        return sphere.normalize(phi(sphere.normalize(v)))

    value = jax.jit(lambda v: image(v) - wanted)
    slope = jax.jit(jax.jacfwd(image))

    def residuals(v: np.ndarray) -> np.ndarray:
        return np.asarray(value(jnp.asarray(v, dtype)), np.float64)

    def jacobian(v: np.ndarray) -> np.ndarray:
        return np.asarray(slope(jnp.asarray(v, dtype)), np.float64)

    rng = np.random.default_rng(seed)
    small = _FOUND * epsilon(dtype)
    best, cost, evaluations, used = None, np.inf, 0, 0
    for start in [w, -w, *rng.standard_normal((max(starts - 2, 0), d))][:starts]:
        used += 1
        if not np.isfinite(residuals(start)).all():
            continue
        answer = scipy.optimize.least_squares(
            residuals,
            start / np.linalg.norm(start),
            jacobian,
            method="lm",
            max_nfev=_STEPS,
            xtol=epsilon(dtype),
            ftol=1e-4,
            gtol=epsilon(dtype),
        )
        evaluations += int(answer.nfev)
        if answer.cost < cost:
            best, cost = answer.x / np.linalg.norm(answer.x), float(answer.cost)
        if best is not None and np.sqrt(2 * cost) <= small:
            break
    if best is None:
        raise RequestError(
            "what follows the attention gives no finite state at any start, so that no direction "
            "can be pre-compensated; check the model's weights"
        )
    # Half the squared distance of two unit vectors is one minus their cosine.
    distance, away, plain = (float(np.linalg.norm(residuals(v))) for v in (best, -best, w))
    return Preimage(
        direction=best,
        cosine=1.0 - distance**2 / 2,
        residual=distance,
        found=distance <= small,
        opposite=1.0 - away**2 / 2,
        plain=1.0 - plain**2 / 2,
        evaluations=evaluations,
        starts=used,
        bound=None if bound is None else float(bound),
        dtype=str(np.dtype(dtype)),
        reach=reach,
    )
