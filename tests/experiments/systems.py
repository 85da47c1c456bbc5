"""Small stacks of layers for the tests."""

import jax.numpy as jnp
import numpy as np

from pmt.dynamics import LayerStack, MultiHead


def random_stack(*, layers=3, h=2, k=3, d=6, biases=False, seed=0, dtype=jnp.float64):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(d), dtype)

    def layer():
        added = {}
        if biases:
            added = {f"{name}_bias": draw(h, k) for name in ("query", "key", "value")}
            added["output_bias"] = draw(d)
        return MultiHead(
            query=3 * draw(h, k, d),
            key=3 * draw(h, k, d),
            value=draw(h, k, d),
            output=draw(h, d, k),
            **added,
        )

    return LayerStack.from_layers([layer() for _ in range(layers)])


def stack_of(*matrices, dtype=jnp.float64, logits=0.0):
    """Layers with the given F and one head whose logits are ``logits`` times x_i . x_j."""
    d = len(matrices[0])
    eye = np.eye(d)[None]
    return LayerStack.from_layers(
        [
            MultiHead(
                query=jnp.asarray(logits * eye, dtype),
                key=jnp.asarray(eye, dtype),
                value=jnp.asarray(np.asarray(f)[None], dtype),
                output=jnp.asarray(eye, dtype),
                scale=1.0,
            )
            for f in matrices
        ]
    )
