"""Break a formula and it falls: each change of ``tests/mutation/table.py`` is noticed."""

import ast
import inspect
import textwrap
from importlib import import_module

import jax
import pytest

from pmt import cli
from tests.known_statements import STATEMENTS
from tests.mutation.campaign import ROOT, campaign, changed
from tests.mutation.mutation import Mutation
from tests.mutation.table import MUTATIONS

# Two in every run, in this process; all of them in the long run, each in its own.
QUICK = ("consensus-sign", "jacobian-offset")
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


def changed_function(mutation):
    """(module, name, function) of the function that the change is in, in its module's names."""
    module = import_module(mutation.file.removesuffix(".py").replace("/", "."))
    line = inspect.getsource(module).split(mutation.before)[0].count("\n") + 1
    (name,) = [
        node.name
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno
    ]
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    space = dict(vars(module))
    exec(compile(mutation.apply(source), f"<mutated {name}>", "exec"), space)
    return module, name, space[name]


@pytest.mark.parametrize("name", QUICK)
def test_a_changed_formula_is_caught(monkeypatch, request, capsys, name):
    mutation = BY_NAME[name]
    monkeypatch.setattr(*changed_function(mutation))
    request.addfinalizer(jax.clear_caches)
    assert cli.main(["verify", mutation.caught_by, "--instances", "160"]) == 1
    assert f"{mutation.caught_by} corrected: refuted by" in capsys.readouterr().out


@pytest.mark.long
def test_every_change_of_the_table_is_caught():
    plain, answers = campaign(MUTATIONS, workers=2)
    assert [answer for answer in plain if answer.failed] == []
    assert [answer for answer in answers if not answer.failed] == []


def test_the_table_is_about_the_formulas_as_they_are():
    assert len(MUTATIONS) >= 30
    assert len(BY_NAME) == len(MUTATIONS)
    known = STATEMENTS
    for mutation in MUTATIONS:
        text = mutation.apply((ROOT / mutation.file).read_text())
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse((ROOT / mutation.file).read_text()))
        if mutation.by_test:
            assert (ROOT / mutation.caught_by.split("::")[0]).exists()
        else:
            assert mutation.caught_by in known


def test_a_formula_that_is_not_there_any_more_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="0 times, not 1"):
        changed(Mutation("gone", "pmt/sphere.py", "no such formula", "", "lemma-2"), ROOT, tmp_path)


def test_a_change_that_changes_nothing_is_not_caught(tmp_path):
    node = "tests/test_sphere.py::test_tangent_projection_is_idempotent_and_orthogonal"
    harmless = Mutation("harmless", "pmt/sphere.py", "w - x * jnp", "w - 1.0 * x * jnp", node)
    assert not changed(harmless, ROOT, tmp_path).failed
