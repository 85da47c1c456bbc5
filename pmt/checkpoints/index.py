"""The index of a checkpoint whose weights are in several files, checked against their headers."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pmt.checkpoints.directory import INDEX, file_inside
from pmt.checkpoints.read import open_weights
from pmt.checkpoints.strict_json import parse_json
from pmt.errors import RequestError

# The index of a model of a trillion parameters has a tenth of this.
_LARGEST_INDEX = 100 * 2**20
_SHOWN = 5


def read_index(path: Path) -> dict[str, str]:
    """The mapping from a tensor's name to the name of the file that holds it.

    Raises:
      RequestError: an index that is too large, is no valid JSON, lacks its ``weight_map``, or
        names a file that is not a plain name of a safetensors file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_INDEX + 1)
        if len(content) > _LARGEST_INDEX:
            raise ValueError(f"it has more than {_LARGEST_INDEX} bytes")
        parsed = parse_json(content)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RequestError(
            f"{path} is not a valid index ({error}); fetch the checkpoint again"
        ) from error
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise RequestError(
            f"{path} has no weight_map from tensors to files; fetch the checkpoint again"
        )
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise RequestError(
                f"{path} names no file for the tensor {tensor!r}; fetch the checkpoint again"
            )
        if not is_plain_name(shard):
            raise RequestError(
                f"{path} names the file {shard!r:.200} for the tensor {tensor!r}; only plain "
                "names that end in .safetensors, without directories, are opened"
            )
    return weight_map


def is_plain_name(name: str) -> bool:
    """Whether it names a safetensors file in the directory itself, on every system."""
    return (
        name.endswith(".safetensors")
        and len(name) <= 255
        and name.isprintable()
        and not any(character in name for character in "/\\:")
        and not name.startswith(".")
    )


def indexed_files(directory: Path) -> tuple[Path, ...]:
    """The files that the index of a directory names, sorted, with headers that agree with it.

    Every tensor of the index is in the file that the index says, and every tensor of these files
    is in the index. Other files are left alone.

    Raises:
      RequestError: an index that `read_index` refuses, files that are missing or that
        `open_weights` refuses, or tensors that differ, all of them in one sentence.
    """
    weight_map = read_index(directory / INDEX)
    paths, missing = [], []
    for shard in sorted(set(weight_map.values())):
        path = file_inside(directory, shard)
        if path is None:
            missing.append(shard)
        else:
            paths.append(path)
    if missing:
        raise missing_shards(str(directory), missing)
    check_index(directory, weight_map, paths)
    return tuple(paths)


def missing_shards(where: str, missing: Iterable[str]) -> RequestError:
    """What is said of a place whose index names files that it has not."""
    return RequestError(
        f"{where} lacks files that its {INDEX} names: {', '.join(missing)}; "
        "fetch the checkpoint again"
    )


def check_index(directory: Path, weight_map: Mapping[str, str], paths: Iterable[Path]) -> None:
    """Refuse an index that names other tensors than the headers of its files do."""
    offenders = []
    for path in paths:
        with open_weights([path]) as weights:
            found = weights.entries.keys()
        named = {tensor for tensor, shard in weight_map.items() if shard == path.name}
        offenders += [f"{name!r} is not in {path.name}" for name in sorted(named - found)]
        offenders += [
            f"{name!r} is in {path.name}, where the index "
            + (f"has it in {weight_map[name]}" if name in weight_map else "does not have it")
            for name in sorted(found - named)
        ]
    if offenders:
        rest = len(offenders) - _SHOWN
        raise RequestError(
            f"the index {directory / INDEX} and the headers of its files differ "
            f"({'; '.join(offenders[:_SHOWN])}{f'; and {rest} more' if rest > 0 else ''}); "
            "fetch the checkpoint again"
        )
