"""Fault 78, device out of memory: recognised by one rule, and half as much at a time."""

import jax
import jax.numpy as jnp
import pytest

from pmt.errors import RequestError
from pmt.memory import Parts, is_out_of_memory

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 16106127360 bytes."


def test_only_the_device_says_so():
    assert is_out_of_memory(jax.errors.JaxRuntimeError(OUT_OF_MEMORY))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: something else"))
    assert not is_out_of_memory(ValueError(OUT_OF_MEMORY))
    assert not is_out_of_memory(MemoryError())


def test_jax_raises_what_is_recognised():
    with pytest.raises(Exception, match=r"RESOURCE_EXHAUSTED") as raised:
        # Far beyond any address space that is lent out.
        jax.block_until_ready(jax.jit(lambda: jnp.ones((2**30, 2**17)))())
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 100])
def test_rows_are_all_done_once_with_as_many_at_a_time_as_fit(fits):
    done, refused = [], []

    def work(rows):
        if rows.stop - rows.start > fits:
            refused.append(rows)
            raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)
        done.extend(range(rows.start, rows.stop))
        return rows

    parts = Parts()
    parts.run(11, work)
    assert done == list(range(11)) and len(refused) <= 4
    assert parts.size is None if fits > 10 else parts.size <= fits
    # What was learned is kept.
    refused.clear()
    assert [rows.start for rows in parts.run(11, work)] == list(range(0, 11, parts.size or 11))
    assert refused == []


def test_what_does_not_fit_alone_and_other_errors_are_raised():
    def too_large(_rows):
        raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)

    def wrong(_rows):
        raise RequestError("no")

    with pytest.raises(jax.errors.JaxRuntimeError):
        Parts().run(8, too_large)
    parts = Parts()
    with pytest.raises(RequestError):
        parts.run(8, wrong)
    assert parts.size is None
