"""Break a formula and it falls: each change below is caught by the statement named with it."""

import inspect
import textwrap

import pytest

from pmt import cli
from pmt.stability import conditions, jacobian, spectrum

# module, function, what is written there, what it is changed to, the statement that notices
MUTATIONS = [
    (
        spectrum,
        "consensus_multipliers",
        "(1.0 + _like(alpha",
        "(1.0 - _like(alpha",
        "lemma-3",
    ),
    (
        spectrum,
        "consensus_multipliers",
        "jnp.abs(1.0 + alpha * eigenvalue)",
        "(1.0 + alpha * eigenvalue)",
        "lemma-3",
    ),
    (
        spectrum,
        "consensus_multipliers",
        "jnp.abs(1.0 + alpha * eigenvalue)",
        "jnp.abs(1.0 + 2 * alpha * eigenvalue)",
        "lemma-4",
    ),
    (
        spectrum,
        "attention_spectrum",
        ".at[0].set(1.0)",
        ".at[0].set(1.0 / n)",
        "remark-2",
    ),
    (
        spectrum,
        "attention_spectrum",
        "return jnp.diagonal(weights) if",
        "return jnp.ones(n) if",
        "theorem-1",
    ),
    (
        spectrum,
        "bipartite_multipliers",
        "[2.0 * theta + ratio, 2.0 * theta - ratio]",
        "[theta + ratio, theta - ratio]",
        "lemma-14",
    ),
    (
        spectrum,
        "bipartite_multipliers",
        "4.0 * coupling",
        "2.0 * coupling",
        "lemma-14",
    ),
    (
        spectrum,
        "bipartite_multipliers",
        "single=1.0 / size",
        "single=1.0 / size[::-1]",
        "lemma-14",
    ),
    (
        spectrum,
        "bipartite_multipliers",
        "inside[1]) / scale[1]",
        "inside[1]) / scale[0]",
        "remark-10",
    ),
    (
        jacobian,
        "extrinsic_formula",
        "x[None, None] - mean[",
        "x[None, None] + mean[",
        "lemma-10",
    ),
    (
        jacobian,
        "extrinsic_formula",
        "hab,hibc,hdc->iad",
        "hab,hibc,hcd->iad",
        "lemma-10",
    ),
    (
        jacobian,
        "extrinsic_formula",
        "identity[None] - direction",
        "identity[None] + direction",
        "lemma-2",
    ),
    (
        jacobian,
        "signed_consensus",
        "jnp.abs(signed_factors(",
        "(signed_factors(",
        "lemma-3",
    ),
    (
        jacobian,
        "signed_consensus",
        "- v[:, None] * v[None, :]",
        "",
        "lemma-12",
    ),
    (
        jacobian,
        "signed_consensus",
        "system.alpha * einsum",
        "2.0 * system.alpha * einsum",
        "lemma-11",
    ),
    (
        jacobian,
        "signed_factors",
        "signs[None] * einsum",
        "einsum",
        "lemma-13",
    ),
    (
        jacobian,
        "signed_attention",
        "signs[:, None] * signs[None, :]",
        "signs[:, None] + signs[None, :]",
        "remark-8",
    ),
    (
        conditions,
        "psi",
        "r * jnp.exp(-2.0 * theta)",
        "2.0 * r * jnp.exp(-2.0 * theta)",
        "theorem-3",
    ),
    (
        conditions,
        "exact_bipartite_margin",
        "jnp.minimum(-theta, bound",
        "jnp.minimum(theta, bound",
        "theorem-3",
    ),
]

# One of each file by default, all of them in the long run.
QUICK = {0, 6, 10, 14}


def mutated(module, name, old, new):
    """The function with its source changed, in its module's names."""
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    assert source.count(old) >= 1, f"{name} does not say {old!r} any more"
    space = dict(vars(module))
    exec(compile(source.replace(old, new), f"<mutated {name}>", "exec"), space)
    return space[name]


@pytest.mark.parametrize(
    ("module", "name", "old", "new", "statement"),
    [
        pytest.param(*m, marks=() if i in QUICK else pytest.mark.long, id=f"{m[1]}-{i}")
        for i, m in enumerate(MUTATIONS)
    ],
)
def test_a_changed_formula_is_caught(monkeypatch, capsys, module, name, old, new, statement):
    monkeypatch.setattr(module, name, mutated(module, name, old, new))
    assert cli.main(["verify", statement, "--instances", "160"]) == 1
    assert f"{statement} corrected: refuted by" in capsys.readouterr().out


@pytest.mark.parametrize("statement", sorted({m[4] for i, m in enumerate(MUTATIONS) if i in QUICK}))
def test_the_unchanged_formulas_are_not(capsys, statement):
    assert cli.main(["verify", statement, "--instances", "160"]) == 0
    assert f"{statement} corrected" not in capsys.readouterr().out
