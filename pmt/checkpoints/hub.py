"""Checkpoints from the Hugging Face Hub, through ``huggingface_hub`` and in its own cache.

Where the cache is, which Hub is asked, and whether it may be asked at all is what the library says
when a name is first looked up: ``cache_dir``, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE,
HF_TOKEN. The layout of the cache is its published one: ``models--OWNER--NAME`` with ``refs``,
``snapshots`` and ``blobs``.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pmt.checkpoints.directory import (
    CONFIG,
    INDEX,
    TOKENIZER,
    TOKENIZER_SETTINGS,
    VOCABULARY,
    WEIGHTS,
    without_weights,
)
from pmt.checkpoints.hub_errors import explain, is_unreachable, reason, recognized
from pmt.checkpoints.index import missing_shards, read_index
from pmt.errors import RequestError
from pmt.files import write_atomically

Notify = Callable[[str], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_PART}/)?{_PART}")


def is_hub_name(name: str) -> bool:
    """Whether the Hub could have a model of that name: ``name`` or ``owner/name``."""
    return (
        _NAME.fullmatch(name) is not None
        and "--" not in name
        and ".." not in name
        and not name.endswith(".git")
    )


@dataclass(frozen=True)
class Request:
    """A model of the Hub, and how to get it.

    Attributes:
      name: ``owner/name`` or ``name``.
      revision: a branch, a tag or a commit, or None for the main branch.
      cache: the cache's directory, absolute.
      token: as the library takes it.
      notify: is told what is fetched, in one sentence at a time.
    """

    name: str
    revision: str | None
    cache: Path
    token: bool | str | None
    notify: Notify

    @property
    def repository(self) -> Path:
        """The model's directory in the cache."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The directory of one commit's files."""
        return self.repository / "snapshots" / commit


@dataclass(frozen=True)
class Remote:
    """A file of a commit, as the Hub describes it.

    Attributes:
      size: in bytes, or None where the Hub does not say.
      blob: the name of its content in the cache, or None.
      sha256: of its content, known for large files.
    """

    size: int | None
    blob: str | None
    sha256: str | None


def fetch(
    name: str,
    *,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: bool | str | None,
    notify: Notify | None,
) -> tuple[Path, str]:
    """The directory of a model's files in the cache, and their commit; what is missing is fetched.

    The revision becomes a commit once, and every file is that commit's. Where the Hub cannot be
    reached and the cache holds the revision completely, that is taken, and said.

    Raises:
      RequestError: whatever keeps the files from being there, with a way on.
    """
    from huggingface_hub import constants

    cache = Path(os.path.abspath(os.path.expanduser(cache_dir or constants.HF_HUB_CACHE)))
    _require_revision(revision)
    _require_token(token)
    _require_endpoint(constants.ENDPOINT)
    request = Request(name, revision, cache, token, notify or (lambda _: None))
    if local_files_only or constants.HF_HUB_OFFLINE:
        why = "local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set"
        return _from_cache(request, f"the Hub is not asked, since {why}")
    try:
        commit, files = _ask(request, constants)
    except recognized() as error:
        if not is_unreachable(error):
            raise explain(error, name, revision, cache) from error
        why = f"the Hub at {constants.ENDPOINT} cannot be reached ({reason(error)})"
        found = _from_cache(request, why, cause=error)
        request.notify(f"{why}; using what the cache has of {name}, {found[1][:12]}")
        return found
    try:
        return _download(request, commit, files, constants.ENDPOINT), commit
    except recognized() as error:
        raise explain(error, name, revision, cache) from error


def _ask(request: Request, constants: Any) -> tuple[str, dict[str, Remote]]:
    """The commit of the revision, and its files."""
    from huggingface_hub import HfApi

    # Without a timeout, a Hub that takes the call and says nothing would never be given up.
    info = HfApi(endpoint=constants.ENDPOINT, token=request.token).model_info(
        request.name,
        revision=request.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ValueError(f"it gave {commit!r:.60} for a commit")
    files = {}
    for sibling in info.siblings or ():
        lfs = sibling.lfs
        sha256 = lfs.sha256 if lfs is not None else None
        files[sibling.rfilename] = Remote(sibling.size, sha256 or sibling.blob_id, sha256)
    return commit, files


def _download(request: Request, commit: str, files: Mapping[str, Remote], endpoint: str) -> Path:
    where = f"the model {request.name} at {commit[:12]}"
    if CONFIG not in files:
        raise RequestError(f"{where} has no {CONFIG}; give the name of a transformers model")
    tokenizer = (TOKENIZER,) if TOKENIZER in files else VOCABULARY
    others = [CONFIG, *(name for name in (*tokenizer, *TOKENIZER_SETTINGS) if name in files)]
    if WEIGHTS in files:
        weights = [WEIGHTS]
    elif INDEX in files:
        _fetch_all(request, commit, files, [INDEX], endpoint)
        weights = sorted(set(read_index(request.snapshot(commit) / INDEX).values()))
        missing = [name for name in weights if name not in files]
        if missing:
            raise missing_shards(where, missing)
    else:
        raise without_weights(where, sorted(files))
    _fetch_all(request, commit, files, [*weights, *others], endpoint)
    _remember(request, commit)
    return request.snapshot(commit)


def _fetch_all(
    request: Request,
    commit: str,
    files: Mapping[str, Remote],
    names: Sequence[str],
    endpoint: str,
) -> None:
    from huggingface_hub import hf_hub_download

    snapshot = request.snapshot(commit)
    absent = [name for name in names if not (snapshot / name).is_file()]
    wanted = [name for name in absent if not _has_blob(request, files[name])]
    if wanted:
        request.notify(_announcement(request, commit, files, wanted, names))
        _require_space(request.cache, sum(files[name].size or 0 for name in wanted))
    for name in absent:
        path = Path(
            hf_hub_download(
                request.name,
                name,
                revision=commit,
                cache_dir=request.cache,
                token=request.token,
                endpoint=endpoint,
            )
        )
        if path.parent.name != commit:
            raise ValueError(f"it gave {name} of another commit than {commit[:12]}")
        if name in wanted:
            _verify(path, files[name])


def _has_blob(request: Request, remote: Remote) -> bool:
    return remote.blob is not None and (request.repository / "blobs" / remote.blob).is_file()


def _announcement(
    request: Request,
    commit: str,
    files: Mapping[str, Remote],
    wanted: Sequence[str],
    names: Sequence[str],
) -> str:
    sizes = [files[name].size for name in wanted]
    listed = ", ".join(
        f"{name} ({in_units(size)})" for name, size in zip(wanted, sizes, strict=True)
    )
    known = [size for size in sizes if size is not None]
    total = f", {in_units(sum(known))} together" if len(known) == len(wanted) > 2 else ""
    cached = [name for name in names if name not in wanted]
    rest = f"; already in the cache: {', '.join(cached)}" if cached else ""
    return f"fetching {request.name} at {commit[:12]}: {listed}{total}{rest}"


def in_units(size: int | None) -> str:
    """A number of bytes as people read it, in powers of ten: ``684 B``, ``47.4 MB``."""
    if size is None:
        return "size unknown"
    if size < 1000:
        return f"{size} B"
    number = float(size)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        # What would be rounded to four digits before the point is written in the next unit.
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


def _require_space(cache: Path, needed: int) -> None:
    existing = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), None)
    free = needed if existing is None else shutil.disk_usage(existing).free
    if free < needed:
        raise RequestError(
            f"the files take {in_units(needed)}, and the disk of the cache {cache} has "
            f"{in_units(free)} left; free some space, or give a cache_dir on another disk"
        )


def _verify(path: Path, remote: Remote) -> None:
    """Refuse, and forget, a file that arrived other than the Hub describes it."""
    if remote.sha256 is not None:
        with open(path, "rb") as file:
            sound = hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256
    else:
        sound = remote.size in (None, path.stat().st_size)
    if not sound:
        # Or the next call would take it for what was asked.
        Path(os.path.realpath(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise RequestError(
            f"{path.name} did not arrive as the Hub describes it and was removed; try again"
        )


def _remember(request: Request, commit: str) -> None:
    """Note which commit the revision is, for calls that may not ask.

    Only when its files are there, so that such a call does not find half of them.
    """
    revision = request.revision or "main"
    reference = request.repository / "refs" / revision
    if revision == commit or _referenced(reference) == commit:
        return
    try:
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(reference, commit)
    except (OSError, RequestError):
        # The cache may be read-only; everything asked for was in it.
        pass


def _referenced(reference: Path) -> str | None:
    try:
        commit = reference.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _from_cache(request: Request, why: str, cause: BaseException | None = None) -> tuple[Path, str]:
    """The snapshot that the cache has of the revision, if it is complete."""
    revision = request.revision or "main"
    commit = _referenced(request.repository / "refs" / revision)
    if commit is None and _COMMIT.fullmatch(revision):
        commit = revision
    way_on = "call it once with the Hub in reach, or give the cache_dir that holds it"
    if commit is None or not request.snapshot(commit).is_dir():
        raise RequestError(
            f"there is no directory {request.name!r}, the cache {request.cache} has no files of a "
            f"model of that name at {revision}, and {why}; {way_on}"
        ) from cause
    snapshot = request.snapshot(commit)
    missing = [name for name in _needed(snapshot) if not (snapshot / name).is_file()]
    if missing:
        raise RequestError(
            f"the cache {request.cache} has only a part of {request.name} at {revision} "
            f"({', '.join(missing)} missing), and {why}; {way_on}"
        ) from cause
    return snapshot, commit


def _needed(snapshot: Path) -> list[str]:
    if not (snapshot / WEIGHTS).is_file() and (snapshot / INDEX).is_file():
        return [CONFIG, *sorted(set(read_index(snapshot / INDEX).values()))]
    return [CONFIG, WEIGHTS]


def _require_revision(revision: str | None) -> None:
    if revision is None:
        return
    parts = revision.split("/")
    if (
        not revision.isprintable()
        or "\\" in revision
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise RequestError(
            f"the revision {revision!r} is no name of a branch, a tag or a commit; give one, or "
            "leave it out for the main branch"
        )


def _require_token(token: bool | str | None) -> None:
    # The library's own message would print it.
    if isinstance(token, str) and re.fullmatch(r"[!-~]+", token) is None:
        raise RequestError(
            "the token holds characters that no token has; copy it again from the Hub's settings"
        )


def _require_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise RequestError(
            f"HF_ENDPOINT is {endpoint!r}, which is no address of a Hub; give one as "
            "https://huggingface.co, or unset it"
        )
