"""`pmt steer --apply` and `--revert`: a checkpoint with a finished edit more or less."""

from pathlib import Path
from typing import Any

from pmt.cli.exits import Status
from pmt.cli.screen import show
from pmt.errors import RequestError


def refuse_others(given: dict[str, Any]) -> None:
    """Refuse options of which `--apply` and `--revert` have no use.

    Raises:
      RequestError: naming those that are not None.
    """
    names = ", ".join(name for name, value in given.items() if value is not None)
    if names:
        raise RequestError(
            "--apply and --revert put a finished edit in or out and measure nothing: leave out "
            f"{names}"
        )


def write_changed(
    model: str,
    apply: Path | None,
    revert: Path | None,
    base: str | None,
    out: Path | None,
    overwrite: bool,
    found: dict[str, Any],
) -> int:
    """`--apply` and `--revert`: a checkpoint with an edit more or less, and nothing measured."""
    if out is None:
        raise RequestError("--apply and --revert write a checkpoint; give --out DIR")
    if (base is not None) != (revert is not None):
        raise RequestError(
            "--revert needs --base, the checkpoint before the edit, whose tensor it puts back "
            "after its hash was checked; --apply needs MODEL only"
        )
    from pmt.checkpoints import locate
    from pmt.checkpoints.delta import apply_delta, read_delta, revert_delta
    from pmt.models.editing import companion_files

    checkpoint = locate(model, **found)
    copy = companion_files(checkpoint)
    if apply is not None:
        written = apply_delta(checkpoint, read_delta(apply), out, copy=copy, overwrite=overwrite)
        show(f"the checkpoint with the edit is in {written}")
        return Status.DONE
    if revert is not None and base is not None:
        before = locate(base, **found | {"revision": None})
        written = revert_delta(
            checkpoint, read_delta(revert), before, out, copy=copy, overwrite=overwrite
        )
        show(f"the checkpoint without the edit is in {written}")
    return Status.DONE
