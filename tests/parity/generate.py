"""Makes tests/parity/data: what the reference implementation computes, to compare with.

Run it where torch and transformers are installed (the extra `parity`), from the repository's root::

    python -m tests.parity.generate --minilm DIRECTORY_OF_ALL_MINILM_L6_V2

Everything is drawn from fixed seeds, weights are stored in float32, and all results are computed
from them in float64 (see `reference`). A second run writes the same bytes. `make test` reads the
files and needs neither of the two packages.

A folder of `data` holds a model as transformers saves it; where transformers 4 wrote the config in
another form, that form too, as `older.json`; and `expected.npz` with

- `ids`, `present` (batch, n): three texts of unequal length, padded on the right; `segments` too
  for BERT and ALBERT;
- `hidden_states` (layers + 1, batch, n, d): what enters the first layer and what leaves each. In
  pre-norm families (GPT-2, GPT-Neo, Llama, Mistral, Qwen2, GPT-NeoX) the last is the state BEFORE
  the final norm, and `final` (batch, n, d) is the state after it. ALBERT's inner layers count as
  layers, as they do in what transformers itself records;
- `logits` (batch, n, vocabulary) of the language-model head, `pooled` (batch, d), where they exist.

Only what is at tokens that are `present` is to be compared: at the others the reference's results
depend on how it treats a row of the attention that has nothing to see, so zeros are stored there.
(The two models without a head, bert-tanh and bert-erf, and MiniLM have the reference's own.)
"""

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from tests.parity.configs import SEEDS, TINY
from tests.parity.reference import compute, load
from tests.parity.tiny import Tiny

DATA = Path(__file__).parent / "data"

TEXTS = ("The power method finds the leading eigenvector.", "Tokens align, layer by layer!")
# Of MiniLM's 384 features every so many are kept, to keep the file small.
STRIDE = 8


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Biases and norms too: they start at 0 and 1, where a mistake would not show."""
    norms = {
        f"{name}.weight"
        for name, part in model.named_modules()
        if type(part).__name__[-4:] == "Norm"
    }
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name in norms:
            parameter.data = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise


def texts(tiny: Tiny, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three random texts of unequal length, padded with whatever comes."""
    shape = (3, tiny.length)
    given = {"ids": rng.integers(0, tiny.fields["vocab_size"], shape)}
    given["present"] = np.arange(tiny.length) < np.array(tiny.lengths)[:, None]
    if tiny.segments:
        given["segments"] = rng.integers(0, tiny.segments, shape)
    if tiny.cls.startswith("Roberta"):
        # The ids decide about positions here, so the padding is the padding token; one in the
        # middle of the first text takes no position either.
        padding = tiny.fields["pad_token_id"]
        ids = given["ids"]
        ids[ids == padding] += 1
        ids[~given["present"]] = padding
        ids[0, 2] = padding
    return given


def write(name: str, tiny: Tiny, seed: int) -> None:
    """A random model as transformers saves it, and what it computes."""
    torch.manual_seed(seed)
    kind = getattr(transformers, tiny.cls)
    model = kind(kind.config_class(**tiny.fields), **(tiny.options or {}))
    randomize(model, torch.Generator().manual_seed(seed))
    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    # Settings of text generation, which are no part of the model.
    (folder / "generation_config.json").unlink(missing_ok=True)
    given = texts(tiny, np.random.default_rng(seed))
    result = expected(folder, tiny, given)
    np.savez_compressed(folder / "expected.npz", **given, **result)
    if tiny.older is not None:
        config = json.loads((folder / "config.json").read_text())
        config = {k: v for k, v in config.items() if k not in tiny.older.drop} | tiny.older.put
        (folder / "older.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        with older(folder) as copy:
            same = expected(copy, tiny, given)
        if any(not np.array_equal(same[key], value) for key, value in result.items()):
            raise ValueError(f"{name}: the older form of the config means something else")


@contextlib.contextmanager
def older(folder: Path) -> Iterator[Path]:
    """A copy of a folder whose config.json is its older.json."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / "older.json", Path(copy) / "config.json")
        shutil.copy(folder / "model.safetensors", copy)
        yield Path(copy)


def expected(folder: Path, tiny: Tiny, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a saved model computes, with nothing at padded positions where `tiny` has a head."""
    model = load(folder, **(tiny.options or {}))
    result = compute(model, given["ids"], given["present"], given.get("segments"))
    if tiny.cls != "BertModel":
        for name in {"hidden_states", "final", "logits"} & set(result):
            result[name] = np.where(given["present"][..., None], result[name], 0)
    return result


def real_texts(directory: Path) -> dict[str, np.ndarray]:
    """Two real texts of unequal length as MiniLM's tokenizer has them, padded to one."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = [tokenizer.encode(text).ids for text in TEXTS]
    length = max(map(len, encoded))
    ids = np.array([each + [0] * (length - len(each)) for each in encoded])
    present = np.array([[True] * len(each) + [False] * (length - len(each)) for each in encoded])
    return {"ids": ids, "present": present}


def minilm(directory: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the real model computes from `real_texts`, all features of it."""
    return compute(load(directory, cls="BertModel"), given["ids"], given["present"], None)


def thinned(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of MiniLM's results what is stored, and the largest entry of each whole layer."""
    hidden = result["hidden_states"]
    return {
        "hidden_states": hidden[..., ::STRIDE],
        "largest": np.abs(hidden).max(axis=(1, 2, 3)),
        "pooled": result["pooled"][..., ::STRIDE],
        "stride": np.array(STRIDE),
    }


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="directory of the real model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name, tiny in TINY.items():
        write(name, tiny, SEEDS[name])
    given = real_texts(arguments.minilm)
    np.savez_compressed(DATA / "minilm.npz", **given, **thinned(minilm(arguments.minilm, given)))


if __name__ == "__main__":
    main()
