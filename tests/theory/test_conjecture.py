"""Conjectures of one's own: the documented one runs, and what is wrong is said with its line."""

import json
import textwrap

import jax
import numpy as np
import pytest

from pmt import cli
from pmt.errors import RequestError
from theory import conjecture, verify
from theory.hunt import Hunter

DOCUMENTED = textwrap.dedent(
    conjecture.__doc__[
        conjecture.__doc__.index("    import jax.numpy") : conjecture.__doc__.index("With ``LOWEST")
    ]
)
FALSE = DOCUMENTED.replace("LOWEST = -0.95", "LOWEST = -3.0")
# One shape to compile for.
SMALL_FALSE = FALSE.replace("shapes = [(3, 2), (4, 3)]", "shapes = [(3, 2)]")
GOOD = """
import jax.numpy as jnp
shapes = [(2, 2)]
def generator(noise, shape):
    return {"x": noise.unit(shape.n, shape.d), "alpha": noise.uniform()}
def margin(case):
    return 1.0 + case["alpha"]
"""


def run(tmp_path, text, *arguments, name="mine.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return cli.main(["verify", "--file", str(path), *arguments])


def test_the_documented_conjecture_is_supported(tmp_path, capsys):
    assert run(tmp_path, DOCUMENTED, "--instances", "40") == 0
    out = capsys.readouterr().out
    assert "mine" in out and "supported" in out
    assert "1 statements, 1 forms, 1 as expected" in out


def test_as_documented_the_false_one_is_refuted_saved_and_replayed(tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = ["--hunt", "--budget", "30", "--out", str(folder)]
    assert run(tmp_path, SMALL_FALSE, *arguments) == 1
    out = capsys.readouterr().out
    assert "refuted" in out and "though expected supported" in out
    witness = folder / "mine.corrected.hunt.witness.json"
    # A changed file is run, and said to be another.
    assert run(tmp_path, SMALL_FALSE + "\n# later\n", "--replay", str(witness)) == 0
    out = capsys.readouterr().out
    assert "the same" in out and "not the one that this was recorded with" in out
    # A record names code and does not run it.
    assert cli.main(["verify", "--replay", str(witness)]) == 2
    assert "--file" in capsys.readouterr().err
    recorded = json.loads(witness.read_text())
    assert recorded["file"]["path"] == str(tmp_path / "mine.py")
    first, *_, last = recorded["inputs"]["eigenvalues"]
    assert last < -first


def test_what_a_file_may_say_of_itself(tmp_path):
    path = tmp_path / "own.py"
    more = '"""Doc."""\nexpected = "refuted"\nfrom theory.statement import Shape\n'
    path.write_text(
        more + GOOD.replace("[(2, 2)]", '[(3, 2), (2, 2, 2), Shape(4, 3, 1, "causal")]')
    )
    found = conjecture.load(path)
    assert found.statement.id == "own" and found.statement.paper is None
    assert found.statement.corrected.expected == "refuted"
    assert found.statement.corrected.text == "Doc."
    shapes = found.statement.corrected.clauses[0].hypotheses.shapes
    assert [(s.n, s.d, s.h, s.mask) for s in shapes][1:] == [(2, 2, 2, "full"), (4, 3, 1, "causal")]
    assert not found.named


def test_a_tolerance_leaves_what_is_near_0_undecided(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(GOOD.replace('1.0 + case["alpha"]', '-0.5 * case["alpha"], 1.0'))
    statement = conjecture.load(path).statement
    (found,) = verify.verify([statement], count=30, seed=0)
    assert found.forms[0].status == "undecided"
    assert found.forms[0].undecided == found.forms[0].instances


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("def margin(case):", "def margin(case:", 6, "SyntaxError|never closed|invalid"),
        ("def margin(case):", "def marge(case):", None, "no function margin"),
        ("def generator(noise, shape):", "generator = 3\ndef _(noise, shape):", None, "generator"),
        ("shapes = [(2, 2)]", "1 / 0", 3, "ZeroDivisionError: division by zero"),
        ("shapes = [(2, 2)]", "import sys; sys.exit(0)", 3, "SystemExit"),
        ("shapes = [(2, 2)]", "shapes = [(0, 2)]", None, "sizes from 1"),
        ("shapes = [(2, 2)]", "shapes = 5", None, "shapes is 5"),
        ("shapes = [(2, 2)]", "expected = 'true'", None, "'supported' or 'refuted'"),
        ('{"x": noise', '["x", noise', 5, "Syntax|closing"),
        ("    return {", "    return 4, {", 4, "a tuple, not a dictionary"),
        ("noise.uniform()}", "'half'}", 4, "field 'alpha' is a str"),
        ("noise.uniform()}", "noise.normal(1000)[0]}", 5, "raise NORMALS"),
        ('1.0 + case["alpha"]', 'case["x"]', 6, r"shape \(2, 2\) and must be one number"),
        ('1.0 + case["alpha"]', 'case["beta"]', 7, "KeyError: 'beta'"),
        ('1.0 + case["alpha"]', "None", 6, "a NoneType"),
        ('1.0 + case["alpha"]', "1.0, 2.0, 3.0", 6, "3 values"),
        ('1.0 + case["alpha"]', '1.0 if case["alpha"] > 0 else 2.0', 7, "Tracer"),
        ('1.0 + case["alpha"]', 'jnp.log(-case["alpha"])', 6, "not a number at n = 2"),
        (
            "def margin",
            "def hypotheses(case):\n    return {'a > 1': case['alpha'] - 1}\ndef margin",
            4,
            "outside the hypothesis a > 1",
        ),
        (
            "def margin",
            "def hypotheses(case):\n    return case['alpha']\ndef margin",
            6,
            "not margins by name",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(tmp_path, capsys, old, new, line, message):
    """Fault 84."""
    assert old in GOOD
    assert run(tmp_path, GOOD.replace(old, new), "--instances", "20", name="é.py") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error and "é.py" in error
    assert line is None or f"line {line}: " in error, error
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x = '\x00'"])
def test_what_is_no_python_is_refused(tmp_path, content):
    path = tmp_path / "x.py"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="x.py"):
        conjecture.load(path)
    with pytest.raises(RequestError, match="cannot read"):
        conjecture.load(tmp_path / "none.py")


def test_a_hunt_says_where_the_margin_is_no_number(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(GOOD.replace('1.0 + case["alpha"]', 'jnp.sqrt(case["alpha"] - 0.5)'))
    found = conjecture.load(path)
    hunter = Hunter("own", "corrected", found.statement.corrected, inspect=found.inspect)
    with pytest.raises(RequestError, match="line 6: the margin is not a number"):
        hunter.run(20.0)


def test_checking_computes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "own.py"
    path.write_text(GOOD)
    found = conjecture.load(path)
    monkeypatch.setattr(jax, "jit", pytest.fail)
    found.check()
    assert np.all([name in found.lines for name in ("generator", "margin")])
