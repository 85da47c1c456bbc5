"""`pmt reproduce`: every figure and table of the paper, by its number, for any checkpoint."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pmt.cli.analysis_runs import tell, tokens_of_texts
from pmt.cli.analyze import CacheDirectory, EigenFolder, LocalFilesOnly, Revision, TokensFile
from pmt.cli.options import (
    Device,
    Dtype,
    JsonFile,
    OutDirectory,
    Overwrite,
    Seed,
    at_most_one,
    start_backend,
)
from pmt.cli.screen import progress, show
from pmt.errors import Interrupted, RequestError
from pmt.files import prepare_output_directory, write_json

if TYPE_CHECKING:
    from pmt.experiments.items import Given, Item
    from pmt.experiments.reproduce import Done

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ITEM ...]", help="Numbers or aliases, as --list shows them."),
]
All = Annotated[bool, typer.Option("--all", help="Every item of the first paper.")]
List = Annotated[bool, typer.Option("--list", help="Show the items and end.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="A name on the Hugging Face Hub, a directory, or minilm (packaged).",
    ),
]
Layer = Annotated[
    int | None,
    typer.Option(
        "--layer",
        min=1,
        metavar="L",
        help="Which layer (from 1) the items about shared weights repeat. [the last]",
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Few prompts: a look, not a result.")]
OrderName = Annotated[
    Literal["real", "skip", "modulus"] | None,
    typer.Option("--order", help="Eigenvalues by real part, |1 + alpha lambda| or modulus."),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE.txt",
        help="Own texts, one a line: whole for figure-11, in place of public-domain ones, and for "
        "the others as their embedded tokens, in place of random ones.",
    ),
]

_WRITER = "pmt reproduce"
_SCHEMA = "pmt.reproduce/1"


def reproduce(
    names: Names = None,
    every: All = False,
    listed: List = False,
    model: Model = None,
    layer: Layer = None,
    order: OrderName = None,
    quick: Quick = False,
    tokens: TokensFile = None,
    prompts: Prompts = None,
    revision: Revision = None,
    cache_dir: CacheDirectory = None,
    local_files_only: LocalFilesOnly = False,
    eigen_cache: EigenFolder = None,
    seed: Seed = 0,
    json: JsonFile = None,
    out: OutDirectory = None,
    overwrite: Overwrite = False,
    dtype: Dtype = "float32",
    device: Device = None,
) -> None:
    """Every figure and table of the paper, for any checkpoint.

    Each item has a folder below --out: tables (CSV), figures (PNG, SVG; of runs on the sphere a GIF
    too) and result.json with all numbers and the settings. The items about shared weights repeat
    one layer of any model. An item that cannot be had of this model does not keep the others from
    theirs. A run that was interrupted goes on where it stopped when the same command is given
    again; items that are complete are not run again. Eigenproblems are kept on disk, so that
    neither another --out nor pmt analyze solves one twice.

    Example: pmt reproduce figure-2b figure-8 --model minilm --out figures
    """
    asked = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    for_model = {"--" + name.replace("_", "-"): value for name, value in asked.items()}
    if listed:
        others: dict[str, Any] = {"names of items": names or None, "--all": every, "--model": model}
        others |= {"--layer": layer, "--order": order, "--quick": quick, "--tokens": tokens}
        others |= {"--prompts": prompts, **for_model, "--eigen-cache": eigen_cache, "--out": out}
        others |= {"--overwrite": overwrite, "--seed": seed or None, "--device": device}
        others |= {"--dtype": None if dtype == "float32" else dtype}
        for option, value in others.items():
            at_most_one({"--list": True, option: value})
        _list(json)
        return
    if not names and not every:
        raise RequestError("no item was named; name some, or give --all (--list shows them)")
    if names and every:
        raise RequestError("--all and names of items contradict each other; give one of them")
    if model is None:
        for option, value in for_model.items():
            if value not in (None, False):
                raise RequestError(f"{option} goes with --model; give the model too")
    # Before NumPy is loaded: the eigenproblems stand side by side, one thread each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    start_backend(device, dtype)
    from pmt.experiments.items import ITEMS, find_items
    from pmt.experiments.plain_text import load_texts
    from pmt.experiments.reproduce import has_a_smaller_form

    items = ITEMS if every else find_items(names or [])
    _require_a_use(items, (model, layer, order, prompts, tokens, eigen_cache))
    if quick and not any(map(has_a_smaller_form, items)):
        tell(f"--quick changes nothing: there is no smaller form of {_names(items)}")
    at_most_one({"--tokens": tokens, "--prompts": prompts})
    texts = None if prompts is None else tuple(load_texts(prompts))
    with _given(model, asked, dtype, (tokens, texts), seed, layer, items, every) as (given, items):
        done, failed = _run(items, given, (quick, order), dtype, (out, overwrite, eigen_cache))
    if json is not None and done:
        rows = [{"name": name, "reason": str(error)} for name, error in failed.items()]
        write_json(
            json, {"schema": _SCHEMA, "items": [each.found for each in done], "failed": rows}
        )
    for each in done:
        show(*_lines(each))
    if failed:
        raise _failure(failed, len(items)) from next(iter(failed.values()))


def _require_a_use(items: "tuple[Item, ...]", given: tuple[Any, ...]) -> None:
    """Refuse a value of one of these options that none of the items would look at."""
    for (option, able), value in zip(_users().items(), given, strict=True):
        if value is not None and not any(item.name in able for item in items):
            raise RequestError(
                f"{option} was given, and none of the chosen items can use it; leave it out, or "
                f"name one that can: {', '.join(able)}"
            )


def _users() -> dict[str, list[str]]:
    """The items that look at an option, by its name."""
    from pmt.experiments import reproduce as runs
    from pmt.experiments.items import ITEMS

    tests = {
        "--model": runs.uses_a_model,
        "--layer": runs.repeats_a_layer,
        "--order": runs.takes_an_order,
        "--prompts": runs.reads_texts,
        "--tokens": runs.takes_tokens,
        "--eigen-cache": runs.is_about_layers,
    }
    return {option: [each.name for each in ITEMS if uses(each)] for option, uses in tests.items()}


def _names(items: "Iterable[Item]") -> str:
    return ", ".join(item.name for item in items)


def _failure(failed: "dict[str, RequestError]", count: int) -> RequestError:
    """One sentence for all that failed, by reason, since one flaw may concern several items."""
    reasons: dict[str, list[str]] = {}
    for name, error in failed.items():
        reasons.setdefault(str(error), []).append(name)
    said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return RequestError(said if count == 1 else f"{len(failed)} of {count} items failed; {said}")


def _list(json: Path | None) -> None:
    from rich import box
    from rich.table import Table

    from pmt.experiments.items import ITEMS, LOOPED

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("item", "alias", "in the paper", "needs", "what it shows"):
        table.add_column(name)
    for item in (*ITEMS, *LOOPED):
        table.add_row(item.name, item.alias, item.number, item.needs, item.title)
    users = _users()
    show(table, *(f"{option} is for {', '.join(able)}" for option, able in users.items()))
    if json is not None:
        named = ("name", "alias", "number", "needs", "title", "config", "quick")
        rows = [
            {name: getattr(item, name) for name in named}
            | {"options": [option for option, able in users.items() if item.name in able]}
            for item in (*ITEMS, *LOOPED)
        ]
        write_json(json, {"schema": _SCHEMA, "list": rows})


@contextmanager
def _given(
    model: str | None,
    asked: dict[str, Any],
    dtype: str,
    own: tuple[Path | None, tuple[str, ...] | None],
    seed: int,
    layer: int | None,
    items: "tuple[Item, ...]",
    every: bool,
) -> "Iterator[tuple[Given, tuple[Item, ...]]]":
    """What the items run on, and which of them; the model's files stay open within it.

    Of all of them those that run on text are left out where the model has no tokenizer and no
    texts were given.
    """
    from dataclasses import replace

    from pmt.experiments import describe, load_tokens
    from pmt.experiments.items import Given
    from pmt.experiments.reproduce import check, runs_on_text, takes_tokens
    from pmt.experiments.tokens import prepare_tokens
    from pmt.models import from_pretrained, open_layers

    tokens, texts = None if own[0] is None else load_tokens(own[0]), own[1]
    if model is None:
        given = Given(seed=seed, tokens=tokens)
        for item in items:
            check(item, given)
        yield given, items
        return
    with open_layers(model, dtype=dtype, identify=True, notify=tell, **asked) as layers:
        info = describe(layers)
        if tokens is not None:
            # What is wrong with them is wrong for all items, and said before any folder is made.
            prepare_tokens(tokens, info.d, dtype)
        chosen = layers.depth if layer is None else layer
        given = Given(
            layers=layers,
            model=info,
            layer=chosen,
            seed=seed,
            tokens=tokens,
            texts=texts,
            open_model=lambda: from_pretrained(model, dtype=dtype, **asked),
        )
        kept = []
        for item in items:
            try:
                check(item, given)
                kept.append(item)
            except RequestError as error:
                if not runs_on_text(item) or not every or texts is not None:
                    raise
                tell(f"left out: {error}")
        if texts is not None and any(map(takes_tokens, kept)):
            whose = {"name_or_directory": model, "dtype": dtype, **asked}
            own_tokens, present = tokens_of_texts(layers, texts, True, whose)
            given = replace(given, tokens=own_tokens, present=present)
        if layer is None:
            _tell_which_is_repeated(items, given)
        yield given, tuple(kept)


def _tell_which_is_repeated(items: "tuple[Item, ...]", given: "Given") -> None:
    """Say so where an item about shared weights runs on a model that does not have these."""
    from pmt.experiments.reproduce import repeats_a_layer
    from pmt.experiments.stripped import count_of_blocks

    repeated, info = [item for item in items if repeats_a_layer(item)], given.model
    if not repeated or info is None or count_of_blocks(given.layers) == 1:
        return
    whose = f"not all layers of {info.name} have" if info.shared else f"{info.name} does not have"
    tell(
        f"{_names(repeated)}: about shared weights, which {whose}; its last layer, "
        f"{given.layer}, is repeated instead (--layer chooses another)"
    )


def _run(
    items: "tuple[Item, ...]",
    given: "Given",
    how: tuple[bool, str | None],
    dtype: str,
    where: tuple[Path | None, bool, Path | None],
) -> "tuple[list[Done], dict[str, RequestError]]":
    """What was done, and by name what could not be: a flaw of one item is none of the others."""
    from dataclasses import replace

    from pmt.experiments.eigen_cache import EigenCache, user_cache
    from pmt.experiments.reproduce import open_folder, run_item, settings

    (out, overwrite, eigen), folders = where, {}
    configs = {item.name: settings(item, *how, dtype) for item in items}
    if out is not None:
        folder = prepare_output_directory(out, writer=_WRITER, overwrite=overwrite)
        # All of them before any work, so that a refusal comes at once.
        folders = {
            item.name: open_folder(item, configs[item.name], given, dtype, folder, overwrite)
            for item in items
        }
    given = replace(given, solver=user_cache() if eigen is None else EigenCache(eigen))
    left = [item for item in items if item.name not in folders or not folders[item.name].result]
    total = sum(item.pieces(configs[item.name], given) for item in left)
    done, failed = [], {}
    try:
        with progress("pieces of work", total=total) as advance:
            given = replace(given, progress=advance)
            for item in items:
                chunks, config = folders.get(item.name), configs[item.name]
                try:
                    done.append(run_item(item, config, given, dtype, chunks, _draw))
                except RequestError as error:
                    # A disk or another process in its way is in the way of all.
                    if error.may_succeed:
                        raise
                    failed[item.name] = error
                advance(0)
    except KeyboardInterrupt as stop:
        if out is None and not failed:
            raise
        said = ["interrupted"]
        if out is not None:
            said.append(
                f"{len(done)} of {len(items)} items are in {out}, and the same command goes on "
                "from there"
            )
        said += [str(_failure(failed, len(items)))] if failed else []
        raise Interrupted("; ".join(said)) from stop
    return done, failed


def _draw(key: str | None, result: Any) -> dict[str, bytes]:
    from pmt.figures import figure_bytes
    from pmt.figures.items import animate_item, draw_item

    drawn = {
        f"{name}.{form}": figure_bytes(figure, form)
        for name, figure in draw_item(key, result).items()
        for form in ("png", "svg")
    }
    return drawn | animate_item(key, result)


def _lines(done: "Done") -> list[str]:
    item = done.item
    again = " (done before)" if done.before else ""
    lines = [f"{item.name}, {item.number}: {item.title}{again}"]
    lines += [f"  {sentence}" for sentence in done.found["sentences"]]
    return lines if done.folder is None else [*lines, f"  in {done.folder}"]
