"""What follows the attention in a layer, as a map of directions, and the preimage of a target."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from pmt.models.norm import LayerNorm
from pmt.models.partial import is_pre_norm
from pmt.steering import Attended, Preimage, Reach, design, precompensate, reach

# In post-norm models the state is normed first, so that only its direction matters when it is long.
_LONG = 1e4


def remainder(model: Any, index: int, size: float) -> Callable[[jax.Array], jax.Array]:
    """phi: from the direction of the state after the attention to the state that leaves the layer.

    Post-norm: v to Norm(u + FFN(u)), u = Norm(size v). Pre-norm: v to h + FFN(Norm(h)), h = size v;
    where the feed-forward block is parallel to the attention, h alone. The last norm of pre-norm
    models is not part of it, as it is not part of the state that the alignment is measured on.

    Args:
      model: a ``Transformer``.
      index: of the layer, from 0.
      size: length of the state after the attention.
    """
    block = model.layer(index)

    def phi(v: jax.Array) -> jax.Array:
        h = (jnp.asarray(size, v.dtype) * v)[None]
        if not is_pre_norm(model):
            u = block.attention_norm(h)
            return block.mlp_norm(u + block.mlp(u))[0]
        return (h if block.parallel else h + block.mlp(block.mlp_norm(h)))[0]

    return phi


def feed_forward_bound(model: Any, index: int, size: float) -> float | None:
    """An upper bound of |FFN(u)| / |u| over all u that reach the block; None where none is known.

    |FFN(u)| <= |W_2| (|W_1| |u| + |b_1|) + |b_2| with spectral norms, since |act(t)| <= |t| for
    every activation here but tanh, where it holds too. In post-norm models |u| lies between sqrt(d)
    min|gain| - |bias| and sqrt(d) max|gain| + |bias|, in pre-norm ones it is ``size`` and the block
    reads a normed state. Gated blocks have no such bound here.
    """
    block = model.layer(index)
    if not hasattr(block.mlp, "up") or hasattr(block.mlp, "gate"):
        return None
    pre = is_pre_norm(model)
    norm = block.mlp_norm if pre else block.attention_norm

    def host(parameter: Any) -> np.ndarray:
        return np.asarray(parameter[...], np.float64)

    root = float(np.sqrt(model.dimensions.d))
    gain = np.abs(host(norm.scale))
    shift = float(np.linalg.norm(host(norm.bias))) if hasattr(norm, "bias") else 0.0
    longest, shortest = root * gain.max() + shift, root * gain.min() - shift
    up, down = block.mlp.up, block.mlp.down
    first, second = (np.linalg.norm(host(each.kernel), 2) for each in (up, down))
    biases = [
        np.linalg.norm(host(each.bias)) if each.bias is not None else 0.0 for each in (up, down)
    ]
    largest = float(second * (first * longest + biases[0]) + biases[1])
    length = size if pre else shortest
    return float(largest / length) if length > 0 else None


def last_norm_reach(model: Any, index: int, target: np.ndarray, attended: Attended) -> Reach | None:
    """How near the norm that ends the layer comes to the target: `pmt.steering.reach`.

    Compared with the inputs that it has on the tokens without an edit. None in pre-norm models,
    whose layers end in a sum and not in a norm, and for norms that do not subtract a mean.

    Args:
      model: a ``Transformer``.
      index: of the layer, from 0.
      target: ``(d,)``.
      attended: the tokens.
    """
    block = model.layer(index)
    if is_pre_norm(model) or not isinstance(block.mlp_norm, LayerNorm):
        return None
    plain = jnp.asarray(attended.plain[attended.present], model.token_table.dtype)
    return reach(
        np.asarray(block.mlp_norm.scale[...]),
        np.asarray(block.mlp_norm.bias[...]),
        block.mlp_norm.epsilon,
        target,
        inputs=np.asarray(_before_last_norm(block, plain)),
    )


@nnx.jit
def _before_last_norm(block: Any, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    u = block.attention_norm(x)
    return u + block.mlp(u)


def compensate(
    model: Any, index: int, target: np.ndarray, attended: Attended, config: Any, read: Any
) -> Preimage:
    """The direction that the rest of the layer maps to the target: `pmt.steering.precompensate`.

    In post-norm models with what the last norm allows at all, by `last_norm_reach`.

    The length of the steered state, which matters in pre-norm models, is that of the edit towards
    the target itself: the median of c |kappa_i|, with c for an alignment of 0.99 after the
    attention where an alignment is what was asked for.
    """
    size = _LONG
    if is_pre_norm(model):
        layer = model.layer(index).attention.as_map()
        asked = {"c": config.c, "strength": config.strength}
        if config.alignment is not None:
            asked = {"alignment": 0.99}
        edit = design(layer, target, read=read, tokens=attended, order=config.order, **asked)
        response: Any = edit.response
        pushed = np.abs(edit.strength * response.kappa[response.present])
        size = max(float(np.median(pushed)), 1e-6)
    return precompensate(
        remainder(model, index, size),
        target,
        dtype=str(np.dtype(model.token_table.dtype)),
        seed=config.seed,
        bound=feed_forward_bound(model, index, size),
        reach=last_norm_reach(model, index, target, attended),
    )
