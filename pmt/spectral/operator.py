"""The layer matrix as an operator: products with vectors, formed only where that saves work."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmt.dynamics import LayerStack, MultiHead, Oja, SingleHead
from pmt.errors import RequestError
from pmt.linalg import real_square
from pmt.numerics import require_finite

# Up to this d the norm takes the matrix itself; beyond it, products with so many random vectors.
_SMALL, _PROBES = 512, 64


@dataclass(frozen=True)
class LayerOperator:
    """F = 2**exponent · (product of ``factors``) on the host, in float64 unless ``single``.

    Attributes:
      factors: F itself, ``(d, d)``, or O ``(d, hk)`` and V ``(hk, d)`` with F = O V; every entry at
        most 1 in modulus.
      exponent: see above.
    """

    factors: tuple[np.ndarray, ...]
    exponent: int

    @property
    def d(self) -> int:
        """The dimension."""
        return len(self.factors[0])

    def apply(self, x: np.ndarray) -> np.ndarray:
        """F x / 2**exponent for a vector ``(d,)`` or the columns of ``(d, p)``, of their dtype."""
        for factor in reversed(self.factors):
            x = factor @ x
        return x

    def apply_transposed(self, x: np.ndarray) -> np.ndarray:
        """Fᵀ x / 2**exponent, likewise."""
        for factor in self.factors:
            x = factor.T @ x
        return x

    def matrix(self) -> np.ndarray:
        """F / 2**exponent as a matrix ``(d, d)``."""
        return self.factors[0] if len(self.factors) == 1 else self.factors[0] @ self.factors[1]

    def single(self) -> "LayerOperator":
        """The same in single precision, for what need not be exact: half the memory traffic."""
        return LayerOperator(tuple(each.astype(np.float32) for each in self.factors), self.exponent)

    def norm(self) -> float:
        """|F| / 2**exponent, Frobenius.

        Where only the factors are there and d > 512, from the products Q ↦ F Q with 64 orthonormal
        random columns: |F|² is d / 64 times the mean of |F Q|². Off by at most about a tenth, the
        more the fewer singular values there are that matter.
        """
        if len(self.factors) == 1 or self.d <= _SMALL:
            return float(np.linalg.norm(self.matrix()))
        probes = np.random.default_rng(0).standard_normal((self.d, _PROBES))
        seen = self.apply(np.linalg.qr(probes)[0])
        return float(np.linalg.norm(seen) * (self.d / _PROBES) ** 0.5)


def layer_operators(what: Any) -> Iterator[LayerOperator]:
    """The operators of a ``LayerStack`` or of matrices ``(layers, d, d)``, one after the other.

    Of an autonomous map or a matrix ``(d, d)`` the one that there is.

    A layer's factors stay factors where h·k <= d/2, when a product with them costs no more than one
    with F. Else F is formed: that one matrix product costs as much as some tens of products with
    vectors, and a Krylov method makes a thousand.

    Raises:
      RequestError: a matrix that is not real, square and finite; factors that are not finite.
    """
    system = what.layers if isinstance(what, LayerStack) else what
    if isinstance(system, MultiHead):
        output, value = np.asarray(system.output), np.asarray(system.value)
        if output.ndim == 3:
            yield _of_factors(output, value)
            return
        for o, v in zip(output, value, strict=True):
            yield _of_factors(o, v)
        return
    matrices = np.asarray(system.value if isinstance(system, Oja | SingleHead) else system)
    if matrices.ndim not in (2, 3):
        message = f"the matrices have shape {matrices.shape}; expected (d, d) or (layers, d, d)"
        raise RequestError(message)
    for matrix in matrices if matrices.ndim == 3 else matrices[None]:
        yield _of_matrix(real_square(matrix))


def _of_factors(output: np.ndarray, value: np.ndarray) -> LayerOperator:
    """From O ``(h, d, k)`` and V ``(h, k, d)``."""
    for name, array in (("output", output), ("value", value)):
        require_finite(name, array)
    wide = np.moveaxis(np.asarray(output, np.float64), -3, -2).reshape(output.shape[-2], -1)
    tall = np.asarray(value, np.float64).reshape(-1, value.shape[-1])
    if 2 * wide.shape[1] > len(wide):
        return _of_matrix(wide @ tall)
    (wide, first), (tall, second) = _scaled(wide), _scaled(tall)
    return LayerOperator((wide, tall), first + second)


def _of_matrix(matrix: np.ndarray) -> LayerOperator:
    scaled, exponent = _scaled(matrix)
    return LayerOperator((scaled,), exponent)


def _scaled(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The array over a power of two, with entries of at most 1, and the exponent."""
    exponent = int(np.frexp(np.max(np.abs(array), initial=0.0))[1])
    return np.ldexp(array, -exponent), exponent
