"""Small layers for the tests, and what theory.md says of them with explicit inverses."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from pmt.dynamics import MultiHead


def random_layer(*, h=3, k=2, d=6, biases=False, seed=0, dtype="float64", alpha=1.0, mask="full"):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(d), dtype)

    added = {}
    if biases:
        added = {f"{name}_bias": draw(h, k) for name in ("query", "key", "value")}
        added["output_bias"] = draw(d)
    return MultiHead(
        query=3 * draw(h, k, d),
        key=3 * draw(h, k, d),
        value=draw(h, k, d),
        output=draw(h, d, k),
        alpha=jnp.asarray(alpha, dtype),
        scale=jnp.asarray(k**-0.5, dtype),
        mask=mask,
        **added,
    )


def layer_with(matrix):
    """One head with V = I, so that F is the matrix."""
    d = len(matrix)
    eye = jnp.eye(d)[None]
    return MultiHead(
        query=0.0 * eye, key=eye, value=eye, output=jnp.asarray(matrix)[None], alpha=1.0, scale=1.0
    )


def grouped(layer, repeats=3):
    """The layer with the first value head for all of them."""
    return replace(layer, value=jnp.repeat(layer.value[:1], repeats, axis=0))


def stacked(layer):
    """V (h k, d) and O (d, h k) by loops."""
    value = np.concatenate([np.asarray(v, np.float64) for v in layer.value])
    output = np.concatenate([np.asarray(o, np.float64) for o in layer.output], axis=1)
    return value, output


def tokens(batch=4, n=5, d=6, seed=1):
    x = np.random.default_rng(seed).normal(size=(batch, n, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
