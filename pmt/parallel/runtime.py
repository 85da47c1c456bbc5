"""What of JAX's distributed runtime has no public name, and is used here nevertheless."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from pmt.errors import RequestError

# What is used of the runtime's client, the JAX that had it, and what makes the client.
_METHODS = (
    "key_value_set",
    "key_value_set_bytes",
    "key_value_try_get_bytes",
    "key_value_increment",
    "key_value_dir_get_bytes",
    "key_value_delete",
)
_TESTED = "0.10.2"
_MAKE = "get_distributed_runtime_client"


@contextmanager
def uncompressed(distributed: Any) -> Iterator[None]:
    """While the client is made, JAX's wish for compressed messages is not heeded.

    Compression takes a second for every 15 MB of states, whose mantissas are random, and sending
    them takes a tenth of that. A JAX that says its wish in another way is left as it is.

    Args:
      distributed: the module ``jax._src.distributed``.
    """
    library = getattr(distributed, "_jax", None)
    made: Any = getattr(library, _MAKE, None)

    def plain(*arguments: Any, **options: Any) -> Any:
        if "use_compression" in options:
            options["use_compression"] = False
        return made(*arguments, **options)

    if made is None:
        yield
        return
    setattr(library, _MAKE, plain)
    try:
        yield
    finally:
        setattr(library, _MAKE, made)


def require_methods(client: Any) -> None:
    """Refuses a client that has not what is used here.

    Raises:
      RequestError: naming what it has not.
    """
    for name in _METHODS:
        if not callable(getattr(client, name, None)):
            raise other_jax(name)


def other_jax(missing: str) -> RequestError:
    """What to say of a JAX in which something is missing."""
    return RequestError(
        f"JAX {jax.__version__} has no {missing}, which runs of several processes need; they were "
        f"tested with JAX {_TESTED}: install that one, or run it on one host"
    )
