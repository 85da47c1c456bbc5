"""Makes tests/parity/data: hidden states of the reference implementation, to compare with.

Run it where torch and transformers are installed (the extra `parity`), from the repository's root::

    python -m tests.parity.generate --minilm DIRECTORY_OF_ALL_MINILM_L6_V2

Everything is drawn from fixed seeds and computed in float64. `make test` reads the files and needs
neither of the two packages.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

DATA = Path(__file__).parent / "data"

# Every field that changes the result is off its default, each by its own value.
TINY = {
    "bert-tanh": dict(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        hidden_act="gelu_new",
        max_position_embeddings=13,
        type_vocab_size=3,
        layer_norm_eps=1e-3,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.3,
        initializer_range=0.3,
        pad_token_id=5,
    ),
    "bert-erf": dict(
        vocab_size=37,
        hidden_size=20,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=33,
        hidden_act="gelu",
        max_position_embeddings=9,
        type_vocab_size=4,
        layer_norm_eps=1e-2,
        initializer_range=0.4,
        pad_token_id=2,
    ),
}

TEXTS = ("The power method finds the leading eigenvector.", "Tokens align, layer by layer!")
# Of MiniLM's 384 features every so many are kept, to keep the file small.
STRIDE = 6


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Biases and layer norms too: they start at 0 and 1, where a mistake would not show."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("LayerNorm.weight"):
            parameter.data = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise


def states(model: torch.nn.Module, ids: np.ndarray, present: np.ndarray, segments: np.ndarray):
    """Hidden states (layers + 1, batch, n, d) and the pooled output, in float64."""
    with torch.no_grad():
        output = model.double().eval()(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(present.astype(np.int64)),
            token_type_ids=torch.from_numpy(segments),
            output_hidden_states=True,
        )
    hidden = np.stack([state.numpy() for state in output.hidden_states])
    return hidden, None if output.pooler_output is None else output.pooler_output.numpy()


def tiny(name: str, fields: dict, seed: int) -> None:
    """A random model as transformers saves it, and what it computes on padded random texts."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = BertModel(BertConfig(**fields), add_pooling_layer=name == "bert-tanh")
    randomize(model, torch.Generator().manual_seed(seed))
    folder = DATA / name
    model.save_pretrained(folder)
    length = fields["max_position_embeddings"]
    ids = rng.integers(0, fields["vocab_size"], (3, length))
    segments = rng.integers(0, fields["type_vocab_size"], (3, length))
    present = np.arange(length) < np.array([[length], [length // 2], [1]])
    hidden, pooled = states(model, ids, present, segments)
    extra = {} if pooled is None else {"pooled": pooled}
    np.savez_compressed(
        folder / "expected.npz",
        ids=ids,
        present=present,
        segments=segments,
        hidden_states=hidden,
        **extra,
    )


def minilm(directory: Path) -> None:
    """The real model on real text, two texts of unequal length padded to one."""
    model = BertModel.from_pretrained(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = [tokenizer.encode(text).ids for text in TEXTS]
    length = max(map(len, encoded))
    ids = np.array([each + [0] * (length - len(each)) for each in encoded])
    present = np.array([[True] * len(each) + [False] * (length - len(each)) for each in encoded])
    hidden, pooled = states(model, ids, present, np.zeros_like(ids))
    np.savez_compressed(
        DATA / "minilm.npz",
        ids=ids,
        present=present,
        hidden_states=hidden[..., ::STRIDE],
        largest=np.abs(hidden).max(axis=(1, 2, 3)),
        pooled=pooled[..., ::STRIDE],
        stride=STRIDE,
    )


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="directory of the real model")
    arguments = parser.parse_args()
    for seed, (name, fields) in enumerate(TINY.items()):
        tiny(name, fields, seed)
    minilm(arguments.minilm)


if __name__ == "__main__":
    main()
