"""What null models showed in an earlier analysis of the same layer on the same tokens.

A draw of the Gaussian null costs as many products as a layer has heads, and there are several. What
comes out of them are a few numbers, which are kept beside the eigenproblems, by content.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import jax
import numpy as np

from pmt.dynamics import MultiHead
from pmt.experiments.analysis import AnalysisConfig, NullAlignment
from pmt.experiments.eigen_cache import Solver
from pmt.experiments.stage import Stage

# Raised whenever the same layer and tokens would show something else.
_VERSION = "pmt.nulls/2"


@dataclass(frozen=True)
class KnownNulls:
    """What is known of the null models of one layer, and where to keep what is found out.

    Attributes:
      nulls: name -> what the null model shows; None where it is not known.
    """

    nulls: dict[str, NullAlignment] | None
    _solver: Solver
    _name: str | None

    @classmethod
    def of(
        cls,
        stage: Stage,
        config: AnalysisConfig,
        solver: Solver,
        present: np.ndarray | None,
        layer: MultiHead,
        x: jax.Array,
        index: int,
    ) -> "KnownNulls":
        """From the states ``(prompts, n, d)`` before layer ``index``, counted from 0.

        In full mode nothing is known: what follows a layer's attention is not in ``layer``.
        """
        name = None
        if solver.keeps and config.nulls and stage.mode == "stripped":
            leaves, tree = jax.tree.flatten(layer)
            arrays = (*leaves, x, *(() if present is None else (present,)))
            (device,) = x.devices()
            where = (jax.__version__, device.platform, device.device_kind)
            # The block names the draws.
            drawn = (config.nulls, config.draws, config.seed, stage.block(index), config.leading)
            asked = (_VERSION, *where, str(tree), repr(drawn), config.order, repr(config.alpha))
            name = solver.name(tuple(map(np.asarray, arrays)), *asked)
        text = None if name is None else solver.recall(name)
        nulls = None if text is None else _read(text)
        # What is known need not be kept again.
        return cls(nulls, solver, name if nulls is None else None)

    def keep(self, nulls: Mapping[str, NullAlignment]) -> None:
        """Keep what the null models show, unless it was known."""
        if self._name is not None:
            said = {name: asdict(null) for name, null in nulls.items()}
            self._solver.keep(self._name, json.dumps(said))


def _read(text: str) -> dict[str, NullAlignment] | None:
    """None where it is no such text."""
    try:
        return {name: NullAlignment.of_record(said) for name, said in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
