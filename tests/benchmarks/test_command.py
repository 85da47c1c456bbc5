"""``python -m benchmarks``: its options, the file of results, and what is drawn from it."""

import json
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks._cold_start import covered
from benchmarks._results import merge, read
from benchmarks._table import line, markdown, seconds
from pmt.errors import RequestError

TIMES = {"compile": 0.5, "median": 2e-3, "best": 1e-3, "calls": 3}
ROW = {
    "name": "ours",
    "size": {"n": 4},
    "ours": TIMES,
    "peer": "a loop",
    "peer_time": TIMES | {"median": 8e-3},
    "ratio": 4.0,
    "largest_difference": 1e-9,
    "limit": {"what": "LAPACK", "seconds": 1e-3, "share": 0.5},
}
MACHINE = {"processor": "P", "threads": 2, "device": "cpu", "python": "3", "jax": "0"}


def sweep(axis, group, what, **more):
    points = [{axis: x, "seconds": 1e-3 * x**2} for x in (2, 4, 8)]
    return {
        "name": f"{what}, against {axis}",
        "size": {},
        "axis": axis,
        "points": points,
        "exponent": 2.0,
        "standard_error": 0.1,
        "constant": 1e-3,
        "group": group,
        "what": what,
        **more,
    }


SCALING = [
    sweep("d", "spectra", "spectrum at consensus", point="consensus", mask="full"),
    sweep("n", "spectra", "spectrum with radii", point="bipartite", mask="general"),
    sweep("n", "spectra", "dense Jacobian, (nd)³", point="bipartite", mask="general"),
    sweep("d", "spectra, d small", "spectrum", point="bipartite", mask="general"),
    sweep("batch", "simulate", "simulate"),
    sweep("devices", "devices", "basin fractions") | {"exponent": None},
]
COLD = [{"name": "pmt verify", "size": {}, "ours": TIMES, "parts": dict.fromkeys(
    ("import", "trace", "compile", "rest"), 1.0)}]  # fmt: skip
SIMULATION = [
    {
        **ROW,
        "size": {"n": 4, "d": 3, "dtype": "float32"},
        "peer": peer,
        "token_steps_per_second": 1e6,
        "peer_token_steps_per_second": 1e5,
    }
    for peer in ("NumPy", "the matrix-product rate")
]


def entry(*rows):
    return {"environment": MACHINE, "quick": False, "seconds": 1.0, "rows": list(rows)}


@pytest.fixture
def known(monkeypatch):
    """Three benchmarks: one that works on both devices, one that fails, one for the CPU alone."""

    def broken(_quick):
        raise RuntimeError("no luck")

    modules = {
        "both": SimpleNamespace(rows=lambda quick: [ROW], DEVICES=("cpu", "gpu"), __doc__="Both."),
        "broken": SimpleNamespace(rows=broken, __doc__="Breaks."),
        "here": SimpleNamespace(rows=lambda quick: [ROW | {"quick": quick}], __doc__="Here."),
    }
    monkeypatch.setattr(command, "discovered", lambda: modules)
    # The configuration of this process stays as it is.
    monkeypatch.setattr(command.jax.config, "update", lambda *_: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return modules


def test_running_one_keeps_the_results_of_the_others(known, tmp_path, capsys):
    target = tmp_path / "machine.json"
    merge(target, "other", entry(ROW))
    assert command.main(["--only", "here", "both", "--quick", "--json", str(target)]) == 0
    found = read(target)
    assert list(found) == ["both", "here", "other"]
    assert found["here"]["rows"][0]["quick"] is True
    assert found["here"]["environment"]["threads"] >= 1
    assert (
        "here: ours (n = 4), 2 ms, compile 500 ms, a loop: 8 ms, ratio 4" in capsys.readouterr().out
    )


def test_a_benchmark_that_fails_stops_no_other_and_writes_nothing(known, tmp_path, capsys):
    target = tmp_path / "machine.json"
    assert command.main(["--json", str(target)]) == 1
    assert list(read(target)) == ["both", "here"]
    assert "no luck" in capsys.readouterr().err


def test_what_a_device_cannot_do_is_said(known, capsys, monkeypatch):
    assert command.main(["--only", "here", "--device", "gpu"]) == 0
    assert capsys.readouterr().out == "here: not on gpu\n"


def test_the_list_runs_nothing(known, capsys):
    assert command.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "both         Both. [cpu, gpu]",
        "broken       Breaks. [cpu]",
        "here         Here. [cpu]",
    ]


def test_every_benchmark_has_a_line_about_itself_and_a_known_device():
    modules = command.discovered()
    assert {"simulation", "spectra", "scaling", "cold_start", "statements"} <= set(modules)
    for name, module in modules.items():
        assert module.__doc__.splitlines()[0].endswith((".", ":", ",")), name
        assert set(command.devices_of(module)) <= {"cpu", "gpu"}, name


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"rows": []}'])
def test_a_file_of_another_kind_is_refused_before_anything_runs(known, tmp_path, content):
    target = tmp_path / "machine.json"
    target.write_text(content)
    with pytest.raises(SystemExit):
        command.main(["--only", "here", "--json", str(target)])
    assert target.read_text() == content
    with pytest.raises(RequestError, match="does not hold benchmark results"):
        read(target)


def test_table_and_plots_come_from_the_file(tmp_path, capsys):
    target = tmp_path / "machine.json"
    merge(target, "scaling", entry(*SCALING))
    merge(target, "simulation", entry(*SIMULATION))
    merge(target, "cold_start", entry(*COLD))
    assert command.main(["--draw", str(target), "--out", str(tmp_path / "drawn")]) == 0
    names = ("spectra", "scaling", "simulation", "cold-start")
    expected = {f"machine-{name}.{form}" for name in names for form in ("png", "svg")}
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == expected | {"machine.md"}
    text = (tmp_path / "drawn" / "machine-spectra.svg").read_text()
    assert "bipartite, general, n = 64: 2.00 ± 0.10" in text
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_missing_file_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["--draw", str(tmp_path / "none.json")])
    assert "there is no file" in capsys.readouterr().err


def test_a_table_holds_what_was_measured():
    table = markdown({"spectra": entry(ROW, SCALING[0])})
    assert (
        "| ours | n = 4 | 2 ms | 500 ms | a loop | 8 ms | 4 | LAPACK: 1 ms, 50 % of ours | "
        in table
    )
    assert "d^(2.00 ± 0.10)" in table
    assert line({"name": "alone", "size": {}}) == "alone"
    assert [seconds(x) for x in (12.0, 3.4e-3, 2e-6, 5e-9)] == ["12 s", "3.4 ms", "2 µs", "5 ns"]


def test_spans_within_each_other_count_once():
    assert covered([(0.0, 2.0), (1.0, 1.5), (1.5, 3.0), (5.0, 6.0)]) == 4.0
    assert covered([]) == 0.0


def test_results_that_are_kept_can_be_read():
    kept = list((command.Path(command.__file__).parent / "results").glob("*.json"))
    assert kept
    for path in kept:
        assert set(read(path)) <= set(command.discovered())
        json.loads(path.read_text())
