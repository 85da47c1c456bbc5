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
from jaxtyping import Array, Bool, Float, Int

from pmt.errors import RequestError
from pmt.models import Tokens
from pmt.models.partial import read_out, run_layers


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
      perplexity: exp of the mean negative log-likelihood of the next token.
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
        """What changing the state that leaves the layer does."""
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
                "strength, or --dtype float64"
            )
        if self.causal:
            kl, loss = (
                float(total)
                for total in _compare(
                    self._before, after, jnp.asarray(self._tokens.ids), jnp.asarray(present)
                )
            )
            return Cost(**shared, kl=kl, perplexity=float(np.exp(min(loss, 700.0))))
        one, other = (_similarities(self._pooled(x)) for x in (self._before, after))
        rank = None
        if len(one) > 1 and np.ptp(one) > 0 and np.ptp(other) > 0:
            # A quarter of a second, for those alone who need it.
            import scipy.stats

            rank = float(scipy.stats.spearmanr(one, other).statistic)
        change = float(np.abs(other - one).mean()) if len(one) else None
        return Cost(**shared, similarity_change=change, similarity_rank=rank)

    def _output(self, state: jax.Array) -> jax.Array:
        stop = len(self._model.schedule)
        rest = run_layers(self._model, state, self._tokens.present, self._index + 1, stop)
        final, logits = read_out(self._model, rest[-1] if rest else state, logits=self.causal)
        return final if logits is None else logits

    def _pooled(self, final: jax.Array) -> np.ndarray:
        present = self._tokens.present[..., None]
        total = (np.asarray(final, np.float64) * present).sum(axis=1)
        return total / present.sum(axis=1)


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
