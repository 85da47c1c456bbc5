"""`pmt simulate`: how a run ends and where, whatever it starts from."""

import json
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

from pmt import dynamics, sphere
from pmt.cli import main, running
from pmt.cli.system_file import read_system
from pmt.dynamics import Oja, Outcome
from tests.cli.conftest import start
from tests.tolerance import assert_close

OJA = ["--value", "diag:1,0.5,-0.3", "--alpha", "0.2"]
SINGLE = [*OJA, "--query-key", "diag:2,0,0"]
UNTIL = "--until-equilibrium"


@pytest.fixture
def run(tmp_path, capsys):
    """`run(*arguments)` gives exit status, JSON document and screen of `pmt simulate`."""

    def simulate(*arguments):
        target = tmp_path / "antwort größe.json"
        status = main(["simulate", *map(str, arguments), "--json", str(target)])
        out, err = capsys.readouterr()
        assert err == ""
        return status, json.loads(target.read_text(encoding="utf-8")), out

    return simulate


@pytest.fixture
def refused(tmp_path, one_sentence, monkeypatch):
    """`refused(*arguments)` gives the sentence of a wrong request that left nothing behind."""

    def simulate(*arguments):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        assert main(["simulate", *map(str, arguments), "--json", "answer.json"]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        return one_sentence()

    return simulate


def test_the_run_is_the_librarys(run):
    status, document, screen = run(*SINGLE, "--tokens", "5", "--steps", "30", "--seed", "2")
    x0 = np.array(document["start"]["tokens"])
    system = dynamics.SingleHead(
        jnp.diag(jnp.array([1, 0.5, -0.3])), jnp.diag(jnp.array([2.0, 0, 0])), alpha=0.2
    )
    expected = dynamics.simulate(system, jnp.asarray(x0), 30)
    assert status == 0
    assert document["run"] == {
        "outcome": "done",
        "message": Outcome.DONE.message,
        "steps": 30,
        "asked": 30,
        "until_equilibrium": False,
    }
    assert_close(np.array(document["end"]["tokens"]), np.asarray(expected.x[-1]))
    seen = document["observables"]
    assert seen["step"] == list(range(31))
    distances = np.asarray(expected.observables["intertoken_distance"])
    assert_close(np.array(seen["intertoken_distance"]), distances)
    along = np.abs(np.asarray(expected.x)[:, :, 0]).mean(axis=1)
    assert_close(np.array(seen["alignment"]["principal"]), along)
    assert f"{along[0]:.4f} -> {along[-1]:.4f}" in screen
    assert "all steps were made; 30 steps" in screen


def test_a_start_depends_on_the_seed_and_not_on_the_precision(run):
    arguments = [*SINGLE, "--tokens", "5", "--steps", "0"]
    first, again, other, single = (
        np.array(run(*arguments, *more)[1]["start"]["tokens"])
        for more in (
            ["--seed", "1"],
            ["--seed", "1"],
            ["--seed", "2"],
            ["--seed", "1", "--dtype", "float32"],
        )
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_array_equal(first.astype(np.float32), single)


def test_zero_steps_are_a_run(run):
    """Fault 68."""
    status, document, _ = run(*SINGLE, "--tokens", "5", "--steps", "0")
    assert (status, document["run"]["steps"]) == (0, 0)
    assert document["start"]["tokens"] == document["end"]["tokens"]
    assert len(document["observables"]["step"]) == 1


def test_it_stops_at_an_equilibrium_and_says_which_and_whether_it_is_stable(run):
    status, document, screen = run(*SINGLE, "--tokens", "5", "--steps", "9999", UNTIL)
    assert status == 0
    assert document["run"]["outcome"] == "converged"
    assert document["run"]["steps"] < 1000
    end = document["end"]
    assert end["status"] == "equilibrium"
    assert end["kind"] in ("consensus", "bipartite")
    assert end["analysis"]["verdict"] == "stable"
    assert "converged to an equilibrium; " in screen
    assert "along v1 (λ1 = 1)" in screen
    assert "verdict      stable" in screen


def test_a_budget_that_ends_first_is_a_no(run):
    """Fault 71."""
    arguments = [*SINGLE, "--tokens", "5", "--steps", "3"]
    status, document, screen = run(*arguments, UNTIL)
    assert (status, document["run"]["outcome"]) == (1, "budget_ended")
    assert "the step budget ended before convergence; 3 steps" in screen
    assert document["end"]["analysis"] is None
    assert run(*arguments)[0] == 0


def test_a_state_on_its_way_is_not_called_an_equilibrium_but_near_one(run):
    status, document, screen = run(*SINGLE, "--tokens", "5", "--steps", "80")
    assert (status, document["end"]["status"]) == (0, "not fixed")
    assert document["end"]["near"] in ("consensus", "bipartite")
    assert "no equilibrium: the next step moves a token by" in screen
    assert f"near {document['end']['near']} along v1" in screen


@pytest.mark.parametrize("d", [2, 3])
def test_a_limit_cycle_is_not_taken_for_convergence(run, d):
    """Fault 72: theory Lemma 4, beyond the step bound all runs end in {v_d, -v_d}."""
    value = "diag:" + ",".join(["1", "0.5", "-3"][-d:])
    arguments = ["--value", value, "--alpha", "1.5", "--tokens", "5"]
    status, document, screen = run(*arguments, "--steps", "999", UNTIL)
    assert (status, document["run"]["outcome"]) == (1, "two_cycle")
    assert document["end"]["status"] == "2-cycle"
    assert document["end"]["analysis"]["verdict"] == "stable"
    assert f"2-cycle between x and -x, consensus along v{d} (λ{d} = -3)" in screen
    status, document, _ = run(*arguments, "--steps", "200")
    assert (status, document["end"]["status"]) == (0, "2-cycle")


def test_a_cycle_that_is_not_antipodal_is_named_too(run):
    # II.9: past the flip at beta = 8 the polygonal pair gives way to period 2.
    system = ["--value", "[[1,0.5],[0.5,-0.5]]", "--query-key", "[[0,-10],[-10,0]]"]
    arguments = [*system, "--alpha", "0.25", "--start", "polygonal", "--perturb", "0.01"]
    status, document, screen = run(*arguments, "--steps", "5000", UNTIL)
    assert (status, document["run"]["outcome"]) == (1, "two_cycle")
    assert document["end"]["status"] == "not fixed"
    assert "2-cycle between x and f(x), which moves a token by" in screen


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["--value", "diag:-1,-1", "--alpha", "1", "--start", "consensus"], "cancelled"),
        (
            ["--value", "diag:1,0.5", "--query-key", "diag:1e150,1", "--scale", "1e200"],
            "nonfinite",
        ),
    ],
)
@pytest.mark.parametrize("until", [True, False])
def test_a_run_that_breaks_off_says_why(run, arguments, outcome, until):
    """Faults 48, 55: exit status 1, the last valid state, and no NaN anywhere."""
    status, document, screen = run(*arguments, "--steps", "7", *[UNTIL][:until])
    assert (status, document["run"]["outcome"]) == (1, outcome)
    assert document["run"]["steps"] == 0
    assert Outcome[outcome.upper()].message in screen
    assert document["end"]["tokens"] == document["start"]["tokens"]


@pytest.mark.parametrize(
    ("index", "verdict", "leaving"), [("1", "stable", False), ("2", "unstable", True)]
)
def test_a_start_on_an_equilibrium_is_said_in_one_line(run, index, verdict, leaving):
    """Fault 70."""
    arguments = [*OJA, "--start", "consensus", "--index", index, "--tokens", "5"]
    status, document, screen = run(*arguments, "--steps", "20")
    notes = [line for line in screen.splitlines() if line.startswith("note")]
    assert status == 0
    assert len(notes) == 1
    assert f"already is an equilibrium (consensus along v{index}" in notes[0]
    assert f"which is {verdict}" in notes[0]
    assert ("--perturb" in notes[0]) == leaving
    assert document["start"]["at_rest"]["analysis"]["verdict"] == verdict
    assert document["end"]["analysis"]["verdict"] == verdict


def test_a_perturbed_start_is_as_far_away_as_asked_and_leaves(run):
    arguments = [*OJA, "--start", "consensus", "--index", "2", "--tokens", "5"]
    status, document, screen = run(*arguments, "--perturb", "0.1", "--steps", "9999", UNTIL)
    x0 = np.array(document["start"]["tokens"])
    assert status == 0
    assert document["start"]["at_rest"] is None
    assert "note" not in screen
    assert_close(np.abs(x0[:, 1]), np.full(5, 1.01**-0.5))
    assert "consensus along v1" in screen


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        ([[1, 0, 0]] * 5, "consensus"),
        ([[1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0]], "bipartite"),
        ([[0, 1, 0]] * 4 + [[0, -1, 0]], "bipartite"),
    ],
)
def test_identical_and_antipodal_tokens(run, tmp_path, tokens, kind):
    """Fault 69."""
    np.save(tmp_path / "x.npy", np.array(tokens, float))
    status, document, _ = run(*OJA, "--start", tmp_path / "x.npy", "--steps", "5")
    assert status == 0
    assert document["start"]["at_rest"]["kind"] == kind


@pytest.mark.parametrize(
    "arguments",
    [
        ["--value", "diag:1,0.5", "--tokens", "1"],
        ["--value", "[[2]]", "--tokens", "3"],
        ["--value", "[[-2]]", "--tokens", "1", "--alpha", "3"],
        ["--value", "diag:1,0.5", "--alpha", "0"],
        ["--value", "diag:1,0.5", "--alpha", "-0.4"],
        ["--value", "diag:1,0.5", "--alpha", "1e100"],
        ["--value", "diag:1,0.5", "--alpha", "1e-300"],
        ["--value", "diag:1e-320,1e-321"],
    ],
    ids=" ".join,
)
def test_edges_run(run, arguments):
    """Faults 56, 64, 65, 66."""
    status, document, _ = run(*arguments, "--steps", "5")
    assert (status, document["run"]["steps"]) == (0, 5)
    lengths = np.linalg.norm(np.array(document["end"]["tokens"]), axis=1)
    assert_close(lengths, np.ones_like(lengths))


def test_a_folder_holds_all_that_is_needed_to_go_on(run, tmp_path):
    """Faults 76, 83."""
    folder = tmp_path / "lauf größe"
    arguments = ["--random", "3", "--alpha", "0.2", "--tokens", "5", "--steps", "10"]
    _, document, _ = run(*arguments, "--out", folder)
    names = {path.name for path in folder.iterdir()} - {".pmt-output.json"}
    assert names == {"start.npy", "end.npy", "system.json", "trajectory.png", "trajectory.svg"}
    np.testing.assert_array_equal(np.load(folder / "end.npy"), document["end"]["tokens"])
    described = read_system(folder / "system.json")
    np.testing.assert_array_equal(described.arrays["value"], document["system"]["value"])
    # Ten steps and ten more are twenty.
    more = [folder / "system.json", "--start", folder / "end.npy", "--steps", "10"]
    _, twice, _ = run(*more)
    _, once, _ = run(*arguments[:-1], "20")
    assert_close(np.array(twice["end"]["tokens"]), np.array(once["end"]["tokens"]))


def test_a_long_run_is_recorded_every_few_steps(monkeypatch):
    system = Oja(jnp.diag(jnp.array([1, 0.5])), alpha=0.01)
    x0 = np.asarray(sphere.normalize(jnp.array([[1.0, 2], [3, -1], [-1, 4]])))
    heard = []
    plain = running.run_steps(system, x0, 50, heard.append)
    assert (sum(heard), len(plain.path)) == (50, 51)
    monkeypatch.setattr(running, "_MOST_STATES", 9)
    thin = running.run_steps(system, x0, 50, heard.append)
    assert sum(heard) == 100
    assert thin.recorded.tolist() == [0, 7, 14, 21, 28, 35, 42, 49, 50]
    assert_close(thin.path, plain.path[thin.recorded])
    monkeypatch.setattr(running, "_PIECE", 20)
    pieces = running.run_to_rest(system, x0, 50, heard.append)
    assert (sum(heard), pieces.steps, pieces.outcome) == (150, 50, Outcome.BUDGET_ENDED)
    assert_close(pieces.path[-1], plain.path[-1])


def test_an_interrupt_leaves_no_half_of_anything(tmp_path):
    """Fault 74."""
    folder = tmp_path / "out"
    target = tmp_path / "answer.json"
    arguments = ["--random", "3", "--steps", str(2**31 - 1), "--out", folder, "--json", target]
    process = start("simulate", *arguments)
    try:
        deadline = time.monotonic() + 60
        while not folder.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3
    assert err == "pmt: interrupted; no file was left half-written\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["out", ".pmt-output.json"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no system is given"),
        ([*OJA, "--steps", "-1"], "'--steps': Input should be greater than or equal to 0"),
        ([*OJA, "--steps", "1.5"], "'--steps': Input should be a valid integer"),
        ([*OJA, "--tokens", "0"], "'--tokens': Input should be greater than or equal to 1"),
        ([*OJA, "--tokens", "99999999"], "too large an attention matrix"),
        ([*OJA, "--perturb", "-0.1"], "-0.1 is not at least 0"),
        ([*OJA, "--perturb", "nan"], "'nan' is not a finite number"),
        (["--value", "[[2]]", "--perturb", "0.1"], "for d = 1 that is two points"),
        ([*OJA, "--index", "1"], "--index says nothing about a random state"),
        ([*OJA, "--split", "1,2"], "--split says nothing about a random state"),
        ([*OJA, "--start", "x.npy", "--tokens", "3"], "--tokens says nothing about the tokens in"),
        ([*OJA, "--start", "nowhere.npy"], "No such file"),
        ([*OJA, "--alpha", "inf"], "'inf' is not a finite number"),
        ([*OJA, "--seed", "-1"], "'--seed': Input should be greater than or equal to 0"),
        ([*OJA, "--out", "/proc/a"], "cannot write to the folder /proc/a"),
        ([*OJA, "--nonsense"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value[:20],
)
def test_a_wrong_request_is_one_sentence(refused, arguments, reason):
    """Faults 64, 77, 84."""
    assert reason in refused(*arguments)


def test_the_help_says_what_the_exit_status_means(capsys):
    assert main(["simulate", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ends with status 0 if all steps were made" in shown
    assert "\\b" not in shown
