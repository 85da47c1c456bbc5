"""What steering costs: how much else of the model's output changes, on plain text in full mode.

For decoders the next-token distribution (mean KL divergence from the unedited model's) and the
perplexity; for models without a causal head the cosine similarities between sentence embeddings,
which are the means of the last states over the tokens present.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from pmt.errors import RequestError
from pmt.models import Tokens
from pmt.models.partial import _after_attention, is_pre_norm, read_out, run_layers
from pmt.numerics import AnyArray
from pmt.steering import OutOfRange


@dataclass(frozen=True)
class Cost:
    """What one change of the model does on the same texts; None where it does not apply.

    Attributes:
      method: ``"edit"``, ``"addition"`` (s w added to the state that leaves the layer), or
        ``"none"``.
      dose: c, or s.
      alignment: mean |cos| of the states that leave the layer with the target.
      positive: share of tokens whose cosine is positive.
      kl: mean over positions of KL(unedited || changed) of the next token, in nats.
      perplexity: exp of the mean negative log-likelihood of the next token; None where no text has
        a second token, so that there is nothing to predict.
      similarity_change: mean |change| of the cosine similarity over pairs of sentences.
      similarity_rank: Spearman's correlation of the similarities before and after; None where all
        similarities are equal.
    """

    method: str
    dose: float
    alignment: float
    positive: float
    kl: float | None = None
    perplexity: float | None = None
    similarity_change: float | None = None
    similarity_rank: float | None = None


class Readout:
    """The output of the unedited model on some texts, to compare changed ones with.

    Args:
      model: in full mode.
      tokens: the texts.
      index: of the layer whose leaving state is changed, from 0.
      state: ``(batch, n, d)``. That state in the unedited model.
    """

    def __init__(self, model: Any, tokens: Tokens, index: int, state: jax.Array) -> None:
        self._model, self._tokens, self._index = model, tokens, index
        self.causal = model.head is not None and bool(model.layer(0).attention.causal)
        self._before = self._output(state)

    def cost(self, method: str, dose: float, state: jax.Array, target: np.ndarray) -> Cost:
        """What changing the state that leaves the layer does.

        Raises:
          RequestError: a norm reads a state too large for its dtype (see `run_within_range`), or
            the output is not finite.
        """
        present = self._tokens.present
        wide = np.asarray(state, np.float64)
        length = np.linalg.norm(wide, axis=-1)
        cosines = np.divide(wide @ target, length, out=np.zeros_like(length), where=length > 0)
        shared: dict[str, Any] = {
            "method": method,
            "dose": dose,
            "alignment": float(np.abs(cosines[present]).mean()),
            "positive": float((cosines[present] > 0).mean()),
        }
        after = self._output(state)
        if not bool(jnp.isfinite(after).all()):
            raise RequestError(
                f"with {method} at {dose:.3g} the model's output is not finite; give a smaller "
                f"strength{or_more_digits(after.dtype)}"
            )
        if self.causal:
            kl, loss = (
                float(total)
                for total in _compare(
                    self._before, after, jnp.asarray(self._tokens.ids), jnp.asarray(present)
                )
            )
            predicted = bool(present[:, 1:].any())
            perplexity = float(np.exp(min(loss, 700.0))) if predicted else None
            return Cost(**shared, kl=kl, perplexity=perplexity)
        one, other = (_similarities(self._pooled(x)) for x in (self._before, after))
        rank = None
        if len(one) > 1 and np.ptp(one) > 0 and np.ptp(other) > 0:
            # A quarter of a second, for those alone who need it.
            import scipy.stats

            rank = float(scipy.stats.spearmanr(one, other).statistic)
        change = float(np.abs(other - one).mean()) if len(one) else None
        return Cost(**shared, similarity_change=change, similarity_rank=rank)

    def _output(self, state: jax.Array) -> jax.Array:
        start, stop = self._index + 1, len(self._model.schedule)
        rest = run_within_range(self._model, state, self._tokens.present, start, stop)
        final, logits = read_out(self._model, rest[-1] if rest else state, logits=self.causal)
        return final if logits is None else logits

    def _pooled(self, final: jax.Array) -> np.ndarray:
        present = self._tokens.present[..., None]
        total = (np.asarray(final, np.float64) * present).sum(axis=1)
        return total / present.sum(axis=1)


def run_within_range(
    model: Any, x: Float[AnyArray, "batch n d"], present: Any, start: int, stop: int
) -> list[Float[Array, "batch n d"]]:
    """The states after layers ``start`` to ``stop`` - 1, if their norms can read what they get.

    A norm sums d squares. Where they overflow it returns zero or its bias, which is finite and
    wrong, so that max |x| must not exceed sqrt(M / d), M the dtype's largest number. In pre-norm
    models the norms read the states between the layers and, within a layer, a state that differs
    from the next of those by the output of a feed-forward block of normed states. In post-norm
    models they read x + Attention(x).

    Args:
      model: in full mode.
      x: the states that enter layer ``start``, from 0.
      present: ``(batch, n)``, False for padding.
      start, stop: as for `pmt.models.partial.run_layers`.

    Raises:
      OutOfRange: a larger state, or one that is not finite.
    """
    if is_pre_norm(model):
        states = run_layers(model, x, present, start, stop)
        for layer, state in enumerate([jnp.asarray(x), *states], start):
            _require_squares(jnp.max(jnp.abs(state)), state, layer)
        return states
    there, state, states = jnp.asarray(present), jnp.asarray(x), []
    for index in range(start, stop):
        state, largest = _apply_and_measure(model.layer(index), state, there)
        _require_squares(largest, state, index + 1)
        states.append(state)
    return states


def _require_squares(entry: Float[Array, ""], state: Float[Array, "batch n d"], layer: int) -> None:
    largest = float(entry)
    most = float(np.sqrt(float(jnp.finfo(state.dtype).max) / state.shape[-1]))
    # Written so that NaN is refused too.
    if not largest <= most:
        raise OutOfRange(
            f"the states at layer {layer} have entries of up to {largest:.3g}, and above "
            f"{most:.3g} the squares that a norm sums overflow {state.dtype}; give a smaller "
            f"strength{or_more_digits(state.dtype)}"
        )


def or_more_digits(dtype: Any) -> str:
    """The other way out of an overflow, where there is one."""
    return "" if dtype == jnp.float64 else ", or --dtype float64"


@nnx.jit
def _apply_and_measure(
    block: Any, x: Float[Array, "batch n d"], present: Bool[Array, "batch n"]
) -> tuple[Float[Array, "batch n d"], Float[Array, ""]]:
    """The next states after a post-norm block, and the largest entry that its first norm reads."""
    update = jax.vmap(lambda text, there: block.attention(text, there))(x, present)
    return _after_attention(block, x, update), jnp.max(jnp.abs(x + update))


@jax.jit
def _compare(
    before: Float[Array, "batch n vocabulary"],
    after: Float[Array, "batch n vocabulary"],
    ids: Int[Array, "batch n"],
    present: Bool[Array, "batch n"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean KL(before || after) over the tokens present, and mean loss of the next token after."""
    p, q = jax.nn.log_softmax(before), jax.nn.log_softmax(after)
    divergence = jnp.sum(jnp.exp(p) * (p - q), axis=-1)
    there = present.astype(p.dtype)
    followed = there[:, 1:]
    loss = -jnp.take_along_axis(q[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
    count = jnp.maximum(jnp.sum(followed), 1)
    return jnp.sum(divergence * there) / jnp.sum(there), jnp.sum(loss * followed) / count


def _similarities(embeddings: np.ndarray) -> np.ndarray:
    """Cosine similarities of all pairs i < j."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, length, out=np.zeros_like(embeddings), where=length > 0)
    return (unit @ unit.T)[np.triu_indices(len(unit), k=1)]
