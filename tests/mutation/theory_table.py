"""The changed formulas of the statements, their oracles and instances."""

from tests.mutation.mutation import Mutation, changes_in

THEORY: tuple[Mutation, ...] = (
    *changes_in(
        "theory/conclusions.py",
        (
            "conclusion-cycle",
            'factor = 1.0 + case["alpha"] * instances.principal_eigenvalue(case)',
            'factor = 1.0 - case["alpha"] * instances.principal_eigenvalue(case)',
            "lemma-3",
        ),
    ),
    *changes_in(
        "theory/any_mask.py",
        (
            "any-mask-factor",
            "return matrix / jnp.abs(1.0 + alpha * value)",
            "return matrix / jnp.abs(1.0 - alpha * value)",
            "ii.6",
        ),
    ),
    *changes_in(
        "theory/bipartite_exact.py",
        ("any-step-matrix", "jnp.diag(1.0 + factors)", "jnp.diag(1.0 - factors)", "ii.4"),
    ),
    *changes_in(
        "theory/heads_bipartite.py",
        (
            "heads-groups",
            "jnp.stack([2.0 * theta + ratio, 2.0 * theta - ratio])",
            "jnp.stack([2.0 * theta + ratio, 2.0 * theta + ratio])",
            "ii.5",
        ),
    ),
    *changes_in(
        "pmt/spectral/increments.py",
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
    *changes_in(
        "theory/ordering.py",
        (
            "step-of-a-pair",
            'value = 2.0 * (own - real) - case["alpha"]',
            'value = (own - real) - case["alpha"]',
            "section-2.1",
        ),
    ),
    *changes_in(
        "theory/oja_lyapunov.py",
        (
            "lyapunov-identity",
            "(1.0 + length) / 2.0 * squares",
            "(1.0 - length) / 2.0 * squares",
            "ii.1",
        ),
    ),
    *changes_in(
        "theory/oja_instability.py",
        ("instability-bound", "(1.0 + alpha * gamma**2 *", "(1.0 - alpha * gamma**2 *", "lemma-5"),
    ),
    *changes_in(
        "theory/products.py",
        (
            "product-skip",
            '1.0 + case["alpha"] * case["spectra"]',
            '1.0 - case["alpha"] * case["spectra"]',
            "figure-8",
            2,
        ),
    ),
    *changes_in(
        "theory/rank_one.py",
        (
            "edit-sign",
            "difference - c * kappa[:, None]",
            "difference + c * kappa[:, None]",
            "section-2.3",
        ),
    ),
    *changes_in(
        "theory/polygonal.py",
        (
            "pair-signs",
            'share * einsum("i,j,e,f->iejf", signs, signs, b, up)',
            'share * einsum("i,j,e,f->iejf", jnp.ones(n), signs, b, up)',
            "ii.7",
        ),
    ),
    *changes_in(
        "theory/polygonal.py",
        ("pair-single", 'alpha"] * b[:, None] * down[', 'alpha"] * b[:, None] * up[', "ii.7"),
        ("pair-blocks", "single + b[:, None] * up", "single - b[:, None] * up", "ii.7"),
    ),
    *changes_in(
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
    *changes_in(
        "theory/heads_bipartite.py",
        ("heads-logits", "2.0 * theta - ratio", "2.0 * theta + ratio", "ii.5"),
        ("heads-factors", "own - other)", "own)", "ii.5"),
        ("heads-order", "jnp.tanh(", "jnp.sin(", "ii.5"),
    ),
    *changes_in(
        "theory/any_mask.py",
        ("mask-identity", "+ jnp.eye(size)", "+ 2 * jnp.eye(size)", "ii.6"),
    ),
    *changes_in(
        "theory/any_step.py",
        ("asymmetric-room", "2.0 * (own - pair[0])", "(own - pair[0])", "section-d.4.3"),
    ),
    *changes_in(
        "theory/oja_step_range.py",
        ("step-range", "return 2.0 * n / (2.0 * n - 1.0)", "return n / (n - 1.0)", "ii.1"),
        ("step-range-cancelled", "+ n - 1, n / second", "+ n, n / second", "ii.1"),
    ),
    *changes_in(
        "theory/large_steps.py",
        ("flip-step", "alpha / 2.0 - product", "alpha / 4.0 - product", "ii.9"),
    ),
    *changes_in(
        "theory/hypotheses/clusters.py",
        ("cluster-sizes", "kernel * sizes(case)", "kernel + 0.0 * sizes(case)", "remark-5"),
        ("cluster-count", "m), axis=0)", "m), axis=0) + 1.0", "lemma-9"),
    ),
    *changes_in(
        "theory/basins.py",
        (
            "split-others",
            'theta_of(case), case["eigenvalues"][1:]',
            'theta_of(case), -case["eigenvalues"][1:]',
            "section-d.4.2",
        ),
    ),
)
