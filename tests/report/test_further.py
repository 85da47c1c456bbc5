"""The sections on trained weights, steering and the second paper say what their results say."""

import copy

from pmt.experiments.contrast import judge
from pmt.report import looped, render, steering, trained_weights


def against(delta, null, se=0.01):
    """At four draws with a spread of 0.01: the standard error of one more is 0.015 at se = 0.01."""
    found = judge(delta - null, se, None if se is None else 0.005, 0.01, 4)
    return {"delta_rho": null, "p_increase": 0.6, "se": se, "draws": 4} | vars(found)


def layer(index, delta, null, se=0.01):
    return {
        "index": index,
        "rho_after": 0.3,
        "delta_rho": delta,
        "delta_rho_se": se,
        "mean_rho_after": 0.15,
        "mean_delta_rho": 0.01,
        "principal": {"chance": 0.1},
        "null": {name: against(delta, null, se) for name in ("gaussian", "rotated")},
    }


ANALYSIS = {"layers": [layer(1, 0.1, 0.05), layer(2, 0.06, 0.05), layer(3, -0.01, 0.0)]}

COST = {"method": "edit", "dose": 1.0, "alignment": 0.8, "kl": None, "similarity_change": 0.25}
STEERED = {
    "model": {"name": "a < b"},
    "settings": {"layer": 6, "asked": {"alignment": 0.9}},
    "direction": "a random direction (seed 0)",
    "edit": {"c": 12.5, "multiple_of_lambda_1": 8.0},
    "alignment": {"before": 0.04, "after": 0.9, "positive_after": 0.5},
    "curve": {"predicted": [0.1, 0.5], "measured": [0.1, 0.52], "error": [0.01, 0.01], "c": [0, 1]},
    "costs": [
        COST,
        COST | {"method": "none", "alignment": 0.04},
        COST | {"alignment": 0.7, "similarity_change": 0.2},
        COST | {"method": "addition", "alignment": 0.7, "similarity_change": 0.125},
    ],
    "text": "somewhere",
}

LOOPED = {
    "config": {"d": 4, "n": 8, "loops": 4, "epochs": 240},
    "history": {
        "test_loss": [[0.4, 0.4], [0.2, 0.3]],
        "algorithm_angle": [[0.0625]],
        "truth_angle": [[0.375]],
    },
    "power_method": {"loss": [0.125, 0.125]},
    "exponents": [None, {key: {"value": 0.25, "half_width": 0.01} for key in ("v", "w")}],
    "off_manifold": {"share_within_3": [0.9, 1.0]},
    "way_down": {
        "curvature": {"value": -0.125, "se": 0.01},
        "gain": {"value": 0.025, "se": 0.01},
    },
}


def told(section):
    return " ".join(section.paragraphs)


def test_a_layer_is_special_only_beyond_every_null():
    section = trained_weights(ANALYSIS)
    # (0.1 - 0.05) / 0.015 = 3.3 errors, more than t(97.5 %, 3) = 3.18; the second has 0.7.
    assert "that is layer 1; in layers 2, 3" in told(section)
    assert "It does in 2 of 3 layers" in told(section)
    assert "of the gaussian null in 2 and of the rotated null in 2 of 3" in told(section)
    (table,) = section.tables
    assert table.rows[0][1:3] == ("3.00", "1.50") and table.rows[0][-2:] == ("+3.3", "+3.3")
    assert "what exceeds 3.18 for 4 draws" in table.caption
    assert table.marks == {0: "special"}
    assert all(len(row) == len(table.headings) for row in table.rows)
    below = copy.deepcopy(ANALYSIS)
    # 2.7 errors: beyond two, and not beyond what one more draw would show.
    below["layers"][0]["null"]["rotated"] = against(0.1, 0.06)
    assert "that is no layer; in layers 1, 2, 3" in told(trained_weights(below))


def test_without_standard_errors_nothing_is_special():
    mixed = {"layers": [*ANALYSIS["layers"], layer(4, 0.1, 0.05, se=None)]}
    said = told(trained_weights(mixed))
    assert "in layers 2, 3 " in said and "In the other layers that cannot be told: a single" in said
    single = {"layers": [layer(1, 0.1, 0.05, se=None)]}
    section = trained_weights(single)
    assert "cannot be told: a single prompt or text has no standard error" in told(section)
    assert section.tables[0].rows[0][-1] == "–" and not section.tables[0].marks


def test_steering_says_what_was_asked_reached_and_paid():
    said = told(steering(STEERED, []))
    assert "Asked for: alignment 0.9" in said
    assert "from 0.040 to 0.900, with c = 12.5, 8 times" in said
    assert "50% of the tokens" in said
    # 0.02 apart where 0.01 was stated, in one of two.
    assert "by 2.0e-02 at most, and in 1 of them" in said
    assert "alignment 0.800, for a mean change of sentence similarities of 0.25" in said
    assert "pays 0.125 for 0.700, the edit 0.2 for 0.700" in said
    assert "of the next token" not in said
    # An edit whose layer has no leading eigenvalue to compare with.
    unknown = STEERED | {"edit": {"c": 12.5, "multiple_of_lambda_1": None}}
    assert "with c = 12.5. 50%" in told(steering(unknown, []))
    decoder = copy.deepcopy(STEERED)
    decoder["costs"] = [COST | {"kl": 1.5}]
    assert "KL divergence of the next token of 1.5 nats" in told(steering(decoder, []))
    assert "The price" not in told(steering(STEERED | {"costs": []}, []))


def test_the_looped_transformer_stands_beside_the_power_method():
    said = told(looped(LOOPED, []))
    assert "ends at 0.2500, where 4 steps of the power method have 0.1250" in said
    assert "0.062 radians from those 4 steps and 0.375 from the truth" in said
    assert "0.250 ± 0.010 and 0.250 ± 0.010" in said and "95.0% of the entries" in said
    assert "exponents" not in told(looped(LOOPED | {"exponents": [None]}, []))
    assert "0.025 ± 0.010 below that of the power method" in said
    noisy = LOOPED["way_down"] | {"gain": {"value": 0.019, "se": 0.01}}
    for down in (noisy, None):
        assert "below that of" not in told(looped(LOOPED | {"way_down": down}, []))


def test_the_sections_are_escaped_on_the_page():
    page = render("t", "l", [steering(STEERED, []), trained_weights(ANALYSIS)], {})
    assert "a &lt; b" in page and "a < b" not in page and '<tr class="special">' in page
