"""Off the manifold of Theorem 4.1: the two blocks that no step leaves, and a way down from them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pmt import sphere
from pmt.looped import core, manifold
from pmt.looped.data import Samples
from pmt.looped.objectives import sample_losses
from theory.hypotheses import looped as hyp
from theory.hypotheses import looped_blocks as blocks
from theory.margin import Margin, every, identity, inequality
from theory.statement import Case, Clause, Explicit, Hypotheses, Shape, Twin

LOOPS = 2


def _weights(case: Case, right: Array, left: Array) -> core.Weights:
    """The weights of an instance; ``right`` goes to V's upper right, ``left`` to W's lower left."""
    spare, d = case["spare"], case["lower"].shape[0]
    return core.Weights(
        jnp.block([[spare[0], spare[1] + right], [case["lower"], spare[2]]]),
        jnp.block([[spare[3], case["upper"]], [spare[4] + left, spare[5]]]),
        jnp.ones(2 * d, case["lower"].dtype),
    )


def stationary(shape: Shape, case: Case) -> Margin:
    """With A and B alone, the loss of a sample has no slope in the other six blocks.

    In two of them, V's upper right and W's lower left, it does not change at all as long as the
    other one of the two is zero.
    """
    leading = case["frame"][:, : shape.h]
    given = Samples(case["data"][None], case["query"][None], leading[None])

    def loss(weights: core.Weights) -> Array:
        y = core.apply(weights, given.data, given.query, LOOPS, "l2")
        return sample_losses("subspace", y, given)[0]

    zero = jnp.zeros_like(case["lower"])
    start = _weights(case, zero, zero)
    level, slope = jax.value_and_grad(loss)(start)
    right = loss(_weights(case, case["sides"][0], zero))
    left = loss(_weights(case, zero, case["sides"][1]))
    d, size = shape.d, 4 * shape.d**2 * shape.n * LOOPS
    value = slope.value.at[d:, :d].set(0.0)
    key = slope.key.at[:d, d:].set(0.0)
    # What a loop multiplies the query by, at most; slopes are rounded relative to its powers.
    norms = sphere.norm(case["lower"].reshape(-1)) * sphere.norm(case["upper"].reshape(-1))
    stretch = (1.0 + norms * shape.n) ** LOOPS
    return every(
        identity(jnp.stack([value, key]), scale=stretch, size=size),
        identity(jnp.stack([right - level, left - level]), scale=1.0, size=size),
    )


def below_the_limit(shape: Shape, case: Case) -> Margin:
    """The four-scalar weights v, w, eps, delta have a smaller population loss than L_inf."""
    weights = manifold.beside_manifold(case["v"], case["w"], case["eps"], case["delta"], shape.d)
    data, query = case["turned"], case["queries"]
    # The leading eigenvector of a turned X is the turned e_1, its first row.
    given = Samples(data, query, data[:, 0, :, None])
    losses = sample_losses("subspace", core.apply(weights, data, query, LOOPS, "l2"), given)
    exact = sample_losses("subspace", manifold.power_iterate(data, query, LOOPS), given)
    return inequality(jnp.mean(exact - losses), size=4 * shape.n * shape.d * LOOPS)


def _explicit(name: str, text: str, shape: Shape, case: dict[str, object]) -> Explicit:
    return Explicit(
        name, text, shape, {key: np.asarray(value, float) for key, value in case.items()}
    )


def stationary_clause() -> Clause:
    """No step leaves the two blocks."""
    spare = np.zeros((6, 2, 2))
    spare[3] = 0.3 * np.eye(2)
    moved = _explicit(
        "W's upper left block is 0.3 I",
        "X = (e_1, e_1, e_2), a = (3, 4)/5, A = B = I",
        Shape(3, 2),
        {
            "data": blocks.ROWS,
            "eigenvalues": (2.0, 1.0),
            "frame": np.eye(2),
            "coefficients": blocks.QUERY,
            "query": blocks.QUERY,
            "lower": np.eye(2),
            "upper": np.eye(2),
            "sides": np.zeros((2, 2, 2)),
            "spare": spare,
        },
    )
    return Clause(
        name="two blocks",
        text="where V has no entries but a block A, and W none but B, at the places of v I and "
        "w I, the loss of every sample is stationary in all other entries: SGD moves A and B alone",
        hypotheses=Hypotheses(
            (hyp.data(), blocks.two_blocks()), (Shape(3, 2), Shape(4, 3), Shape(5, 4, 2))
        ),
        conclusion=stationary,
        twin=Twin("the other blocks are zero", moved),
    )


def saddle_clause() -> Clause:
    """The power method is not the best that the full matrices can do."""
    turns = hyp.signed_permutations(2)
    same = _explicit(
        "eps = delta = 0.3",
        "v = w = 10: the tokens lean towards the query instead of away from it",
        Shape(3, 2),
        {
            "v": 10.0,
            "w": 10.0,
            "alpha": 100.0,
            "eps": 0.3,
            "delta": 0.3,
            "turned": blocks.ROWS @ turns,
            "queries": blocks.QUERY @ turns,
        },
    )
    return Clause(
        name="saddle",
        text="X = (e_1, e_1, e_2) and a = (3, 4)/5, turned alike by all signed permutations, "
        "L = 2, v, w in (10, 100): with eps I in V's upper right block and -eps I in W's lower "
        "left one, 0.2 < |eps| < 0.4, the population loss is below L_inf",
        hypotheses=Hypotheses(
            (blocks.law_of_one_value(), hyp.point(10.0, 100.0), blocks.opposite_scalars()),
            (Shape(3, 2),),
        ),
        conclusion=below_the_limit,
        twin=Twin("eps delta < 0", same),
    )
