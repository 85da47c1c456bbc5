"""What `pmt analyze` runs: the layers on tokens or texts in stripped mode, or the real model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pmt.cli.division import by_content
from pmt.cli.screen import progress
from pmt.cli.unfinished import resumable, unfinished
from pmt.errors import RequestError

if TYPE_CHECKING:
    import numpy as np

    from pmt.experiments import Analysis, AnalysisConfig, Repetition
    from pmt.experiments.eigen_cache import Solver
    from pmt.models import Layers
    from pmt.parallel.hosts import Hosts
    from pmt.parallel.store import UnitStore
    from pmt.parallel.workers import Workers

# How many of the packaged texts the real model reads where none are given.
_TEXTS = 100


@dataclass
class Crew:
    """Who does the work, and where what is finished stays until all is.

    Attributes:
      platform: of the devices.
      hosts: the processes of the run; None for this one alone.
      folder: where finished layers are kept; None for nowhere.
      overwrite: whether those of another request are thrown away.
      settings: what the numbers depend on beside the model and what is given to ``workers``.
      measured: whether all layers are.
    """

    platform: str
    hosts: "Hosts | None"
    folder: Path | None
    overwrite: bool
    settings: dict[str, Any]
    measured: bool = False
    _store: "UnitStore | None" = None

    def workers(self, model: Any, config: "AnalysisConfig", **given: Any) -> "Workers":
        """All devices for the analysis of a model.

        Args:
          model: or its layers.
          config: of the analysis.
          given: the tokens or texts, by name.

        Raises:
          RequestError: another process, or an unfinished run, was asked for something else.
        """
        import jax

        from pmt.experiments import describe
        from pmt.experiments.record import versions
        from pmt.parallel.workers import Workers

        if self.hosts is None and self.folder is None:
            return Workers()
        known = versions()
        request = {
            "schema": "pmt.analysis-units/3",
            # Hosts may have it in different places.
            "model": asdict(replace(describe(model), name="")),
            "config": asdict(config),
            **{name: by_content(value) for name, value in given.items()},
            **self.settings,
            "platform": self.platform,
            "device": jax.local_devices()[0].device_kind,
            "versions": {name: known[name] for name in ("pmt", "jax", "jaxlib", "numpy", "scipy")},
        }
        if self.hosts is not None:
            self.hosts.require_same(request)
        if self.folder is not None:
            self._store = unfinished(self.folder, request, self.overwrite)
        return Workers(store=self._store, hosts=self.hosts)

    @property
    def first(self) -> bool:
        """Whether this process does what is not divided."""
        return self.hosts is None or self.hosts.first

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Says of an interrupted run how to go on; of a request that must fail, nothing is kept."""
        try:
            yield
        except RequestError as error:
            # A disk may come back, and other tokens do not change what every layer gave.
            if not self.measured and not error.may_succeed:
                self.discard()
            raise
        except KeyboardInterrupt:
            with resumable(self._store):
                raise

    def discard(self) -> None:
        """Removes the finished layers, once what was made of them is safe."""
        if self._store is not None:
            self._store.discard()


def tell(sentence: str) -> None:
    """Say on standard error what is being done, such as which files are fetched."""
    typer.echo(f"pmt: {sentence}", err=True)


def on_tokens(
    layers: "Layers",
    config: "AnalysisConfig",
    tokens: Any,
    repeat: tuple[int | None, int],
    solver: "Solver",
    crew: Crew,
) -> tuple["Analysis", "Repetition | None"]:
    """Stripped mode on given tokens, or random ones; and one layer repeated, if asked for."""
    from pmt.experiments import RepeatConfig, analyze, count_of_steps, repeat_layer

    layer, steps = repeat
    if layer is not None and layer > layers.depth:
        # Said before the work and not after it.
        raise RequestError(f"there is no layer {layer}; the model has layers 1 to {layers.depth}")
    workers = crew.workers(layers, config, tokens=tokens)
    if not crew.first:
        layer = None
    total = count_of_steps(layers.depth, config) + (layer is not None)
    with progress("layers", total=total) as advance:
        analysis = analyze(
            layers, config, tokens=tokens, progress=advance, solver=solver, workers=workers
        )
        crew.measured = True
        if layer is None:
            return analysis, None
        chosen = RepeatConfig(
            layer=layer, steps=steps, order=config.order, alpha=config.alpha, seed=config.seed
        )
        repetition = repeat_layer(layers, chosen, tokens=tokens, solver=solver)
        advance(1)
    return analysis, repetition


def on_texts(
    layers: "Layers",
    config: "AnalysisConfig",
    texts: list[str],
    special_tokens: bool,
    asked: dict[str, Any],
    solver: "Solver",
    crew: Crew,
) -> "Analysis":
    """Stripped mode on the tokens of a user's texts, as the model embeds them."""
    from pmt.experiments import analyze, count_of_steps

    tokens, present = tokens_of_texts(layers, texts, special_tokens, asked)
    config = replace(config, prompts=len(texts), tokens=int(tokens.shape[1]))
    workers = crew.workers(layers, config, tokens=tokens, present=present)
    with progress("layers", total=count_of_steps(layers.depth, config)) as advance:
        return analyze(
            layers,
            config,
            tokens=tokens,
            present=present,
            progress=advance,
            solver=solver,
            workers=workers,
        )


def tokens_of_texts(
    layers: "Layers", texts: Sequence[str], special_tokens: bool, asked: dict[str, Any]
) -> "tuple[np.ndarray, np.ndarray]":
    """The tokens of a user's texts as the model embeds them, and which of them are no padding.

    Raises:
      RequestError: a model without a tokenizer, or texts that it cannot read whole.
    """
    from pmt.experiments.plain_text import initial_tokens
    from pmt.models import Tokenizer, from_pretrained

    # That it has a tokenizer, before all of its weights are read.
    Tokenizer(layers.checkpoint)
    return initial_tokens(from_pretrained(**asked), texts, special_tokens=special_tokens)


def on_real_model(
    config: "AnalysisConfig",
    texts: list[str] | None,
    special_tokens: bool,
    asked: dict[str, Any],
    solver: "Solver",
    crew: Crew,
) -> "Analysis":
    """Full mode on a user's texts, or on the packaged ones."""
    from pmt.experiments import count_of_steps
    from pmt.experiments.full_mode import analyze_full
    from pmt.experiments.plain_text import SOURCE, read_own, read_tokens, sentences
    from pmt.models import from_pretrained

    model = from_pretrained(**asked)
    if texts is None:
        text, source = read_tokens(model, sentences()[:_TEXTS]), SOURCE
    else:
        text, source = read_own(model, texts, special_tokens=special_tokens), "given"
    workers = crew.workers(
        model, config, ids=text.ids, present=text.present, segments=text.segments
    )
    with progress("layers", total=count_of_steps(len(model.schedule), config)) as advance:
        return analyze_full(
            model,
            text,
            config,
            texts=source,
            progress=advance,
            solver=solver,
            workers=workers,
        )
