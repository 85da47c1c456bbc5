"""`pmt stability`: the library's answer, said in full; and every request that makes no sense."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from pmt import equilibria, stability
from pmt.attention import Causal
from pmt.cli import main
from pmt.dynamics import MultiHead, Oja, SingleHead
from pmt.files import write_json
from tests.tolerance import assert_close

SINGLE = ["--value", "diag:1,0.5,-0.3", "--query-key", "diag:2,0,0", "--alpha", "0.2"]
HEADS = ["--value", "diag:1,0.3,-0.2", "--value", "diag:0.8,0.1,0.4"]
HEADS += ["--query-key", "diag:2,2,2", "--query-key", "diag:1.5,1.5,1.5", "--alpha", "0.2"]


def single(mask="full", alpha=0.2, dtype=jnp.float64):
    value, query_key = jnp.diag(jnp.array([1, 0.5, -0.3], dtype)), jnp.diag(jnp.array([2.0, 0, 0]))
    return SingleHead(value, query_key.astype(dtype), alpha=alpha, mask=mask)


@pytest.fixture
def ask(tmp_path, capsys):
    """`ask(*arguments)` gives exit status, JSON document and screen of `pmt stability`."""

    def run(*arguments):
        target = tmp_path / "größe.json"
        status = main(["stability", *map(str, arguments), "--json", str(target)])
        out, err = capsys.readouterr()
        assert err == ""
        return status, json.loads(target.read_text(encoding="utf-8")), out

    return run


@pytest.fixture
def refused(tmp_path, one_sentence, monkeypatch):
    """`refused(*arguments)` gives the sentence of a wrong request that left nothing behind."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        assert main(["stability", *map(str, arguments), "--json", "answer.json"]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        return one_sentence()

    return run


def multi():
    value = jnp.stack([jnp.diag(jnp.array([1, 0.3, -0.2])), jnp.diag(jnp.array([0.8, 0.1, 0.4]))])
    return MultiHead.from_maps(value, jnp.stack([2.0 * jnp.eye(3), 1.5 * jnp.eye(3)]), alpha=0.2)


POINTS = {
    "consensus": (
        [*SINGLE, "--tokens", "5"],
        lambda: (single(), equilibria.consensus(single(), 0, 5)),
    ),
    "other eigenvector": (
        [*SINGLE, "--index", "2", "--tokens", "5"],
        lambda: (single(), equilibria.consensus(single(), 1, 5)),
    ),
    "bipartite": (
        [*SINGLE, "--point", "bipartite", "--split", "3,2"],
        lambda: (single(), equilibria.bipartite(single(), 0, (3, 2))),
    ),
    "signs under a causal mask": (
        [*SINGLE, "--point", "bipartite", "--signs", "+-+++", "--mask", "causal"],
        lambda: (
            single("causal"),
            equilibria.bipartite(single(Causal()), signs=[1, -1, 1, 1, 1]),
        ),
    ),
    "several heads": (
        [*HEADS, "--point", "bipartite", "--split", "3,2"],
        lambda: (multi(), equilibria.bipartite(multi(), 0, (3, 2))),
    ),
}


@pytest.mark.parametrize("name", POINTS)
def test_the_answer_is_the_librarys(ask, name):
    arguments, build = POINTS[name]
    status, document, screen = ask(*arguments)
    system, point = build()
    expected = stability.analyze(system, point)
    found = document["analysis"]
    assert status == (0 if expected.verdict == "stable" else 1)
    assert found["verdict"] == expected.verdict
    assert (found["kind"], found["status"]) == (expected.kind, expected.status)
    values = np.array([complex(*pair) for pair in found["eigenvalues"]])
    assert_close(values, expected.eigenvalues)
    assert_close(np.array(document["point"]["tokens"]), np.asarray(point.x))
    assert found["margin"] == pytest.approx(expected.margin, rel=1e-9)
    assert found["conditions"] == [condition.as_dict() for condition in expected.conditions]
    assert document["point"]["conditions"] == [each.as_dict() for each in point.conditions]
    assert document["schema"] == "pmt.stability/1"
    for text in [expected.verdict, f"{expected.spectral_radius:.9g}", f"{expected.margin:+.3g}"]:
        assert text in screen
    for condition in (*expected.conditions, *point.conditions):
        assert condition.name in screen
        assert f"{condition.margin:+.3g}" in screen


def test_the_explicit_examples_of_the_theory_come_out_as_they_should(ask):
    # II.5: a stable bipartite point of two heads. II.7: a stable polygonal one, against Lemma 15.
    _, document, _ = ask(*HEADS, "--point", "bipartite", "--split", "3,2")
    assert document["analysis"]["spectral_radius"] == pytest.approx(0.812, abs=5e-4)
    polygonal = ["--value", "[[1,0.5],[0.5,-0.5]]", "--query-key", "[[0,-1],[-1,0]]"]
    status, document, _ = ask(*polygonal, "--alpha", "0.25", "--point", "polygonal")
    assert status == 0
    assert document["point"]["kind"] == "polygonal"
    assert document["analysis"]["method"] == "dense"
    assert document["analysis"]["spectral_radius"] == pytest.approx(0.75, abs=1e-12)
    # Remark 10 as read is false: stable at a negative eigenvalue.
    at_bottom = ["--value", "diag:1,-2", "--query-key", "diag:0,-2", "--alpha", "0.25"]
    status, document, _ = ask(*at_bottom, "--point", "bipartite", "--index", "2", "--split", "3,2")
    assert status == 0
    assert document["analysis"]["spectral_radius"] == pytest.approx(0.8443, abs=5e-5)


def test_a_file_of_tokens_is_classified_first(ask, tmp_path):
    v = np.array([1.0, 0, 0])
    np.save(tmp_path / "tokens größe.npy", np.outer([1, 1, 1, -1, -1], v))
    status, document, screen = ask(*SINGLE, "--point", tmp_path / "tokens größe.npy")
    expected = stability.analyze(single(), equilibria.bipartite(single(), 0, (3, 2)))
    assert status == 0
    assert "bipartite along v1 (λ1 = 1), 3 + 2: +++--" in screen
    values = np.array([complex(*pair) for pair in document["analysis"]["eigenvalues"]])
    assert_close(values, expected.eigenvalues)


def test_rows_of_any_length_are_directions_and_the_screen_says_so(ask, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[5, 0, 0], [3, 0, 0]]))
    status, document, screen = ask(*SINGLE, "--point", tmp_path / "x.npy")
    assert status == 0
    assert "they were normalised" in screen
    assert document["point"]["tokens"] == [[1, 0, 0], [1, 0, 0]]
    np.save(tmp_path / "x.npy", np.array([[1, 1, 0]], np.float32) / np.float32(2**0.5))
    assert "normalised" not in ask(*SINGLE, "--point", tmp_path / "x.npy")[2]


def test_what_is_no_equilibrium_is_said_with_the_conditions_that_fail(ask, tmp_path):
    """Fault 48, and points that are not fixed: an answer, not a failure."""
    status, document, screen = ask("--value", "diag:1,-1", "--alpha", "1", "--index", "2")
    assert (status, document["analysis"]) == (1, None)
    assert "undefined: the update of a token cancels" in screen
    unbalanced = ["--value", "diag:1,0.2", "--alpha", "3", "--point", "bipartite"]
    status, document, screen = ask(*unbalanced, "--split", "3,1")
    assert (status, document["point"]["status"]) == (1, "not fixed")
    assert "fails" in [condition["status"] for condition in document["point"]["conditions"]]
    assert "not fixed" in screen
    np.save(tmp_path / "x.npy", np.eye(3))
    status, document, screen = ask(*SINGLE, "--point", tmp_path / "x.npy")
    assert (status, document["point"]["status"]) == (1, "not fixed")
    assert "'pmt simulate --start'" in screen


def test_a_two_cycle_is_named_and_analysed_per_step(ask):
    """Fault 72, theory Lemma 4: beyond the step bound stability passes to {v_d, -v_d}."""
    status, document, screen = ask("--value", "diag:1,-3", "--alpha", "1.5", "--index", "2")
    assert status == 0
    assert document["analysis"]["status"] == "2-cycle"
    assert "half of a 2-cycle" in screen
    assert "per step of the 2-cycle" in screen
    assert document["analysis"]["spectral_radius"] == pytest.approx(2.5 / 3.5, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        (["--value", "diag:1,0.5", "--alpha", "0"], "marginal"),
        (["--value", "diag:1,0.5", "--alpha", "-0.5"], "unstable"),
        (["--value", "diag:1,0.5", "--alpha", "-0.5", "--index", "2"], "unstable"),
        (["--value", "diag:1,0.5", "--alpha", "1e100"], "stable"),
        (["--value", "diag:1,1"], "marginal"),
        (["--value", "[[1,1],[0,1]]"], "undecided"),
        (["--value", "diag:1,-1", "--alpha", "0.5"], "stable"),
        (["--value", "diag:1,-1", "--alpha", "0.5", "--index", "2"], "unstable"),
        (["--value", "diag:1e-320,1e-321"], "marginal"),
        (["--value", "diag:0,0"], "marginal"),
        (["--value", "diag:1,0.5", "--query-key", "diag:1e150,0"], "stable"),
        (["--value", "diag:1,0.5", "--query-key", "diag:-1e150,0"], "stable"),
    ],
    ids=" ".join,
)
def test_numbers_at_the_edge_have_an_answer(ask, arguments, verdict):
    """Faults 50, 51, 52, 55, 56, 64."""
    status, document, _ = ask(*arguments)
    assert document["analysis"]["verdict"] == verdict
    assert status == (0 if verdict == "stable" else 1)


@pytest.mark.parametrize(
    "arguments", [["--tokens", "1"], ["--value", "diag:2"], ["--value", "diag:2", "--tokens", "1"]]
)
def test_one_token_and_one_dimension(ask, arguments):
    """Faults 65, 66: with d = 1 there is no direction to be unstable in."""
    given = arguments if "--value" in arguments else ["--value", "diag:1,0.5", *arguments]
    status, document, _ = ask(*given)
    d = len(document["eigenvalues"])
    n = len(document["point"]["tokens"])
    assert status == 0
    assert len(document["analysis"]["eigenvalues"]) == n * (d - 1)
    assert document["analysis"]["spectral_radius"] == (0.75 if d == 2 else 0.0)


def test_a_margin_below_single_precision_is_not_decided_in_it(ask):
    """Fault 57."""
    arguments = ["--value", "diag:1,0.9999995"]
    assert ask(*arguments)[1]["analysis"]["verdict"] == "stable"
    status, document, _ = ask(*arguments, "--dtype", "float32")
    assert document["analysis"]["verdict"] in ("marginal", "undecided")
    assert (status, document["settings"]["dtype"]) == (1, "float32")


def test_a_small_step_does_not_make_an_equilibrium(ask, tmp_path):
    """Every state moves by less than the tolerance here; most are no equilibria all the same."""
    x = np.random.default_rng(0).standard_normal((4, 2))
    np.save(tmp_path / "x.npy", x)
    arguments = ["--value", "diag:1,0.5", "--alpha", "1e-8", "--point", tmp_path / "x.npy"]
    status, document, _ = ask(*arguments)
    assert (status, document["point"]["status"]) == (1, "not fixed")


def test_a_boolean_mask_decides_the_number_of_tokens(ask, tmp_path):
    mask = [[True, False, False], [False, True, True], [True, True, False]]
    path = tmp_path / "system.json"
    write_json(path, {"kind": "oja", "value": [[1, 0], [0, -0.5]], "alpha": 0.4, "mask": mask})
    _, document, screen = ask(path)
    system = Oja(jnp.diag(jnp.array([1, -0.5])), alpha=0.4, mask=jnp.array(mask))
    expected = stability.analyze(system, equilibria.consensus(system, 0, 3))
    values = np.array([complex(*pair) for pair in document["analysis"]["eigenvalues"]])
    assert_close(values, expected.eigenvalues)
    assert "a mask for 3 tokens" in screen


def test_the_figure_is_written_whole_beside_nothing_else(ask, tmp_path, capsys):
    """Faults 76, 83."""
    folder = tmp_path / "größe"
    assert ask(*SINGLE, "--tokens", "5", "--out", folder)[0] == 0
    names = {path.name for path in folder.iterdir()} - {".pmt-output.json"}
    assert names == {"multipliers.png", "multipliers.svg"}
    assert (folder / "multipliers.png").read_bytes().startswith(b"\x89PNG")
    assert ask(*SINGLE, "--tokens", "5", "--out", folder)[0] == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    assert main(["stability", *SINGLE, "--tokens", "5", "--out", str(other)]) == 2
    assert "holds files that 'pmt stability' did not write" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no system is given"),
        (["no-such.json"], "No such file"),
        (["--value", "diag:1,nan"], "--value is 'diag:1,nan'"),
        (["--value", "diag:1,inf"], "--value is 'diag:1,inf'"),
        ([*SINGLE, "--alpha", "nan"], "'nan' is not a finite number"),
        ([*SINGLE, "--scale", "inf"], "'inf' is not a finite number"),
        ([*SINGLE, "--index", "0"], "'--index': Input should be greater than or equal to 1"),
        ([*SINGLE, "--index", "4"], "--index is 4, but there are only 3 eigenvalues"),
        (["--value", "[[0,-1],[1,0]]"], "eigenvalue 1 of the layer matrix is complex"),
        ([*SINGLE, "--tokens", "0"], "'--tokens': Input should be greater than or equal to 1"),
        ([*SINGLE, "--tokens", "1000000"], "too large an attention matrix; at most 16384 fit"),
        ([*SINGLE, "--split", "3,2"], "--split says nothing about a consensus state"),
        ([*SINGLE, "--point", "bipartite", "--split", "3"], "--split is '3'"),
        ([*SINGLE, "--point", "bipartite", "--split", "3,0"], "--split is '3,0'"),
        ([*SINGLE, "--point", "bipartite", "--split", "3,-1"], "--split is '3,-1'"),
        ([*SINGLE, "--point", "bipartite", "--split", "1,999999999999"], "too large"),
        ([*SINGLE, "--point", "bipartite", "--signs", "+++"], "--signs is '+++'"),
        ([*SINGLE, "--point", "bipartite", "--signs", "+0-"], "--signs is '+0-'"),
        ([*SINGLE, "--point", "bipartite", "--tokens", "1"], "needs two tokens at least"),
        (
            [*SINGLE, "--point", "bipartite", "--tokens", "4", "--split", "2,2"],
            "--tokens and --split contradict each other",
        ),
        ([*SINGLE, "--point", "polygonal", "--index", "1"], "--index says nothing about"),
        (
            ["--value", "diag:1,0.5", "--query-key", "diag:1,1", "--point", "polygonal"],
            "no polygonal equilibrium exists",
        ),
        (["--value", "diag:2", "--point", "polygonal"], "a polygon needs d of at least 2"),
        (["--random", "100", "--point", "polygonal", "--tokens", "98"], "at most 4096"),
        ([*SINGLE, "--point", "nowhere.npy"], "No such file"),
        ([*SINGLE, "--out", "/proc/a"], "cannot write to the folder /proc/a"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:20],
)
def test_a_wrong_request_is_one_sentence(refused, arguments, reason):
    """Faults 46, 53, 64, 69, 77, 84."""
    assert reason in refused(*arguments)


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (np.zeros((2, 3)), "row 1 of x.npy is zero"),
        (np.array([[1, 0, 0], [0, np.nan, 0]]), "row 2 of x.npy is not finite"),
        (np.array([[1, 0, 0], [0, np.inf, 0]]), "row 2 of x.npy is not finite"),
        (np.ones((2, 4)), "x.npy has shape (2, 4)"),
        (np.ones(3), "x.npy has shape (3,)"),
        (np.ones((2, 2, 3)), "x.npy has shape (2, 2, 3)"),
        (np.ones((2, 3), complex), "x.npy holds an array of complex128"),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) else value,
)
def test_tokens_that_are_no_directions_are_refused(refused, tmp_path, tokens, reason):
    """Faults 46, 47."""
    np.save(tmp_path / "x.npy", tokens)
    assert reason in refused(*SINGLE, "--point", "x.npy")


def test_an_answer_that_cannot_be_written_is_refused_before_any_work(one_sentence):
    """Fault 77."""
    assert main(["stability", *SINGLE, "--json", "/no/such/folder/a.json"]) == 2
    assert "there is no folder" in one_sentence()


def test_the_help_says_what_the_exit_status_means(capsys):
    assert main(["stability", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ends with status 0 if the point is stable" in shown
    assert "\\b" not in shown


class TestCertify:
    def test_a_proof_is_shown_beside_the_verdict(self, ask):
        # Remark 10 as read is false, and this is a proof of it.
        at_bottom = ["--value", "diag:1,-2", "--query-key", "diag:0,-2", "--alpha", "0.25"]
        at_bottom += ["--point", "bipartite", "--index", "2", "--split", "3,2"]
        status, document, screen = ask(*at_bottom, "--certify")
        assert status == 0
        found = document["certificate"]
        assert (found["status"], found["verdict"], found["exists"]) == ("proved", "stable", True)
        assert found["bound"] < 1
        assert found["tokens"] == document["point"]["tokens"]
        assert "proved stable: exactly one equilibrium" in " ".join(screen.split())
        plain = ask(*at_bottom)
        assert plain[1]["certificate"] is None
        assert "certificate" not in plain[2]

    def test_an_unstable_point_keeps_its_exit_status(self, ask):
        status, document, screen = ask(*SINGLE, "--index", "2", "--certify")
        assert status == 1
        assert document["certificate"]["verdict"] == "unstable"
        assert document["certificate"]["bound"] > 1
        assert "proved unstable" in screen

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--value", "diag:1,1"], "no isolated equilibrium"),
            (["--value", "diag:1,-3", "--alpha", "1.5", "--index", "2"], "2-cycle"),
            (["--value", "diag:1,-1", "--alpha", "1", "--index", "2"], "side of the sphere"),
        ],
        ids=" ".join,
    )
    def test_what_has_no_proof_says_why(self, ask, arguments, words):
        _, document, screen = ask(*arguments, "--certify")
        found = document["certificate"]
        assert (found["status"], found["verdict"]) == ("undecided", None)
        assert words in found["reason"]
        assert "undecided" in screen

    def test_without_flint_it_is_one_sentence(self, refused, monkeypatch):
        monkeypatch.setitem(sys.modules, "flint", None)
        assert "pip install 'pmt[certify]'" in refused(*SINGLE, "--certify")

    def test_what_is_too_large_is_refused(self, refused):
        assert "at most 256" in refused(*SINGLE, "--tokens", "129", "--certify")
