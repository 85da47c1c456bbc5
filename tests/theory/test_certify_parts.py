"""The parts of a proof, each against what shares no code with it, and broken on purpose."""

from dataclasses import replace

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmt import attention, sphere
from pmt.dynamics import MultiHead, Oja, SingleHead
from pmt.stability import jacobian
from tests.tolerance import assert_close
from theory.certify import balls, certify, existence, multipliers, verify
from theory.certify.chart import ChartMap
from theory.certify.existence import Box

N, D = 3, 3


def floats(matrix):
    return np.array([[float(each.mid()) for each in row] for row in matrix.tolist()])


def tokens(seed, n=N, d=D):
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def with_everything(seed=0):
    """Two heads, all biases, a mask for each head."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    return MultiHead(
        normal((2, 2, D)),
        normal((2, 2, D)),
        normal((2, 4, D)),
        normal((2, D, 4)),
        alpha=0.1,
        scale=0.7,
        mask=np.eye(N, dtype=bool) | (rng.random((2, N, N)) < 0.5),
        query_bias=normal((2, 2)),
        key_bias=normal((2, 2)),
        value_bias=normal((2, 4)),
        output_bias=normal(D),
    )


def square(seed):
    return np.random.default_rng(seed).standard_normal((D, D))


SYSTEMS = {
    "Oja": lambda: Oja(square(1), alpha=0.2),
    "Oja, window": lambda: Oja(square(1), alpha=0.2, mask=attention.LocalWindow(2)),
    "one head": lambda: SingleHead(square(1), square(2), alpha=0.3, scale=0.5),
    "one head, causal": lambda: SingleHead(square(1), square(2), alpha=0.3, mask="causal"),
    "biases, masks": with_everything,
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_map_and_its_derivative_are_those_of_the_library(name):
    """In the chart u -> normalize(p + B u), by autodiff of the library's map, at u = 0."""
    system, p = SYSTEMS[name](), tokens(4)
    # Neither orthonormal nor tangent: only a frame together with the token.
    basis = np.random.default_rng(5).standard_normal((N, D, D - 1))
    frame = np.linalg.inv(np.concatenate([p[:, :, None], basis], axis=2))

    def in_chart(u):
        y = system(sphere.normalize(jnp.asarray(p) + jnp.einsum("nab,nb->na", basis, u)))
        coordinates = jnp.einsum("nab,nb->na", frame, y)
        return coordinates[:, 1:] / coordinates[:, :1]

    zero = jnp.zeros((N, D - 1))
    image, derivative = jax.jit(lambda u: (in_chart(u), jax.jacfwd(in_chart)(u)))(zero)
    value = ChartMap(system, p, basis)(balls.zeros(N * (D - 1), 1))
    y = np.asarray(jax.jit(system.unnormalized)(jnp.asarray(p)))
    facing = np.einsum("nb,nb->n", frame[:, 0], y)
    assert_close(np.array([float(eta) for eta in value.facing]), facing, conditioning=100)
    assert_close(floats(value.image)[:, 0], image.reshape(-1), conditioning=1e3)
    expected = derivative.reshape(N * (D - 1), -1)
    assert_close(floats(value.derivative), expected, conditioning=1e4)


def test_the_multipliers_are_those_of_the_tangent_jacobian_in_every_chart():
    system = SingleHead(np.diag([1.0, 0.3, -0.5]), square(2), alpha=0.4)
    x = np.tile([1.0, 0.0, 0.0], (N, 1))
    tangent = jax.jit(jacobian.intrinsic)(system, jnp.asarray(x))
    expected = np.sort(np.linalg.eigvals(np.asarray(tangent)))
    basis = np.random.default_rng(5).standard_normal((N, D, D - 1))
    found = np.linalg.eigvals(floats(ChartMap(system, x, basis)(balls.zeros(6, 1)).derivative))
    assert_close(np.sort(found.real), expected.real, conditioning=1e5)


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-40, -4))
def test_a_box_contains_what_its_points_are_mapped_to(seed, exponent):
    """Inclusion: the enclosure over a box holds the value at any point of it, far more exactly."""
    rng = np.random.default_rng(seed)
    system, p = with_everything(seed), tokens(seed)
    basis = rng.standard_normal((N, D, D - 1))
    offsets = rng.uniform(-1.0, 1.0, N * (D - 1)) * 2.0**exponent
    box = balls.zeros(N * (D - 1), 1)
    for i in range(N * (D - 1)):
        box[i, 0] = flint.arb(0, 2.0**exponent)
    over = ChartMap(system, p, basis)(box)
    with flint.ctx.workprec(256):
        at = ChartMap(system, p, basis)(balls.matrix(offsets[:, None]))
    assert over.image.contains(at.image) or not _finite(over.image)
    assert over.derivative.contains(at.derivative) or not _finite(over.derivative)
    assert over.tokens.contains(at.tokens)


def _finite(matrix):
    return all(each.is_finite() for each in matrix.entries())


def test_at_small_boxes_the_enclosure_is_finite():
    box = balls.zeros(6, 1)
    for i in range(6):
        box[i, 0] = flint.arb(0, 2.0**-30)
    over = ChartMap(
        with_everything(), tokens(0), tokens(1, 9)[:, :, None].reshape(N, D, 3)[..., :2]
    )
    assert _finite(over(box).derivative)


def cyclic(r):
    """r times a cyclic permutation of 3: the trace of every power 2^k is zero."""
    return r * np.roll(np.eye(3), 1, axis=0)


def jordan(value, size=5):
    return value * np.eye(size) + np.eye(size, k=1)


LOCATED = {
    "zero": (np.zeros((2, 2)), "stable", 0),
    "a Jordan block inside": (jordan(0.9), "stable", 0),
    "a Jordan block outside": (jordan(-1.05), "unstable", None),
    "far from normal, inside": (np.array([[0.5, 1e8], [0, 0.5]]), "stable", 0),
    "a multiple eigenvalue outside": (1.001 * np.eye(6), "unstable", 1),
    "one outside among many inside": (np.diag([1.01] + [0.99] * 20), "unstable", 1),
    "a rotation outside": (1.1 * np.array([[0, -1.0], [1, 0]]), "unstable", None),
    "no trace at all": (cyclic(1.01), "unstable", 3),
    "by a hair inside": (np.diag([1 - 2.0**-50, 0.5]), "stable", 0),
    "the identity": (np.eye(4), None, 0),
    "a rotation": (np.array([[0.0, -1.0], [1.0, 0.0]]), None, 0),
    # The sum of the squares of the floats 0.6 and 0.8 is larger than 1.
    "what is nearly a rotation": (np.array([[0.6, -0.8], [0.8, 0.6]]), "unstable", None),
    "no trace, on the circle": (cyclic(1.0), None, 0),
    "a Jordan block on the circle": (jordan(1.0), None, 0),
}


@pytest.mark.parametrize("name", LOCATED)
def test_the_eigenvalues_are_located(name):
    rows, verdict, order = LOCATED[name]
    with flint.ctx.workprec(128):
        found = multipliers.locate(balls.matrix(rows), 128)
        assert found.verdict == verdict
        assert order is None or found.order == order
        again = multipliers.holds(balls.matrix(rows), found)
    assert (again == found) if verdict else (again is None)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 4),
    log_gap=st.floats(-9.0, -0.1),
    outside=st.booleans(),
)
def test_no_wrong_claim_about_matrices_with_known_eigenvalues(seed, size, log_gap, outside):
    """Eigenvalues are chosen, exactly on the diagonal; a triangular matrix hides them."""
    rng = np.random.default_rng(seed)
    gap = 10.0**log_gap
    diagonal = rng.uniform(-0.9, 0.9, size)
    diagonal[0] = rng.choice([-1.0, 1.0]) * (1.0 + gap if outside else 1.0 - gap)
    rows = np.diag(diagonal) + np.triu(rng.integers(-2, 3, (size, size)).astype(float), 1)
    with flint.ctx.workprec(512):
        mixing = balls.matrix(np.eye(size) + np.tril(rng.integers(-1, 2, (size, size)) * 1.0, -1))
        hidden = mixing * balls.matrix(rows) * mixing.inv()
        found = multipliers.locate(hidden, 512)
        # Exactly on the circle, all else equal: nothing follows.
        rows[0, 0] = np.sign(diagonal[0])
        circle = mixing * balls.matrix(rows) * mixing.inv()
    with flint.ctx.workprec(128):
        marginal = multipliers.locate(circle, 128)
    assert found.verdict == ("unstable" if outside else "stable")
    assert marginal.verdict is None


@pytest.fixture(scope="module")
def proved():
    system = SingleHead(np.array([[1, 0.5], [0.5, -0.5]]), -np.eye(2)[::-1], alpha=0.25)
    return certify(system, np.array([[1.0, 0.0], [-1.0, 0.0]]))


def box_of(certificate):
    chart = ChartMap(certificate.system, certificate.tokens, certificate.basis)
    box = existence.prove(chart, balls.from_integers(certificate.centre), certificate.radius)
    assert isinstance(box, Box)
    return chart, box


def widened(matrix, radius):
    wide = flint.arb_mat(matrix)
    for i in range(wide.nrows()):
        for j in range(wide.ncols()):
            wide[i, j] += flint.arb(0, radius)
    return wide


def test_an_uncertainty_larger_than_the_margin_leaves_nothing_proved(proved):
    """Both multipliers are 3/4; an unknown part of each entry up to 1/4 can make one 1."""
    with flint.ctx.workprec(proved.precision):
        derivative = box_of(proved)[1].value.derivative
        assert multipliers.locate(widened(derivative, 0.05), 64).verdict == "stable"
        assert multipliers.locate(widened(derivative, 0.25), 64).verdict is None
        moved = derivative + balls.identity(2) * balls.number(0.26)
        assert multipliers.locate(moved, 64).verdict == "unstable"


def test_a_wrong_derivative_is_no_proof_of_existence(proved, monkeypatch):
    """If Dφ contains 1 as an eigenvalue somewhere in the box, no contraction can be shown."""
    chart, box = box_of(proved)
    wide = replace(box.value, derivative=widened(box.value.derivative, 0.3))
    monkeypatch.setattr(
        chart,
        "__class__",
        type(
            "Sabotaged",
            (ChartMap,),
            {
                "__call__": lambda self, u: replace(
                    ChartMap.__call__(self, u), derivative=wide.derivative
                )
            },
        ),
    )
    failed = existence.prove(chart, box.centre, box.radius)
    assert isinstance(failed, str)
    assert "no isolated equilibrium" in failed


@pytest.mark.parametrize(
    "change",
    [
        lambda c: {"verdict": "unstable"},
        lambda c: {"method": "coefficient of a power", "order": 1},
        lambda c: {"method": "coefficient of a power", "order": 0},
        lambda c: {"method": "coefficient of a power", "order": 9},
        lambda c: {"bound": c.bound / 2},
        lambda c: {"contraction": c.contraction / 2},
        lambda c: {"distance": c.distance / 2},
        lambda c: {"radius": 1e-20, "centre": tuple((1, -60) for _ in c.centre)},
        lambda c: {"radius": -c.radius},
        lambda c: {"radius": 0.9},
        lambda c: {"power": 3},
        lambda c: {"power": 0},
        lambda c: {"centre": c.centre[1:]},
        lambda c: {"centre": tuple((a + 2**60, e) for a, e in c.centre)},
        lambda c: {"tokens": c.tokens + 1e-3},
        lambda c: {"basis": 0.0 * c.basis},
        lambda c: {"status": "undecided"},
        # Beyond the flip of II.9 the same point is unstable.
        lambda c: {"system": replace(c.system, query_key=9 * c.system.query_key)},
    ],
)
def test_a_changed_certificate_is_no_proof(proved, change):
    assert verify(proved)
    assert not verify(replace(proved, **change(proved)))


def test_the_power_in_a_certificate_matters():
    # One multiplier just above 1 among contracting ones: the trace exceeds 5 after some powers.
    certificate = certify(Oja(np.diag([1.0, 0.8]), alpha=0.25), np.tile([0.0, 1.0], (5, 1)))
    assert certificate.verdict == "unstable"
    assert certificate.power > 1
    assert verify(certificate)
    assert not verify(replace(certificate, power=1))


def test_outward_rounding_of_what_is_reported():
    third = flint.arb(1) / 3
    assert balls.above(third) >= 1 / 3 >= balls.below(third)
    assert balls.above(third) - balls.below(third) < 2e-16
    with flint.ctx.workprec(200):
        finer = flint.arb(1) / 3
        assert flint.arb(balls.below(finer)) < finer < flint.arb(balls.above(finer))
    assert balls.above(flint.arb("nan")) == float("inf")
    assert balls.above(flint.arb(2) ** 5000) == float("inf")
    assert 0 < balls.above(flint.arb(2) ** -5000) < 1e-300
    assert 1e300 < balls.below(flint.arb(2) ** 5000) < float("inf")
    assert balls.below(flint.arb(0, flint.arb.pos_inf())) == -float("inf")
    exact = flint.arb_mat([[flint.arb((3, -700))], [flint.arb((-(2**300) - 1, -5))]])
    assert balls.from_integers(balls.as_integers(exact)) == exact


def test_norms_do_not_lose_what_is_not_finite():
    rows = flint.arb_mat([[1.0, 0.0], [flint.arb("nan"), 0.0], [5.0, 1.0]])
    assert not balls.row_norm(rows).is_finite()
    assert balls.power_norm(balls.matrix(np.array([[1.0, -3.0], [0.0, 2.0]]))) == 4
    assert balls.row_norm(balls.matrix(np.array([[1.0, -4.0], [0.0, 2.0]]))) == 5
    assert not balls.radius_norm(rows) < 1e300
