"""Random instances that satisfy hypotheses by construction, in three classes.

``generic``; ``boundary``: a strict inequality of the hypotheses holds by a hair; ``nearly
degenerate``: nearly equal, repeated or nearly vanishing eigenvalues, nearly equal tokens, nearly
vanishing attention. Nothing is ever drawn and thrown away. The functions are pure JAX for one
instance; batches come from ``vmap``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pmt import attention
from pmt.dynamics import MultiHead, Oja, SingleHead
from pmt.numerics import einsum
from pmt.stability import spectrum
from theory.noise import NORMALS, UNIFORMS, Noise, Raw
from theory.statement import Case, Hypotheses, Shape

KINDS = ("generic", "boundary", "nearly degenerate")
GENERIC, BOUNDARY, DEGENERATE = range(3)

# Half of the instances are generic.
_PATTERN = np.array([GENERIC, BOUNDARY, GENERIC, DEGENERATE])


def kinds(count: int) -> np.ndarray:
    """The class of every instance in a batch: fixed shares, so that each class is in each batch."""
    return np.resize(_PATTERN, count)


def draw(hypotheses: Hypotheses, source: Raw, kind: Any, shape: Shape) -> dict[str, Array]:
    """One instance of the class ``kind`` (an index into ``KINDS``) from its random numbers."""
    return _draw(hypotheses, Noise(source), kind, shape)


def taken(hypotheses: Hypotheses, shape: Shape) -> tuple[int, int]:
    """How many uniform and how many normal numbers an instance takes, by tracing it."""
    found: list[tuple[int, int]] = []

    def traced(source: Raw) -> dict[str, Array]:
        noise = Noise(source)
        case = _draw(hypotheses, noise, GENERIC, shape)
        found.append(noise.taken)
        return case

    numbers = [jnp.zeros(size, jnp.result_type(float)) for size in (UNIFORMS, NORMALS)]
    jax.eval_shape(traced, Raw(*numbers))
    return found[0]


def _draw(hypotheses: Hypotheses, noise: Noise, kind: Any, shape: Shape) -> dict[str, Array]:
    case: dict[str, Array] = {}
    for piece in hypotheses.pieces:
        case |= piece.draw(noise, kind, shape, case)
    # Explicit instances have these types, and share what is compiled for the drawn ones.
    return {name: _typed(value) for name, value in case.items()}


def _typed(value: Array) -> Array:
    whole = jnp.issubdtype(value.dtype, jnp.integer)
    return lax.convert_element_type(value, jnp.int32 if whole else jnp.result_type(float))


def mask_of(shape: Shape) -> Any:
    """The mask that a shape names."""
    if shape.mask == "window":
        return attention.LocalWindow(2)
    if shape.mask == "others":
        return attention.Boolean(jnp.asarray(~np.eye(shape.n, dtype=bool)))
    return attention.as_mask(shape.mask)


def attention_eigenvalues(shape: Shape) -> Float[Array, " n"]:
    """The spectrum of the attention matrix at consensus; all of it is real for these masks."""
    mask, dtype = mask_of(shape), jnp.result_type(float)
    if shape.mask == "others":
        return jnp.linalg.eigvalsh(attention.uniform_weights(shape.n, mask, dtype))
    return spectrum.attention_spectrum(mask, shape.n, dtype)


def value_matrix(case: Case) -> Float[Array, "d d"]:
    """V: given as such, or from eigenvalues and the frame of eigenvectors (columns)."""
    if "value" in case:
        return case["value"]
    scaled = case["frame"] * case["eigenvalues"][None, :]
    matrix = einsum("ak,bk->ab", scaled, case["frame"])
    return (matrix + matrix.T) / 2.0


def oja(shape: Shape, case: Case) -> Oja:
    """The Oja system of an instance."""
    return Oja(value=value_matrix(case), alpha=case["alpha"], mask=mask_of(shape))


def single_head(shape: Shape, case: Case) -> SingleHead:
    """The single-head softmax system of an instance."""
    return SingleHead(
        value=value_matrix(case),
        query_key=case["query_key"],
        alpha=case["alpha"],
        mask=mask_of(shape),
    )


def multi_head(shape: Shape, case: Case) -> MultiHead:
    """The multi-head system of an instance, from its F_h and B_h."""
    return MultiHead.from_maps(
        value_output=case["heads"],
        query_key=case["query_keys"],
        alpha=case["alpha"],
        mask=mask_of(shape),
    )


def signed_state(case: Case) -> Float[Array, "n d"]:
    """x_i = s_i v."""
    return case["signs"][:, None] * case["direction"][None, :]


def principal_eigenvalue(case: Case) -> Float[Array, ""]:
    """λ_k at the index of the instance."""
    return case["eigenvalues"][case["index"]]


def other_indices(case: Case) -> Array:
    """All l ≠ k, in cyclic order after k."""
    d = case["eigenvalues"].shape[0]
    index = jnp.asarray(case["index"])
    return (index + 1 + jnp.arange(d - 1, dtype=index.dtype)) % d


def other_eigenvalues(case: Case) -> Float[Array, " p"]:
    """λ_l, l ≠ k."""
    return case["eigenvalues"][other_indices(case)]


def group_sizes(case: Case) -> tuple[Array, Array]:
    """(n_1, n_2): the numbers of positive and of negative signs."""
    positive = jnp.sum(jnp.where(case["signs"] > 0, 1.0, 0.0))
    return positive, case["signs"].shape[0] - positive


def spectrum_of(case: Case) -> Float[Array, " d"]:
    """The eigenvalues of a symmetric V, decreasing."""
    if "eigenvalues" in case:
        return case["eigenvalues"]
    return jnp.linalg.eigvalsh((case["value"] + case["value"].T) / 2.0)[::-1]


def norm_of(case: Case) -> Float[Array, ""]:
    """|V|, the largest modulus of an eigenvalue of a symmetric V."""
    return jnp.max(jnp.abs(spectrum_of(case)))


def theta_of(case: Case) -> Float[Array, ""]:
    """θ_k = v_kᵀ B v_k."""
    return einsum("a,ab,b->", case["direction"], case["query_key"], case["direction"])
