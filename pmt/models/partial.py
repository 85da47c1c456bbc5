"""A model run in pieces: from any layer on, without what comes before it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from pmt.models.blocks import PreNormBlock
from pmt.models.tokens import Tokens
from pmt.models.transformer import Transformer, _apply, _decode, _embed, _normalize
from pmt.numerics import AnyArray


def embed(model: Transformer, tokens: Tokens) -> Float[Array, "batch n d"]:
    """The initial states of several texts.

    Raises:
      RequestError: as a call of the model.
    """
    ids, _, segments = model._arrays(tokens.ids, tokens.present, tokens.segments)
    return _embed(model.embeddings, ids, segments)


def run_layers(
    model: Transformer,
    x: Float[AnyArray, "batch n d"],
    present: Any,
    start: int,
    stop: int,
) -> list[Float[Array, "batch n d"]]:
    """The states after layers ``start`` to ``stop`` - 1, from 0, in full mode.

    ``present`` is a boolean array ``(batch, n)``, False for padding.
    """
    states: list[jax.Array] = []
    there, state = jnp.asarray(present), jnp.asarray(x)
    for index in range(start, stop):
        state = _apply(model.layer(index), state, there)
        states.append(state)
    return states


def read_out(
    model: Transformer, x: Float[AnyArray, "batch n d"], *, logits: bool = True
) -> tuple[Float[Array, "batch n d"], Float[Array, "batch n vocabulary"] | None]:
    """The state that the head reads, and the logits, or None without a head."""
    final = jnp.asarray(x)
    if model.final_norm is not None:
        final = _normalize(model.final_norm, final)
    if not logits or model.head is None:
        return final, None
    return final, _decode(model.head, final, model.token_table)


def attention_input(model: Transformer, index: int, x: Float[AnyArray, "batch n d"]) -> Any:
    """What the attention of a layer reads: normed states in pre-norm models, else the states."""
    block = model.layer(index)
    state = jnp.asarray(x)
    return _normalize(block.attention_norm, state) if is_pre_norm(model) else state


def after_attention(
    model: Transformer,
    index: int,
    x: Float[AnyArray, "batch n d"],
    update: Float[AnyArray, "batch n d"],
) -> Float[Array, "batch n d"]:
    """The next states, had the attention of a layer given ``update`` where it read the states x."""
    return _after_attention(model.layer(index), jnp.asarray(x), jnp.asarray(update))


@nnx.jit
def _after_attention(block: Any, x: Array, update: Array) -> Array:
    # As the blocks' own calls, with the update in place of their attention.
    def one(text: Array, added: Array) -> Array:
        attended = text + added
        if isinstance(block, PreNormBlock):
            return attended + block.mlp(block.mlp_norm(text if block.parallel else attended))
        attended = block.attention_norm(attended)
        return block.mlp_norm(attended + block.mlp(attended))

    return jax.vmap(one)(x, update)


def is_pre_norm(model: Transformer) -> bool:
    """Whether the norms stand before the attention and the feed-forward block, as in GPT-2."""
    return hasattr(model.layer(0), "parallel")
