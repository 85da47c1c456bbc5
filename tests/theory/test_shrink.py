"""Shrinking: simpler, still a violation, hypotheses still strict; and the moves by themselves."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.known_statements import STATEMENTS
from theory import instances, simplify
from theory.hunt import Engine, Hunter
from theory.margin import inequality
from theory.shrink import shrink
from theory.statement import Clause, Form, Hypotheses, Piece, Shape


@pytest.mark.parametrize(
    ("value", "length"),
    [(0.0, 0), (1.0, 1), (-2.0, 1), (0.5, 1), (-0.25, 2), (12.0, 2), (0.05, 2), (1 / 3, 16)],
)
def test_complexity_counts_digits(value, length):
    assert simplify.digits({"a": np.array([value, 0.0])}) == length


def shrunk(margin, hypotheses, **more):
    piece = Piece(
        lambda noise, kind, shape, case: {"z": noise.normal(2), "u": noise.uniform(2.0, 3.0)},
        lambda shape, case: hypotheses(case),
    )
    clause = Clause(
        "c",
        "",
        Hypotheses((piece,), (Shape(2, 2),)),
        lambda shape, case: inequality(margin(case)),
    )
    hunter = Hunter("made", "paper", Form("", "refuted", (clause,)), random=128)
    found = hunter.run(20.0).found
    return shrink(hunter.engine, clause, found, **more)


def test_numbers_become_short_and_the_hypotheses_stay_strict():
    seen = shrunk(
        lambda case: -(case["z"][0] ** 2) - 1e-3 * case["u"],
        lambda case: {"z_2 < z_1 + 9": 9.0 + case["z"][0] - case["z"][1], "u > 2": case["u"] - 2.0},
        plain=True,
    )
    case = seen.after.case
    assert seen.digits[1] < seen.digits[0] and seen.digits[1] <= 4
    # Strict: u = 2 is simpler, and outside. A quarter of the violation: z_1 = 0 is simpler too.
    assert case["u"] > 2 and case["z"][1] == 0.0
    assert seen.after.value <= 0.25 * seen.before.value and case["z"][0] != 0.0
    assert set(seen.hypotheses) == {"z_2 < z_1 + 9", "u > 2"}
    assert 0 < seen.accepted < seen.tried


def test_without_named_hypotheses_the_noise_is_rounded_and_nothing_else():
    seen = shrunk(lambda case: -1.0 - case["z"][0] ** 2, lambda case: {}, plain=True)
    # What the generator makes of 0 and of the middle: rounding u itself might leave its range.
    assert seen.after.case["u"] == 2.5
    assert seen.after.case["z"].tolist()[1] == 0.0
    assert seen.digits[1] <= 6


def test_a_violation_that_cannot_be_simplified_stays():
    seen = shrunk(
        lambda case: -1.0 + 0.0 * case["u"],
        lambda case: {"exact": jnp.where(case["z"][0] == jnp.round(case["z"][0], 3), -1.0, 1.0)},
        seconds=1e-9,
        plain=True,
    )
    assert seen.after.value == seen.before.value
    assert all(np.array_equal(v, seen.before.case[k]) for k, v in seen.after.case.items())


@pytest.fixture(scope="module")
def drawn():
    """Instances of a statement that has fields of all kinds, at the shape (3, 3)."""
    clause = STATEMENTS["remark-10"].paper.clauses[0]
    engine = Engine(8)
    _, cases, _, _ = engine.evaluate(clause, Shape(3, 3), engine.fresh(3, (1,)))
    return engine, clause, [{k: np.asarray(v[i]) for k, v in cases.items()} for i in range(8)]


def test_other_coordinates_keep_the_margin_and_the_hypotheses(drawn):
    shape = Shape(3, 3)
    engine, clause, cases = drawn

    def values(some):
        stacked = {name: np.stack([case[name] for case in some]) for name in some[0]}
        assert np.all(engine.allowed(clause, shape, stacked))
        return engine.conclude(clause, shape, stacked)[0]

    turned = [next(simplify.rotated(shape, case)) for case in cases]
    np.testing.assert_allclose(values(turned), values(cases), rtol=0, atol=1e-6)
    for case in turned:
        assert np.array_equal(np.abs(case["frame"]), np.eye(3))
        assert np.array_equal(case["direction"], case["frame"][:, case["index"]])


def test_tokens_and_dimensions_go_one_by_one_and_fields_fit_together(drawn):
    shape = Shape(3, 3)
    _, _, cases = drawn
    sizes = set()
    for smaller, less in simplify.reduced(shape, cases[0]):
        sizes.add((smaller.n, smaller.d))
        assert less["signs"].shape == (smaller.n,)
        assert less["query_key"].shape == less["frame"].shape == (smaller.d, smaller.d)
        assert less["eigenvalues"].shape == less["direction"].shape == (smaller.d,)
        np.testing.assert_allclose(
            instances.value_matrix({k: jnp.asarray(v) for k, v in less.items()})
            @ less["direction"],
            less["eigenvalues"][less["index"]] * less["direction"],
            rtol=0,
            atol=1e-12,
        )
    assert sizes == {(2, 3), (3, 2)}
    assert not list(simplify.reduced(shape, {**cases[0], "unheard_of": np.ones(3)}))


def test_repair_makes_tokens_unit_directions_tangent_and_heads_sum_to_f():
    shape = Shape(2, 2, 2)
    case = {
        "x": np.array([[3.0, 4.0], [0.0, 2.0]]),
        "w": np.array([[1.0, 1.0], [1.0, 1.0]]),
        "eigenvalues": np.array([2.0, -1.0]),
        "frame": np.eye(2),
        "index": np.array(1),
        "direction": np.array([0.1, -0.9]),
        "heads": np.ones((2, 2, 2)),
    }
    fixed = simplify.repaired(shape, case)
    assert fixed["x"].tolist() == [[0.6, 0.8], [0.0, 1.0]]
    np.testing.assert_allclose(np.sum(fixed["x"] * fixed["w"], axis=1), 0.0, atol=1e-15)
    assert np.linalg.norm(fixed["w"]) == pytest.approx(1.0)
    assert fixed["direction"].tolist() == [0.0, -1.0]
    assert fixed["heads"].sum(axis=0).tolist() == [[2.0, 0.0], [0.0, -1.0]]
