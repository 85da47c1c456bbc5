import subprocess
import sys
import types

import pytest

from pmt.errors import RequestError
from tests.known_statements import STATEMENTS
from theory import registry
from theory.numbers import BEYOND, DISCREPANCIES, NUMBERS
from theory.statement import numbered


def test_no_number_of_the_paper_is_missing():
    known = STATEMENTS
    covered = {number for one in known.values() for number in (one.id, *one.covers)}
    assert covered == set(NUMBERS)
    assert set(DISCREPANCIES.values()) <= covered


def test_a_number_finds_the_statement_that_covers_it():
    known = STATEMENTS
    for number in NUMBERS:
        (found,) = registry.choose([number], known)
        assert number in (found.id, *found.covers)


def test_every_statement_says_what_it_is():
    for name, statement in STATEMENTS.items():
        assert statement.id == name
        assert statement.source and statement.text
        if statement.paper is None:
            assert name in BEYOND
        else:
            assert statement.paper.text.startswith("as read")
        assert statement.corrected.expected == "supported"
        for form in statement.forms.values():
            names = [clause.name for clause in form.clauses]
            assert names and len(set(names)) == len(names)


def test_both_forms_have_something_that_can_fail():
    for statement in STATEMENTS.values():
        for form in statement.forms.values():
            twins = [clause.twin for clause in form.clauses if clause.twin]
            witnesses = [e for clause in form.clauses for e in clause.explicit]
            assert twins or witnesses, statement.id
        assert any(clause.twin for clause in statement.corrected.clauses), statement.id
        if statement.paper is not None and statement.paper.expected == "refuted":
            assert any(clause.explicit for clause in statement.paper.clauses), statement.id


def test_numbers_sort_as_numbers():
    names = list(STATEMENTS)
    assert names.index("lemma-4") < names.index("lemma-10")


def test_an_unknown_id_names_the_close_ones():
    known = STATEMENTS
    with pytest.raises(RequestError, match="did you mean .*theorem-2"):
        registry.choose(["theorem2"], known)
    with pytest.raises(RequestError, match="--list"):
        registry.choose(["zzz"], known)
    assert [s.id for s in registry.choose(["lemma-3", "lemma-2", "lemma-3"], known)] == [
        "lemma-3",
        "lemma-2",
    ]


def test_two_statements_with_one_id_are_refused():
    statement = STATEMENTS["lemma-2"]
    module = types.ModuleType("theory_double")
    for name in ("first", "second"):
        function = numbered(lambda: statement)
        function.__module__ = module.__name__
        setattr(module, name, function)
    with pytest.raises(ValueError, match="lemma-2"):
        registry.statements([module])


def test_the_modules_need_no_extra_and_start_nothing():
    code = (
        "import sys; sys.modules['hypothesis'] = None; sys.modules['flint'] = None\n"
        "import jax; from theory import registry; registry.statements()\n"
        "from jax._src import xla_bridge\n"
        "print(xla_bridge.backends_are_initialized(), jax.config.jax_enable_x64)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
