"""Hunts: by descent, by mutation, from the paper's forms alone; and what they must not find."""

import dataclasses
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.known_statements import STATEMENTS
from theory import oracles
from theory.hunt import Engine, Hunter
from theory.hunt.engine import STEPS
from theory.margin import inequality
from theory.shrink import shrink
from theory.statement import Clause, Form, Hypotheses, Piece, Shape
from theory.verify import Runner

SMALL = (Shape(2, 2),)


def form(margin, expected="refuted", hypotheses=lambda case: {}, shapes=SMALL):
    """A form about ten normal numbers ``z`` and a uniform one ``u``."""

    def draw(noise, kind, shape, case):
        return {"z": noise.normal(10), "u": noise.uniform()}

    piece = Piece(draw, lambda shape, case: hypotheses(case))
    clause = Clause(
        "only", "", Hypotheses((piece,), shapes), lambda shape, case: inequality(margin(case))
    )
    return Form("", expected, (clause,))


def hunted(margin, budget=20.0, **more):
    hunter = Hunter("made", "paper", form(margin, **more), random=128)
    return hunter.run(budget)


def far(case):
    """The distance from a point that random numbers do not come near, less 0.2."""
    return jnp.sqrt(jnp.sum((case["z"] - 1.5) ** 2)) - 0.2


def test_a_descent_goes_where_random_instances_do_not():
    engine, (clause,) = Engine(), form(far).clauses
    starts = engine.evaluate(clause, SMALL[0], engine.fresh(0, (1,)))[0]
    best, share, steps = engine.descended(
        clause, SMALL[0], starts, over=lambda: False, careful=True
    )
    ends, cases, _, _ = engine.evaluate(clause, SMALL[0], best)
    assert share == 1.0 and steps == STEPS
    assert np.all(ends.score <= starts.score) and np.min(starts.score) > 1.0
    # From every start, into the ball of radius 0.2 around the point.
    assert np.median(starts.score - ends.score) > 2.0
    assert np.min(np.linalg.norm(cases["z"] - 1.5, axis=1)) < 0.2


def test_a_hunt_descends_and_finds_it():
    result = hunted(far)
    assert result.status == "refuted" and result.as_expected
    assert result.found.instance.value < 0
    (ground,) = result.grounds
    assert ground.differentiable is True and ground.steps > 0


def staircase(case):
    return jnp.floor(4.0 * jnp.sqrt(jnp.sum((case["z"] - 1.0) ** 2))) / 4.0 - 0.6


def test_mutations_find_it_where_the_margin_has_steps():
    result = hunted(staircase)
    assert result.status == "refuted"
    (ground,) = result.grounds
    assert ground.differentiable is False
    assert ground.offspring > 0


def test_a_margin_without_a_derivative_is_mutated():
    def looped(case):
        once = (jnp.asarray(True), jnp.asarray(0.0))
        return lax.while_loop(lambda s: s[0], lambda s: (~s[0], s[1] + far(case)), once)[1]

    result = hunted(looped)
    assert result.status == "refuted"
    assert result.grounds[0].differentiable is False


def test_finding_nothing_decides_nothing_and_counts_what_was_tried():
    start = time.monotonic()
    result = hunted(lambda case: 1.0 + far(case) ** 2, budget=1.0)
    # What compiles is finished first.
    assert 1.0 <= result.seconds <= time.monotonic() - start < 20.0
    assert result.status == "undecided" and not result.as_expected
    assert result.found is None and result.best.instance.value >= 1.0
    (ground,) = result.grounds
    assert ground.evaluations == ground.random + ground.starts + ground.steps + ground.offspring
    assert ground.random == 128
    assert hunted(lambda case: 1.0 + far(case) ** 2, budget=0.1, expected="supported").as_expected


def test_instances_outside_the_hypotheses_are_no_violations():
    result = hunted(
        lambda case: case["z"][0], budget=0.3, hypotheses=lambda case: {"z > 0": case["z"][0]}
    )
    assert result.found is None
    # 0 is outside too.
    result = hunted(
        lambda case: -1.0, budget=0.3, hypotheses=lambda case: {"0 > 0": 0.0 * case["z"][0]}
    )
    assert result.found is None


def test_a_margin_that_is_no_number_is_no_violation():
    result = hunted(lambda case: jnp.sqrt(-1.0 - case["u"]), budget=0.5)
    assert result.found is None and result.best is None


def without_witnesses(name):
    paper = STATEMENTS[name].paper
    clauses = tuple(dataclasses.replace(c, explicit=(), twin=None) for c in paper.clauses)
    return dataclasses.replace(paper, clauses=clauses)


def rediscovered(name):
    """The paper's form of a statement refuted without its witnesses, and shrunk."""
    attacked = without_witnesses(name)
    hunter = Hunter(name, "paper", attacked)
    result = hunter.run(60.0)
    assert result.status == "refuted" and result.as_expected and result.seconds < 60.0
    clause = next(c for c in attacked.clauses if c.name == result.found.instance.clause)
    shrunk = shrink(hunter.engine, clause, result.found)
    assert shrunk.after.outcome == "refuted"
    assert all(value > 0 for value in shrunk.hypotheses.values())
    assert shrunk.digits[1] <= 20 < shrunk.digits[0]
    return shrunk.after


def test_remark_10_falls_without_its_witness(monkeypatch):
    monkeypatch.setattr(Runner, "_told", pytest.fail)
    case = rediscovered("remark-10").case
    # Independent of pmt: the oracle's map at x_i = s_i v.
    value = (case["frame"] * case["eigenvalues"]) @ case["frame"].T
    step = oracles.single_head(value, case["query_key"], float(case["alpha"]))
    x = case["signs"][:, None] * case["direction"][None, :]
    np.testing.assert_allclose(step(x), x, rtol=0, atol=1e-12)
    assert case["eigenvalues"][case["index"]] < 0
    assert np.max(np.abs(oracles.intrinsic_spectrum(step, x))) < 1.0


@pytest.mark.parametrize("name", ["lemma-13", "proposition-1", "equation-6"])
def test_a_corrected_form_withstands_a_short_hunt(name):
    corrected = STATEMENTS[name].corrected
    clause = corrected.clauses[0]
    # At one shape, since each compiles; all of them are in the long tests.
    small = Hypotheses(clause.hypotheses.pieces, clause.hypotheses.shapes[:1])
    one = Form("", corrected.expected, (dataclasses.replace(clause, hypotheses=small),))
    result = Hunter(name, "corrected", one, random=256).run(3.0)
    assert result.found is None, result.found
    assert result.as_expected
    assert result.grounds[0].evaluations >= 128


@pytest.mark.long
@pytest.mark.parametrize("name", ["theorem-2", "lemma-15", "remark-10"])
def test_the_three_named_counterexamples_are_found_within_a_minute(name):
    start = time.monotonic()
    command = [sys.executable, "-m", "pmt", "verify", "--hunt", name, "--budget", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "as expected" in done.stdout
    assert time.monotonic() - start < 60.0
    rediscovered(name)


@pytest.mark.long
@pytest.mark.parametrize("name", STATEMENTS)
def test_no_corrected_form_falls(name):
    result = Hunter(name, "corrected", STATEMENTS[name].corrected).run(20.0)
    assert result.found is None, result.found
