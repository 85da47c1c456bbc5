"""The table of statements and the pages of the refuted ones."""

import html
import re

from pmt.report import Figure, Witness, page_of, refuted, refuted_pages, render, statements
from pmt.report.statements import _tables

PNG = b"\x89PNG"


def form(name, status, expected, witness=None):
    return {
        "form": name,
        "text": f"the {name} text <of> it & more",
        "status": status,
        "expected": expected,
        "instances": 12_345,
        "violations": 0,
        "worst_margin": -0.125,
        "witness": witness,
        "seconds": 1.26,
    }


INSTANCE = {
    "clause": "pairs <b>",
    "name": "a <pair>",
    "text": "V & alpha",
    "margin": -0.5,
    "tolerance": 1e-13,
    "shape": {"n": 2, "d": 2, "h": 1, "mask": "causal"},
    "inputs": {
        "value": [[1.0, 0.1], [0.1, -0.30000000000000004]],
        "alpha": 0.25,
        "signs": [1.0, -1.0],
        "index": 1,
        "heads": [[[1.0]], [[2.0]]],
    },
    "numbers": {
        "multipliers": [[0.5, -0.25], [0.5, 0.25]],
        "row": [{"theta": 0.5, "share": 0.125}],
        "moved": 1.23456789,
    },
}
VERIFIED = {
    "schema": "pmt.verify/1",
    "statements": [
        {
            "id": "lemma-1",
            "source": "Lemma 1, arXiv 2605.25619",
            "text": "Of <equilibria>.",
            "forms": [
                form("paper", "refuted", "refuted", INSTANCE),
                form("corrected", "supported", "supported"),
            ],
        },
        {
            "id": "ii.1",
            "source": "theory II.1",
            "text": "Exact.",
            "forms": [form("corrected", "supported", "supported")],
        },
        {
            "id": "remark-2",
            "source": "Remark 2, arXiv 2605.25619",
            "text": "Falls at random.",
            "forms": [
                form("paper", "supported", "supported"),
                form("corrected", "refuted", "supported", {**INSTANCE, "name": None, "text": ""}),
            ],
        },
    ],
}
PICTURE = {
    "sphere": True,
    "axes": [[1.0, 0.0], [0.0, 1.0]],
    "tokens": [{"x": 0.5, "y": 0.25, "near": True}, {"x": -0.5, "y": 0.75, "near": False}],
}


def witnesses():
    figure = Figure("lemma-1-1", "caption <i>", 'alt "quoted"', PNG)
    return {
        "lemma-1": [Witness("paper", INSTANCE, (figure,))],
        "remark-2": [Witness("corrected", {**INSTANCE, "name": None}, (), "Nothing to draw.")],
    }


def table_page(pictures=None):
    section = statements(VERIFIED, pictures=pictures)
    return render("T", "lead", [section], {})


def test_table_has_every_statement_and_form():
    page = html.unescape(table_page())
    for statement in VERIFIED["statements"]:
        body = page[page.index(f'id="statement-{statement["id"]}"') :].split("</tbody>")[0]
        assert body.count("<tr") == len(statement["forms"])
        assert statement["text"] in body
        for each in statement["forms"]:
            assert f"{each['form']}:</b> {each['text']}" in body
            assert f"{each['status']}</span>" in body
        assert body.count("12,345") == body.count("−0.125") == body.count("1.3 s")
        assert body.count("1.3 s") == len(statement["forms"])
    assert page.count('class="no"') == 1
    assert "supported (!)" in page


def test_status_is_told_by_a_word_and_a_sign_besides_colour():
    tags = re.findall(r'<span class="tag (\w+)">(\S+) (\w+)</span>', table_page())
    assert len(tags) == 5
    assert all(kind == word for kind, _, word in tags)
    assert len({(word, sign) for _, sign, word in tags}) == len({sign for _, sign, _ in tags}) == 2


def test_every_refuted_statement_has_a_page_and_links_resolve():
    pages = refuted_pages(VERIFIED, witnesses(), "index.html")
    assert list(pages) == refuted(VERIFIED) == ["lemma-1", "remark-2"]
    index = table_page()
    files = {page_of(name) for name in pages}
    linked = set(re.findall(r'href="([^"#]+)"', index))
    assert linked == files
    for page in pages.values():
        for link in re.findall(r'href="([^"]+)"', page):
            if link.startswith("../index.html#"):
                assert f'id="{link.partition("#")[2]}"' in index
            else:
                assert f"statements/{link}" in files
    assert 'href="remark-2.html"' in pages["lemma-1"]
    assert 'href="lemma-1.html"' in pages["remark-2"]


def test_page_shows_forms_inputs_numbers_and_figure():
    pages = refuted_pages(VERIFIED, witnesses(), "index.html")
    page = html.unescape(pages["lemma-1"])
    assert all(each["text"] in page for each in VERIFIED["statements"][0]["forms"])
    # Exact decimals: the shortest that read back.
    cells = re.findall(r'<td class="n">([^<]*)</td>', page)
    assert cells == ["1", "0.1", "0.1", "−0.30000000000000004", "0.25", "1", "−1", "1", "1", "2"]
    assert "0.5 − 0.25i, 0.5 + 0.25i" in page
    assert "theta 0.5, share 0.125" in page
    assert "1.23457" in page
    assert "mask causal" in page
    assert page.count("data:image/png;base64,") == 1
    assert "Nothing to draw." in pages["remark-2"]
    assert "<img" not in pages["remark-2"]


def test_everything_on_the_pages_is_escaped():
    for page in (refuted_pages(VERIFIED, witnesses(), "index.html")["lemma-1"], table_page()):
        for raw in ("<of>", "<pair>", "<i>", "pairs <b>", "<equilibria>"):
            assert raw not in page
        assert "&lt;of&gt; it &amp; more" in page


def test_pictures_show_where_the_tokens_are():
    page = table_page({"lemma-1": PICTURE})
    assert page.count("<svg") == 1
    # y points down in SVG; a token on the far side is hollow.
    assert '<circle cx="0.5000" cy="-0.2500" r=".12" fill="#d55e00"' in page
    assert '<circle cx="-0.5000" cy="-0.7500" r=".12" fill="none"' in page
    assert page.count("<line") == 2


def test_inputs_of_any_depth_become_tables():
    assert _tables(2.0) == [[["2"]]]
    assert _tables([]) == [[[]]]
    assert _tables([[1.5]]) == [[["1.5"]]]
    assert _tables([[[1.0]], [[2.0]]]) == [[["1"]], [["2"]]]
