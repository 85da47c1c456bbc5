"""Statements checked instance by instance: ``theory.verify`` against loops over NumPy arrays.

Both sides check the same instances, drawn before: ours evaluates the conclusion in compiled
batches, the peer one instance at a time, each with whole-array NumPy: Jacobians by complex steps in
one batch, ``eigvalsh`` where eigenvalues are needed. It shares no code with ``pmt`` or ``theory``
but the instances. Rates are instances per second; the peer's comes from fewer instances, since its
time is proportional to them. ``whole_rate`` is that of ``pmt verify``, which draws the instances
too. Compilation is not counted in either. ``largest_difference`` is that of the quantity that
decides (a spectral radius) where there is one; what both decide agrees on every instance, or there
is an error and no row.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from theory import instances, margin, noise, registry
from theory.compilation import WORTH_OPTIMIZING, quick_options
from theory.statement import Clause, Shape
from theory.verify import Runner

Case = dict[str, np.ndarray]
_BATCH = 512


def visible(n: int, mask: str) -> np.ndarray:
    """Which tokens each token sees."""
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    gap = i - j
    return {
        "full": gap == gap,
        "causal": gap >= 0,
        "window": (gap >= 0) & (gap < 2),
        "others": gap != 0,
    }[mask]


def attention(x: np.ndarray, logits: np.ndarray, mask: str) -> np.ndarray:
    """Softmax weights of states with leading axes; complex states for complex steps."""
    scores = x @ logits @ np.swapaxes(x, -1, -2)
    seen = visible(x.shape[-2], mask)
    top = np.max(np.where(seen, scores.real, -np.inf), axis=-1, keepdims=True)
    mass = np.where(seen, np.exp(scores - top), 0.0)
    return mass / np.sum(mass, axis=-1, keepdims=True)


def value_of(case: Case) -> np.ndarray:
    """V."""
    if "value" in case:
        return case["value"]
    return (case["frame"] * case["eigenvalues"]) @ case["frame"].T


def unnormalized(case: Case, x: np.ndarray, mask: str) -> np.ndarray:
    """y of the softmax system; the Oja system is Q'K = 0."""
    logits = case.get("query_key", np.zeros((x.shape[-1],) * 2))
    return x + case["alpha"] * attention(x, logits, mask) @ x @ value_of(case).T


def step(case: Case, x: np.ndarray, mask: str) -> np.ndarray:
    """The map."""
    y = unnormalized(case, x, mask)
    return y / np.sqrt(np.sum(y * y, axis=-1, keepdims=True))


def jacobian(case: Case, x: np.ndarray, mask: str) -> np.ndarray:
    """(nd, nd), by all complex steps at once: exact to rounding."""
    size = 1e-30
    moved = x[None] + 1j * size * np.eye(x.size).reshape(x.size, *x.shape)
    return (step(case, moved, mask).imag / size).reshape(x.size, x.size).T


def tangent(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """On the tangent space, by Householder bases."""
    n, d = x.shape
    first = np.where(x[:, :1] < 0, -1.0, 1.0)
    w = x.copy()
    w[:, :1] += first
    square = np.sum(w * w, axis=1)[:, None, None]
    basis = (np.eye(d)[None] - 2.0 * w[:, :, None] * w[:, None, :] / square)[:, :, 1:]
    blocks = matrix.reshape(n, d, n, d)
    moved = np.einsum("iae,iajb->iejb", basis, blocks)
    return np.einsum("iejb,jbf->iejf", moved, basis).reshape(n * (d - 1), -1)


def closed_jacobian(case: Case, x: np.ndarray, mask: str) -> np.ndarray:
    """Lemmas 2 and 10 in closed form."""
    n, d = x.shape
    value, logits = value_of(case), case.get("query_key", np.zeros((d, d)))
    weights = attention(x, logits, mask)
    mean = weights @ x
    covariance = np.einsum("il,la,lb->iab", weights, x, x) - mean[:, :, None] * mean[:, None]
    offsets = (x[None] - mean[:, None]) @ value.T
    blocks = np.einsum("ij,ab->iajb", weights, value)
    blocks += np.einsum("ij,ija,ib->iajb", weights, offsets, x @ logits)
    token = np.arange(n)
    blocks[token, :, token] += value @ covariance @ logits.T
    blocks *= case["alpha"]
    blocks[token, :, token] += np.eye(d)
    y = unnormalized(case, x, mask)
    length = np.sqrt(np.sum(y * y, axis=1))
    direction = y / length[:, None]
    projector = np.eye(d)[None] - direction[:, :, None] * direction[:, None, :]
    scaled = projector / length[:, None, None]
    return np.einsum("iab,ibjc->iajc", scaled, blocks).reshape(n * d, n * d)


def signed_jacobian(case: Case, mask: str) -> np.ndarray:
    """Lemmas 3 and 12 in closed form, at x_i = s_i v."""
    signs, v, value = case["signs"], case["direction"], value_of(case)
    n, d = len(signs), len(v)
    theta = v @ case["query_key"] @ v
    seen = visible(n, mask)
    scores = np.where(seen, theta * signs[:, None] * signs[None, :], -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    factors = 1.0 + case["alpha"] * (v @ value @ v) * signs * (weights @ signs)
    blocks = case["alpha"] * np.einsum("ij,ab->iajb", weights, value)
    blocks[np.arange(n), :, np.arange(n)] += np.eye(d)
    projector = np.eye(d) - np.outer(v, v)
    return np.einsum("i,ab,ibjc->iajc", 1 / np.abs(factors), projector, blocks).reshape(n * d, -1)


def bound(case: Case, x: np.ndarray, mask: str) -> float:
    """How far rounding may take two Jacobians apart."""
    size = 1.0 + case["alpha"] * np.linalg.norm(value_of(case))
    logits = 1.0 + np.linalg.norm(case.get("query_key", np.zeros(1)))
    worst = size * logits / np.min(np.linalg.norm(unnormalized(case, x, mask), axis=1))
    return 64.0 * float(np.finfo(float).eps * x.size * worst**2)


def signed(case: Case) -> np.ndarray:
    """x_i = s_i v."""
    return case["signs"][:, None] * case["direction"][None, :]


def same_jacobian(shape: Shape, case: Case) -> tuple[bool, float]:
    """Lemmas 2 and 10."""
    x = case["x"]
    error = closed_jacobian(case, x, shape.mask) - jacobian(case, x, shape.mask)
    return bool(np.max(np.abs(error)) <= bound(case, x, shape.mask)), 0.0


def same_signed_jacobian(shape: Shape, case: Case) -> tuple[bool, float]:
    """Lemma 12."""
    x = signed(case)
    error = signed_jacobian(case, shape.mask) - jacobian(case, x, shape.mask)
    return bool(np.max(np.abs(error)) <= bound(case, x, shape.mask)), 0.0


def positive_factors(shape: Shape, case: Case) -> tuple[bool, float]:
    """Lemma 13: y_i = s_i g_i v with g_i > 0."""
    x, n = signed(case), len(case["signs"])
    theta = case["direction"] @ case["query_key"] @ case["direction"]
    n1 = int(np.sum(case["signs"] > 0))
    up, down = (1 / (1 + np.exp(-2 * theta) * a / b) for a, b in ((n - n1, n1), (n1, n - n1)))
    gamma = np.where(case["signs"] > 0, 2 * up - 1, 2 * down - 1)
    factors = 1.0 + case["alpha"] * case["eigenvalues"][case["index"]] * gamma
    along = np.sum(unnormalized(case, x, shape.mask) * x, axis=1)
    off = np.max(np.abs(along - factors))
    return bool(off <= bound(case, x, shape.mask) and factors.min() > 0), float(factors.min())


def _bipartite(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Dense multipliers by a symmetrized Jacobian, and those of Lemma 14, both sorted."""
    x = signed(case)
    scores = x @ case["query_key"] @ x.T
    mass = np.sum(np.exp(scores - scores.max()), axis=1)
    weights = np.sqrt(np.linalg.norm(unnormalized(case, x, "full"), axis=1) * mass)
    scale = np.repeat(weights, x.shape[1] - 1)
    matrix = scale[:, None] * tangent(jacobian(case, x, "full"), x) / scale[None, :]
    dense = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    n1 = int(np.sum(case["signs"] > 0))
    n2 = len(case["signs"]) - n1
    alpha, k = case["alpha"], int(case["index"])
    own, others = case["eigenvalues"][k], np.delete(case["eigenvalues"], k)
    theta = case["direction"] @ case["query_key"] @ case["direction"]
    p1, p2 = (1 / (1 + np.exp(-2 * theta) * a / b) for a, b in ((n2, n1), (n1, n2)))
    g1, g2 = (abs(1 + alpha * own * (2 * p - 1)) for p in (p1, p2))
    m1, m2 = (1 + alpha * others * p1) / g1, (1 + alpha * others * p2) / g2
    root = np.sqrt((m1 - m2) ** 2 + 4 * (alpha * others) ** 2 * (1 - p1) * (1 - p2) / (g1 * g2))
    pair = [(m1 + m2 + root) / 2, (m1 + m2 - root) / 2]
    single = [np.full((n1 - 1) * len(others), 1 / g1), np.full((n2 - 1) * len(others), 1 / g2)]
    return dense, np.sort(np.concatenate(pair + single))


def bipartite_spectrum(_shape: Shape, case: Case) -> tuple[bool, float]:
    """Lemma 14: the classes are the spectrum."""
    dense, closed = _bipartite(case)
    # The symmetrization magnifies rounding; 1e-6 is far from it and from any mistake.
    size = 1.0 + np.max(np.abs(closed))
    return bool(np.max(np.abs(dense - closed)) <= 1e-6 * size), 0.0


def bipartite_unstable(_shape: Shape, case: Case) -> tuple[bool, float]:
    """Remark 10, corrected: a multiplier above 1, by (rho - 1)/max(1, rho)."""
    radius = np.max(np.abs(_bipartite(case)[0]))
    return bool(radius > 1), float((radius - 1) / max(1.0, radius))


def criterion(_shape: Shape, case: Case) -> tuple[bool, float]:
    """Theorem 3, corrected: stable iff the closed criterion holds."""
    dense, _ = _bipartite(case)
    values, k = case["eigenvalues"], int(case["index"])
    theta = float(case["direction"] @ case["query_key"] @ case["direction"])
    n1 = int(np.sum(case["signs"] > 0))
    n2 = len(case["signs"]) - n1
    ratio = max(n1 / n2, n2 / n1)
    q, r = np.exp(-4 * abs(theta)), n1 / n2 + n2 / n1
    psi = (1 + q - r * np.exp(-2 * abs(theta))) / (1 - q)
    holds = False
    if k == 0 and theta > 0 and values[0] > values[1]:
        crowd = values[1] >= 0 or min(n1, n2) < 2 or np.exp(2 * theta) > ratio
        holds = values[0] > 0 and values[1] / values[0] < psi and crowd
    elif k == len(values) - 1 and theta < 0 and values[-1] < min(0.0, values[-2]):
        holds = values[0] / abs(values[-1]) < psi
    return bool((np.max(np.abs(dense)) < 1) == holds), 0.0


def consensus_spectrum(shape: Shape, case: Case) -> tuple[bool, float]:
    """Lemma 3: the closed form is the Jacobian, and its classes the spectrum."""
    x = signed(case)
    matrix = jacobian(case, x, "full")
    allowed = bound(case, x, "full")
    entries = np.max(np.abs(matrix - signed_jacobian(case, "full"))) <= allowed
    own, k = case["alpha"] * case["eigenvalues"], int(case["index"])
    others = np.delete(own, k)
    classes = np.concatenate([1 + others, np.ones((shape.n - 1) * len(others))])
    reduced = tangent(matrix, x)
    dense = np.linalg.eigvalsh((reduced + reduced.T) / 2)
    error = np.max(np.abs(np.sort(classes / abs(1 + own[k])) - dense))
    return bool(entries and error <= allowed), 0.0


@dataclass(frozen=True)
class Peer:
    """A clause and its check in NumPy; ``compared``: its number is the clause's margin."""

    statement: str
    clause: str
    check: Callable[[Shape, Case], tuple[bool, float]]
    dense: bool
    compared: bool = False


PEERS = (
    Peer("lemma-2", "entrywise", same_jacobian, dense=False),
    Peer("lemma-10", "entrywise", same_jacobian, dense=False),
    Peer("lemma-12", "any mask, any V", same_signed_jacobian, dense=False),
    Peer("lemma-13", "positive", positive_factors, dense=False),
    Peer("lemma-3", "jacobian and spectrum", consensus_spectrum, dense=True),
    Peer("lemma-14", "intrinsic classes", bipartite_spectrum, dense=True),
    Peer("remark-10", "unstable", bipartite_unstable, dense=True, compared=True),
    Peer("theorem-3", "bipartite, exactly", criterion, dense=True),
)


def draw(clause: Clause, shape: Shape, count: int) -> tuple[list[Case], np.ndarray, np.ndarray]:
    """Instances on the host, with the conclusion's margins and tolerances."""

    def one(source: Any, kind: Any) -> Any:
        case = instances.draw(clause.hypotheses, source, kind, shape)
        return case, clause.conclusion(shape, case)

    source = noise.raw(17, count)
    cases, found = jax.jit(jax.vmap(one))(source, jnp.asarray(instances.kinds(count)))
    host = {name: np.asarray(value) for name, value in cases.items()}
    rows = [{name: value[i] for name, value in host.items()} for i in range(count)]
    return rows, np.asarray(found.value), np.asarray(found.tolerance)


def checking(clause: Clause, shape: Shape) -> float:
    """Seconds that one instance takes in a compiled batch of them, the best of 30."""
    source, kinds = noise.raw(17, _BATCH), jnp.asarray(instances.kinds(_BATCH))
    case = jax.jit(jax.vmap(lambda s, k: instances.draw(clause.hypotheses, s, k, shape)))(
        source, kinds
    )
    check = jax.jit(jax.vmap(lambda case: tuple(clause.conclusion(shape, case)))).lower(case)
    compiled, best = check.compile(compiler_options=quick_options(optimized=True)), np.inf
    for _ in range(31):
        started = time.perf_counter()
        jax.block_until_ready(compiled(case))
        best = min(best, time.perf_counter() - started)
    return best / _BATCH


def race(peer: Peer, count: int, peer_count: int) -> dict[str, Any]:
    """One row: both rates, their ratio, and how far both agree."""
    form = registry.statements()[peer.statement].corrected
    (clause,) = [c for c in form.clauses if c.name == peer.clause]
    runner = Runner(_BATCH)
    shapes = clause.hypotheses.shapes
    started = time.perf_counter()
    # As many as make it compile what it uses for many.
    runner.clause(clause, WORTH_OPTIMIZING * len(shapes), 1)
    compiling = time.perf_counter() - started
    started = time.perf_counter()
    result = runner.clause(clause, count, 2)
    whole = time.perf_counter() - started
    if result.violations:
        message = f"{peer.statement}: {len(result.violations)} instances violate the statement"
        raise RuntimeError(message)
    seconds = sum(checking(clause, shape) for shape in shapes) * count / len(shapes)
    times, differences, checked = 0.0, [0.0], 0
    for shape in shapes:
        rows_, values, tolerances = draw(clause, shape, peer_count // len(shapes))
        peer.check(shape, rows_[0])
        started = time.perf_counter()
        answers = [peer.check(shape, row) for row in rows_]
        times += time.perf_counter() - started
        checked += len(rows_)
        holds = margin.holds(values, tolerances)
        wrong = [i for i in np.flatnonzero(holds) if not answers[i][0]]
        if wrong:
            message = f"{peer.statement}: NumPy contradicts {len(wrong)} of {holds.sum()} instances"
            raise RuntimeError(message)
        if peer.compared:
            # Margins near 1 may be those of an identity that the clause asserts besides.
            gap = np.abs(np.array([number for _, number in answers]) - values)
            gap = gap[holds & (values < 0.5)]
            differences.append(float(np.max(gap, initial=0.0)))
    ours, theirs = count / seconds, checked / times
    return {
        "name": f"{peer.statement}, {peer.clause!r}" + (", dense eigenvalues" * peer.dense),
        "peer": f"NumPy loop over {checked} instances",
        "size": {
            "instances": count,
            "(n, d)": " ".join(f"({shape.n}, {shape.d})" for shape in shapes),
        },
        "ours": {"compile": compiling, "median": seconds, "best": seconds, "calls": 1},
        "peer_time": {"compile": 0.0, "median": times, "best": times, "calls": 1},
        "rate": ours,
        "whole_rate": count / whole,
        "peer_rate": theirs,
        "ratio": ours / theirs,
        "undecided": result.undecided,
        "largest_difference": max(differences) if peer.compared else None,
    }


def rows(quick: bool) -> list[dict[str, Any]]:
    """All rows; ``quick``: 10,000 instances in place of 100,000, and 300 for the loop."""
    count, peer_count = (10_000, 300) if quick else (100_000, 3_000)
    with jax.enable_x64(True):
        return [race(peer, count, peer_count) for peer in PEERS]
