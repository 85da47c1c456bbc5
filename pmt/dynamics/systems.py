"""The maps: one layer of a transformer without its feed-forward part, on the product of spheres.

Every map is ``x_i <- normalize(x_i + alpha * update_i(x))`` with tokens as rows, and has

- ``update(x)``: what attention adds before the step size,
- ``attention(x)``: the row-stochastic weights,
- ``layer_matrix``: F, the matrix that ``update`` applies when all tokens are equal.

The classes are frozen pytrees: arrays and numbers are leaves, so ``jit``, ``vmap`` and ``grad``
act on systems as they do on arrays. Leading batch axes on every leaf make a family of systems.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import register_dataclass
from jaxtyping import Array, Float

from pmt import attention, sphere
from pmt.errors import RequestError
from pmt.numerics import AnyArray, einsum, is_array, require_finite, require_same_dtype


def _accept_numpy(system: Any) -> None:
    for name, value in vars(system).items():
        if isinstance(value, np.floating | int) and not isinstance(value, bool):
            object.__setattr__(system, name, float(value))
        elif isinstance(value, np.ndarray) and name != "mask":
            object.__setattr__(system, name, jnp.asarray(value))
    object.__setattr__(system, "mask", attention.as_mask(system.mask))


def _require_square(name: str, matrix: Any) -> None:
    if is_array(matrix) and (matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]):
        raise RequestError(f"{name} has shape {tuple(matrix.shape)}; it must be square, (d, d)")


class _Map:
    """What the autonomous maps share."""

    alpha: Any

    def update(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        raise NotImplementedError

    def unnormalized(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """y_i = x_i + alpha * update_i(x)."""
        return x + self.alpha * self.update(x)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """One step, normalize(y_i) for every token; a token that cancels to zero comes out zero."""
        return sphere.normalize(self.unnormalized(x))


@register_dataclass
@dataclass(frozen=True)
class Oja(_Map):
    """The multi-agent Oja system, eq. (9) of arXiv 2605.25619: attention that ignores the tokens.

    x_i <- normalize(x_i + alpha * V m_i), with m_i the mean of the tokens that i may see.

    Attributes:
      value: V, shape ``(d, d)``; symmetric in the paper, any real matrix here.
      alpha: step size, any finite real; positive in the paper.
      mask: ``"full"`` (the paper), ``"causal"``, ``LocalWindow`` or a boolean matrix.
    """

    value: Float[AnyArray, "*batch d d"]
    alpha: Any = 1.0
    mask: Any = field(default_factory=attention.Full)

    def __post_init__(self) -> None:
        _accept_numpy(self)
        _require_square("value", self.value)

    @property
    def layer_matrix(self) -> Float[Array, "*batch d d"]:
        """F = V."""
        return self.value

    def attention(self, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """Uniform weights over the visible tokens."""
        return attention.uniform_weights(x.shape[-2], self.mask, x.dtype)

    def update(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """V m_i for every token."""
        if isinstance(self.mask, attention.Full):
            mean = jnp.mean(x, axis=-2, keepdims=True)
            return jnp.broadcast_to(einsum("ij,...j->...i", self.value, mean), x.shape)
        return einsum("ij,jd,ed->ie", self.attention(x), x, self.value)


@register_dataclass
@dataclass(frozen=True)
class SingleHead(_Map):
    """Single-head softmax attention, eq. (8) of arXiv 2605.25619.

    x_i <- normalize(x_i + alpha * V z_i), z_i = Σ_j a_ij x_j, a_ij ∝ exp(scale * x_iᵀ M x_j).

    Attributes:
      value: V, shape ``(d, d)``.
      query_key: M = QᵀK, shape ``(d, d)``; the usual 1/sqrt(d) goes into ``scale``.
      alpha: step size, any finite real; positive in the paper.
      scale: logit scale (inverse temperature).
      mask: ``"full"``, ``"causal"``, ``LocalWindow`` or a boolean matrix.
    """

    value: Float[AnyArray, "*batch d d"]
    query_key: Float[AnyArray, "*batch d d"]
    alpha: Any = 1.0
    scale: Any = 1.0
    mask: Any = field(default_factory=attention.Full)

    def __post_init__(self) -> None:
        _accept_numpy(self)
        _require_square("value", self.value)
        _require_square("query_key", self.query_key)
        if is_array(self.value) and is_array(self.query_key):
            if self.value.shape[-1] != self.query_key.shape[-1]:
                raise RequestError(
                    f"value is for d = {self.value.shape[-1]} but query_key is for "
                    f"d = {self.query_key.shape[-1]}; they must agree"
                )

    @property
    def layer_matrix(self) -> Float[Array, "*batch d d"]:
        """F = V."""
        return self.value

    def logits(self, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """scale * x_iᵀ M x_j."""
        return self.scale * einsum("id,de,je->ij", x, self.query_key, x)

    def attention(self, x: Float[Array, "n d"]) -> Float[Array, "n n"]:
        """Row-stochastic softmax weights a_ij."""
        return attention.softmax_weights(self.logits(x), self.mask)

    def update(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """V z_i for every token."""
        return einsum("ij,jd,ed->ie", self.attention(x), x, self.value)


@register_dataclass
@dataclass(frozen=True)
class MultiHead(_Map):
    """Multi-head softmax attention, eqs. (1), (3) and (21) of arXiv 2605.25619.

    x_i <- normalize(x_i + alpha * Σ_h O_h Σ_j a^h_ij V_h x_j),
    a^h_ij ∝ exp(scale * (Q_h x_i)·(K_h x_j)).

    Attributes:
      query, key, value: Q_h, K_h, V_h stacked, shape ``(h, k, d)``.
      output: O_h stacked, shape ``(h, d, k)``.
      alpha: step size; 1 in a trained transformer.
      scale: logit scale; 1/sqrt(k) if None.
      mask: as for ``SingleHead``; a boolean ``(h, n, n)`` gives each head its own.
      query_bias, key_bias, value_bias: ``(h, k)`` or None; output_bias: ``(d,)`` or None.
        Eq. (1) has none; with biases the closed forms of ``pmt.stability`` do not apply.
      rotary: rotary positions, or None as in eq. (1); the closed forms do not apply with them.
    """

    query: Float[AnyArray, "*batch h k d"]
    key: Float[AnyArray, "*batch h k d"]
    value: Float[AnyArray, "*batch h kv d"]
    output: Float[AnyArray, "*batch h d kv"]
    alpha: Any = 1.0
    scale: Any = None
    mask: Any = field(default_factory=attention.Full)
    query_bias: Float[AnyArray, "*batch h k"] | None = None
    key_bias: Float[AnyArray, "*batch h k"] | None = None
    value_bias: Float[AnyArray, "*batch h kv"] | None = None
    output_bias: Float[AnyArray, "*batch d"] | None = None
    rotary: attention.Rotary | None = None

    def __post_init__(self) -> None:
        _accept_numpy(self)
        arrays = (self.query, self.key, self.value, self.output)
        if not all(is_array(a) for a in arrays):
            return
        if self.scale is None:
            object.__setattr__(self, "scale", 1.0 / sqrt(self.query.shape[-2]))
        q, k, v, o = (tuple(a.shape[-3:]) for a in arrays)
        if q != k or v[0] != q[0] or v[2] != q[2] or o != (v[0], v[2], v[1]):
            raise RequestError(
                f"query {q}, key {k}, value {v} and output {o} do not fit together; expected "
                "query and key (h, k, d), value (h, kv, d) and output (h, d, kv)"
            )

    @classmethod
    def from_maps(
        cls,
        value_output: Float[AnyArray, "h d d"],
        query_key: Float[AnyArray, "h d d"],
        alpha: Any = 1.0,
        scale: Any = 1.0,
        mask: Any = "full",
    ) -> "MultiHead":
        """Heads given by F_h = O_h V_h and B_h = Q_hᵀ K_h directly, as in the theory.

        Args:
          value_output: F_h stacked, shape ``(h, d, d)``.
          query_key: B_h stacked, shape ``(h, d, d)``; logits are scale * x_iᵀ B_h x_j.
          alpha, scale, mask: as in the class.
        """
        value_output, query_key = jnp.asarray(value_output), jnp.asarray(query_key)
        identity = jnp.broadcast_to(
            jnp.eye(query_key.shape[-1], dtype=query_key.dtype), query_key.shape
        )
        return cls(
            query=jnp.swapaxes(query_key, -1, -2),
            key=identity,
            value=value_output,
            output=identity,
            alpha=alpha,
            scale=scale,
            mask=mask,
        )

    @property
    def has_biases(self) -> bool:
        """Whether any bias is present; eq. (1) has none."""
        biases = (self.query_bias, self.key_bias, self.value_bias, self.output_bias)
        return any(b is not None for b in biases)

    @property
    def is_plain(self) -> bool:
        """Whether it is the map of eq. (1): no biases, no rotary positions."""
        return not self.has_biases and self.rotary is None

    @property
    def head_matrices(self) -> Float[Array, "*batch h d d"]:
        """F_h = O_h V_h for every head."""
        return einsum("...hdk,...hke->...hde", self.output, self.value)

    @property
    def query_key_matrices(self) -> Float[Array, "*batch h d d"]:
        """B_h = Q_hᵀ K_h for every head; neither logit scale nor rotary positions are in it."""
        return einsum("...hkd,...hke->...hde", self.query, self.key)

    @property
    def layer_matrix(self) -> Float[Array, "*batch d d"]:
        """F = Σ_h O_h V_h (Supplementary A)."""
        return einsum("...hdk,...hke->...de", self.output, self.value)

    def logits(self, x: Float[Array, "n d"]) -> Float[Array, "h n n"]:
        """scale * (Q_h x_i + b^Q_h)·(K_h x_j + b^K_h), both factors turned by ``rotary``."""
        q = _project(self.query, x, self.query_bias)
        k = _project(self.key, x, self.key_bias)
        if self.rotary is not None:
            q, k = self.rotary.turn(q), self.rotary.turn(k)
        return self.scale * einsum("hik,hjk->hij", q, k)

    def attention(self, x: Float[Array, "n d"]) -> Float[Array, "h n n"]:
        """Row-stochastic softmax weights a^h_ij."""
        return attention.softmax_weights(self.logits(x), self.mask)

    def update(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Σ_h O_h Σ_j a^h_ij V_h x_j for every token."""
        values = _project(self.value, x, self.value_bias)
        mixed = einsum("hij,hjk->hik", self.attention(x), values)
        out = einsum("hdk,hnk->nd", self.output, mixed)
        return out if self.output_bias is None else out + self.output_bias[None, :]


def _project(
    weight: Float[Array, "h k d"], x: Float[Array, "n d"], bias: Float[Array, "h k"] | None
) -> Float[Array, "h n k"]:
    out = einsum("hkd,nd->hnk", weight, x)
    return out if bias is None else out + bias[:, None, :]


@register_dataclass
@dataclass(frozen=True)
class LayerStack:
    """The layers of a transformer as maps, one after another: layer index = time, eq. (1).

    Attributes:
      layers: a ``MultiHead`` whose every leaf has a leading ``layers`` axis.
    """

    layers: MultiHead

    @classmethod
    def from_layers(cls, layers: Sequence[MultiHead]) -> "LayerStack":
        """Stacks layers of equal shapes; masks of different kinds become windows.

        Raises:
          RequestError: no layer, or layers that differ in shape or in which biases they have.
        """
        if not layers:
            raise RequestError("a LayerStack needs at least one layer; none was given")
        dtype = layers[0].query.dtype
        masks = [layer.mask for layer in layers]
        if len({type(m) for m in masks}) > 1:
            masks = _as_windows(masks)
        plain = [
            replace(
                layer,
                mask=m,
                alpha=jnp.asarray(layer.alpha, dtype),
                scale=jnp.asarray(layer.scale, dtype),
            )
            for layer, m in zip(layers, masks, strict=True)
        ]
        try:
            return cls(jax.tree.map(lambda *leaves: jnp.stack(leaves), *plain))
        except (TypeError, ValueError) as error:
            raise RequestError(
                f"the layers differ in shape or in which biases they have ({error}); "
                "all layers of a stack must have the same arrays"
            ) from error

    @property
    def depth(self) -> int:
        """Number of layers."""
        return int(self.layers.query.shape[0])

    @property
    def layer_matrix(self) -> Float[Array, "layers d d"]:
        """F of every layer."""
        return self.layers.layer_matrix

    def layer(self, index: int) -> MultiHead:
        """One layer (from 0; negative counts from the end) as an autonomous map.

        Raises:
          RequestError: if there is no such layer.
        """
        if not -self.depth <= index < self.depth:
            raise RequestError(f"layer index {index} is outside 0..{self.depth - 1}")
        return jax.tree.map(lambda leaf: leaf[index], self.layers)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """All layers applied in order."""
        return lax.scan(lambda state, layer: (layer(state), None), x, self.layers)[0]


_NO_WINDOW = 2**30


def _as_windows(masks: Sequence[Any]) -> list[attention.LocalWindow]:
    windows = []
    for mask in masks:
        if isinstance(mask, attention.LocalWindow):
            windows.append(replace(mask, size=jnp.asarray(mask.size)))
        elif isinstance(mask, attention.Full | attention.Causal):
            causal = isinstance(mask, attention.Causal)
            windows.append(attention.LocalWindow(jnp.asarray(_NO_WINDOW), causal))
    if len(windows) < len(masks) or len({w.causal for w in windows}) > 1:
        kinds = ", ".join(sorted({type(m).__name__ for m in masks}))
        raise RequestError(
            f"the layers have masks of kinds that cannot be stacked ({kinds}); causal masks and "
            "causal windows can be mixed, and so can full masks and two-sided windows"
        )
    return windows


def head_maps(system: Any) -> tuple[Float[Array, "h d d"], Float[Array, "h d d"]]:
    """(F_h, B_h) of any autonomous map: value-output and scaled query-key matrix of each head.

    Logits are x_iᵀ B_h x_j; B is zero for ``Oja``. Biases and rotary positions are not represented.
    """
    if isinstance(system, Oja):
        return system.value[None], jnp.zeros_like(system.value)[None]
    if isinstance(system, SingleHead):
        return system.value[None], (system.scale * system.query_key)[None]
    return system.head_matrices, system.scale * system.query_key_matrices


def head_attention(system: Any, x: Float[Array, "n d"]) -> Float[Array, "h n n"]:
    """Attention weights of any autonomous map with an axis for heads."""
    weights = system.attention(x)
    return weights if weights.ndim == 3 else weights[None]


def check_system(system: Any, n: int | None = None) -> None:
    """Refuse a system whose numbers cannot be used; tracers pass.

    Raises:
      RequestError: not one of the four systems, a non-finite weight or step size, mixed dtypes,
        or a mask that leaves a token alone.
    """
    if not isinstance(system, Oja | SingleHead | MultiHead | LayerStack):
        raise RequestError(
            f"the system is a {type(system).__name__}; expected Oja, SingleHead, MultiHead or "
            "LayerStack from pmt.dynamics"
        )
    inner = system.layers if isinstance(system, LayerStack) else system
    weights = {
        name: value for name, value in vars(inner).items() if name != "mask" and value is not None
    }
    for name, value in weights.items():
        require_finite(name, value)
    require_same_dtype(**weights)
    if n is not None:
        attention.check_mask(inner.mask, n)
