"""`pmt report`: refusals before the work; the whole of it, small, is in the long tests."""

import json
import re

import pytest

from pmt.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such/model"], "no/such/model"),
        (["--repeat-layer", "7"], "there is no layer 7; the model has layers 1 to 6"),
        (["--instances", "0"], "--instances"),
        (["--seed", "x"], "--seed"),
    ],
)
def test_bad_requests_end_before_the_work(one_sentence, tmp_path, arguments, message):
    """Fault 84."""
    status = main(["report", "--out", str(tmp_path / "out"), *arguments])
    assert status == 2
    assert message in one_sentence()
    assert not (tmp_path / "out" / "index.html").exists()


@pytest.mark.long
def test_the_whole_report_small(tmp_path):
    out = tmp_path / "réport"
    assert main(["report", "--out", str(out), "--instances", "200", "--steps", "20"]) == 0
    written = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert {"index.html", "report.json", "spectra.png", "alignment.png"} <= written
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert found["verify"]["schema"] == "pmt.verify/1"
    assert found["analysis"]["schema"] == "pmt.analysis/1"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == sum(name.endswith(".png") for name in written)
    refuted = {
        f"{statement['id']}.html"
        for statement in found["verify"]["statements"]
        if any(form["status"] == "refuted" for form in statement["forms"])
    }
    below = {path.name for path in (out / "statements").glob("*.html")}
    assert below == refuted
    assert "theorem-2.html" in refuted
    assert set(re.findall(r'href="statements/([^"]+)"', page)) == refuted
    for name in refuted:
        text = (out / "statements" / name).read_text(encoding="utf-8")
        assert "data:image/png;base64," in text
    assert found["equilibrium"]["verdict"] == "stable"
