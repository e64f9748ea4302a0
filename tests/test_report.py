"""The report: well-formed, self-contained, escaped, and true to the summary."""

import base64
import json
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tiltmeter import curves, figures
from tiltmeter.errors import TiltmeterError
from tiltmeter.report import Picture, headline, write_report

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


@pytest.fixture
def measured():
    steps = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    values = np.random.default_rng(0).lognormal(size=(3, 6, 10)) * np.arange(6)[:, None]
    values[2, 5] = np.nan
    axes = curves.Axes(["isotropic", "real-mixture", EVIL], steps, "L2", range(10))
    attrs = {"site": "blocks.3.hook_resid_pre", "manifest": "{}"}
    readouts = {"length": values, "kl": values, f"l2@{EVIL}": values + 1}
    ds = curves.build(readouts, np.ones((3, 10), int), axes, attrs)
    return ds, curves.summary(ds, resamples=50)


@pytest.fixture
def page(measured, tmp_path):
    figure = figures.facets(*measured, ["kl"], {"all": ["isotropic", EVIL]})
    figures.save(figure, tmp_path / "figures", "one")
    picture = Picture("figures/one", f"Figure {EVIL}", f"Caption {EVIL}", f"Finding {EVIL}")
    path = write_report(tmp_path, f"Title {EVIL}", *measured, MANIFEST, [picture, picture])
    assert path == tmp_path / "report.html"
    return path.read_text("utf-8")


def test_well_formed_and_self_contained(page, tmp_path):
    parsed = Page(page)
    assert parsed.tags.count("html") == parsed.tags.count("body") == parsed.tags.count("h1") == 1
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(parsed.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert parsed.values("href", "srcset", "action", "data") == []
    sources = parsed.values("src")
    assert len(sources) == 2
    head, data = sources[0].split(",", 1)
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == (tmp_path / "figures" / "one.svg").read_bytes()
    assert all(parsed.values("alt"))


def test_a_phone_a_dark_screen_and_paper_are_thought_of(page):
    for wanted in ('name="viewport"', "prefers-color-scheme: dark", "@media print", "overflow-x: auto"):
        assert wanted in page


def test_everything_a_user_names_is_escaped(page):
    assert "<script" not in page
    words = Page(page).words
    for whole in (f"Title {EVIL}", f"Figure {EVIL}", f"Finding {EVIL}", EVIL, f"distance at {EVIL}, L2"):
        assert whole in words


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
    assert json.loads(pairs["The whole manifest"]) == MANIFEST


def test_all_rows_and_files_are_there(page, measured):
    words = Page(page).words
    for row in measured[1].itertuples():
        assert f"{row.mean:.5g}" in words
    for name in ("curves.nc", "summary.csv", "summary.parquet", "manifest.json"):
        assert name in words


def test_the_code_shown_runs(page, measured, tmp_path, monkeypatch):
    curves.save(measured[0], tmp_path / "curves.nc")
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


def test_a_missing_figure_and_an_unwritable_folder_are_said(measured, tmp_path):
    with pytest.raises(TiltmeterError, match=r"gone\.svg"):
        write_report(tmp_path, "t", *measured, MANIFEST, [Picture("gone", "", "", "")])
    (tmp_path / "file").write_text("")
    with pytest.raises(TiltmeterError, match="cannot write the report"):
        write_report(tmp_path / "file", "t", *measured, MANIFEST, [])
