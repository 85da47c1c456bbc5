"""Filling a module with a checkpoint's tensors: a bijection, or one error that lists everything.

Every tensor of the checkpoint is named by a rule or is on a list of ignored ones with a reason,
every parameter is filled, shapes agree, and all numbers are finite.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pmt.checkpoints import Weights
from pmt.errors import RequestError
from pmt.models.family import Family, Parts, Rule


class Binding:
    """Which tensor of a checkpoint is which parameter of a model: checked by names and shapes.

    Nothing is read before `fill` or `fill_module` is called. ``required`` names optional parts that
    the checkpoint must have.

    Attributes:
      family, config: what the model is.
      parts: the optional parts that the checkpoint has.
      skeleton: the model without numbers.
      repeats: tensor that repeats another -> that other.
      rules: tensor's name in the checkpoint -> the rules for it.
      offenders: what does not fit, one clause each; see `require_fit`.
    """

    def __init__(
        self,
        family: Family,
        config: Any,
        weights: Weights,
        dtype: Any,
        required: Parts = frozenset(),
    ) -> None:
        self.family, self.config, self._weights = family, config, weights
        self._dtype = np.dtype(dtype)
        self._names = _plain_names(family, weights)
        self.repeats = self._take_repeats()
        self.parts: Parts = frozenset(
            part
            for part, shown_by in family.parts.items()
            if part in required or family.plain(shown_by) in self._names
        )
        self.skeleton = skeleton(family, config, self.parts, self._dtype)
        state = nnx.to_flat_state(nnx.state(self.skeleton, nnx.Param))
        self._slots = {".".join(map(str, path)): (path, leaf) for path, leaf in state}
        self.rules: dict[str, list[Rule]] = {}
        self.offenders: list[str] = []
        self._match(family.table(config, self.parts))

    def require_fit(self) -> None:
        """Refuse a checkpoint that does not fit the model.

        Raises:
          RequestError: listing all tensors that nothing uses, parameters that nothing fills,
            shapes that differ and dtypes that are not floating.
        """
        _refuse(self.offenders)

    def fill(self) -> Any:
        """The model with all its parameters, each tensor read and converted once.

        Raises:
          RequestError: see `require_fit`; and listing the tensors with NaN or infinity in them,
            and those that repeat another tensor but differ from it.
        """
        filled, offenders = self._read(self.rules)
        _refuse([*self.offenders, *offenders, *self._differing_repeats()])
        graph, _ = nnx.split(self.skeleton)
        flat = [(self._slots[name][0], nnx.Param(array)) for name, array in filled.items()]
        return nnx.merge(graph, nnx.from_flat_state(flat))

    def fill_module(self, module: nnx.Module, path: str) -> Any:
        """One module of the model, at a path such as ``blocks.3.attention``, with its parameters.

        Args:
          module: that module of the skeleton.
          path: where it is.

        Raises:
          RequestError: NaN or infinity in its tensors.
        """
        mine = {
            name: [rule for rule in rules if rule.parameter.startswith(f"{path}.")]
            for name, rules in self.rules.items()
        }
        filled, offenders = self._read({name: some for name, some in mine.items() if some})
        _refuse(offenders)
        # Not nnx.merge, which leaves a reference cycle through all parameters: they would live on
        # until the next full collection.
        own = copy(module)
        for name, array in filled.items():
            setattr(own, name.removeprefix(f"{path}."), nnx.Param(array))
        return own

    def _read(self, wanted: Mapping[str, Iterable[Rule]]) -> tuple[dict[str, Any], list[str]]:
        """Parameters by path, and what is wrong with the numbers."""
        filled, offenders = {}, []
        for name, rules in wanted.items():
            # A value that the dtype cannot hold becomes infinite, which is an offence below.
            with np.errstate(over="ignore"):
                array = self._weights.read(name).astype(self._dtype)
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                offenders.append(f"{name} holds {bad} numbers that are NaN or infinite")
                continue
            for rule in rules:
                shape = tuple(self._slots[rule.parameter][1].shape)
                view = rule.layout.view(array, shape)
                # jnp.asarray compiles a program for every shape, to copy.
                filled[rule.parameter] = jax.device_put(np.ascontiguousarray(view))
        return filled, offenders

    def _match(self, table: Iterable[Rule]) -> None:
        unfilled, unused = set(self._slots), set(self._names)
        missing = []
        for rule in table:
            plain = self.family.plain(rule.stored)
            if rule.parameter not in unfilled:
                raise ValueError(f"the table of {self.family.name} fills {rule.parameter} twice")
            unfilled.discard(rule.parameter)
            if plain not in self._names:
                missing.append(f"{plain} is missing")
                continue
            unused.discard(plain)
            name = self._names[plain]
            reason = self._misfit(name, rule)
            if reason is None:
                self.rules.setdefault(name, []).append(rule)
            elif reason not in self.offenders:
                self.offenders.append(reason)
        if unfilled:
            raise ValueError(f"the table of {self.family.name} leaves out {sorted(unfilled)}")
        self.offenders += dict.fromkeys(missing)
        self.offenders += [
            f"{self._names[plain]} is not used by the model"
            for plain in sorted(unused)
            if self.family.why_ignored(plain) is None
        ]

    def _misfit(self, name: str, rule: Rule) -> str | None:
        entry = self._weights.entries[name]
        wanted = rule.layout.stored(tuple(self._slots[rule.parameter][1].shape))
        if entry.shape != wanted:
            return f"{name} has shape {entry.shape} instead of {wanted}"
        if entry.dtype is None or not jnp.issubdtype(entry.dtype, jnp.floating):
            return f"{name} is stored as {entry.stored}, which is no floating dtype that is read"
        return None

    def _take_repeats(self) -> dict[str, str]:
        """Stored repeat -> stored original; a repeat without its original takes its place."""
        repeats = {}
        for repeat, original in self.family.ties(self.config).items():
            repeat, original = self.family.plain(repeat), self.family.plain(original)
            if repeat not in self._names:
                continue
            if original in self._names:
                repeats[self._names.pop(repeat)] = self._names[original]
            else:
                self._names[original] = self._names.pop(repeat)
        return repeats

    def _differing_repeats(self) -> list[str]:
        return [
            f"{repeat} differs from {original}, which the config says it repeats"
            for repeat, original in self.repeats.items()
            if not _same_bits(self._weights.read(repeat), self._weights.read(original))
        ]


def _refuse(offenders: list[str]) -> None:
    if offenders:
        raise RequestError(
            "the checkpoint does not fit the model its config describes "
            f"({'; '.join(offenders)}); check that config and weights belong together"
        )


def skeleton(family: Family, config: Any, parts: Parts, dtype: Any) -> Any:
    """A model with the shapes of its parameters and without any number."""

    def build() -> Any:
        rngs: Any = nnx.Rngs(0)
        key = rngs.params()
        # Nobody looks at the numbers, and counting the draws takes most of the time.
        rngs.params = lambda: key
        return family.build(config, parts, dtype, rngs)

    return nnx.eval_shape(build)


def _plain_names(family: Family, weights: Weights) -> dict[str, str]:
    """Names as the weight tables have them -> names in the checkpoint.

    Raises:
      RequestError: two tensors that are the same one under two spellings.
    """
    names: dict[str, str] = {}
    for stored in weights.entries:
        plain = family.plain(stored)
        if plain in names:
            raise RequestError(
                f"the checkpoint holds one tensor twice, as {names[plain]!r} and {stored!r}; "
                "fetch it again"
            )
        names[plain] = stored
    return names


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    )
