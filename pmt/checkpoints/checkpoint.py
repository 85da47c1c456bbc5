"""A checkpoint that was found: its files, its config, its hash."""

import hashlib
import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

from pmt.checkpoints.directory import (
    CONFIG,
    INDEX,
    TOKENIZER,
    WEIGHTS,
    file_inside,
    without_weights,
)
from pmt.checkpoints.index import indexed_files
from pmt.checkpoints.read import Identity, Weights, identity, open_weights
from pmt.checkpoints.strict_json import parse_json
from pmt.errors import RequestError

# A real config has a few kilobytes; anything near this is no config.
_LARGEST_CONFIG = 4 * 2**20
# Where a checkpoint keeps the hash that is being computed.
_BEGUN = "_begun_sha256"


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint's files are.

    Attributes:
      name: as it was asked for.
      directory: the folder that holds them.
      weights: the safetensors files: one, or those that the index names, sorted.
      revision: what pins the files: ``package==version`` for a packaged model, the commit for one
        from the Hub, None for a directory.
      identities: of the weights when they were found, so that a later change is noticed; empty
        where nobody looked.
    """

    name: str
    directory: Path
    weights: tuple[Path, ...]
    revision: str | None
    identities: tuple[Identity, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights, computed when it is first asked for.

        Of one file it is its SHA-256. Of several it is the SHA-256 of their sorted lines, each the
        file's SHA-256, two spaces, its name and a newline, as ``sha256sum`` prints them.

        Raises:
          RequestError: a file that cannot be read, or that was changed since it was found.
        """
        begun: Future[str] | None = vars(self).get(_BEGUN)
        return self._hash() if begun is None else begun.result()

    def begin_sha256(self) -> None:
        """Begin to compute ``sha256`` on a thread of its own, before it is asked for.

        What is wrong with the files is told by whoever asks.
        """
        if _BEGUN in vars(self):
            return
        vars(self)[_BEGUN] = begun = Future[str]()

        def work() -> None:
            try:
                begun.set_result(self._hash())
            except RequestError as error:
                begun.set_exception(error)

        # Nobody waits for it at the end of the program.
        Thread(target=work, daemon=True).start()

    def _hash(self) -> str:
        hashes = [_sha256(path) for path in self.weights]
        self._require_unchanged(tuple(found for _, found in hashes))
        if len(hashes) == 1:
            return hashes[0][0]
        lines = sorted(
            f"{digest}  {path.name}\n"
            for (digest, _), path in zip(hashes, self.weights, strict=True)
        )
        return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()

    @property
    def tokenizer_file(self) -> Path | None:
        """The tokenizer.json of the directory, or None where it has none.

        Raises:
          RequestError: a link that leaves the directory.
        """
        return self.file(TOKENIZER)

    def file(self, name: str) -> Path | None:
        """A file of the directory by its plain name, or None where there is none.

        Raises:
          RequestError: a link that leaves the directory.
        """
        return file_inside(self.directory, name)

    def open(self) -> Weights:
        """The weights, opened, headers checked.

        Raises:
          RequestError: as `open_weights`, and where a file was changed since it was found.
        """
        weights = open_weights(self.weights)
        try:
            self._require_unchanged(weights.identities)
        except RequestError:
            weights.close()
            raise
        return weights

    def config(self) -> dict[str, Any]:
        """The parsed config.json.

        Raises:
          RequestError: not readable, not JSON (numbers that are not finite and keys given twice
            are not), not an object, or larger than any config.
        """
        path = self.directory / CONFIG
        try:
            with open(path, "rb") as file:
                content = file.read(_LARGEST_CONFIG + 1)
            if len(content) > _LARGEST_CONFIG:
                raise RequestError(
                    f"{path} has {path.stat().st_size} bytes, more than any model's config; check "
                    "the directory"
                )
            config = parse_json(content)
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(
                f"{path} is not a valid JSON file ({error}); fetch the checkpoint again"
            ) from error
        if not isinstance(config, dict):
            raise RequestError(
                f"{path} holds a {type(config).__name__} and not an object of settings; "
                "fetch the checkpoint again"
            )
        return config

    def _require_unchanged(self, found: tuple[Identity, ...]) -> None:
        if self.identities and found != self.identities:
            raise RequestError(
                f"the weights in {self.directory} were changed while they were in use; wait until "
                "nothing writes to them and try again"
            )


def in_directory(name: str, directory: Path, revision: str | None) -> Checkpoint:
    """The checkpoint in a directory.

    The single file is taken where there are also several with an index, as transformers does.

    Raises:
      RequestError: a file that is missing, a link that leaves the directory, an index that does
        not agree with its files, or weights only in a form that is not read.
    """
    if file_inside(directory, CONFIG) is None:
        raise RequestError(f"{directory} has no {CONFIG}; give the directory of a checkpoint")
    # Refused here and not when it is first asked for.
    file_inside(directory, TOKENIZER)
    single = file_inside(directory, WEIGHTS)
    try:
        if single is not None:
            weights: tuple[Path, ...] = (single,)
        elif file_inside(directory, INDEX) is not None:
            weights = indexed_files(directory)
        else:
            raise without_weights(str(directory), sorted(os.listdir(directory)))
        identities = tuple(identity(os.stat(path)) for path in weights)
    except OSError as error:
        raise RequestError(f"cannot read {directory}: {error.strerror}") from error
    return Checkpoint(name, directory, weights, revision, identities)


def _sha256(path: Path) -> tuple[str, Identity]:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, identity(os.fstat(file.fileno()))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error
