"""The changed formulas: where, what is written there, what it becomes, and what notices.

One line of ``MUTATIONS`` is one change of a sign, a factor, an index or a condition. What notices
is the id of a statement (``pmt verify ID`` then answers no) or a test (which then fails).
"""

from tests.mutation.mutation import Mutation, changes_in
from tests.mutation.theory_table import THEORY

_PARITY = "tests/models/test_parity.py::test_tiny_random_models_with_every_field_off_its_default"

MUTATIONS: tuple[Mutation, ...] = (
    *changes_in(
        "pmt/stability/spectrum.py",
        ("consensus-sign", "(1.0 + _like(alpha", "(1.0 - _like(alpha", "lemma-3"),
        (
            "consensus-modulus",
            "jnp.abs(1.0 + alpha * eigenvalue)",
            "(1.0 + alpha * eigenvalue)",
            "lemma-3",
        ),
        (
            "consensus-factor",
            "jnp.abs(1.0 + alpha * eigenvalue)",
            "jnp.abs(1.0 + 2 * alpha * eigenvalue)",
            "lemma-4",
        ),
        ("attention-top", ".at[0].set(1.0)", ".at[0].set(1.0 / n)", "remark-2"),
        (
            "attention-causal",
            "return jnp.diagonal(weights) if",
            "return jnp.ones(n) if",
            "theorem-1",
        ),
        (
            "bipartite-logits",
            "[2.0 * theta + ratio, 2.0 * theta - ratio]",
            "[theta + ratio, theta - ratio]",
            "lemma-14",
            2,
        ),
        ("bipartite-coupling", "4.0 * coupling", "2.0 * coupling", "lemma-14"),
        ("bipartite-groups", "single=1.0 / size", "single=1.0 / size[::-1]", "lemma-14"),
        ("bipartite-index", "inside[1]) / scale[1]", "inside[1]) / scale[0]", "remark-10"),
        (
            "bipartite-order",
            "order = concentration - away",
            "order = concentration + away",
            "theorem-3",
        ),
    ),
    *changes_in(
        "pmt/stability/jacobian.py",
        ("jacobian-offset", "x[None, None] - mean[", "x[None, None] + mean[", "lemma-10"),
        ("jacobian-transpose", "hab,hibc,hdc->iad", "hab,hibc,hcd->iad", "lemma-10"),
        (
            "jacobian-projector",
            "identity[None] - direction",
            "identity[None] + direction",
            "lemma-2",
        ),
        ("signed-modulus", "jnp.abs(signed_factors(", "(signed_factors(", "lemma-3"),
        ("signed-projector", " - v[:, None] * v[None, :]", "", "lemma-12"),
        (
            "signed-step",
            'blocks = system.alpha * einsum("hij,hab->iajb", heads, value)',
            'blocks = 2.0 * system.alpha * einsum("hij,hab->iajb", heads, value)',
            "lemma-11",
        ),
        ("signed-sides", "signs[None] * einsum", "einsum", "lemma-13"),
        (
            "signed-logits",
            "signs[:, None] * signs[None, :]",
            "signs[:, None] + signs[None, :]",
            "remark-8",
        ),
    ),
    *changes_in(
        "pmt/stability/conditions.py",
        (
            "psi-balance",
            "r * jnp.exp(-2.0 * theta)",
            "2.0 * r * jnp.exp(-2.0 * theta)",
            "theorem-3",
        ),
        ("psi-exponent", "jnp.exp(-4.0 * theta)", "jnp.exp(-2.0 * theta)", "ii.4"),
        (
            "criterion-last",
            "jnp.minimum(-theta, bound",
            "jnp.minimum(theta, bound",
            "theorem-3",
        ),
    ),
    *changes_in(
        "pmt/dynamics/systems.py",
        ("oja-transpose", '"ij,...j->...i"', '"ji,...j->...i"', "equation-10"),
        (
            "logits-transpose",
            'einsum("id,de,je->ij", x, self.query_key, x)',
            'einsum("jd,de,ie->ij", x, self.query_key, x)',
            "tests/dynamics/test_systems.py::test_map_equals_the_loops",
        ),
        ("head-scale", "sqrt(self.query.shape[-2])", "sqrt(self.query.shape[-1])", "equation-1"),
        (
            "step-sign",
            "return x + self.alpha * self.update(x)",
            "return x - self.alpha * self.update(x)",
            "lemma-13",
        ),
    ),
    *changes_in(
        "pmt/attention.py",
        (
            "mask-causal",
            "jnp.tril(jnp.ones((n, n), bool))",
            "jnp.triu(jnp.ones((n, n), bool))",
            "tests/test_attention.py::test_weights_equal_the_loop",
        ),
        (
            "mask-window",
            "jnp.abs(gap) < self.size",
            "jnp.abs(gap) <= self.size",
            "tests/test_attention.py::test_weights_equal_the_loop",
        ),
        (
            "rotary-sign",
            "first * cos - second * sin",
            "first * cos + second * sin",
            "tests/test_rotary.py::test_planes_are_turned_as_complex_numbers",
        ),
        (
            "rotary-position",
            "angle = jnp.arange(x.shape[1])",
            "angle = jnp.square(jnp.arange(x.shape[1]))",
            "tests/test_rotary.py::test_logits_depend_on_the_difference_of_positions",
        ),
    ),
    *changes_in(
        "pmt/models/rotary.py",
        (
            "rotary-frequency",
            "(np.arange(self.planes) / self.planes)",
            "(np.arange(self.planes) / (2 * self.planes))",
            "tests/test_rotary.py::test_frequencies",
        ),
        (
            "rotary-passage",
            "(1 - kept) * plain / factor",
            "(1 - kept) * plain * factor",
            "tests/test_rotary.py::test_frequencies",
        ),
    ),
    *changes_in(
        "pmt/spectral/alignment.py",
        ("plane-partner", "square[..., directions.partner]", "square", "equation-4"),
        ("chance-argument", "lgamma((d + 1) / 2)", "lgamma((d - 1) / 2)", "equation-6"),
        ("chance-plane", "line * pi / 2", "line * pi / 4", "equation-6"),
        (
            "increment-sign",
            "parts = (low, high, high - low, increase)",
            "parts = (low, high, low - high, increase)",
            "tests/spectral/test_alignment.py::"
            "test_averages_over_all_directions_equal_the_loop_with_pairs_counted_twice",
        ),
        (
            "standard-error",
            "means.std(ddof=1)",
            "means.std(ddof=0)",
            "tests/spectral/test_alignment.py::test_summary_is_the_formulas",
        ),
    ),
    *changes_in(
        "pmt/sphere.py",
        (
            "tangent-part",
            "w - x * jnp.sum(x * w",
            "w + x * jnp.sum(x * w",
            "tests/test_sphere.py::test_tangent_projection_is_idempotent_and_orthogonal",
        ),
    ),
    *changes_in(
        "pmt/equilibria/constructors.py",
        (
            "isotropic-direction",
            "np.sqrt(-low) * vectors[:, -1] + np.sqrt(high) * vectors[:, 0]",
            "np.sqrt(high) * vectors[:, -1] + np.sqrt(-low) * vectors[:, 0]",
            "tests/equilibria/test_constructors.py::"
            "test_polygonal_point_of_a_single_head_needs_an_isotropic_direction",
        ),
    ),
    *changes_in(
        "pmt/models/layouts.py",
        (
            "layout-fused-bias",
            "return split[index]",
            "return split[parts - 1 - index]",
            "tests/models/test_layouts.py::test_fault_34_the_order_of_fused_queries_keys_and_values",
        ),
        (
            "layout-interleaved",
            "array.reshape(shape[0], parts, *shape[1:])[:, index]",
            "array.reshape(parts, shape[0], *shape[1:])[index]",
            "tests/models/test_layouts.py::test_fault_34_the_order_of_fused_queries_keys_and_values",
        ),
        (
            "layout-fused",
            "np.moveaxis(split[:, index], 0, -1)",
            "np.moveaxis(split[:, parts - 1 - index], 0, -1)",
            f"{_PARITY}[gpt2-unscaled-float64]",
        ),
        (
            "layout-heads",
            "np.moveaxis(array.reshape(shape[1], shape[0], shape[2]), 1, 0)",
            "np.moveaxis(array.reshape(shape[1], shape[2], shape[0]), 2, 0)",
            f"{_PARITY}[bert-heads-float64]",
        ),
    ),
    *THEORY,
)
