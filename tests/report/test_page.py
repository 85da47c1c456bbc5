"""The page: self-contained, escaped, true to the results it is handed."""

import base64
import copy
import html
import re
from html.parser import HTMLParser

import pytest

from pmt.report import (
    Figure,
    Section,
    Table,
    equilibrium,
    render,
    repeated_layer,
    statements,
    summary,
    transformer,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def form(name, status, expected, witness=None):
    return {
        "form": name,
        "text": f"as read, {name}: α < 1 & x > 0",
        "status": status,
        "expected": expected,
        "instances": 1234,
        "violations": 0,
        "worst_margin": 0.25,
        "witness": witness,
        "seconds": 1.0,
    }


VERIFIED = {
    "schema": "pmt.verify/1",
    "statements": [
        {
            "id": "lemma-3",
            "source": "Lemma 3, arXiv 2605.25619",
            "text": "text",
            "forms": [
                form("paper", "refuted", "refuted", {"name": "2-cycle"}),
                form("corrected", "supported", "supported"),
            ],
        },
        {
            "id": "theorem-9",
            "source": "Theorem 9, arXiv 2605.25619",
            "text": "text",
            "forms": [form("paper", "refuted", "supported")],
        },
    ],
}


def layer(index, delta, mean):
    return {
        "index": index,
        "principal": {
            "eigenvalue": [1.5, 0.25 if index == 2 else 0.0],
            "case": 1,
            "gap": 0.125,
            "residual": 3e-16,
            "chance": 0.04,
        },
        "rho_after": 0.2,
        "delta_rho": delta,
        "delta_rho_se": 0.001,
        "mean_delta_rho": mean,
        "p_increase": 0.75,
        "mean_p_increase": 0.5,
        "null": {
            "gaussian": {
                "delta_rho": 0.0,
                "stands_out": int(delta > 0.01),
                "reason": None,
            }
        },
        "intertoken_distance": 1.25,
    }


ANALYSIS = {
    "model": {"name": "m<odel", "family": "bert", "d": 8, "h": 2, "layers": 2, "sha256": "ab"},
    "settings": {"tokens": [3, 4, 8]},
    "layers": [layer(1, 0.02, 0.01), layer(2, 0.001, 0.01)],
}
REPEAT = {
    "layer": 2,
    "steps": 10,
    "attracting": True,
    "principal": {"chance": 0.04},
    "rho": [0.1, 0.9],
    "intertoken_distance": [1.0, 1e-5],
    "rate": {"theory": 0.95, "measured": 0.951, "ratio": 1.001},
}


class Reader(HTMLParser):
    """Collects links, sources, ids and the balance of tags."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links, self.ids = [], [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in self.void:
            self.open.append(tag)
        self.sources += [given[k] for k in ("src",) if k in given]
        self.links += [given[k] for k in ("href",) if k in given]
        self.ids += [given[k] for k in ("id",) if k in given]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page():
    sections = [
        statements(VERIFIED, [Figure("f", "caption", "alt", PNG)]),
        transformer(ANALYSIS, []),
        repeated_layer(ANALYSIS, REPEAT, []),
    ]
    return render("Title", summary(VERIFIED, ANALYSIS, REPEAT), sections, {"seed": "0"})


def test_page_is_well_formed_and_shows_itself_without_other_files():
    reader = Reader()
    reader.feed(page())
    assert reader.open == []
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    assert base64.b64decode(reader.sources[0].split(",")[1]) == PNG
    anchors = {link[1:] for link in reader.links if link.startswith("#")}
    assert anchors <= set(reader.ids)
    others = {link for link in reader.links if not link.startswith("#")}
    assert others == {"statements/lemma-3.html", "statements/theorem-9.html"}
    assert "http" not in page().replace("http://www.w3.org", "")


def test_everything_is_escaped():
    assert "m<odel" not in page()
    assert "m&lt;odel" in page()
    assert "α &lt; 1 &amp; x &gt; 0" in page()


def test_lead_counts_what_the_results_say():
    lead = summary(VERIFIED, ANALYSIS, REPEAT)
    assert "2 statements" in lead
    assert "2 of 3 forms come out as expected" in lead
    assert "more than average in 1 of 2 layers" in lead


def test_unexpected_statuses_are_set_off():
    first, second = statements(VERIFIED).statements.rows
    assert [form.as_expected for form in (*first.forms, *second.forms)] == [True, True, False]
    assert (first.forms[0].status, first.forms[0].witness) == ("refuted", "2-cycle")
    rendered = html.unescape(page())
    assert len(re.findall(r'<tr class="no">', rendered)) == 1


def test_transformer_compares_with_the_nulls():
    section = transformer(ANALYSIS, [])
    assert (
        "one more draw of the null would show (95 %): for the gaussian null in 1 of 2"
        in (section.paragraphs[1])
    )
    unknown = copy.deepcopy(ANALYSIS)
    for each in unknown["layers"]:
        each["null"]["gaussian"] |= {"stands_out": None, "reason": "one prompt"}
    assert transformer(unknown, []).paragraphs[1].endswith("No verdict: one prompt.")
    assert section.tables[0].rows[1][1] == "1.5000 ± 0.2500i"


def test_repeated_layer_without_a_rate_says_nothing_of_it():
    told = repeated_layer(ANALYSIS, REPEAT, []).paragraphs[0]
    assert "shrinks by 0.9510 a step" in told
    silent = {**REPEAT, "rate": {"theory": None, "measured": None, "ratio": None}}
    assert "shrinks" not in repeated_layer(ANALYSIS, silent, []).paragraphs[0]


def test_equilibrium_reports_every_condition():
    answer = {
        "verdict": "stable",
        "method": "closed form",
        "spectral_radius": 0.9,
        "margin": 0.1,
        "tolerance": 1e-14,
        "disagreement": None,
        "conditions": [{"name": "c", "text": "t", "status": "fails", "margin": -0.5}],
    }
    section = equilibrium(answer, "a system", [])
    assert section.tables[0].rows == (("c", "t", "fails", "-0.5"),)
    assert "was not compared" in section.paragraphs[1]


def test_a_missing_value_is_an_error_and_not_an_empty_cell():
    from jinja2 import UndefinedError

    broken = Section("s", "title", tables=(Table("c", ("h",), (("x",),)),))
    object.__delattr__(broken.tables[0], "caption")
    with pytest.raises(UndefinedError):
        render("t", "lead", [broken], {})
