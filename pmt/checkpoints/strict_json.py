"""JSON as the standard has it: what Python's parser lets pass in silence is refused."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, parse_int: Callable[[str], int] = int) -> Any:
    """The value of a UTF-8 JSON text.

    Refused besides what Python's parser refuses: a byte order mark, a key that an object holds
    twice, NaN and infinities, numbers that overflow to one, half a pair of surrogates (which has
    no form in UTF-8), and nesting deeper than the stack.

    Raises:
      ValueError: with the reason, short enough to stand in parentheses.
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=parse_int,
        )
        # Only an escape can hold one.
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a pair of surrogates, which is no text") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name!r} is there twice")
            seen.add(name)
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text[:40]}, which is too large a number")
    return number
