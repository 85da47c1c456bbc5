"""Eqs. (1) to (3) and (21), Supplementary A: a layer, its matrix F, and shared weights."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.dynamics import LayerStack, MultiHead
from pmt.numerics import einsum
from theory import hypotheses as hyp
from theory import linearization as lin
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import Margin, every, identity
from theory.noise import Noise
from theory.oja import PAPER
from theory.statement import (
    Case,
    Clause,
    Explicit,
    Form,
    Hypotheses,
    Piece,
    Shape,
    Statement,
    Twin,
    numbered,
)

_REPEATS = 3


def _system(case: Case) -> MultiHead:
    """The layer, with the logit scale 1/sqrt(k) that it has if none is given."""
    return MultiHead(
        query=case["query"],
        key=case["key"],
        value=case["value_weights"],
        output=case["output_weights"],
        alpha=case["alpha"],
    )


def _attention(case: Case, head: int) -> Array:
    """A_h = softmax(Xᵀ Q_hᵀ K_h X / sqrt(k)) row by row, X with tokens as columns."""
    x = case["x"].T
    logits = x.T @ case["query"][head].T @ case["key"][head] @ x * case["scale"]
    weights = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def attention_block(case: Case) -> Array:
    """MHA(X) = O [V_1 X A_1ᵀ; ...; V_H X A_Hᵀ], tokens as columns, O = [O_1 ... O_H]."""
    x = case["x"].T
    heads = case["query"].shape[0]
    rows = [case["value_weights"][h] @ x @ _attention(case, h).T for h in range(heads)]
    output = jnp.concatenate(list(case["output_weights"]), axis=1)
    return output @ jnp.concatenate(rows)


def _magnitude(case: Case) -> tuple[Array, Array]:
    """How large the update can be, and how rounding of the logits grows."""
    size = jnp.sqrt(jnp.sum(case["value_weights"] ** 2)) * lin.frobenius(case["output_weights"])
    return size, 1.0 + lin.frobenius(case["query"]) * lin.frobenius(case["key"])


def _written_out(shape: Shape, case: Case) -> Margin:
    """Supplementary A: the attention block, F three ways, the row convention, and one layer."""
    system, x = _system(case), case["x"]
    size, logits = _magnitude(case)
    h, k, d = shape.h, shape.d // shape.h, shape.d
    stacked = case["value_weights"].reshape(h * k, d)
    output = jnp.concatenate(list(case["output_weights"]), axis=1)
    # V_h in block row h of an otherwise zero matrix.
    rows = jnp.arange(h * k) // k
    padded = [jnp.where((rows == head)[:, None], stacked, 0.0) for head in range(h)]
    block = attention_block(case)
    summed = sum(
        (output @ padded[head] @ x.T @ _attention(case, head).T for head in range(h)),
        jnp.zeros_like(block),
    )
    # The ML convention: row tokens, W_V = [W_V^1 ... W_V^H] and W_O with F = (W_V W_O)ᵀ.
    row_map = stacked.T @ output.T
    y = x.T + case["alpha"] * block
    moved = y / jnp.sqrt(jnp.sum(y * y, axis=0, keepdims=True))
    shortest = jnp.min(sphere.norm(y.T))
    amplification = (1.0 + case["alpha"] * size) / shortest

    def vanishes(error: Array, scale: Array, conditioning: Any = 1.0) -> Margin:
        return identity(error, scale=scale, size=shape.n * d, conditioning=conditioning)

    return every(
        vanishes(block.T - system.update(x), size, logits),
        vanishes(summed - block, size, logits),
        vanishes(system.layer_matrix - output @ stacked, size),
        vanishes(system.layer_matrix - sum(output @ p for p in padded), size),
        vanishes(system.layer_matrix - row_map.T, size),
        vanishes(moved.T - system(x), 1.0 + amplification, amplification * logits),
    )


def _equal_tokens_use_f(shape: Shape, case: Case) -> Margin:
    """With equal tokens attention drops out: the layer adds alpha F x."""
    x = jnp.broadcast_to(case["x"][:1], case["x"].shape)
    system = _system(case)
    size, logits = _magnitude(case)
    error = system.update(x) - einsum("ab,ib->ia", system.layer_matrix, x)
    return identity(error, scale=size, size=shape.n * shape.d, conditioning=logits)


def _weights() -> Piece:
    """Q_h, K_h, V_h (k × d) and O_h (d × k); k = d/H; the logit scale 1/sqrt(k).

    Boundary: small steps. Nearly degenerate: almost no logits.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        h, k, d = shape.h, shape.d // shape.h, shape.d
        size = jnp.where(kind == DEGENERATE, noise.hair(), noise.log_uniform(0.1, 1.5))
        return {
            "query": size * noise.normal(h, k, d),
            "key": noise.normal(h, k, d),
            "value_weights": noise.normal(h, k, d),
            "output_weights": noise.normal(h, d, k),
            "scale": jnp.asarray(1.0 / np.sqrt(k)),
            "alpha": jnp.where(kind == BOUNDARY, noise.hair(), noise.log_uniform(0.1, 2.0)),
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        wanted = 1.0 / np.sqrt(shape.d // shape.h)
        return {
            "logit scale 1/sqrt(k)": identity(case["scale"] - wanted, scale=1.0, size=1).value,
            "alpha > 0": case["alpha"] / (1.0 + case["alpha"]),
        }

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.max(jnp.abs(case["query"]))

    return Piece(draw, margins, degeneracy)


def _example(scale: float) -> dict[str, np.ndarray]:
    eye = np.eye(4)
    return {
        "query": 2.0 * eye.reshape(2, 2, 4),
        "key": eye.reshape(2, 2, 4),
        "value_weights": eye[::-1].reshape(2, 2, 4).copy(),
        "output_weights": np.stack([eye[:, :2], eye[:, 2:]]),
        "scale": np.array(scale),
        "alpha": np.array(1.0),
        "x": np.array([[0.6, 0.8, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 0.6, 0.8]]),
    }


@numbered
def equation_1() -> Statement:
    """A layer, and the layer matrix."""
    clause = Clause(
        name="the layer",
        text="MHA(X) = O [V_h X A_h']_h = sum_h O Vbar_h X A_h', F = O V = sum_h O Vbar_h = "
        "(W_V W_O)', and x + alpha MHA, normalized, is the map of the package (rows for columns)",
        hypotheses=Hypotheses((_weights(), hyp.tokens()), (Shape(3, 4, 2),)),
        conclusion=_written_out,
        twin=Twin(
            "logit scale 1/sqrt(k)",
            Explicit(
                name="logits without a scale",
                text="two heads, d = 4, logits x'Q'Kx not divided by sqrt(2)",
                shape=Shape(3, 4, 2),
                case=_example(1.0),
            ),
        ),
    )
    return Statement(
        id="equation-1",
        source=f"Eq. (1) and Supplementary A, {PAPER}",
        text="A layer without its feed-forward block, and the layer matrix F.",
        paper=Form(
            text="as read: x_i+ = N(x_i + sum_h O_h sum_j a_ij^h V_h x_j), F = sum_h O_h V_h = O V,"
            " A_h = softmax(X'Q_h'K_h X/sqrt(d_h)) row by row, O = W_O', V_h = (W_V^h)'.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper. With row tokens F = (concat_h W_V^h W_O)': right eigenvectors of"
            " F are left ones of W_V W_O. On equal tokens the layer adds alpha F x.",
            expected="supported",
            clauses=(
                clause,
                Clause(
                    name="equal tokens",
                    text="attention drops out where all tokens are equal",
                    hypotheses=clause.hypotheses,
                    conclusion=_equal_tokens_use_f,
                ),
            ),
        ),
    )


def _repeats(shape: Shape, case: Case) -> Margin:
    """A stack of equal layers is the map (3) applied again and again."""
    system, x = _system(case), case["x"]
    last = MultiHead(
        query=case["query"],
        key=case["key"],
        value=case["value_weights"],
        output=case["output_weights"] + case["drift"],
        alpha=case["alpha"],
    )
    stack = LayerStack.from_layers([system] * (_REPEATS - 1) + [last])
    size, logits = _magnitude(case)
    state, growth = x, jnp.ones(())
    for _ in range(_REPEATS):
        block = attention_block(dict(case) | {"x": state})
        y = state + case["alpha"] * block.T
        shortest = jnp.min(sphere.norm(y))
        growth = growth * (1.0 + case["alpha"] * size * logits) / jnp.minimum(shortest, 1.0)
        state = sphere.normalize(y)
    return identity(stack(x) - state, scale=1.0, size=shape.n * shape.d, conditioning=growth)


def _no_drift() -> Piece:
    """The last layer's output weights are those of the others."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del noise, kind, shape
        return {"drift": jnp.zeros_like(case["output_weights"])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"shared weights": identity(case["drift"], scale=1.0, size=1).value}

    return Piece(draw, margins)


@numbered
def equation_3() -> Statement:
    """Shared weights: the autonomous map."""
    clause = Clause(
        name="shared weights",
        text=f"{_REPEATS} equal layers of (1) are {_REPEATS} steps of (3)",
        hypotheses=Hypotheses((_weights(), _no_drift(), hyp.tokens()), (Shape(3, 4, 2),)),
        conclusion=_repeats,
        twin=Twin(
            "shared weights",
            Explicit(
                name="one layer differs",
                text="the last of three layers has other output weights",
                shape=Shape(3, 4, 2),
                case=_example(np.sqrt(0.5)) | {"drift": np.full((2, 4, 2), 0.25)},
            ),
        ),
    )
    return Statement(
        id="equation-3",
        source=f"Eqs. (2), (3) and (21), {PAPER}",
        text="Equal weights in all layers make the layers an autonomous system.",
        paper=Form(
            text="as read: with O, V_h, Q_h, K_h the same for all l (2), (1) is x_i(t + 1) = (x_i +"
            " alpha sum_h O_h sum_j a_ij^h V_h x_j)/|.| (3), and (21) is the same equation.",
            expected="supported",
            clauses=(clause,),
        ),
        corrected=Form(
            text="As in the paper, with alpha = 1 in a trained transformer.",
            expected="supported",
            clauses=(clause,),
        ),
        covers=("equation-2", "equation-21"),
    )
