"""`pmt analyze --leading` with more eigenpairs than there are."""

from pathlib import Path

import pytest

from pmt.cli import main

TINY = Path(__file__).parents[1] / "parity" / "data" / "bert-tanh"


@pytest.mark.parametrize("mode", ["stripped", "full"])
def test_fault_84_more_leading_pairs_than_a_layer_has(mode, tmp_path, one_sentence):
    call = ["analyze", str(TINY), "--mode", mode, "--json", str(tmp_path / "a.json")]
    assert main([*call, "--leading", "25"]) == 2
    assert "--leading is 25, and a layer matrix of this model has d = 24" in one_sentence()
    assert not (tmp_path / "a.json").exists()


def test_as_many_leading_pairs_as_a_layer_has(tmp_path, capsys):
    out = tmp_path / "a.json"
    assert main(["analyze", str(TINY), "--leading", "24", "--json", str(out)]) == 0
    assert "only the 24 leading eigenpairs" in capsys.readouterr().out and out.exists()
