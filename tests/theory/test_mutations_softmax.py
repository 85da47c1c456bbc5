"""Break a formula about equilibria and the statement named with it falls."""

import pytest

from pmt import cli
from tests.theory.test_mutations import mutated
from theory import any_mask, basins, bipartite_exact, heads_bipartite, large_steps, polygonal
from theory.hypotheses import clusters

# module, function, what is written there, what it is changed to, the statement that notices
MUTATIONS = [
    (polygonal, "pair_jacobian", "signs, signs, b, up", "jnp.ones(n), signs, b, up", "ii.7"),
    (polygonal, "pair_jacobian", "b[:, None] * down", "b[:, None] * up", "ii.7"),
    (polygonal, "_pair_blocks", "+ b[:, None] * up", "- b[:, None] * up", "ii.7"),
    (
        bipartite_exact,
        "_causal_criterion",
        "- other * small",
        "+ other * small",
        "ii.4",
    ),
    (
        bipartite_exact,
        "_any_step_criterion",
        "upper = jnp.diag(own * gamma)",
        "upper = 2.0 * jnp.diag(own * gamma)",
        "ii.4",
    ),
    (
        bipartite_exact,
        "_scaled_action",
        "gamma = signs * einsum",
        "gamma = einsum",
        "ii.4",
    ),
    (heads_bipartite, "group_actions", "2.0 * theta - ratio", "2.0 * theta + ratio", "ii.5"),
    (heads_bipartite, "group_actions", "own - other)", "own)", "ii.5"),
    (heads_bipartite, "reduced_step", "jnp.tanh(", "jnp.sin(", "ii.5"),
    (any_mask, "consensus_jacobian", "+ jnp.eye(size)", "+ 2 * jnp.eye(size)", "ii.6"),
    (
        any_mask,
        "_stable_iff",
        "2.0 * (own - pair[0])",
        "(own - pair[0])",
        "section-d.4.3",
    ),
    (large_steps, "_flip", "alpha / 2.0 - product", "alpha / 4.0 - product", "ii.9"),
    (
        clusters,
        "reduced_attention",
        "kernel * sizes(case)",
        "kernel * 1.0 + 0 * sizes(case)",
        "remark-5",
    ),
    (clusters, "sizes", "axis=0)", "axis=0) + 1.0", "lemma-9"),
    (
        basins,
        "_every_split_unstable",
        'case["eigenvalues"][1:]',
        '-case["eigenvalues"][1:]',
        "section-d.4.2",
    ),
]

QUICK = {2, 8}


@pytest.mark.parametrize(
    ("module", "name", "old", "new", "statement"),
    [
        pytest.param(*m, marks=() if i in QUICK else pytest.mark.long, id=f"{m[1]}-{i}")
        for i, m in enumerate(MUTATIONS)
    ],
)
def test_a_changed_formula_is_caught(monkeypatch, capsys, module, name, old, new, statement):
    changed = mutated(module, name, old, new)
    monkeypatch.setattr(module, name, changed)
    assert cli.main(["verify", statement, "--instances", "200"]) == 1
    assert f"{statement} corrected: refuted by" in capsys.readouterr().out
