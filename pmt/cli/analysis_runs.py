"""What `pmt analyze` runs: the layers on tokens or texts in stripped mode, or the real model."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from pmt.cli.screen import progress
from pmt.errors import RequestError

if TYPE_CHECKING:
    from pmt.experiments import Analysis, AnalysisConfig, Repetition
    from pmt.experiments.eigen_cache import Solver
    from pmt.models import Layers

# How many of the packaged texts the real model reads where none are given.
_TEXTS = 100


def tell(sentence: str) -> None:
    """Say on standard error what is being done, such as which files are fetched."""
    typer.echo(f"pmt: {sentence}", err=True)


def on_tokens(
    layers: "Layers",
    config: "AnalysisConfig",
    tokens: Any,
    repeat: tuple[int | None, int],
    solver: "Solver",
) -> tuple["Analysis", "Repetition | None"]:
    """Stripped mode on given tokens, or random ones; and one layer repeated, if asked for."""
    from pmt.experiments import RepeatConfig, analyze, count_of_steps, repeat_layer

    layer, steps = repeat
    if layer is not None and layer > layers.depth:
        # Said before the work and not after it.
        raise RequestError(f"there is no layer {layer}; the model has layers 1 to {layers.depth}")
    total = count_of_steps(layers.depth, config) + (layer is not None)
    with progress("layers", total=total) as advance:
        analysis = analyze(layers, config, tokens=tokens, progress=advance, solver=solver)
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
) -> "Analysis":
    """Stripped mode on the tokens of a user's texts, as the model embeds them."""
    import numpy as np

    from pmt.experiments import analyze, count_of_steps
    from pmt.experiments.plain_text import read_own, unit_states
    from pmt.experiments.stage import require_states
    from pmt.models import Tokenizer, from_pretrained
    from pmt.models.partial import embed

    # That it has a tokenizer, before all of its weights are read.
    Tokenizer(layers.checkpoint)
    model = from_pretrained(**asked)
    read = read_own(model, texts, special_tokens=special_tokens)
    states = embed(model, read)
    require_states(states, read.present, "the embeddings")
    tokens = unit_states(states, read.present)
    del model, states
    config = replace(config, prompts=len(texts), tokens=int(tokens.shape[1]))
    with progress("layers", total=count_of_steps(layers.depth, config)) as advance:
        found = analyze(
            layers, config, tokens=tokens, present=read.present, progress=advance, solver=solver
        )
    return replace(found, texts="given", counted=int(np.sum(read.present)))


def on_real_model(
    config: "AnalysisConfig",
    texts: list[str] | None,
    special_tokens: bool,
    asked: dict[str, Any],
    solver: "Solver",
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
    with progress("layers", total=count_of_steps(len(model.schedule), config)) as advance:
        return analyze_full(model, text, config, texts=source, progress=advance, solver=solver)
