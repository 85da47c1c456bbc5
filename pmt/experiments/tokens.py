"""Initial tokens: random ones, or a user's own, validated and put on the sphere.

All in float64 on the host; the run's precision comes last. So runs in both precisions, on any
device, start from the same tokens.
"""

import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmt.errors import RequestError

# What NumPy raises on files that are damaged or of another kind.
_DAMAGED = (
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    SyntaxError,
    TokenError,
)


def random_tokens(prompts: int, n: int, d: int, seed: int) -> np.ndarray:
    """Standard normal tokens ``(prompts, n, d)``, normalised: uniform on the sphere.

    Raises:
      RequestError: a count that is not positive, a negative seed.
    """
    if min(prompts, n, d) < 1:
        raise RequestError(
            f"{prompts} prompts of {n} tokens of dimension {d} were asked for; "
            "all three must be at least 1"
        )
    if seed < 0:
        raise RequestError(f"the seed is {seed}; it must be an integer of at least 0")
    x = np.random.default_rng(seed).standard_normal((prompts, n, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def load_tokens(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in a ``.npy`` file, as it is stored.

    Raises:
      RequestError: a file that is not there, not readable, not in NumPy's format, or holds Python
        objects (which are pickles and never read).
    """
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror or error}") from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{file} is not a NumPy array file that can be read ({reason}); "
            "write it with numpy.save(FILE, array)"
        ) from error


def prepare_tokens(tokens: Any, d: int, dtype: Any) -> jax.Array:
    """Tokens ``(prompts, n, d)`` of any length but zero, as unit tokens of the run's dtype.

    Args:
      tokens: array of real numbers.
      d: the model's dimension.
      dtype: of the run.

    Raises:
      RequestError: wrong rank or dimension, not real numbers, NaN or infinity, a zero token.
    """
    given = np.asarray(tokens)
    if given.ndim != 3 or 0 in given.shape:
        raise RequestError(
            f"the tokens have shape {given.shape}; expected (prompts, n, d) with at least one of "
            "each: add an axis for a single prompt"
        )
    if given.shape[2] != d:
        raise RequestError(
            f"the tokens have dimension {given.shape[2]} (shape {given.shape}) but the model has "
            f"d = {d}"
        )
    if given.dtype.kind not in "fiu" and str(given.dtype) != "bfloat16":
        raise RequestError(f"the tokens are {given.dtype}; they must be real numbers")
    x = given.astype(np.float64)
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        prompt, token, entry = (int(index) for index in bad[0])
        raise RequestError(
            f"the tokens hold {x[prompt, token, entry]} at prompt {prompt}, token {token}, entry "
            f"{entry} ({len(bad)} non-finite in all, counted from 0); every entry must be finite"
        )
    largest = np.max(np.abs(x), axis=-1, keepdims=True)
    zero = np.argwhere(largest[..., 0] == 0)
    if len(zero):
        prompt, token = (int(index) for index in zero[0])
        raise RequestError(
            f"token {token} of prompt {prompt} is zero ({len(zero)} zero tokens in all, counted "
            "from 0) and has no direction; leave such tokens out"
        )
    # In two steps, so that squares of tiny or huge entries neither vanish nor overflow.
    x = x / np.ldexp(1.0, np.frexp(largest)[1] - 1)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), dtype)
