"""From a checkpoint's config.json to a frozen config, with nothing in it passed over."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from pmt.errors import RequestError

Config = TypeVar("Config")

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
        "pad_token_id",
        "sep_token_id",
        # Heads on top of the encoder are not part of it.
        "id2label",
        "label2id",
        "problem_type",
        "tie_word_embeddings",
    }
)


def build_config(
    kind: Callable[..., Config],
    raw: Mapping[str, Any],
    *,
    harmless: Collection[str],
    only: Mapping[str, tuple[Any, ...]],
) -> Config:
    """The config of a family from the parsed config.json.

    Args:
      kind: a frozen dataclass whose fields are the attributes that the family handles, named as
        in config.json; it checks its values itself. Absent ones keep their defaults.
      raw: the parsed file.
      harmless: attributes that do not change what the model computes.
      only: attribute -> the values of it that the family handles.

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
        elif name not in harmless:
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
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
