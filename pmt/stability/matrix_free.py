"""Leading multipliers at general points without the Jacobian: Krylov on its products with vectors.

For points without a closed form and n·d beyond what a dense eigenproblem affords. A product costs
about two steps of the map; ARPACK asks for a few hundred of them.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigs

from pmt import sphere
from pmt.dynamics import tangent_jacobian
from pmt.dynamics.simulate import check_tokens
from pmt.dynamics.systems import LayerStack, check_system
from pmt.equilibria.classify import beside_step, relative_step
from pmt.errors import RequestError
from pmt.numerics import AnyArray, epsilon, require_count
from pmt.stability.verdict import Verdict

# Below this n(d - 1) LAPACK answers, which misses nothing; ARPACK needs a margin over k as well.
_DENSE = 64
# A multiplier's residual, relative to the largest product seen, beyond which it is not converged.
_RESIDUAL = 1e-6
# Largest Jordan block that a multiplier of infinite condition is taken to stand in.
_BLOCK = 4


@dataclass(frozen=True)
class LeadingMultipliers:
    """What ``leading_multipliers`` returns.

    Attributes:
      values: complex, decreasing modulus. Krylov methods from one vector see an eigenvalue once,
        whatever its multiplicity.
      residuals: |J u − μ u| for each, u of unit length, recomputed with new products.
      conditions: 1 / |yᴴ u| with the left eigenvector y of unit length: by how much a change of J
        moves the multiplier. Infinite where no left eigenvector was found for it, as for a
        defective multiplier.
      errors: 2 condition (residual + rounding), the uncertainty of each multiplier.
      converged: residual small beside |J|, and both eigenvectors found.
      spectral_radius: largest modulus; 0 if there are none (d = 1).
      margin: 1 − spectral_radius.
      tolerance: uncertainty of the margin: the largest error among multipliers that lie within
        their errors of the largest modulus; infinite if one of them has not converged. An infinite
        error counts here as the fourth root of residual + rounding, a Jordan block of size four.
      verdict: ``stable`` or ``unstable`` where |margin| exceeds the tolerance, else ``undecided``.
      method: ``"krylov"``, or ``"dense"`` where n(d − 1) is small.
      products: Jacobian-vector products made, transposed ones included.
      residual: |f(x) − x|, or |f(x) + x| for half of a 2-cycle.
    """

    values: np.ndarray
    residuals: np.ndarray
    conditions: np.ndarray
    errors: np.ndarray
    converged: np.ndarray
    spectral_radius: float
    margin: float
    tolerance: float
    verdict: Verdict
    method: str
    products: int
    residual: float


def leading_multipliers(
    system: Any,
    x: Float[AnyArray, "n d"],
    count: int = 6,
    *,
    krylov: int | None = None,
    max_products: int = 5000,
    seed: int = 0,
    dense: int = _DENSE,
) -> LeadingMultipliers:
    """The ``count`` multipliers of largest modulus of the intrinsic Jacobian at a fixed point.

    w ↦ Π_f(x) Df(x) Π_x w, Π_x the projection on the tangent space at x, by forward-mode autodiff,
    and its transpose by reverse mode; ARPACK (implicitly restarted Arnoldi) on both, from a random
    tangent vector each. Right and left vectors give every multiplier a residual and a condition
    number, and the verdict is ``undecided`` wherever these leave it open: near the unit circle,
    at defective or tightly clustered multipliers, and where ARPACK does not converge.

    What no iteration of this kind excludes: a larger multiplier whose eigenvector both random
    starts happen to miss. That the leading modulus of J and that of its transpose, from another
    start, agree is asked for; the chance that both fail is small but not zero, and the closed forms
    and the dense spectrum (``analyze``) do not have it.

    Args:
      system: an autonomous map.
      x: tokens with f(x) = x, or f(x) = −x for one step of a 2-cycle.
      count: how many, at least 1.
      krylov: dimension of the Krylov space; max(2 count + 10, 24) if None, at most n(d − 1).
      max_products: products after which a side stops without converging.
      seed: of the two starting vectors.
      dense: n(d − 1) up to which LAPACK solves the whole problem instead; at least ``count`` + 2
        are always solved so.

    Raises:
      RequestError: a ``LayerStack``, a state that is not fixed, a number out of range.
    """
    if isinstance(system, LayerStack):
        raise RequestError(
            "a LayerStack has no equilibria; take one layer with system.layer(index)"
        )
    x = jnp.asarray(x)
    check_tokens(x, system)
    if x.ndim != 2:
        raise RequestError(f"x has shape {x.shape}; give one state of shape (n, d)")
    check_system(system, x.shape[0])
    for name, value in (("count", count), ("max_products", max_products)):
        require_count(name, value, 1)
    size = x.shape[0] * (x.shape[1] - 1)
    count = min(count, size)
    if krylov is not None and not count + 2 <= krylov <= size:
        raise RequestError(
            f"krylov is {krylov!r}; it must lie between count + 2 = {count + 2} and "
            f"n(d - 1) = {size}"
        )
    moved, turned, beside, step = (float(value) for value in _motion(system, x))
    # As ``classify``: what moves slowly only because the step is small is not fixed.
    if not min(beside, turned) < 64 * epsilon(x.dtype) ** 0.5:
        raise RequestError(
            f"f(x) differs from x by {moved:.3g}, {beside:.3g} of the step, and multipliers belong "
            "to fixed points; refine it with run_to_equilibrium or newton"
        )
    residual = min(moved, turned)
    if size <= max(dense, count + 2):
        return _dense(system, x, count, residual, step)
    operator = _Operator(system, x)
    rng = np.random.default_rng(seed)
    space = min(size, krylov or max(2 * count + 10, 24))
    right = operator.leading(count, space, max_products, rng, transposed=False)
    left = operator.leading(count, space, max_products, rng, transposed=True)
    return _judged(operator, right, left, size, residual, step)


@jax.jit
def _motion(system: Any, x: Float[Array, "n d"]) -> tuple[Array, Array, Array, Array]:
    """|f(x) − x|, |f(x) + x|, the first beside the step, and the step."""
    y = system(x)
    moved, turned = jnp.max(sphere.norm(y - x)), jnp.max(sphere.norm(y + x))
    return moved, turned, beside_step(system, y, x), relative_step(system, x.dtype)


@jax.jit
def _product(system: Any, x: Float[Array, "n d"], w: Float[Array, "n d"]) -> Float[Array, "n d"]:
    y, image = jax.jvp(system, (x,), (sphere.tangent_projection(x, w),))
    return sphere.tangent_projection(y, image)


@jax.jit
def _transposed(system: Any, x: Float[Array, "n d"], w: Float[Array, "n d"]) -> Float[Array, "n d"]:
    y, pull = jax.vjp(system, x)
    return sphere.tangent_projection(x, pull(sphere.tangent_projection(y, w))[0])


_dense_jacobian = jax.jit(tangent_jacobian)


@dataclass(frozen=True)
class _Pairs:
    """Ritz values and unit vectors of one side, and whether ARPACK was content with all."""

    values: np.ndarray
    vectors: np.ndarray
    complete: bool


class _Operator:
    """The intrinsic Jacobian at a point as products, counted, with the largest growth seen."""

    def __init__(self, system: Any, x: Float[Array, "n d"]) -> None:
        self.system, self.x = system, x
        self.products, self.growth = 0, 0.0

    def apply(self, w: np.ndarray, transposed: bool = False) -> np.ndarray:
        """J w or Jᵀ w for a real vector of length n·d."""
        self.products += 1
        function = _transposed if transposed else _product
        tangent = jnp.asarray(w.reshape(self.x.shape), self.x.dtype)
        image = np.asarray(function(self.system, self.x, tangent), np.float64).reshape(-1)
        length = np.linalg.norm(w)
        if length > 0:
            self.growth = max(self.growth, float(np.linalg.norm(image) / length))
        return image

    def apply_complex(self, w: np.ndarray) -> np.ndarray:
        """J w for a complex vector."""
        image = self.apply(np.ascontiguousarray(w.real)).astype(complex)
        return image + 1j * self.apply(np.ascontiguousarray(w.imag)) if w.imag.any() else image

    def leading(
        self, count: int, space: int, most: int, rng: np.random.Generator, transposed: bool
    ) -> _Pairs:
        """ARPACK's answer for J or its transpose, what it found so far if it stopped."""
        length = self.x.size
        start = self.apply(rng.standard_normal(length), transposed)
        if not np.linalg.norm(start) > 0:
            # J vanishes: 0 is its only eigenvalue.
            return _Pairs(np.zeros(0), np.zeros((length, 0)), True)
        operator = LinearOperator(
            (length, length), matvec=lambda w: self.apply(w.reshape(-1), transposed), dtype=float
        )
        options = {"ncv": space, "v0": start, "which": "LM", "tol": epsilon(self.x.dtype)}
        restarts = max(1, most // max(1, space - count))
        try:
            values, vectors = eigs(operator, count, maxiter=restarts, **options)
            return _Pairs(values, vectors, True)
        except ArpackNoConvergence as stopped:
            return _Pairs(stopped.eigenvalues, stopped.eigenvectors, False)
        except ArpackError:
            return _Pairs(np.zeros(0), np.zeros((length, 0)), False)


def _judged(
    operator: _Operator, right: _Pairs, left: _Pairs, size: int, residual: float, step: float
) -> LeadingMultipliers:
    order = np.argsort(-np.abs(right.values), kind="stable")
    values, vectors = right.values[order], right.vectors[:, order]
    if values.size:
        vectors = vectors / np.linalg.norm(vectors, axis=0)
    residuals = np.array(
        [
            float(np.linalg.norm(operator.apply_complex(u) - value * u))
            for value, u in zip(values, vectors.T, strict=True)
        ]
    )
    # What rounding does to a product, and that x is fixed only so far: from a fixed point it may be
    # as far as the motion beside the step.
    growth = max(operator.growth, 1.0)
    noise = 16 * epsilon(operator.x.dtype) * size**0.5 * growth + residual / step * growth
    # A Jᵀ z = μ̄ z is z the left vector of μ, the spectrum being closed under conjugation.
    conditions = np.full(len(values), np.inf)
    for place, (value, u) in enumerate(zip(values, vectors.T, strict=True)):
        if left.values.size:
            best = int(np.argmin(np.abs(left.values - value)))
            y = left.vectors[:, best]
            cosine = float(np.abs(y @ u) / np.linalg.norm(y))
            away = abs(left.values[best] - value)
            limit = 1.0 / cosine if cosine > 0 else np.inf
            # A left vector of another multiplier says nothing about this one.
            if away <= 10 * limit * (residuals[place] + noise):
                conditions[place] = limit
    return _answer(values, residuals, conditions, noise, right, left, operator.products, residual)


def _answer(
    values: np.ndarray,
    residuals: np.ndarray,
    conditions: np.ndarray,
    noise: float,
    right: _Pairs,
    left: _Pairs,
    products: int,
    residual: float,
) -> LeadingMultipliers:
    moduli = np.abs(values)
    radius = float(moduli.max(initial=0.0))
    errors = 2.0 * conditions * (residuals + noise)
    scale = max(radius, 1.0)
    converged = np.isfinite(conditions) & (residuals <= _RESIDUAL * scale)
    tolerance = noise
    if len(values):
        # A Jordan block of size k moves its multipliers by the k-th root of a perturbation.
        unknown = (residuals + noise) ** (1 / _BLOCK)
        leading = moduli + np.where(np.isfinite(errors), errors, unknown) >= radius
        tolerance = float(np.max(np.where(converged, errors, np.inf)[leading]))
        other = float(np.abs(left.values).max(initial=0.0))
        # Two starts that see different leading moduli: at least one has missed something.
        if abs(other - radius) > 2 * tolerance:
            tolerance = np.inf
    if not right.complete and (not len(values) or radius <= 1.0):
        # Something larger may still be unfound.
        tolerance = np.inf
    decided = abs(1.0 - radius) > tolerance
    verdict: Verdict = "undecided" if not decided else "stable" if radius < 1.0 else "unstable"
    return LeadingMultipliers(
        values=values,
        residuals=residuals,
        conditions=conditions,
        errors=errors,
        converged=converged,
        spectral_radius=radius,
        margin=1.0 - radius,
        tolerance=float(tolerance),
        verdict=verdict,
        method="krylov",
        products=products,
        residual=residual,
    )


def _dense(
    system: Any, x: Float[Array, "n d"], count: int, residual: float, step: float
) -> LeadingMultipliers:
    import scipy.linalg

    matrix = np.asarray(_dense_jacobian(system, x), np.float64)
    m = len(matrix)
    growth = max(1.0, float(np.linalg.norm(matrix, 2)) if m else 1.0)
    noise = 16 * epsilon(x.dtype) * max(1, m) ** 0.5 * growth + residual / step * growth
    values = np.zeros(0, complex)
    residuals = conditions = np.zeros(0)
    everything = _Pairs(values, np.zeros((m, 0)), True)
    if m:
        values, left, right = scipy.linalg.eig(matrix, left=True, right=True)
        order = np.argsort(-np.abs(values), kind="stable")
        values, left, right = values[order], left[:, order], right[:, order]
        residuals = np.linalg.norm(matrix @ right - right * values[None], axis=0)
        with np.errstate(divide="ignore"):
            conditions = 1.0 / np.abs(np.sum(left.conj() * right, axis=0))
        everything = _Pairs(values, right, True)
    found = _answer(values, residuals, conditions, noise, everything, everything, m, residual)
    kept = {
        name: getattr(found, name)[:count]
        for name in ("values", "residuals", "conditions", "errors", "converged")
    }
    return LeadingMultipliers(**{**vars(found), **kept, "method": "dense"})
