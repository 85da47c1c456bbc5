"""A model with one layer to be edited, in stripped mode on tokens and in full mode on texts."""

from typing import Any

import jax
import numpy as np

from pmt.dynamics import MultiHead
from pmt.errors import RequestError
from pmt.experiments.collateral import or_more_digits, run_within_range
from pmt.experiments.dose_response import Curve, dose_response
from pmt.experiments.layer_by_layer import advance, prepare_layer
from pmt.experiments.tokens import prepare_tokens, random_tokens
from pmt.models import Tokens
from pmt.models.editing import steered
from pmt.models.partial import attention_input, embed, run_layers
from pmt.spectral import layer_matrix
from pmt.steering import Attended, Edit, OutOfRange, apply, attend, design


class StrippedRun:
    """The layers as maps of the sphere, on given or random tokens.

    Args:
      model: a ``Transformer``.
      index: of the layer to be edited, from 0.
      config: a ``SteerConfig``.
      tokens: ``(prompts, n, d)``; None for random ones.
      present: ``(prompts, n)``, False for padding; None where there is none.
    """

    def __init__(
        self, model: Any, index: int, config: Any, tokens: Any, present: Any = None
    ) -> None:
        d = model.dimensions.d
        if tokens is None:
            tokens = random_tokens(config.prompts, config.tokens, d, config.seed)
        x = prepare_tokens(tokens, d, model.token_table.dtype)
        self._model, self._index, self._padding = model, index, present
        self._before = [x]
        for each in range(index):
            self._before.append(self._step(self._map(each), self._before[-1], each))
        self.layer = self._map(index)
        self.attended = attend(self.layer, self._before[-1], present=present)
        self.present = self.attended.present
        self.shape = _shape(x)

    def design(self, toward: np.ndarray, target: np.ndarray, config: Any, read: Any) -> Edit:
        """The edit towards ``toward``, as strong as the `SteerConfig` says."""
        del target
        return design(
            self.layer,
            toward,
            config.strength,
            c=config.c,
            alignment=config.alignment,
            read=read,
            tokens=self.attended,
            order=config.order,
        )

    def states(self, edit: Edit | None, stored: np.dtype) -> list[jax.Array]:
        """All of them, the initial tokens first."""
        states = list(self._before)
        for each in range(self._index, len(self._model.schedule)):
            layer = self._changed(each, edit, stored)
            states.append(self._step(layer, states[-1], each))
        return states

    def matrices(self, edit: Edit | None, stored: np.dtype, config: Any) -> list[np.ndarray] | None:
        """F of every layer, or None where spectra are left out."""
        return _matrices(self._model, self._index, edit, stored) if config.spectra else None

    def cosines(self, edit: Edit | None, stored: np.dtype, target: np.ndarray) -> np.ndarray:
        """Of the states that leave the layer."""
        layer = self._changed(self._index, edit, stored)
        after = self._step(layer, self._before[-1], self._index)
        return np.asarray(after, np.float64) @ target

    def curve(self, edit: Edit, stored: np.dtype, doses: int) -> Curve | None:
        """Dose and response; None for no doses."""
        if doses == 0:
            return None
        return dose_response(self.layer, self._before[-1], self.attended, edit, stored, doses)

    def _step(self, layer: MultiHead, x: jax.Array, index: int) -> jax.Array:
        return advance(layer, x, f"layer {index + 1}", present=self._padding)

    def _changed(self, index: int, edit: Edit | None, stored: np.dtype) -> MultiHead:
        layer = self._map(index)
        shared = self._model.schedule[index] == self._model.schedule[self._index]
        return layer if edit is None or not shared else apply(layer, edit, stored)

    def _map(self, index: int) -> MultiHead:
        return prepare_layer(self._model.layer_map(index), 1.0)


class FullRun:
    """The real model on texts."""

    def __init__(self, model: Any, index: int, text: Tokens | None) -> None:
        if text is None:
            raise RequestError(
                "full mode and its cost are measured on texts; give texts that the model's "
                "tokenizer reads, or choose stripped mode"
            )
        self.model, self.index, self.text = model, index, text
        self.present = text.present
        self._before = [embed(model, text)]
        self._before += run_layers(model, self._before[0], self.present, 0, index)
        self.layer = model.layer(index).attention.as_map()
        entering = self._before[-1]
        self.attended: Attended = attend(
            self.layer,
            attention_input(model, index, entering),
            residual=entering,
            present=self.present,
        )
        self.shape = _shape(entering)

    def design(self, toward: np.ndarray, target: np.ndarray, config: Any, read: Any) -> Edit:
        """The edit towards ``toward``; a requested alignment is that with ``target``."""
        if config.alignment is None:
            return design(
                self.layer,
                toward,
                config.strength,
                c=config.c,
                read=read,
                tokens=self.attended,
                order=config.order,
            )
        edit = design(self.layer, toward, c=1.0, read=read, tokens=self.attended)
        others = ["ask for less"]
        others += [] if config.precompensate else ["pre-compensate"]
        others += (
            [] if isinstance(read, str) and read == "fit" else ["choose the read vector 'fit'"]
        )
        return edit.at(self._strength(edit, target, config.alignment, ", or ".join(others)))

    def states(self, edit: Edit | None, stored: np.dtype) -> list[jax.Array]:
        """All of them, the embeddings first.

        Raises:
          RequestError: the edit makes them too large for their dtype.
        """
        depth = len(self.model.schedule)

        def rest() -> list[jax.Array]:
            return run_within_range(self.model, self._before[-1], self.present, self.index, depth)

        if edit is None:
            return [*self._before, *rest()]
        with steered(self.model, self.index, edit, stored):
            return [*self._before, *rest()]

    def matrices(self, edit: Edit | None, stored: np.dtype, config: Any) -> list[np.ndarray] | None:
        """F of every layer, or None where spectra are left out."""
        return _matrices(self.model, self.index, edit, stored) if config.spectra else None

    def cosines(self, edit: Edit | None, stored: Any, target: np.ndarray) -> np.ndarray:
        """Of the states that leave the layer."""
        state = np.asarray(self.leaving(edit, stored), np.float64)
        length = np.linalg.norm(state, axis=-1)
        return np.divide(state @ target, length, out=np.zeros_like(length), where=length > 0)

    def leaving(self, edit: Edit | None, stored: Any) -> jax.Array:
        """The states that leave the layer.

        Raises:
          RequestError: the edit makes them too large for their dtype.
        """

        def one() -> jax.Array:
            (state,) = run_within_range(
                self.model, self._before[-1], self.present, self.index, self.index + 1
            )
            return state

        if edit is None:
            return one()
        with steered(self.model, self.index, edit, stored):
            return one()

    def curve(self, edit: Edit, stored: np.dtype, doses: int) -> None:
        """None: the prediction ends where the feed-forward block begins."""
        del edit, stored, doses

    def _strength(self, edit: Edit, target: np.ndarray, alignment: float, others: str) -> float:
        """The c at which the states that leave the layer have the alignment, by bisection.

        A strength at which a state overflows is too large, as one beyond the alignment is. Where
        none reaches it, ``others`` says what else can be tried.
        """
        if not 0.0 < alignment < 1.0:
            raise RequestError(f"the requested alignment is {alignment}; it must be in (0, 1)")

        def measured(c: float) -> float:
            found = np.abs(self.cosines(edit.at(c), None, target))
            return float(found[self.present].mean())

        def within_range(c: float) -> float | None:
            try:
                return measured(c)
            except OutOfRange:
                return None

        start = measured(0.0)
        if alignment <= start:
            raise RequestError(
                f"the requested alignment is {alignment:.4g}, and without any edit the states have "
                f"{start:.4g} already; ask for more"
            )
        response: Any = edit.response
        scale = response.strength(response.alignment(0.0) / 2 + response.limit / 2)
        missed = (
            f"no strength reaches the mean alignment {alignment:.4g} after the layer's "
            "feed-forward block and norms; the states reach"
        )
        low, best = 0.0, start
        for high in map(float, scale * np.geomspace(1e-2, 1e4, 25)):
            reached = within_range(high)
            if reached is None or reached >= alignment:
                break
            low, best = high, max(best, reached)
        else:
            raise RequestError(f"{missed} {best:.4g}: {others}")
        for _ in range(24):
            middle = (low + high) / 2
            found = within_range(middle)
            if found is None or found >= alignment:
                high, reached = middle, found
            else:
                low, best = middle, max(best, found)
            if high - low <= 1e-4 * high:
                break
        if reached is None:
            dtype = self.model.token_table.dtype
            raise RequestError(
                f"{missed} {best:.4g}, and overflow {dtype} beyond c = {low:.3g}: ask for less"
                f"{or_more_digits(dtype)}"
            )
        return high


def _matrices(model: Any, index: int, edit: Edit | None, stored: np.dtype) -> list[np.ndarray]:
    block = model.schedule[index]
    known: dict[int, np.ndarray] = {}
    for layer, each in enumerate(model.schedule):
        if each not in known:
            own = model.layer_map(layer)
            changed = own if edit is None or each != block else apply(own, edit, stored)
            known[each] = layer_matrix(changed)
    return [known[each] for each in model.schedule]


def _shape(x: jax.Array) -> tuple[int, int, int]:
    batch, n, d = x.shape
    return batch, n, d
