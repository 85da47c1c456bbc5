"""One view for reading and for writing: it must be a view, and the parts must cover the tensor."""

import numpy as np
import pytest

from pmt.models.layouts import (
    AS_IS,
    CONV_OUT_OF_HEADS,
    INTO_HEADS,
    OUT_OF_HEADS,
    TRANSPOSED,
    conv_part,
    interleaved_part,
)

H, K, D = 3, 2, 5
WHOLE = {
    "as it is": ([AS_IS], (D, 7)),
    "transposed": ([TRANSPOSED], (D, 7)),
    "into heads": ([INTO_HEADS], (H, K, D)),
    "into heads, bias": ([INTO_HEADS], (H, K)),
    "out of heads": ([OUT_OF_HEADS], (H, D, K)),
    "conv out of heads": ([CONV_OUT_OF_HEADS], (H, D, K)),
    "conv parts": ([conv_part(i) for i in range(3)], (H, K, D)),
    "conv parts, bias": ([conv_part(i) for i in range(3)], (H, K)),
    "interleaved parts": ([interleaved_part(i) for i in range(3)], (H, K, D)),
    "interleaved parts, bias": ([interleaved_part(i) for i in range(3)], (H, K)),
}


@pytest.mark.parametrize(("layouts", "shape"), WHOLE.values(), ids=WHOLE.keys())
def test_the_views_of_a_tensor_are_views_and_share_it_out_exactly(layouts, shape):
    stored = np.zeros(layouts[0].stored(shape))
    for part, layout in enumerate(layouts):
        view = layout.view(stored, shape)
        assert view.shape == shape
        assert np.shares_memory(view, stored)
        view += part + 1
    values, counts = np.unique(stored, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(len(layouts)) + 1.0)
    np.testing.assert_array_equal(counts, np.prod(shape))


def test_fault_34_the_order_of_fused_queries_keys_and_values():
    """GPT-2: all queries, all keys, all values. GPT-NeoX: each head's own three together."""
    names = np.array([[[f"{what}{h}{k}" for k in range(K)] for h in range(H)] for what in "qkv"])
    conv = names.reshape(-1)
    interleaved = names.transpose(1, 0, 2).reshape(-1)
    for part in range(3):
        np.testing.assert_array_equal(conv_part(part).view(conv, (H, K)), names[part])
        np.testing.assert_array_equal(interleaved_part(part).view(interleaved, (H, K)), names[part])
