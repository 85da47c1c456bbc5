"""From a checkpoint's config.json to a frozen config, with nothing in it passed over."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pmt.errors import RequestError

Config = TypeVar("Config")


@dataclass(frozen=True)
class Dimensions:
    """The sizes that every family has, under one name each.

    Attributes:
      d: width of the residual stream.
      heads: of a layer; key_value_heads: those that they share, ``heads`` where none is shared.
      head_dim: k.
      layers: how often a block is applied.
      vocabulary, segments: how many token ids and segments there are.
      positions: the longest text, or None where nothing bounds it.
    """

    d: int
    heads: int
    key_value_heads: int
    head_dim: int
    layers: int
    vocabulary: int
    segments: int = 1
    positions: int | None = None


# What every family's config may hold without changing what the model computes from given tokens.
HARMLESS = frozenset(
    {
        # Where it comes from.
        "_name_or_path",
        "architectures",
        "finetuning_task",
        "model_type",
        "transformers_version",
        # Training, and the form of what a call returns.
        "gradient_checkpointing",
        "initializer_range",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "return_dict",
        "torchscript",
        "use_cache",
        # How it is stored; the tensors say so themselves.
        "dtype",
        "torch_dtype",
        # Special tokens belong to the tokenizer.
        "bos_token_id",
        "eos_token_id",
        "cls_token_id",
        "decoder_start_token_id",
        "pad_token_id",
        "prefix",
        "sep_token_id",
        "tokenizer_class",
        # Heads on top of the model that are not read.
        "id2label",
        "label2id",
        "problem_type",
        "task_specific_params",
        # Generation.
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "tf_legacy_loss",
        "top_k",
        "top_p",
        "typical_p",
        "use_bfloat16",
    }
)

# Attributes that any config may hold, with the values that change nothing.
COMMON: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "add_cross_attention": (False,),
        "cross_attention_hidden_size": (None,),
        "is_decoder": (False,),
        "is_encoder_decoder": (False,),
        "pruned_heads": ({}, None),
        "quantization_config": (None,),
    }
)


def build_config(
    kind: Callable[..., Config],
    raw: Mapping[str, Any],
    *,
    harmless: Collection[str],
    only: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
) -> Config:
    """The config of a family from the parsed config.json.

    Args:
      kind: a frozen dataclass whose fields are the attributes that the family handles, named as
        in config.json; it checks its values itself. Absent ones keep their defaults.
      raw: the parsed file.
      harmless: attributes of this family that do not change what the model computes, besides
        those in ``HARMLESS``.
      only: attribute -> the values of it that the family handles, besides those in ``COMMON``.

    Raises:
      RequestError: an attribute that is none of these, or a value that is not handled; all of
        them in one sentence.
    """
    if raw.get("auto_map"):
        raise RequestError(
            "the checkpoint asks for code from its own repository (auto_map), which is never run; "
            f"give one of the architectures that pmt has itself, not {raw.get('architectures')}"
        )
    handled = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    only = {**COMMON, **only}
    offenders = []
    for name, value in raw.items():
        if name in only:
            if not any(value == one and type(value) is type(one) for one in only[name]):
                wanted = " or ".join(repr(one) for one in only[name])
                offenders.append(f"{name} is {value!r}, supported is {wanted}")
        elif name in handled:
            if not _is_a(value, handled[name].type):
                kind_of_field = getattr(handled[name].type, "__name__", handled[name].type)
                offenders.append(f"{name} is {value!r}, which is no {kind_of_field}")
        elif name not in HARMLESS and name not in harmless:
            offenders.append(f"{name} is unknown here")
    missing = [
        name
        for name, field in handled.items()
        if field.default is MISSING and field.default_factory is MISSING and name not in raw
    ]
    offenders += [f"{name} is missing" for name in missing]
    if offenders:
        raise RequestError(
            f"the model's config cannot be honoured ({'; '.join(offenders)}); "
            "its results would silently differ from the original's"
        )
    given = {name: raw[name] for name in handled if name in raw}
    return kind(**{k: float(v) if handled[k].type is float else v for k, v in given.items()})


def require_known(name: str, value: str, known: Collection[str]) -> None:
    """Refuse a choice that a family does not have, such as an activation.

    Raises:
      RequestError: naming the attribute and what is supported.
    """
    if value not in known:
        raise RequestError(f"{name} is {value!r} in the config; supported are {', '.join(known)}")


def require_divides(heads: int, width: int) -> None:
    """Refuse heads that do not divide the width.

    Raises:
      RequestError: naming both.
    """
    if width % heads:
        raise RequestError(
            f"{heads} attention heads do not divide the width {width}; "
            "check that the config is that of the checkpoint"
        )


def require_positive(config: Any, *names: str) -> None:
    """Refuse a config with a size, an epsilon or the like that is not positive and finite.

    Raises:
      RequestError: naming the attribute.
    """
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise RequestError(f"{name} is {value!r} in the config; it must be positive")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a field's type; 1 is a real number too, true is not."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))
