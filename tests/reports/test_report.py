"""The report: well-formed, self-contained, escaped, and true to its claims, charts and summary."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from chart_cases import CHARTS, line, one
from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.answer import answer
from tiltmeter.reports.charts.curves import facets
from tiltmeter.reports.charts.mpl import draw, to_pdf, to_png, to_svg
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.reports.figure import ReportFigure
from tiltmeter.reports.page import SYMBOLS, SweepNumbers, headline, write_report
from tiltmeter.reports.tables import chart
from tiltmeter.reports.tables import claims as claims_table
from tiltmeter.reports.tables.claim_text import ClaimRow, Part

EVIL = "<script>alert('1')</script>\"&"
VOID = {"meta", "link", "img", "br", "hr", "input"}
MANIFEST = {
    "format": 1,
    "identity": {"sweep": {"seed": 7, "path": {"lengths": [0.0, 1.5]}}, "code": "ab" * 32, EVIL: {EVIL: EVIL}},
    "record": {"sweep": {"read positions": list(range(1, 128))}, "many": {"ids": [5] * 40}},
    "created": "2025-01-02T03:04:05+00:00",
}


class Page(HTMLParser):
    """Everything the tests ask of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attrs, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        """Note the tag and what it says."""
        self.tags.append(tag)
        self.attrs += attrs
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close the innermost open tag."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note the text."""
        self.words.append(data.strip())

    def values(self, *names):
        """List the values of attributes of these names."""
        return [value for name, value in self.attrs if name in names]


@pytest.fixture(scope="module")
def measured():
    steps = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    values = np.random.default_rng(0).lognormal(size=(3, 6, 10)) * np.arange(6)[:, None]
    values[2, 5] = np.nan
    axes = curves.Axes(["isotropic", "real-mixture", EVIL], steps, "L2", range(10))
    attrs = {"site": "blocks.3.hook_resid_pre", "manifest": "{}"}
    readouts = {"length": values, "kl": values, f"l2@{EVIL}": values + 1}
    ds = curves.build(readouts, np.ones((3, 10), int), axes, attrs)
    return ds, curves.summary(ds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def exhibits(measured):
    chart = facets(*measured, ["kl"], {f"all {EVIL}": ["isotropic", EVIL]})
    words = (f"Figure {EVIL}", f"Caption {EVIL}", f"Claimed {EVIL}", f"Finding {EVIL}")
    return [ReportFigure("one", *words, chart), ReportFigure("two", *words, one(line()))]


QUALIFIED = "KL: as claimed at lengths 21 to 101, reversed at 1 (0.67 [0.6, 0.75] at 1)."
QUALIFIED_CONTROL = "KL: as claimed at length 101, not as claimed at lengths 1 to 91 (1 [0.9, 1.1] at 1)."


@pytest.fixture(scope="module")
def claims():
    row = ClaimRow(
        study="lee2024",
        name="a",
        claim="Real is special.",
        source="Figure 1",
        verdict="supported in part",
        qualification=QUALIFIED,
        effect="2.04",
        interval="[1.97, 2.11]",
        published="1.8",
        deciding="[1.8, 2.3]",
        topic="Real and random",
        figures=("one",),
        parts=(Part("", "KL: real ÷ random", "2.04 [1.97, 2.11]", "above 1.25", "as claimed", "[1.8, 2.3]", "24"),),
    )
    return [
        row._replace(
            initialised="holds in 1 of 3 seeds",
            initialised_effect="0.9 to 1.4 (3 seeds)",
            shuffled="contradicted",
            shuffled_qualification=QUALIFIED_CONTROL,
            shuffled_effect="0.99 [0.9, 1.1]",
            note="Does not hold on: shuffled.",
        ),
        row._replace(
            name="b",
            verdict="not tested",
            effect="",
            interval="",
            note="No SAE.",
            parts=(Part(EVIL, f"part {EVIL}", EVIL, EVIL, EVIL, EVIL, EVIL), Part("", "another", "")),
        ),
        row._replace(study=EVIL, name=EVIL, claim=f"Claim {EVIL}", source=EVIL, published=EVIL, note=f"Note {EVIL}"),
    ]


@pytest.fixture(scope="module")
def page(measured, exhibits, claims, folder):
    path = write_report(
        folder,
        f"Title {EVIL}",
        [f"Model {EVIL}", "Twenty sequences."],
        exhibits,
        MANIFEST,
        claims=claims,
        answers=[answer("", claims, ("a", EVIL), {"one"})],
        notes=[f"Note {EVIL}"],
        numbers=SweepNumbers(*measured),
    )
    assert path == folder / "report.html"
    return path.read_text("utf-8")


def test_verdicts_stand_beside_their_qualifications(page, folder):
    files = ((folder / f"claims.{kind}").read_text("utf-8") for kind in ("csv", "tex"))
    for shown in (page, *files):
        plain = shown.replace("{[}", "[").replace("{]}", "]")
        assert QUALIFIED in plain
        assert QUALIFIED_CONTROL in plain


def blocks(page, attributes):
    return re.findall(rf"<script{attributes}>(.*?)</script>", page, re.DOTALL)


def test_well_formed_and_self_contained(page, folder):
    parsed = Page(page)
    assert parsed.tags.count("html") == parsed.tags.count("body") == parsed.tags.count("h1") == 1
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert not {"link", "iframe", "object", "base", "form"} & set(parsed.tags)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert parsed.values("srcset", "action", "data") == []
    assert {link.removeprefix("#") for link in parsed.values("href")} <= {*ids} and parsed.values("href")
    for source, name in zip(parsed.values("src"), ("one", "one", "two"), strict=True):
        head, data = source.split(",", 1)
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == (folder / "figures" / f"{name}.svg").read_bytes()
    assert all(parsed.values("alt"))


def test_the_policy_names_the_page_s_own_scripts_and_no_place(page):
    policy = next(value for value in Page(page).values("content") if "default-src" in value)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in blocks(page, "")]
    assert rules.pop("script-src").split() == [f"'sha256-{one}'" for one in hashes]
    assert len(hashes) == 3
    assert rules == {
        "default-src": "'none'",
        "img-src": "data: blob:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_plotly_is_there_once_and_figures_are_the_chart_s_json(page, exhibits):
    assert len([code for code in blocks(page, "") if len(code) > 1_000_000]) == 1
    for data, exhibit in zip(blocks(page, ' type="application/json"[^>]*'), exhibits, strict=True):
        assert data.isascii()
        assert not set("<>&") & set(data)
        assert json.loads(data) == to_plotly(exhibit.chart)


def test_files_are_the_chart_drawn_and_tabled(page, exhibits, claims, folder):
    for exhibit in exhibits:
        wanted = (
            to_png(draw(exhibit.chart)),
            to_svg(draw(exhibit.chart)),
            to_pdf(draw(exhibit.chart)),
            chart.to_csv(exhibit.chart),
            chart.to_latex(exhibit.chart, exhibit.title),
        )
        for name, data in zip(exhibit.files, wanted, strict=True):
            assert (folder / name).read_bytes() == data
            assert name in Page(page).words
    assert exhibits[0].files == (
        "figures/one.png",
        "figures/one.svg",
        "figures/one.pdf",
        "tables/one.csv",
        "tables/one.tex",
    )
    assert (folder / "claims.csv").read_bytes() == claims_table.to_csv(claims)
    assert (folder / "claims.tex").read_bytes() == claims_table.to_latex(claims, f"Title {EVIL}")


def test_a_phone_a_dark_screen_and_paper_are_thought_of(page):
    for wanted in ('name="viewport"', "prefers-color-scheme: dark", "@media print", "overflow-x: auto"):
        assert wanted in page


def test_everything_a_user_names_is_escaped(page):
    assert len(re.findall("<script", page)) == 5
    assert "alert('1')</script" not in page
    words = Page(page).words
    for whole in (
        f"Title {EVIL}",
        f"Model {EVIL}",
        f"Note {EVIL}",
        f"Figure {EVIL}",
        f"Claimed {EVIL}",
        f"Finding {EVIL}",
        f"Claim {EVIL}",
        f"{EVIL}: part {EVIL}",
        EVIL,
        f"distance at {EVIL}, L2",
    ):
        assert whole in words


def test_claims_come_first_with_words_symbols_and_the_control_beside_them(page):
    names = ("answer", "claims", "figures", "numbers", "reading", "run", "files")
    order = [page.index(f'<section id="{name}"') for name in names]
    assert order == sorted(order)
    assert page.index("Twenty sequences.") < order[0]
    words = [word for word in Page(page).words if word]
    at = words.index("Figure 1 ·") - 1
    assert words[at : at + 16] == [
        "Real is special.",
        "Figure 1 ·",
        "a",
        f"{SYMBOLS['supported in part']} supported in part",
        QUALIFIED,
        "2.04",
        "95 %: [1.97, 2.11]",
        "decides: [1.8, 2.3]",
        "1.8",
        "holds in 1 of 3 seeds",
        "0.9 to 1.4 (3 seeds)",
        f"{SYMBOLS['contradicted']} contradicted",
        QUALIFIED_CONTROL,
        "0.99 [0.9, 1.1]",
        "Does not hold on: shuffled.",
        "How it was tested",
    ]
    assert 'class="verdict not-tested"' in page
    assert len(set(SYMBOLS.values())) == 5


def test_what_no_claim_has_is_no_column(tmp_path, claims):
    rows = [row._replace(initialised="", shuffled="") for row in claims]
    page = write_report(tmp_path, "t", [], [], MANIFEST, claims=rows).read_text("utf-8")
    assert "On initialised" not in page and "On shuffled" not in page
    rows = [row._replace(study="lee2024", note="", published="") for row in rows]
    words = Page(write_report(tmp_path, "t", [], [], MANIFEST, claims=rows).read_text("utf-8")).words
    assert {"Note", "Published", "lee2024: Real and random"}.isdisjoint(words) and "Real and random" in words


def test_the_summary_counts_and_says_what_was_found(page, claims, tmp_path):
    words = [word for word in Page(page).words if word]
    at = words.index("Summary", words.index("Summary") + 1)  # first in the contents
    assert words[at + 1] == "3 claims:"
    summary = " ".join(words[at : words.index("Claims", at)])
    assert f"2 {SYMBOLS['supported in part']} supported in part" in summary and "– not tested" in summary
    assert f"It holds here in part: KL: real ÷ random is 2.04 [1.97, 2.11]. {QUALIFIED}" in summary
    assert answer("", claims, ("a",), {"one"}).picture == "one" and answer("", claims, ("a",), ()).picture == ""
    untested = answer("", claims, ("b",), ()).findings[0]
    assert untested.outcome == "It was not tested: No SAE."
    long = claims[0]._replace(qualification="At length 1, not as claimed. " * 20)
    assert "not as claimed" not in answer("", [long], ("a",), ()).findings[0].outcome
    page = write_report(tmp_path, "t", [], [], MANIFEST, claims=[long]).read_text("utf-8")
    assert page.index("How it was tested") < page.index(long.qualification), "not in the cell of the verdict"


def test_a_note_of_several_claims_is_said_once(tmp_path, claims):
    rows = [row._replace(name=str(at), note="On all.") for at, row in enumerate(claims)]
    rows.append(rows[0]._replace(name="alone", note="On one."))
    page = write_report(tmp_path, "t", [], [], MANIFEST, claims=rows).read_text("utf-8")
    assert page.count("On all.") == 1 and page.count('href="#note-1"') == 3 and page.count("On one.") == 1


def test_titles_in_the_contents_lack_what_all_begin_with(tmp_path):
    titles = ["A & B 2024, Figure 1: x", "A & B 2024, Figure 2, left: y", "A & B 2024: shapes"]
    exhibits = [ReportFigure(str(at), title, "", "", "Found.", None) for at, title in enumerate(titles)]
    words = Page(write_report(tmp_path, "t", [], exhibits, MANIFEST).read_text("utf-8")).words
    assert {"Figure 1: x", "Figure 2, left: y", "shapes", *titles} <= set(words)


def test_the_paper_s_words_stand_before_the_run_s(page, tmp_path):
    words = [word for word in Page(page).words if word]
    at = words.index("The paper:")
    assert words[at : at + 4] == ["The paper:", f"Claimed {EVIL}", "This run:", f"Finding {EVIL}"]
    plain = ReportFigure("three", "Figure", "", "", "Found.", None)
    text = write_report(tmp_path, "t", [], [plain], MANIFEST).read_text("utf-8")
    assert "The paper:" not in text and "This run:" not in text and "Found." in text
    assert "<script" not in text and "<img" not in text
    assert {'id="claims"', 'id="numbers"', 'id="files"'}.isdisjoint(re.findall('id="[a-z]+"', text))


def test_what_stands_between_backticks_is_a_name(tmp_path):
    exhibit = ReportFigure("x", "t", "", "", "Of `sae-error` and `<b>`, ` alone.", None)
    page = write_report(tmp_path, "t", [], [exhibit], MANIFEST).read_text("utf-8")
    assert "Of <code>sae-error</code> and <code>&lt;b&gt;</code>, ` alone." in page


def test_the_numbers_of_a_figure_are_on_the_page(page):
    words = Page(page).words
    for cell in ("3.12 [2.81, 3.75]", "0.800 [0.720, 0.960]"):
        assert cell in words


@pytest.mark.parametrize("name", CHARTS)
def test_every_mark_makes_a_well_formed_page(name, tmp_path):
    page = write_report(tmp_path, "t", [], [ReportFigure("x", "t", "", "", "f", CHARTS[name])], MANIFEST).read_text(
        "utf-8"
    )
    assert Page(page).tags.count("figure") == 1


def test_equal_runs_have_equal_pages(measured, exhibits, claims, tmp_path):
    pages = [
        write_report(tmp_path / name, "t", ["s"], exhibits, MANIFEST, claims=claims, numbers=SweepNumbers(*measured))
        for name in ("a", "b")
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_was_run_and_the_whole_manifest(page):
    words = [word for word in Page(page).words if word]
    pairs = dict(pairwise(words))
    assert pairs["seed"] == "7"
    assert pairs["path.lengths"] == "0, 1.5"
    assert pairs["read positions"] == "1 to 127"
    assert pairs["code"] == "ab" * 32
    assert pairs["site"] == "blocks.3.hook_resid_pre"
    assert pairs["created"] == "2025-01-02T03:04:05+00:00"
    assert pairs["ids"].endswith("… (40 in all)")
    assert json.loads(pairs["Full manifest"]) == MANIFEST


def test_all_rows_and_files_are_there(page, measured):
    words = Page(page).words
    for row in measured[1].itertuples():
        assert f"{row.mean:.5g}" in words
    for name in ("curves.nc", "summary.csv", "summary.parquet", "manifest.json"):
        assert name in words


def test_the_code_shown_runs(page, measured, tmp_path, monkeypatch):
    (tmp_path / "curves.nc").write_bytes(curves.to_netcdf(measured[0]))
    (tmp_path / "summary.parquet").write_bytes(curves.to_parquet(measured[1]))
    monkeypatch.chdir(tmp_path)
    code = next(word for word in Page(page).words if word.startswith("import pandas"))
    names = {}
    exec(code.replace("summary[", "picked = summary[", 1).replace("\ncurves[", "\nmean = curves["), names)
    assert names["picked"].shape == (6, 3)
    assert names["mean"].sel(step=3.0) == pytest.approx(names["picked"].loc[3.0, EVIL])


def test_headline_picks_steps_and_says_interval(measured):
    _, table = measured
    cells = headline(table, "kl", columns=3)
    assert list(cells.columns) == ["2", "3", "5"]
    assert list(cells.index) == ["isotropic", "real-mixture", EVIL]
    row = table[(table.readout == "kl") & (table.direction == "real-mixture") & (table.step == 5)].iloc[0]
    mean, low, high = (
        float(part)
        for part in cells.loc["real-mixture", "5"].replace("]", "").replace("[", "").replace(",", "").split()
    )
    assert [mean, low, high] == pytest.approx([row["mean"], row.low, row.high], rel=5e-3)
    assert cells.loc[EVIL, "5"] == "not measured"
    assert list(headline(table, "kl", columns=40).columns) == ["1", "2", "3", "4", "5"]


def test_headline_of_one_step_and_one_sequence():
    table = pd.DataFrame(
        {"direction": ["a"], "step": [0.0], "readout": ["kl"], "mean": [123.4], "low": [np.nan], "high": [np.nan]}
    )
    assert headline(table, "kl").to_dict() == {"0": {"a": "123"}}


def test_a_folder_that_cannot_be_written(exhibits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TiltmeterError, match="cannot write the report"):
        write_report(tmp_path / "file", "t", [], [], MANIFEST)
    with pytest.raises(TiltmeterError, match="cannot write figures"):
        write_report(tmp_path / "file", "t", [], exhibits, MANIFEST)
