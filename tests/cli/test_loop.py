"""`pmt loop`: what it writes and shows, going on where it was stopped, and wrong requests."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pmt import looped
from pmt.cli import main
from pmt.experiments import loop_figure_2, loop_noise, loop_norms
from pmt.figures import looped as figures
from pmt.looped import training

TINY = ("--d", 2, "--n", 3, "--loops", 2, "--batch", 4, "--train", 12, "--test", 8)
RUN = (*TINY, "--epochs", 60, "--start-value", 0.7, "--rate", 0.2)


def loop(*arguments):
    return main(["loop", *map(str, arguments)])


@pytest.fixture
def drawn(monkeypatch):
    """The results that were drawn, with their figures."""
    found = []

    def watched(function):
        def draw(result):
            found.append((result, function(result)))
            return found[-1][1]

        return draw

    for name in ("loop_training", "loop_comparison"):
        monkeypatch.setattr(figures, name, watched(getattr(figures, name)))
    return found


def test_train_draws_writes_stops_and_goes_on(tmp_path, capsys, monkeypatch, one_sentence, drawn):
    out, record = tmp_path / "run", tmp_path / "run.json"
    real, made = training._epoch, []

    def stopping(*arguments):
        if len(made) == 17:
            raise KeyboardInterrupt
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(training, "_epoch", stopping)
    assert loop("train", *RUN, "--out", out) == 3
    assert one_sentence() == (
        "stopped after epoch 17 of 60; go on with the same command and --resume"
    )
    assert {path.name for path in out.iterdir()} == {"checkpoint.npz", ".pmt-output.json"}
    monkeypatch.setattr(training, "_epoch", real)
    assert loop("train", *RUN, "--out", out, "--resume", "--json", record) == 0
    shown = capsys.readouterr().out
    for part in ("two scalars", "exponents", "model to algorithm", "power method", "walk"):
        assert part in shown
    names = {"checkpoint.npz", ".pmt-output.json", "loop-figure-1.png", "loop-figure-1.svg"}
    assert {path.name for path in out.iterdir()} == names
    found = json.loads(record.read_text())
    assert found["schema"] == "pmt.loop-train/1" and found["steps"][-1] == 180
    assert found["config"]["v"] == 0.7 and found["config"]["draw"] == "fixed"
    again = tmp_path / "again.json"
    assert loop("train", *RUN, "--json", again) == 0
    whole = json.loads(again.read_text())
    for name in ("history", "value", "key", "exponents", "two_scalars", "off_manifold"):
        assert found[name] == whole[name]
    w = np.array(found["history"]["w"])[:, 0]
    assert f"{w[-1]:.4g}" in shown
    ((result, figure),) = drawn
    check_training_figure(result, figure)


def check_training_figure(result, figure):
    by_title = {axis.get_title(): axis for axis in figure.axes}
    image = by_title["W after training"].images[0].get_array()
    np.testing.assert_array_equal(image, result.training.weights.key[0])
    lines = {line.get_label(): line for line in by_title["growth of w and v"].lines}
    measured = result.training.history["w"][1:]
    np.testing.assert_allclose(lines["w"].get_ydata(), measured.mean(axis=1))
    x, y = np.log(lines["$t^{1/4}$"].get_xdata()), np.log(lines["$t^{1/4}$"].get_ydata())
    np.testing.assert_allclose(np.diff(y) / np.diff(x), 0.25)
    np.testing.assert_allclose(lines["two scalars"].get_ydata(), result.scalars.w[1:])
    assert result.scalars.v[0] == 0.7
    # The two-scalar path is the population's, the matrices see twelve samples.
    start = np.abs(result.scalars.w[:5] - result.training.history["w"][:5, 0])
    assert 0 < start.max() < 0.1


def test_a_run_that_does_not_stay_finite_is_a_no(tmp_path):
    record = tmp_path / "x.json"
    run = (*TINY, "--epochs", 2, "--rate", 1e38, "--json", record)
    assert loop("train", *run) == 1
    assert json.loads(record.read_text())["history"]["test_loss"][-1] == [None]


@pytest.fixture
def small(monkeypatch):
    config = replace(
        loop_figure_2.FIGURE_2_QUICK.training, d=2, n=3, train=12, test=6, batch=4, seeds=1
    )
    repeat = replace(
        loop_figure_2.FIGURE_2_QUICK, training=config, most_loops=6, late=3, outside=("clustered",)
    )
    monkeypatch.setattr(loop_figure_2, "FIGURE_2_QUICK", repeat)
    norms = replace(
        loop_norms.NORMS_QUICK,
        training=replace(config, loops=2, objective="sine"),
        norms=("l2",),
        rates=(0.1, 0.2),
    )
    monkeypatch.setattr(loop_norms, "NORMS_QUICK", norms)
    noise = loop_noise.NoiseConfig(
        replace(loop_noise.NOISE_QUICK.training, d=3, n=6, test=200, loops=3, epochs=1),
        samples=(16, 128),
        steps=400,
        draws=("fresh",),
    )
    monkeypatch.setattr(loop_noise, "NOISE_QUICK", noise)


def test_compare_keeps_the_two_gaps_apart(small, tmp_path, capsys, drawn):
    out, record = tmp_path / "c", tmp_path / "c.json"
    assert loop("compare", "--quick", "--epochs", 20, "--out", out, "--json", record) == 0
    shown = capsys.readouterr().out
    for words in ("gamma*", "split in two halves", "R* =", "to the algorithm"):
        assert words in shown
    assert {path.name for path in out.iterdir()} == {
        ".pmt-output.json",
        "checkpoint-l2.npz",
        "checkpoint-none.npz",
        "loop-figure-2.png",
        "loop-figure-2.svg",
    }
    found = json.loads(record.read_text())
    assert found["schema"] == "pmt.loop-compare/1"
    repeated = found["norms"]["l2"]["repeated"]
    assert np.shape(repeated["truth_angle"]) == np.shape(found["power_truth_angle"]) == (6, 1)
    assert set(found["norms"]["none"]["outside"]) == {"clustered"}
    factors = found["norms"]["none"]["repeated"]
    assert np.all(np.array(found["bound"]) > np.array(factors["power"]))
    ((result, figure),) = drawn
    check_comparison(result, figure)


def check_comparison(result, figure):
    lines = [np.asarray(line.get_ydata()) for line in figure.axes[2].lines]
    for one in result.repeated.values():
        for expected in (one.truth_angle, one.manifold_truth_angle, one.predicted_truth_angle):
            mean = np.degrees(expected.mean(axis=1))
            assert any(len(y) == len(mean) and np.allclose(y, mean) for y in lines)
        # The prediction starts at the measured angle, and no factor is below the power method's.
        begin = one.manifold_truth_angle[result.config.late - 1]
        np.testing.assert_allclose(one.predicted_truth_angle[0], begin, rtol=1e-5)
        assert np.all(one.manifold_factor > one.power)
        # For d = 2 there are no other eigenvalues, and the factor is exact from the first loop.
        np.testing.assert_allclose(one.manifold_factor, one.predicted, rtol=1e-3)
    config, done = result.config, result.trainings["none"]
    given = looped.test_set(config.training)
    d, gamma = config.training.d, result.plateaus.gamma[0]

    def with_blocks(lower, upper):
        value, key = np.zeros((2, 1, 2 * d, 2 * d), np.float32)
        value[0, d:, :d], key[0, :d, d:] = lower, upper
        weights = done.weights._replace(value=value, key=key)
        return loop_figure_2.repeated(config, replace(done, weights=weights), given, gamma)

    # The model itself, loop after loop, against the spectra; and what is no power method at all.
    on = with_blocks(np.eye(d), gamma * np.eye(d))
    np.testing.assert_allclose(on.factor, on.manifold_factor, rtol=1e-5)
    np.testing.assert_allclose(on.factor, result.bound, rtol=1e-3)
    np.testing.assert_allclose(on.truth_angle, on.manifold_truth_angle, rtol=1e-5)
    half = np.diag(np.arange(d) < d // 2).astype(float)
    split = with_blocks(half, np.eye(d) - half)
    assert np.all(split.factor > result.bound)
    np.testing.assert_allclose([on.rank, split.rank], [[d], [d // 2]], rtol=1e-6)


def test_compare_norms_at_equal_tuning(small, tmp_path, capsys):
    record = tmp_path / "n.json"
    run = ("compare", "--study", "norms", "--quick", "--epochs", 4)
    assert loop(*run, "--out", tmp_path / "n", "--json", record) == 0
    assert "unstructured" in capsys.readouterr().out
    found = json.loads(record.read_text())
    rows = found["rows"]
    starts = ["structured", "unstructured"]
    assert [(row["start"], row["norm"]) for row in rows] == [(start, "l2") for start in starts]
    for row in rows:
        losses = found["losses"][f"{row['start']} {row['norm']}"]
        assert row["rate"] == [0.1, 0.2][int(np.argmin(losses))]
        assert np.mean(row["train_loss"]) == min(losses)
        assert row["edge"]
    assert (tmp_path / "n" / "loop-norms.png").exists()


def test_compare_noise_falls_with_the_samples(small, tmp_path, capsys):
    record = tmp_path / "s.json"
    run = ("compare", "--study", "noise", "--quick")
    assert loop(*run, "--out", tmp_path / "s", "--json", record) == 0
    assert "goes as samples^(" in capsys.readouterr().out
    found = json.loads(record.read_text())
    (one,) = found["series"]
    assert one["draw"] == "fresh"
    assert np.all(np.array(one["angle"]) > np.array(one["manifold_angle"]))
    assert -0.9 < one["slope"] < -0.2
    assert (tmp_path / "s" / "loop-noise.svg").exists()


def test_the_law_of_the_noise():
    samples = (10, 100, 1000)
    excess = 0.5 * np.array(samples, float)[:, None] ** -0.5 * np.array([[1.0, 1.0]])
    slope, error, needed = loop_noise._law(samples, excess)
    assert slope == pytest.approx(-0.5) and error == pytest.approx(0.0, abs=1e-9)
    assert needed == pytest.approx(2500.0)
    assert np.isnan(loop_noise._law(samples, np.full((3, 2), np.nan))).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("compare", "--study", "noise", "--epochs", 4),
            "--epochs is not an option of --study noise",
        ),
        (("train", "--resume"), "--resume needs the folder of the stopped run; give it with --out"),
        (("train", "--batch", 4, "--full-batch"), "--batch and --full-batch contradict each other"),
        (("train", "--fresh", "--full-batch"), "--fresh and --full-batch contradict each other"),
        (("train", "--orbits", "--full-batch"), "--orbits and --full-batch contradict each other"),
        (("train", "--orbits", "--batch", 100), "a batch of 100 is not made of whole orbits"),
        (("train", "--batch", 9, "--train", 5), "a batch of 9 is more than the 5 training"),
        (("train", "--norm", "l3"), "'l3' is not one of"),
        (("train", "--rate", -1), "-1 is not above 0"),
        (("compare", "--study", "norms", "--resume"), "--study norms keeps no checkpoint"),
        ((), "Missing command"),
    ],
)
def test_a_wrong_request_is_one_sentence(arguments, sentence, one_sentence):
    assert loop(*arguments) == 2
    assert sentence in one_sentence()


def test_orbits_are_one_a_step_if_nothing_else_is_said(capsys, tmp_path):
    record = tmp_path / "run.json"
    small = ("--d", 2, "--n", 3, "--loops", 2, "--train", 12, "--test", 8, "--epochs", 2)
    assert loop("train", "--orbits", *small, "--json", record) == 0
    assert "batch 4 of 1 sample and images" in capsys.readouterr().out
    found = json.loads(record.read_text())
    assert found["config"]["orbits"] is True and found["config"]["batch"] == 4
    assert found["history"]["off_value"][-1][0] < 1e-5
    assert found["way_down"]["curvature"]["value"] < 0


def test_resuming_without_a_checkpoint_says_so(tmp_path, one_sentence):
    assert loop("train", *TINY, "--out", tmp_path / "x", "--resume") == 2
    assert "there is no checkpoint" in one_sentence()
