"""`pmt reproduce --prompts`: the items about layers start from the texts' tokens."""

import json

from pmt.cli import main

ITEMS = ("figure-2b", "figure-2b-orders", "figure-6a", "figure-8", "figure-9")


def found(path):
    items = json.loads(path.read_text(encoding="utf-8"))["items"]
    return {each["name"]: each for each in items}


def test_items_about_layers_start_from_the_texts_as_an_analysis_does(
    readable, texts, tmp_path, one_sentence
):
    record, call = tmp_path / "r.json", ["--prompts", str(texts), "--json"]
    assert main(["analyze", str(readable), *call, str(record)]) == 0
    analysis = json.loads(record.read_text())
    asked = ["reproduce", *ITEMS, "figure-11", "--quick", "--model", str(readable), *call]
    asked += [str(record), "--layer", "1", "--out", str(tmp_path / "out")]
    assert main(asked) == 0
    items = found(record)
    alignment = items["figure-2b"]["result"]
    for name in ("tokens", "texts", "counted_tokens"):
        assert alignment["settings"][name] == analysis["settings"][name]
    for own, other in zip(alignment["layers"], analysis["layers"], strict=True):
        for name in ("rho_before", "rho_after_se", "mean_delta_rho", "intertoken_distance"):
            assert own[name] == other[name]
    assert items["figure-2b-orders"]["result"]["real"]["settings"]["counted_tokens"] == 10
    assert items["figure-9"]["result"]["settings"]["tokens"] == [3, 5, 24]
    first = analysis["layers"][0]
    distance = items["figure-6a"]["result"]["intertoken_distance"]
    assert abs(distance[1] - first["intertoken_distance"]) < 1e-6
    # After one layer the product of F is F.
    product = items["figure-8"]["result"]["layers"][0]["plain"]
    assert abs(product["rho"] - first["rho_after"]) < 1e-6
    for each in items.values():
        assert each["settings"]["texts"] == ["a b c a", "c b", "b"]
        assert each["settings"]["tokens"] is None
        assert "tokenizer.json" in each["settings"]["model_files"]
    # Other texts are another request.
    texts.write_text("a b c a\nb c\nb\n")
    assert main(asked) == 2
    assert 'holds results for texts[1] = "c b" and not "b c"; choose' in one_sentence()
    texts.write_text("a b c a\n")
    assert main(asked) == 2
    assert "holds results for 3 texts and not 1; choose" in one_sentence()


def test_texts_that_are_too_long_make_no_folder(readable, texts, tmp_path, one_sentence):
    texts.write_text("b " * 13)
    asked = ["reproduce", "figure-2b", "--model", str(readable), "--prompts", str(texts)]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 2
    assert "has 14 tokens; this model takes at most 13: give shorter texts" in one_sentence()
    assert not (tmp_path / "out").exists()
