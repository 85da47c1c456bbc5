"""Tokenizers of checkpoints that have no tokenizer.json, from the vocabularies they have instead.

Some checkpoints on the Hub, EleutherAI/gpt-neo-1.3B and -2.7B among them, have only the files of
transformers' Python tokenizers: vocab.txt (BERT, DistilBERT), or vocab.json and merges.txt (GPT-2,
GPT-Neo, RoBERTa).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pmt.checkpoints import Checkpoint
from pmt.checkpoints.strict_json import parse_json
from pmt.errors import RequestError

_WORDS, _BYTES = ("vocab.txt",), ("vocab.json", "merges.txt")
_SETTINGS = "tokenizer_config.json"
_LARGEST_SETTINGS = 2**20

Find = Callable[[str], Path | None]


def from_vocabulary(checkpoint: Checkpoint) -> Any | None:
    """A ``tokenizers.Tokenizer`` as transformers would make it, or None where there are no files.

    BERT and DistilBERT: WordPiece, lower-case unless tokenizer_config.json says otherwise, between
    [CLS] and [SEP]. GPT-2 and GPT-Neo: byte-level byte-pair encoding, with nothing added unless
    ``add_bos_token`` asks for it. RoBERTa: the same between <s> and </s>.

    Raises:
      RequestError: files that are not valid, or a link that leaves the directory.
    """
    kinds: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
        "bert": (_WORDS, _word_pieces),
        "distilbert": (_WORDS, _word_pieces),
        "gpt2": (_BYTES, _byte_pairs),
        "gpt_neo": (_BYTES, _byte_pairs),
        "roberta": (_BYTES, _byte_pairs_between),
    }
    family = checkpoint.config().get("model_type")
    if not isinstance(family, str) or family not in kinds:
        return None
    names, build = kinds[family]
    paths = [path for path in map(checkpoint.file, names) if path is not None]
    if len(paths) < len(names):
        return None
    settings = _settings(checkpoint.file(_SETTINGS))
    try:
        return build(settings, *map(str, paths))
    except RequestError:
        raise
    # The library raises bare exceptions.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{' and '.join(map(str, paths))} are not a valid vocabulary ({reason}); "
            "fetch the checkpoint again"
        ) from error


def _word_pieces(settings: Mapping[str, Any], vocabulary: str) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    unknown = _token(settings, "unk_token", "[UNK]")
    fast = Tokenizer(models.WordPiece.from_file(vocabulary, unk_token=unknown))
    fast.normalizer = normalizers.BertNormalizer(
        lowercase=_flag(settings, "do_lower_case", True),
        handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
    )
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = _token(settings, "cls_token", "[CLS]"), _token(settings, "sep_token", "[SEP]")
    others = [_token(settings, "pad_token", "[PAD]"), _token(settings, "mask_token", "[MASK]")]
    _know(fast, unknown, first, last, *others)
    fast.post_processor = _between(fast, first, last)
    return fast


def _byte_pairs(settings: Mapping[str, Any], vocabulary: str, merges: str) -> Any:
    fast = _bytes(settings, vocabulary, merges)
    first = _token(settings, "bos_token", "<|endoftext|>")
    others = [_token(settings, name, "<|endoftext|>") for name in ("eos_token", "unk_token")]
    _know(fast, first, *others)
    if _flag(settings, "add_bos_token", False):
        fast.post_processor = _between(fast, first)
    return fast


def _byte_pairs_between(settings: Mapping[str, Any], vocabulary: str, merges: str) -> Any:
    fast = _bytes(settings, vocabulary, merges)
    first, last = _token(settings, "cls_token", "<s>"), _token(settings, "sep_token", "</s>")
    others = [_token(settings, "pad_token", "<pad>"), _token(settings, "unk_token", "<unk>")]
    _know(fast, first, last, *others, _token(settings, "mask_token", "<mask>"))
    fast.post_processor = _between(fast, first, last)
    return fast


def _bytes(settings: Mapping[str, Any], vocabulary: str, merges: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    fast = Tokenizer(models.BPE.from_file(vocabulary, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=_flag(settings, "add_prefix_space", False)
    )
    fast.decoder = decoders.ByteLevel()
    return fast


def _between(fast: Any, first: str, last: str | None = None) -> Any:
    """Adds a token in front, and one behind if it is given."""
    from tokenizers import processors

    names = [first] if last is None else [first, last]
    missing = [name for name in names if fast.token_to_id(name) is None]
    if missing:
        raise RequestError(
            f"the vocabulary has no {missing[0]!r}, which the tokenizer adds to every text; fetch "
            "the checkpoint again"
        )
    pattern = " ".join([first, "$A", *names[1:]])
    return processors.TemplateProcessing(
        single=pattern, special_tokens=[(name, fast.token_to_id(name)) for name in names]
    )


def _know(fast: Any, *names: str) -> None:
    """Tokens that are found in a text as they stand, of those that are in the vocabulary."""
    fast.add_special_tokens([n for n in dict.fromkeys(names) if fast.token_to_id(n) is not None])


def _settings(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            settings = parse_json(file.read(_LARGEST_SETTINGS))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(settings, dict):
        raise RequestError(f"{path} is not a JSON object; fetch it again")
    return settings


def _token(settings: Mapping[str, Any], name: str, default: str) -> str:
    """A special token's text: written as such, or as an object with its properties."""
    value = settings.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default


def _flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    value = settings.get(name)
    return value if isinstance(value, bool) else default
