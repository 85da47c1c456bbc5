"""A training run as a file: written whole or not at all, and read back bit for bit."""

import json
import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pmt.errors import RequestError
from pmt.files import write_atomically
from pmt.looped.config import TrainConfig

_FORMAT = "pmt.loop-checkpoint/2"

# Of the state, in this order; of a record, as named.
STATE = ("value", "key", "gain", "walk_value", "walk_key")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands: the epochs made, its arrays by name, its records so far."""

    config: TrainConfig
    epoch: int
    state: dict[str, np.ndarray]
    history: dict[str, np.ndarray]


def write(path: str | PathLike[str], checkpoint: Checkpoint) -> None:
    """Write it as an ``.npz`` file, atomically."""
    head = json.dumps(
        {"format": _FORMAT, "epoch": checkpoint.epoch, "config": checkpoint.config.document()}
    )
    arrays = {f"state.{name}": array for name, array in checkpoint.state.items()}
    arrays |= {f"history.{name}": array for name, array in checkpoint.history.items()}

    def content(file: BinaryIO) -> None:
        np.savez(file, allow_pickle=False, head=np.array(head), **arrays)

    write_atomically(path, content)


def read(path: str | PathLike[str], config: TrainConfig) -> Checkpoint:
    """The checkpoint of a run of this config, which may have been asked for fewer epochs.

    Raises:
      RequestError: no such file, a file that is no checkpoint, or one of another run.
    """
    file = Path(path)
    if not file.is_file():
        raise RequestError(f"there is no checkpoint {file} to go on from; start without --resume")
    try:
        # Opened here, since NumPy leaves a file open that it cannot read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            head = json.loads(str(stored["head"][()]))
            arrays = {name: stored[name] for name in stored.files if name != "head"}
        if head["format"] != _FORMAT:
            raise KeyError("format")
        written, epoch = TrainConfig(**head["config"]), int(head["epoch"])
        state = {name: arrays[f"state.{name}"] for name in STATE}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(f"{file} is not a whole checkpoint of pmt; remove it") from error
    _require_same(file, written, config)
    if epoch > config.epochs:
        raise RequestError(
            f"{file} is at epoch {epoch} already, and {config.epochs} epochs are asked for"
        )
    prefix = "history."
    history = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    return Checkpoint(config, epoch, state, history)


def _require_same(file: Path, written: TrainConfig, config: TrainConfig) -> None:
    before, now = written.document(), config.document()
    differ = [name for name in before if before[name] != now[name] and name != "epochs"]
    if differ:
        what = ", ".join(f"{name} = {_shown(before[name])}" for name in differ)
        raise RequestError(
            f"{file} is of another run, with {what}; give the same settings or another folder"
        )


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
