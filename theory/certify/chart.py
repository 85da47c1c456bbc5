"""The map of a system in a chart around given tokens, and its derivative, in ball arithmetic.

Token i has the chart u ↦ x_i(u) = w/|w|, w = p_i + B_i u, on the open hemisphere around p_i; the
floats p_i (d) and B_i (d × (d − 1)) are taken as exact and need neither be orthonormal nor have
length one, only [p_i B_i] must be invertible, which is certified. Writing y_i = η_i p_i + B_i ζ_i,
the map in the chart is φ_i = ζ_i / η_i wherever η_i > 0: then f(x(u))_i = y_i/|y_i| = x_i(φ_i(u)),
so φ is f exactly, in other coordinates of the same manifold for source and image. Hence

- x(u) is a fixed point of f if φ(u) = u (η_i > 0 excludes f(x)_i = −x_i), and
- Dφ(u) at a fixed point is similar to the tangent Jacobian of f: it has the same n(d − 1)
  multipliers, with their multiplicities, although its entries depend on the chart.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.dynamics.systems import MultiHead, Oja, SingleHead, check_system
from pmt.errors import RequestError
from pmt.numerics import is_array
from theory.certify import balls


@dataclass(frozen=True)
class Value:
    """The map at a point or over a box of the chart.

    Attributes:
      image: φ, a column of length n(d − 1).
      derivative: Dφ, (n(d − 1), n(d − 1)).
      facing: the n coordinates η_i.
      tokens: x, (n, d).
    """

    image: Any
    derivative: Any
    facing: tuple[Any, ...]
    tokens: Any


class ChartMap:
    """φ and Dφ in the precision that was set when it was made.

    With ξ^h_i = B_hᵀ x_i + k_h (logits ξ^h_i·x_j, up to terms that cancel in the softmax), z^h_i =
    Σ_j a^h_ij x_j and C^h_i = Σ_j a^h_ij (x_j − z^h_i) x_jᵀ, this is eq. (16) with biases:

    y_i = x_i + alpha (Σ_h F_h z^h_i + c),
    ∂y_i/∂x_j = δ_ij (I + alpha Σ_h F_h C^h_i B_hᵀ)
                + alpha Σ_h a^h_ij F_h (I + (x_j − z^h_i) ξ^h_iᵀ).
    """

    def __init__(self, system: Any, tokens: np.ndarray, basis: np.ndarray) -> None:
        self.n, self.d = tokens.shape
        self._points = [balls.matrix(p[:, None]) for p in tokens]
        self._bases = [balls.matrix(b) for b in basis]
        self._system = _in_balls(system, self.n)
        frames = [balls.stack([[p, b]]) for p, b in zip(self._points, self._bases, strict=True)]
        inverses = [balls.invert(frame) for frame in frames]
        if any(inverse is None for inverse in inverses):
            message = "a token and its tangent basis are linearly dependent"
            raise ValueError(message)
        self._radial = [_rows(inverse, 0, 1) for inverse in inverses]
        self._across = [_rows(inverse, 1, self.d) for inverse in inverses]

    @property
    def size(self) -> int:
        """n(d − 1)."""
        return self.n * (self.d - 1)

    def __call__(self, u: Any) -> Value:
        """φ and Dφ over the column of balls u."""
        tokens, moved = self._tokens(u)
        x = balls.stack([[each.transpose()] for each in tokens])
        alpha, shift, heads = self._system.alpha, self._system.shift, self._system.heads
        attended = [head.attend(x) for head in heads]
        update = shift
        for head, (_, mean, _) in zip(heads, attended, strict=True):
            update = update + mean * head.value.transpose()
        y = x + alpha * update
        image, charts, facing = balls.zeros(self.size, 1), [], []
        for i in range(self.n):
            column = _row(y, i).transpose()
            eta = (self._radial[i] * column)[0, 0]
            phi = self._across[i] * column * (1 / eta)
            facing.append(eta)
            for a in range(self.d - 1):
                image[i * (self.d - 1) + a, 0] = phi[a, 0]
            charts.append((self._across[i] - phi * self._radial[i]) * (1 / eta))
        blocks = [
            [self._block(i, j, x, charts[i], moved, attended) for j in range(self.n)]
            for i in range(self.n)
        ]
        return Value(image, balls.stack(blocks), tuple(facing), x)

    def _tokens(self, u: Any) -> tuple[list[Any], list[Any]]:
        """x_i as columns and their derivatives (I − x xᵀ) B_i / |w|."""
        tokens, moved = [], []
        for i in range(self.n):
            part = _rows(u, i * (self.d - 1), (i + 1) * (self.d - 1))
            w = self._points[i] + self._bases[i] * part
            scale = 1 / (w.transpose() * w)[0, 0].sqrt()
            x = w * scale
            tokens.append(x)
            moved.append((self._bases[i] - x * (x.transpose() * self._bases[i])) * scale)
        return tokens, moved

    def _block(
        self, i: int, j: int, x: Any, chart: Any, moved: list[Any], attended: list[Any]
    ) -> Any:
        """∂φ_i/∂u_j."""
        alpha = self._system.alpha
        total = chart * moved[j] if i == j else balls.zeros(self.d - 1, self.d - 1)
        for head, (weights, mean, probes) in zip(self._system.heads, attended, strict=True):
            away = chart * head.value
            if head.allowed is None or head.allowed[i, j]:
                part = away * moved[j]
                if head.form is not None:
                    offset = (_row(x, j) - _row(mean, i)).transpose()
                    part = part + (away * offset) * (_row(probes, i) * moved[j])
                total = total + part * (alpha * weights[i, j])
            if i == j and head.form is not None:
                spread = head.covariance(i, weights, mean, x)
                turned = head.form.transpose() * moved[i]
                total = total + (away * (spread * turned)) * alpha
        return total


@dataclass(frozen=True)
class _Head:
    """F, the scaled B (None where attention ignores the tokens), k as a row, and the mask."""

    value: Any
    form: Any
    key_shift: Any
    allowed: np.ndarray | None

    def attend(self, x: Any) -> tuple[Any, Any, Any]:
        """The weights (n, n), the means z (n, d) and the probes ξ (n, d)."""
        n = x.nrows()
        weights = balls.zeros(n, n)
        probes = None if self.form is None else x * self.form + self.key_shift
        logits = None if probes is None else probes * x.transpose()
        for i in range(n):
            seen = range(n) if self.allowed is None else np.flatnonzero(self.allowed[i]).tolist()
            row = [balls.number(0.0) if logits is None else logits[i, j] for j in seen]
            # An exact shift: it cancels, and keeps the exponentials at most about one.
            highest = max((each.mid() for each in row), key=float)
            powers = [(each - highest).exp() for each in row]
            total = powers[0]
            for power in powers[1:]:
                total = total + power
            for j, power in zip(seen, powers, strict=True):
                weights[i, j] = power / total
        return weights, weights * x, probes

    def covariance(self, i: int, weights: Any, mean: Any, x: Any) -> Any:
        """C_i = Σ_j a_ij (x_j − z_i) x_jᵀ."""
        n, d = x.nrows(), x.ncols()
        scaled = balls.zeros(n, d)
        for j in range(n):
            for a in range(d):
                scaled[j, a] = weights[i, j] * (x[j, a] - mean[i, a])
        return scaled.transpose() * x


@dataclass(frozen=True)
class _System:
    heads: list[_Head]
    alpha: Any
    shift: Any


def _in_balls(system: Any, n: int) -> _System:
    dtype = np.asarray(getattr(system, "value", 0.0)).dtype

    def scalar(value: Any) -> Any:
        # JAX gives a Python number the precision of the arrays; that is the map that is meant.
        return balls.number(float(np.asarray(value).astype(dtype)))

    alpha, allowed = scalar(system.alpha), _allowed(system.mask, n)
    d = system.value.shape[-1]
    shift, no_key = balls.zeros(n, d), balls.zeros(n, d)
    if isinstance(system, Oja):
        return _System([_Head(_exact(system.value), None, no_key, allowed)], alpha, shift)
    scale = scalar(system.scale)
    if isinstance(system, SingleHead):
        form = _exact(system.query_key) * scale
        return _System([_Head(_exact(system.value), form, no_key, allowed)], alpha, shift)
    heads = []
    # Taken from the device once: indexing a JAX array would compile for every shape.
    held = {name: np.asarray(each) for name, each in vars(system).items() if is_array(each)}
    ones = balls.matrix(np.ones((n, 1)))
    for h in range(len(held["query"])):
        query, key = _exact(held["query"][h]), _exact(held["key"][h])
        value, output = _exact(held["value"][h]), _exact(held["output"][h])
        key_shift = no_key
        if system.query_bias is not None:
            key_shift = ones * (_exact(held["query_bias"][h][None]) * key * scale)
        if system.value_bias is not None:
            shift = shift + ones * (_exact(held["value_bias"][h][None]) * output.transpose())
        mask = allowed[h] if allowed is not None and allowed.ndim == 3 else allowed
        form = query.transpose() * key * scale
        heads.append(_Head(output * value, form, key_shift, mask))
    if system.output_bias is not None:
        shift = shift + ones * _exact(held["output_bias"][None])
    return _System(heads, alpha, shift)


def _exact(array: Any) -> Any:
    return balls.matrix(np.asarray(array).astype(np.float64))


def _allowed(mask: Any, n: int) -> np.ndarray | None:
    allowed = mask.allowed(n)
    return None if allowed is None else np.asarray(allowed)


def _rows(matrix: Any, start: int, stop: int) -> Any:
    part = balls.zeros(stop - start, matrix.ncols())
    for i in range(start, stop):
        for j in range(matrix.ncols()):
            part[i - start, j] = matrix[i, j]
    return part


def _row(matrix: Any, i: int) -> Any:
    return _rows(matrix, i, i + 1)


def check_request(system: Any, tokens: Any) -> None:
    """Refuse what there is no proof for.

    Raises:
      RequestError: a ``LayerStack``, a batch of systems, rotary positions.
    """
    check_system(system, tokens.shape[0])
    if not isinstance(system, Oja | SingleHead | MultiHead):
        message = (
            f"the system is a {type(system).__name__}; a certificate is for one autonomous map, "
            "for instance stack.layer(0)"
        )
        raise RequestError(message)
    depth = 3 if isinstance(system, MultiHead) else 2
    if system.value.ndim != depth or np.ndim(system.alpha):
        message = (
            f"value has shape {tuple(system.value.shape)}; a certificate is for one system, so "
            f"it must have {depth} axes"
        )
        raise RequestError(message)
    if isinstance(system, MultiHead) and system.rotary is not None:
        message = "there are no certificates for rotary positions; set rotary=None"
        raise RequestError(message)
