"""The hypotheses that statements share, as pieces: each draws fields and names what it promises."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmt import sphere
from pmt.numerics import einsum
from pmt.stability import conditions, jacobian
from theory import instances
from theory.instances import BOUNDARY, DEGENERATE
from theory.margin import identity, rounding
from theory.noise import Noise
from theory.statement import Case, Piece, Shape

Bound = Literal["none", "sharp", "half norm", "norm", "closed norm", "norm or positive"]
Which = Literal["first", "others", "any", "negative", "ends"]


def symmetric_value(*, last: Literal["any", "negative"] = "any") -> Piece:
    """Assumption 1: V = U diag(λ) Uᵀ nonsingular, λ_1 > λ_2 >= ... >= λ_d, λ_1 > 0.

    The eigenpairs are drawn and V is made of them, so that no eigensolver is needed. ``last``
    makes λ_d negative. Nearly degenerate: λ_2 next to λ_1, a repeated eigenvalue, one next to
    zero, or λ_d next to −λ_1.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        ratios = _ratios(noise, shape.d)
        mode = noise.integer(0, 4)
        small = noise.log_uniform(1e-6, 1e-3)
        bent = jnp.stack(
            [
                ratios.at[0].set(1.0 - small),
                ratios.at[-1].set(ratios[0]),
                ratios.at[-1].set(small),
                ratios.at[-1].set(-1.0 + small),
            ]
        )[mode]
        ratios = jnp.where(kind == DEGENERATE, bent, ratios)
        if last == "negative":
            ratios = -jnp.sort(-ratios)
            ratios = ratios.at[-1].set(-jnp.abs(ratios[-1]))
        top = noise.log_uniform(0.3, 3.0)
        eigenvalues = top * jnp.concatenate([jnp.ones(1), -jnp.sort(-ratios)])
        return {"eigenvalues": eigenvalues, "frame": noise.orthogonal(shape.d)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        gram = einsum("ak,al->kl", case["frame"], case["frame"]) - jnp.eye(shape.d)
        symmetric = identity(gram, scale=1.0, size=shape.d).value
        found = {"V symmetric": symmetric} | _assumption_1(case)
        if last == "negative":
            found["lambda_d < 0"] = -case["eigenvalues"][-1] / instances.norm_of(case)
        return found

    return Piece(draw, margins, _spectral_degeneracy)


def symmetric_matrix() -> Piece:
    """Assumption 1 with V given by its entries, not by its eigenpairs."""
    pairs = symmetric_value()

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        return {"value": instances.value_matrix(pairs.draw(noise, kind, shape, case))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        asymmetry = case["value"] - case["value"].T
        symmetric = identity(asymmetry, scale=instances.norm_of(case), size=shape.d).value
        return {"V symmetric": symmetric} | _assumption_1(case)

    return Piece(draw, margins, _spectral_degeneracy)


def _assumption_1(case: Case) -> dict[str, Array]:
    values, size = instances.spectrum_of(case), instances.norm_of(case)
    return {
        "lambda_1 > 0": values[0] / size,
        "lambda_1 simple": (values[0] - values[1]) / size,
        "V nonsingular": jnp.min(jnp.abs(values)) / size,
    }


def _spectral_degeneracy(shape: Shape, case: Case) -> Array:
    del shape
    values = instances.spectrum_of(case)
    gaps = jnp.min(values[:-1] - values[1:])
    opposite = jnp.abs(values[0] + values[-1])
    nearest = jnp.minimum(jnp.minimum(gaps, opposite), jnp.min(jnp.abs(values)))
    return nearest / instances.norm_of(case)


def _ratios(noise: Noise, d: int) -> Float[Array, " d_1"]:
    """λ_l / λ_1 for l >= 2, decreasing, away from 0 and 1."""
    floor = jnp.array([-2.5, -0.9, 0.05])[noise.integer(0, 3)]
    drawn = floor + (0.95 - floor) * noise.uniforms(d - 1)
    away = jnp.where(drawn < 0, jnp.minimum(drawn, -0.02), jnp.maximum(drawn, 0.02))
    return -jnp.sort(-away)


def any_value() -> Piece:
    """V real, nothing more: Gaussian, or (nearly degenerate) of rank one with a Jordan block."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        value = noise.log_uniform(0.1, 3.0) * noise.normal(shape.d, shape.d)
        # e_1 e_2ᵀ in a random frame: nilpotent.
        jordan = value[:, :1] * jnp.zeros((1, shape.d)).at[0, -1].set(1.0)
        jordan = jordan.at[-1, -1].set(0.0)
        return {"value": jnp.where(kind == DEGENERATE, jordan, value)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        singular = jnp.linalg.svd(case["value"], compute_uv=False)
        return singular[-1] / singular[0]

    return Piece(draw, degeneracy=degeneracy)


def step(bound: Bound) -> Piece:
    """alpha > 0 below a bound; boundary instances come within a hair of it.

    ``sharp``: alpha < −2/(λ_1 + λ_d) where λ_d < −λ_1 (Lemma 4). ``half norm``: alpha < 1/(2|V|).
    ``norm``: alpha < 1/|V|; ``closed norm``: alpha <= 1/|V|, equal on the boundary. ``norm or
    positive``: alpha < 1/|V|, or any alpha if V > 0. ``none``: any alpha; its boundary instances
    have very small or large steps.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        size = instances.norm_of(case)
        free = noise.log_uniform(0.03, 4.0) / size
        hair = noise.hair()
        extreme = jnp.where(noise.coin(), hair, 1.0 / jnp.sqrt(hair))
        free = jnp.where(kind == BOUNDARY, extreme / size, free)
        limit = _limit(bound, case)
        fraction = noise.uniform(0.05, 0.95)
        edge = jnp.asarray(1.0) if bound == "closed norm" else 1.0 - hair
        fraction = jnp.where(kind == BOUNDARY, edge, fraction)
        bounded = jnp.where(jnp.isfinite(limit), limit, 0.0) * fraction
        return {"alpha": jnp.where(jnp.isfinite(limit), bounded, free)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        size = instances.norm_of(case)
        relative = case["alpha"] * size
        found = {"alpha > 0": relative / (1.0 + relative)}
        room = _room(bound, case)
        return found if room is None else found | {"step bound": room}

    return Piece(draw, margins)


def _frobenius(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(matrix**2))


def _limit(bound: Bound, case: Case) -> Array:
    if bound == "none":
        return jnp.asarray(jnp.inf)
    values = instances.spectrum_of(case)
    if bound == "sharp":
        excess = -(values[0] + values[-1])
        return jnp.where(excess > 0, 2.0 / jnp.where(excess > 0, excess, 1.0), jnp.inf)
    by_norm = 1.0 / instances.norm_of(case)
    if bound == "half norm":
        return by_norm / 2.0
    if bound in ("norm", "closed norm"):
        return by_norm
    return jnp.where(values[-1] > 0, jnp.inf, by_norm)


def _room(bound: Bound, case: Case) -> Array | None:
    if bound == "none":
        return None
    values, alpha = instances.spectrum_of(case), case["alpha"]
    if bound == "sharp":
        return conditions.consensus_step_margin(alpha, values[0], values[-1])
    room = conditions.norm_step_margin(alpha, values, 2.0 if bound == "half norm" else 1.0)
    if bound == "closed norm":
        return room + rounding(1)
    if bound == "norm or positive":
        return jnp.maximum(room, values[-1] / instances.norm_of(case))
    return room


def eigenpair(which: Which) -> Piece:
    """An eigenpair V v = λ_k v of the symmetric V: its index and its vector.

    ``negative``: any k with λ_k < 0. ``ends``: k = 1, or k = d where λ_d < −λ_1: the only ones at
    which bipartite points can be stable.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        values = case["eigenvalues"]
        index = noise.integer(*{"first": (0, 1), "others": (1, shape.d)}.get(which, (0, shape.d)))
        if which == "negative":
            below = jnp.sum(jnp.where(values < 0, 1, 0))
            index = shape.d - 1 - index % jnp.maximum(below, 1)
        if which == "ends":
            last = (values[-1] < -values[0]) & (index > 0)
            index = jnp.where(last, shape.d - 1, 0)
        return {"index": index, "direction": case["frame"][:, index]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size, own = instances.norm_of(case), instances.principal_eigenvalue(case)
        moved = einsum("ab,b->a", instances.value_matrix(case), case["direction"])
        defect = moved - own * case["direction"]
        found = {"V v = lambda v": identity(defect, scale=size, size=shape.d).value}
        if which in ("first", "others"):
            place = jnp.where(case["index"] == 0, 1.0, -1.0)
            found["place of k"] = place if which == "first" else -place
        if which == "negative":
            found["lambda_k < 0"] = -own / size
        if which == "ends":
            last = (case["eigenvalues"][0] + own) / size
            found["place of k"] = jnp.where(case["index"] == 0, 1.0, -last)
        return found

    return Piece(draw, margins)


def consensus_signs() -> Piece:
    """All tokens equal: s_i = 1."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        return {"equal tokens": jnp.min(case["signs"]) * jnp.max(case["signs"])}

    return Piece(lambda _noise, _kind, shape, _case: {"signs": jnp.ones(shape.n)}, margins)


def split_signs(split: Literal["any", "balanced", "unbalanced", "decided"] = "any") -> Piece:
    """Signs s_i = ±1 in random order, both present; 1 <= n_1 <= n − 1.

    ``decided``: unbalanced where k = 1 and λ_2 < 0, the one case of the Oja system that its
    linearization does not decide (Lemma 5, corrected).
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        positive = noise.integer(1, shape.n)
        if split == "balanced":
            positive = jnp.full_like(positive, shape.n // 2)
        if split in ("unbalanced", "decided"):
            # One token changes sides if the draw happens to be balanced.
            tilted = jnp.where(2 * positive == shape.n, positive + 1, positive)
            tilt = _undecided_pair(case) if split == "decided" else True
            positive = jnp.where(tilt, tilted, positive)
        signs = jnp.where(jnp.arange(shape.n) < positive, 1.0, -1.0)
        return {"signs": noise.shuffled(signs)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        sizes = instances.group_sizes(case)
        found = {"both groups present": jnp.minimum(*sizes) / shape.n}
        difference = jnp.abs(sizes[0] - sizes[1])
        if split == "balanced":
            found["balanced"] = jnp.where(difference == 0, 1.0, -1.0)
        if split == "unbalanced":
            found["unbalanced"] = jnp.where(difference > 0, 1.0, -1.0)
        if split == "decided":
            undecided = _undecided_pair(case) & (difference == 0)
            found["not balanced at v_1 with lambda_2 < 0"] = jnp.where(undecided, -1.0, 1.0)
        return found

    return Piece(draw, margins)


def existing_bipartite() -> Piece:
    """1 + alpha λ_k γ_i > 0 for every token; lowers alpha where it is too large for that.

    Comes after the attention that γ_i depends on. Needed only above alpha = 1/|V| (Lemma 13).
    """

    def strength(shape: Shape, case: Case) -> Array:
        """max_i −λ_k γ_i."""
        unit = instances.single_head(shape, {**case, "alpha": jnp.asarray(1.0)})
        factors = jacobian.signed_factors(unit, case["direction"], case["signs"])
        return jnp.max(1.0 - factors)

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        size, alpha = strength(shape, case), case["alpha"]
        lower = noise.uniform(0.3, 0.95) / jnp.where(size > 0, size, 1.0)
        return {"alpha": jnp.where(alpha * size < 1.0, alpha, lower)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        room = 1.0 - case["alpha"] * strength(shape, case)
        return {"bipartite point exists": room / (1.0 + case["alpha"] * instances.norm_of(case))}

    return Piece(draw, margins)


def _undecided_pair(case: Case) -> Array:
    return (case["index"] == 0) & (case["eigenvalues"][1] < 0)


def query_key(theta: Literal["any", "non-negative"] = "any") -> Piece:
    """B = QᵀK real and not symmetric; θ = vᵀ B v drawn where there is a direction v.

    Nearly degenerate: almost no attention at all. ``non-negative``: θ >= 0, boundary θ = 0.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        size = jnp.where(kind == DEGENERATE, noise.hair(), noise.log_uniform(0.1, 3.0))
        matrix = size * noise.normal(shape.d, shape.d)
        if "direction" not in case:
            return {"query_key": matrix}
        v = case["direction"]
        wanted = size * noise.normal()
        if theta == "non-negative":
            wanted = jnp.where(kind == BOUNDARY, 0.0, jnp.abs(wanted))
        correction = wanted - einsum("a,ab,b->", v, matrix, v)
        return {"query_key": matrix + correction * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        if theta == "any":
            return {}
        size = 1.0 + jnp.max(jnp.abs(case["query_key"]))
        # θ = 0 is allowed, and comes out as a rounding error of either sign.
        return {"theta >= 0": theta_of(case) / size + rounding(shape.d)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.max(jnp.abs(case["query_key"]))

    return Piece(draw, margins, degeneracy)


def threshold_logits(*, conditions_hold: bool) -> Piece:
    """B with θ_k set relative to the exact threshold of theory II.4, where there is one.

    ``conditions_hold``: beyond it, and so that condition 3 holds for both groups, by construction;
    boundary instances by a hair. Otherwise on either side: boundary instances within a hair,
    nearly degenerate ones almost without attention, generic ones anywhere.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        hair, side = noise.hair(), noise.coin()
        beyond = jnp.where(kind == BOUNDARY, hair, noise.uniform(0.05, 1.5))
        anywhere = 1.5 * noise.normal()
        sign = jnp.where(case["index"] == 0, 1.0, -1.0)
        threshold = _threshold(case, both_groups=conditions_hold)
        wanted = sign * (threshold + beyond)
        if not conditions_hold:
            near = sign * (threshold + jnp.where(side, hair, -hair))
            wanted = jnp.where(kind == BOUNDARY, near, anywhere)
            wanted = jnp.where(kind == DEGENERATE, hair * anywhere, wanted)
        v = case["direction"]
        matrix = noise.normal(shape.d, shape.d)
        correction = wanted - einsum("a,ab,b->", v, matrix, v)
        return {"query_key": matrix + correction * v[:, None] * v[None, :]}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del shape
        if not conditions_hold:
            return {}
        found = conditions.theorem_3_margins(
            case["alpha"],
            instances.principal_eigenvalue(case),
            instances.other_eigenvalues(case),
            theta_of(case),
            *instances.group_sizes(case),
        )
        return {
            "condition 1": found.extrinsic,
            "condition 2": jnp.min(found.schur_cohn),
            "condition 3": found.single,
        }

    return Piece(draw, margins)


def _threshold(case: Case, *, both_groups: bool) -> Array:
    """|θ| at which the largest multiplier is 1, for k = 1 and for k = d with λ_d < −λ_1.

    Ψ(θ) = c, c the next eigenvalue over |λ_k|, is a quadratic equation in E = e^{2θ}:
    (1 − c) E² − r E + (1 + c) = 0. ``both_groups``: and E > ρ, so that 1/g_i < 1 for both.
    """
    own = jnp.abs(instances.principal_eigenvalue(case))
    c = jnp.max(instances.other_eigenvalues(case)) / own
    n1, n2 = instances.group_sizes(case)
    r, ratio = n1 / n2 + n2 / n1, jnp.maximum(n1 / n2, n2 / n1)
    c = jnp.minimum(c, 1.0 - 1e-12)
    root = (r + jnp.sqrt(r**2 - 4.0 * (1.0 - c**2))) / (2.0 * (1.0 - c))
    crowded = both_groups | ((c < 0) & (jnp.minimum(n1, n2) >= 2))
    root = jnp.where(crowded, jnp.maximum(root, ratio), root)
    return jnp.log(jnp.maximum(root, 1.0)) / 2.0


def isotropic_pairs() -> Piece:
    """n/2 tokens at u and n/2 at −u with uᵀ B u = 0: a polygonal point (Lemma 8, corrected).

    Changes ``query_key``. Nearly degenerate: u next to an eigenvector of V.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        vectors = jnp.linalg.eigh((case["value"] + case["value"].T) / 2.0)[1]
        turn = jnp.where(kind == DEGENERATE, noise.hair(), 1.0)
        u = sphere.normalize(vectors[:, 0] + turn * noise.normal(shape.d))
        signs = jnp.where(jnp.arange(shape.n) < shape.n // 2, 1.0, -1.0)
        matrix = case["query_key"]
        own = einsum("a,ab,b->", u, matrix, u)
        return {
            "x": signs[:, None] * u[None, :],
            "query_key": matrix - own * u[:, None] * u[None, :],
        }

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        u = case["x"][0]
        logits = einsum("ia,ab,jb->ij", case["x"], case["query_key"], case["x"])
        size = 1.0 + jnp.max(jnp.abs(case["query_key"]))
        off_axis = jnp.abs(einsum("ia,a->i", case["x"], u)) - 1.0
        return {
            "tokens sum to 0": identity(
                jnp.sum(case["x"], axis=0), scale=1.0, size=shape.n * shape.d
            ).value,
            "tokens on one line": identity(off_axis, scale=1.0, size=shape.d).value,
            "x'Bx = 0": identity(logits, scale=size, size=shape.d).value,
        }

    return Piece(draw, margins)


def theta_of(case: Case) -> Float[Array, ""]:
    """θ_k = v_kᵀ B v_k."""
    return einsum("a,ab,b->", case["direction"], case["query_key"], case["direction"])


def uniform_attention() -> Piece:
    """B = 0: the softmax system is then the Oja system."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        size = jnp.max(jnp.abs(case["query_key"]))
        return {"uniform attention": identity(size, scale=1.0, size=shape.d).value}

    return Piece(
        lambda _noise, _kind, shape, _case: {"query_key": jnp.zeros((shape.d, shape.d))}, margins
    )


def full_attention() -> Piece:
    """Every token attends to every token."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del case
        return {"full attention": jnp.asarray(1.0 if shape.mask == "full" else -1.0)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)


def attention_spectrum_not_negative() -> Piece:
    """The eigenvalues of the attention matrix at consensus lie in [0, 1], as for causal masks."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        del case
        mu = instances.attention_eigenvalues(shape)
        return {"attention eigenvalues >= 0": jnp.min(mu) + rounding(shape.n)}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)


def tokens() -> Piece:
    """Unit tokens, uniform on the sphere; nearly degenerate: all but one nearly equal."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        x = noise.unit(shape.n, shape.d)
        near = sphere.retract(jnp.broadcast_to(x[:1], x.shape), noise.hair() * x)
        return {"x": jnp.where(kind == DEGENERATE, near.at[-1].set(-x[0]), x)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        off = sphere.norm(case["x"]) - 1.0
        return {"unit tokens": identity(off, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def polygon() -> Piece:
    """Σ_j x_j = 0 with tokens that do not all lie on one line: a triangle and opposite pairs.

    n = 3 is the regular triangle in a random plane; every two tokens more are a random pair
    {u, −u}; n = 4 is two pairs. Nearly degenerate: two pairs that nearly coincide.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del case
        frame = noise.orthogonal(shape.d)
        count = (shape.n - 3 * (shape.n % 2)) // 2
        axes = noise.unit(count, shape.d)
        if shape.n % 2 == 0:
            near = sphere.retract(jnp.broadcast_to(axes[:1], axes.shape), noise.hair() * axes)
            near = near.at[0].set(axes[0])
            axes = jnp.where(kind == DEGENERATE, near, axes)
        angle = 2.0 * jnp.pi * jnp.arange(3 * (shape.n % 2)) / 3.0
        plane = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        triangle = einsum("np,dp->nd", plane, frame[:, :2])
        return {"x": sphere.normalize(jnp.concatenate([triangle, axes, -axes]))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = jnp.sum(case["x"], axis=0)
        singular = jnp.linalg.svd(case["x"], compute_uv=False)
        return {
            "tokens sum to 0": identity(total, scale=1.0, size=shape.n * shape.d).value,
            "not collinear": singular[1] / singular[0],
        }

    return Piece(draw, margins)


def antipodal_tokens() -> Piece:
    """Two tokens {u, −u} along a random axis."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, case
        u = noise.unit(1, shape.d)
        return {"x": jnp.concatenate([u, -u])}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = jnp.sum(case["x"], axis=0)
        return {"tokens antipodal": identity(total, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def enough_tokens() -> Piece:
    """n >= 3, or λ_2 > 0 (Theorem 2, corrected)."""

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        second = case["eigenvalues"][1] / instances.norm_of(case)
        return {"n >= 3 or lambda_2 > 0": jnp.asarray(1.0) if shape.n >= 3 else second}

    return Piece(lambda _noise, _kind, _shape, _case: {}, margins)


def nonzero_update(system: Callable[[Shape, Case], Any]) -> Piece:
    """y_i ≠ 0; boundary: equal tokens that V nearly cancels, y_i = δ x_i with δ a hair.

    Changes ``value`` and ``x`` of its boundary instances.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        x, value = case["x"], case["value"]
        u = x[0]
        target = (noise.log_uniform(1e-5, 1e-2) - 1.0) / case["alpha"]
        moved = einsum("ab,b->a", value, u)
        nearly = value + (target * u - moved)[:, None] * u[None, :]
        boundary = kind == BOUNDARY
        same = jnp.broadcast_to(u[None, :], (shape.n, shape.d))
        return {"value": jnp.where(boundary, nearly, value), "x": jnp.where(boundary, same, x)}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        smallest = jnp.min(sphere.norm(system(shape, case).unnormalized(case["x"])))
        size = 1.0 + case["alpha"] * _frobenius(case["value"])
        return {"y != 0": smallest / size - 1e-14}

    return Piece(draw, margins)


def moderate_step() -> Piece:
    """alpha between 0.03 and 4, whatever V is."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind, shape, case
        return {"alpha": noise.log_uniform(0.03, 4.0)}

    return Piece(draw, lambda _shape, case: {"alpha > 0": case["alpha"] / (1.0 + case["alpha"])})


def tangent_direction() -> Piece:
    """A unit direction w with w_i ⟂ x_i for every token."""

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        del kind
        w = noise.normal(shape.n, shape.d)
        w = sphere.tangent_projection(case["x"], w)
        return {"w": w / jnp.sqrt(jnp.sum(w**2))}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        along = jnp.sum(case["x"] * case["w"], axis=-1)
        return {"w tangent": identity(along, scale=1.0, size=shape.d).value}

    return Piece(draw, margins)


def real_eigenvector() -> Piece:
    """F arbitrary with one real eigenpair F v = λ v: ``value``, ``direction``, ``eigenvalue``.

    Nearly degenerate: |1 + alpha λ| small, through λ (alpha is drawn before).
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        v = noise.unit(shape.d)
        matrix = noise.log_uniform(0.2, 2.0) * noise.normal(shape.d, shape.d)
        eigenvalue = 2.0 * noise.normal()
        hair = noise.hair()
        near = (hair - 1.0) / case["alpha"]
        eigenvalue = jnp.where(kind == DEGENERATE, near, eigenvalue)
        eigenvalue = jnp.where(kind == BOUNDARY, hair, eigenvalue)
        moved = einsum("ab,b->a", matrix, v)
        value = matrix + (eigenvalue * v - moved)[:, None] * v[None, :]
        return {"value": value, "direction": v, "eigenvalue": eigenvalue}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        moved = einsum("ab,b->a", case["value"], case["direction"])
        defect = moved - case["eigenvalue"] * case["direction"]
        size = _frobenius(case["value"])
        found = {"F v = lambda v": identity(defect, scale=size, size=shape.d).value}
        factor = 1.0 + case["alpha"] * case["eigenvalue"]
        return found | {"1 + alpha lambda != 0": jnp.abs(factor) / (1.0 + case["alpha"] * size)}

    def degeneracy(shape: Shape, case: Case) -> Array:
        del shape
        return jnp.abs(1.0 + case["alpha"] * case["eigenvalue"])

    return Piece(draw, margins, degeneracy)


def heads(*, symmetric_sum: bool) -> Piece:
    """Heads F_h, not symmetric, that sum to V, and B_h real: ``heads``, ``query_keys``.

    Nearly degenerate: one head carries all of V and the others cancel.
    """

    def draw(noise: Noise, kind: Any, shape: Shape, case: Case) -> dict[str, Array]:
        total = instances.value_matrix(case)
        loose = noise.normal(shape.h, shape.d, shape.d) * _frobenius(total)
        loose = loose - jnp.mean(loose, axis=0, keepdims=True)
        even = loose + total[None] / shape.h
        one = loose.at[0].add(total)
        keys = noise.log_uniform(0.1, 3.0) * noise.normal(shape.h, shape.d, shape.d)
        return {"heads": jnp.where(kind == DEGENERATE, one, even), "query_keys": keys}

    def margins(shape: Shape, case: Case) -> dict[str, Array]:
        total = instances.value_matrix(case)
        size = jnp.sqrt(jnp.sum(case["heads"] ** 2)) + _frobenius(total)
        defect = jnp.sum(case["heads"], axis=0) - total
        found = {"heads sum to F": identity(defect, scale=size, size=shape.d * shape.h).value}
        if symmetric_sum:
            asymmetry = total - total.T
            found["F symmetric"] = identity(asymmetry, scale=size, size=shape.d).value
        return found

    return Piece(draw, margins)
