"""The changed formulas: where, what is written there, what it becomes, and what notices.

One line of ``MUTATIONS`` is one change of a sign, a factor, an index or a condition. What notices
is the id of a statement (``pmt verify ID`` then answers no) or a test (which then fails).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A changed formula.

    Attributes:
      name: for ``--only``.
      file: relative to the root of the repository.
      before, after: source text; ``before`` stands in the file exactly ``times`` times.
      caught_by: a statement's id, or a pytest node (it holds ``::``).
      times: how often ``before`` stands there; all of them are changed.
    """

    name: str
    file: str
    before: str
    after: str
    caught_by: str
    times: int = 1

    @property
    def by_test(self) -> bool:
        """Whether a test notices, and not a statement."""
        return "::" in self.caught_by

    def apply(self, text: str) -> str:
        """The file's text with the change.

        Raises:
          ValueError: if the formula does not stand there as often as it should.
        """
        found = text.count(self.before)
        if found != self.times:
            message = (
                f"{self.name}: {self.file} has {self.before!r} {found} times, not {self.times}; "
                "write the formula into tests/mutation/table.py as it is now"
            )
            raise ValueError(message)
        return text.replace(self.before, self.after)


def _in(file: str, *changes: tuple[str, str, str, str] | tuple[str, str, str, str, int]) -> list:
    return [Mutation(c[0], file, *c[1:]) for c in changes]


_PARITY = "tests/models/test_parity.py::test_tiny_random_models_with_every_field_off_its_default"

MUTATIONS: tuple[Mutation, ...] = (
    *_in(
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
    *_in(
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
    *_in(
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
    *_in(
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
    *_in(
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
    *_in(
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
    *_in(
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
    *_in(
        "pmt/sphere.py",
        (
            "tangent-part",
            "w - x * jnp.sum(x * w",
            "w + x * jnp.sum(x * w",
            "tests/test_sphere.py::test_tangent_projection_is_idempotent_and_orthogonal",
        ),
    ),
    *_in(
        "pmt/equilibria/constructors.py",
        (
            "isotropic-direction",
            "np.sqrt(-low) * vectors[:, -1] + np.sqrt(high) * vectors[:, 0]",
            "np.sqrt(high) * vectors[:, -1] + np.sqrt(-low) * vectors[:, 0]",
            "tests/equilibria/test_constructors.py::"
            "test_polygonal_point_of_a_single_head_needs_an_isotropic_direction",
        ),
    ),
    *_in(
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
    *_in(
        "theory/conclusions.py",
        (
            "conclusion-cycle",
            'factor = 1.0 + case["alpha"] * instances.principal_eigenvalue(case)',
            'factor = 1.0 - case["alpha"] * instances.principal_eigenvalue(case)',
            "lemma-3",
        ),
    ),
    *_in(
        "theory/any_mask.py",
        (
            "any-mask-factor",
            "return matrix / jnp.abs(1.0 + alpha * value)",
            "return matrix / jnp.abs(1.0 - alpha * value)",
            "ii.6",
        ),
    ),
    *_in(
        "theory/bipartite_exact.py",
        ("any-step-matrix", "jnp.diag(1.0 + factors)", "jnp.diag(1.0 - factors)", "ii.4"),
    ),
    *_in(
        "theory/heads_bipartite.py",
        (
            "heads-groups",
            "jnp.stack([2.0 * theta + ratio, 2.0 * theta - ratio])",
            "jnp.stack([2.0 * theta + ratio, 2.0 * theta + ratio])",
            "ii.5",
        ),
    ),
    *_in(
        "theory/increments.py",
        (
            "increments-dimension",
            "return mean_modulus(d) * (own - (jnp.trace(matrix) - own) / (d - 1))",
            "return mean_modulus(d) * (own - (jnp.trace(matrix) - own) / d)",
            "ii.8",
        ),
        (
            "increments-modulus",
            "return chance(d) * (d - 1) / (d + 1)",
            "return chance(d) * (d - 1) / d",
            "ii.8",
        ),
    ),
    *_in(
        "theory/ordering.py",
        (
            "step-of-a-pair",
            'value = 2.0 * (own - real) - case["alpha"]',
            'value = (own - real) - case["alpha"]',
            "section-2.1",
        ),
    ),
    *_in(
        "theory/oja_lyapunov.py",
        (
            "lyapunov-identity",
            "(1.0 + length) / 2.0 * squares",
            "(1.0 - length) / 2.0 * squares",
            "ii.1",
        ),
    ),
    *_in(
        "theory/oja_instability.py",
        ("instability-bound", "(1.0 + alpha * gamma**2 *", "(1.0 - alpha * gamma**2 *", "lemma-5"),
    ),
    *_in(
        "theory/products.py",
        (
            "product-skip",
            '1.0 + case["alpha"] * case["spectra"]',
            '1.0 - case["alpha"] * case["spectra"]',
            "figure-8",
            2,
        ),
    ),
    *_in(
        "theory/rank_one.py",
        (
            "edit-sign",
            "difference - c * kappa[:, None]",
            "difference + c * kappa[:, None]",
            "section-2.3",
        ),
    ),
    *_in(
        "theory/polygonal.py",
        (
            "pair-signs",
            'share * einsum("i,j,e,f->iejf", signs, signs, b, up)',
            'share * einsum("i,j,e,f->iejf", jnp.ones(n), signs, b, up)',
            "ii.7",
        ),
    ),
    *_in(
        "theory/polygonal.py",
        ("pair-single", 'alpha"] * b[:, None] * down[', 'alpha"] * b[:, None] * up[', "ii.7"),
        ("pair-blocks", "single + b[:, None] * up", "single - b[:, None] * up", "ii.7"),
    ),
    *_in(
        "theory/bipartite_exact.py",
        ("causal-criterion", "- other * small", "+ other * small", "ii.4"),
        (
            "any-step",
            "upper = jnp.diag(own * gamma)",
            "upper = 2.0 * jnp.diag(own * gamma)",
            "ii.4",
        ),
        ("action-signs", "gamma = signs * einsum", "gamma = einsum", "ii.4"),
    ),
    *_in(
        "theory/heads_bipartite.py",
        ("heads-logits", "2.0 * theta - ratio", "2.0 * theta + ratio", "ii.5"),
        ("heads-factors", "own - other)", "own)", "ii.5"),
        ("heads-order", "jnp.tanh(", "jnp.sin(", "ii.5"),
    ),
    *_in(
        "theory/any_mask.py",
        ("mask-identity", "+ jnp.eye(size)", "+ 2 * jnp.eye(size)", "ii.6"),
    ),
    *_in(
        "theory/any_step.py",
        ("asymmetric-room", "2.0 * (own - pair[0])", "(own - pair[0])", "section-d.4.3"),
    ),
    *_in(
        "theory/oja_step_range.py",
        ("step-range", "return 2.0 * n / (2.0 * n - 1.0)", "return n / (n - 1.0)", "ii.1"),
        ("step-range-cancelled", "+ n - 1, n / second", "+ n, n / second", "ii.1"),
    ),
    *_in(
        "theory/large_steps.py",
        ("flip-step", "alpha / 2.0 - product", "alpha / 4.0 - product", "ii.9"),
    ),
    *_in(
        "theory/hypotheses/clusters.py",
        ("cluster-sizes", "kernel * sizes(case)", "kernel + 0.0 * sizes(case)", "remark-5"),
        ("cluster-count", "m), axis=0)", "m), axis=0) + 1.0", "lemma-9"),
    ),
    *_in(
        "theory/basins.py",
        (
            "split-others",
            'theta_of(case), case["eigenvalues"][1:]',
            'theta_of(case), -case["eigenvalues"][1:]',
            "section-d.4.2",
        ),
    ),
)
