"""A checkpoint's directory: what its files are called, and which of them may be opened."""

import re
from pathlib import Path

from pmt.errors import RequestError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
# What a tokenizer needs besides, where it exists.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
# What there is in older checkpoints in place of tokenizer.json.
VOCABULARY = ("vocab.txt", "vocab.json", "merges.txt")

# Forms of weights that unpickle, or are those of other frameworks.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def file_inside(directory: Path, name: str) -> Path | None:
    """The path of a file of a checkpoint, or None where there is no such file.

    A symbolic link may point within the directory and, from a snapshot in the Hub's cache, to the
    blobs of the same repository or to those that the cache shares between repositories; see
    huggingface.co/docs/huggingface_hub, "Understand caching".

    Raises:
      RequestError: a link that points anywhere else, or in a circle.
    """
    path = directory / name
    try:
        root, target = directory.resolve(strict=True), path.resolve(strict=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a circle of links is a RuntimeError.
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot read {path} ({reason}); fetch the checkpoint again") from error
    if not (target.is_relative_to(root) or _is_blob(root, target)):
        raise RequestError(
            f"{path} is a link to {target}, outside the checkpoint's directory; copy the file "
            "into the directory, or give the directory that holds it"
        )
    return path if target.is_file() else None


def without_weights(where: str, names: list[str]) -> RequestError:
    """What is said of a place that holds files of these names and no safetensors weights."""
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        return RequestError(
            f"{where} has its weights only as a pickle ({pickles[0]}), which can run code "
            "when it is opened and is never read; convert it with transformers: "
            "AutoModel.from_pretrained(NAME).save_pretrained(DIR)"
        )
    return RequestError(f"{where} has no {WEIGHTS}; give the directory or name of a checkpoint")


def _is_blob(root: Path, target: Path) -> bool:
    snapshots, repository = root.parent, root.parent.parent
    if snapshots.name != "snapshots" or not repository.name.startswith("models--"):
        return False
    # The shared store: CACHE/blobs/<two digits>/<hash>.
    shared = (
        target.parent.parent == repository.parent / "blobs"
        and re.fullmatch(r"[0-9a-f]{64}", target.name) is not None
        and target.parent.name == target.name[:2]
    )
    return target.parent == repository / "blobs" or shared
