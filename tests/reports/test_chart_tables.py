"""Tables of charts: every number comes back from the frame and the file, and LaTeX prints names as they are."""

import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from chart_cases import CHARTS, EVIL, bars, grid, histograms, line, one, panel, points, single_curves, triangle
from tiltmeter.reports.charts.chart import Chart, HeatMap, Line, Points, panel_names
from tiltmeter.reports.charts.styles import style
from tiltmeter.reports.tables.chart import to_csv, to_frame, to_latex
from tiltmeter.reports.tables.latex import escape
from tiltmeter.reports.tables.wide import MOST_COLUMNS, MOST_ROWS, wide_tables

LETTERS = "é ü ß ÷ × ± · ≤ ≥ ≈ → ∞ − ² ° … θ μ σ Δ"

KIND = {
    "Line": "line",
    "Points": "point",
    "Bars": "bar",
    "Dots": "dot",
    "Histogram": "bin",
    "HeatMap": "cell",
    "Surface": "cell",
    "Triangle": "blend",
    "Rule": "rule",
}


def same(found, wanted):
    np.testing.assert_array_equal(found.to_numpy(float), np.asarray(wanted, float))


def from_csv(chart):
    return pd.read_csv(io.BytesIO(to_csv(chart))).fillna({"panel": ""})


@pytest.mark.parametrize("read", [to_frame, from_csv])
@pytest.mark.parametrize("name", CHARTS)
def test_every_number_of_every_mark_comes_back(name, read):
    chart = CHARTS[name]
    frame = read(chart)
    for title, shown in zip(panel_names(chart), chart.panels, strict=True):
        for number, mark in enumerate(shown.marks):
            kind = "curve" if isinstance(mark, Line) and mark.thin else KIND[type(mark).__name__]
            rows = frame[(frame.panel == title) & (frame["mark"] == number) & (frame.kind == kind)]
            assert set(rows.series) == {mark.text if kind == "rule" else mark.name}
            if kind in ("line", "curve", "point", "bar", "dot"):
                same(rows.y, mark.y)
                for bound in ("low", "high"):
                    if getattr(mark, bound) is not None:
                        same(rows[bound], getattr(mark, bound))
            if kind in ("line", "curve", "point"):
                same(rows.x, mark.x)
            elif kind in ("bar", "dot"):
                assert rows.category.tolist() == list(mark.categories)
            elif kind == "bin":
                same(rows.y, mark.counts)
                assert [*rows.x, rows.x_end.iloc[-1]] == mark.edges.tolist()
            elif kind == "cell":
                same(rows.value, mark.z.ravel())
                same(rows.x, np.tile(mark.x, len(mark.y)))
                same(rows.y, np.repeat(mark.y, len(mark.x)))
            elif kind == "blend":
                same(rows[["top", "left", "right"]], mark.weights)
                same(rows.value, mark.values)
            else:
                same(rows[mark.across], [mark.at])


def test_texts_marked_places_and_corners_are_there():
    frame = to_frame(one(*points()))
    assert frame.text[:20].tolist() == list(points()[0].texts)
    assert frame.text[20:].isna().all()
    marked = to_frame(CHARTS["surface"]).query("kind == 'marked'")
    assert marked.text.tolist() == [EVIL, "B"]
    assert marked.value.tolist() == [5.0, 6.0]
    corners = to_frame(CHARTS["triangle"]).query("kind == 'corner'")
    assert corners.text.tolist() == list(triangle().corners)


def test_what_no_mark_has_is_no_column_and_nothing_is_an_empty_frame():
    assert list(to_frame(one(*bars())).columns) == ["panel", "mark", "series", "kind", "category", "y", "low", "high"]
    empty = to_frame(one())
    assert len(empty) == 0 and {"panel", "series", "kind"} <= set(empty.columns)
    assert to_frame(one(line(low=None, high=None))).columns.tolist() == ["panel", "mark", "series", "kind", "x", "y"]


def test_panels_have_names_of_their_own():
    row = (panel(line(), title="a"), panel(line(), title="b"))
    below = (panel(line(), y="L2"), panel(line(), y="L2"))
    assert panel_names(Chart((row, below))) == ["a: KL, nats", "b: KL, nats", "a: L2", "b: L2"]
    assert panel_names(Chart((row,))) == ["a", "b"]
    assert len(set(panel_names(Chart((row, row, row))))) == 6
    assert panel_names(one(line())) == [""]


def test_rows_are_lengths_and_columns_series():
    (table,) = wide_tables(one(line(), line("isotropic", 0.5)))
    assert table.cells.index.name == "length (L2)"
    assert table.cells.index.tolist() == ["0", "1", "4", "9", "16"]
    assert table.cells.loc["16"].tolist() == ["3.12 [2.81, 3.75]", "1.56 [1.41, 1.87]"]


def test_many_rows_are_chosen_evenly_with_the_first_and_the_last():
    x = np.arange(100.0)
    (table,) = wide_tables(one(Line("isotropic", x, 2 * x, style("isotropic"))))
    assert len(table.cells) == MOST_ROWS
    assert (table.cells.index[0], table.cells.index[-1]) == ("0", "99")
    steps = np.diff(table.cells.index.astype(float))
    assert steps.max() - steps.min() <= 1
    assert table.cells["isotropic"].iloc[-1] == "198"


def test_lines_with_places_of_their_own_have_tables_of_their_own():
    other = Line("isotropic", np.array([0.5, 1.5]), np.array([1.0, 2.0]), style("isotropic"))
    assert [len(table.cells) for table in wide_tables(one(line(), other, line("zero")))] == [5, 2]
    (twice,) = wide_tables(one(line(), line(factor=2.0)))
    assert twice.cells.shape == (5, 2)


def test_single_curves_are_their_median_and_quantiles():
    (table,) = wide_tables(one(*single_curves(5)))
    head = next(name for name in table.cells.columns if "5 curves" in name)
    # heights 1, 2, 3, 4 and 5 at length 1; not measured at length 4
    assert table.cells[head].tolist()[1:3] == ["3.00 [1.20, 4.80]", "not measured"]


def test_single_curves_with_places_of_their_own_share_a_table():
    thin = [
        Line("real", np.linspace(0, end, 5), slope * np.linspace(0, end, 5), style("real"), thin=True)
        for end, slope in ((4.0, 1.0), (6.0, 2.0), (8.0, 3.0))
    ]
    (table,) = wide_tables(one(*thin))
    assert table.cells.shape == (MOST_ROWS, 1)
    assert (table.cells.index[0], table.cells.index[-1]) == ("0", "4")  # the shortest ends there
    assert table.cells.iloc[-1, 0] == "8.00 [4.40, 11.6]"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
@pytest.mark.parametrize("name", CHARTS)
def test_latex_compiles(name, tmp_path):
    (tmp_path / "table.tex").write_bytes(to_latex(CHARTS[name], f'Figure "{EVIL}" {LETTERS}'))
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_bars_histograms_grids_and_triangles():
    (table,) = wide_tables(one(*bars()))
    assert table.cells.loc["local"].tolist() == ["1.00 [0.500, 1.25]", ""]
    (table,) = wide_tables(one(*histograms(), y="curves"))
    # of 3, 5 and 1 curves in bins ending at 1, 2 and 4, a quarter lies below 0.75, half below 1.3, three below 1.75
    assert table.cells.loc["real"].tolist() == ["9", "1.30 [0.750, 1.75]"]
    (table,) = wide_tables(one(grid(HeatMap)))
    assert table.cells.loc["7"].tolist() == ["8.00", "9.00", "10.0", "11.0"]
    assert table.cells.loc["0", "-1"] == ""
    wide = HeatMap("z", np.arange(50.0), np.arange(60.0), np.ones((60, 50)))
    assert wide_tables(one(wide))[0].cells.shape == (MOST_ROWS, MOST_COLUMNS)
    (table,) = wide_tables(CHARTS["triangle"])
    assert table.cells["relative distance"].tolist() == ["1.00", "1.00", "1.00", "0.500", "0.500", "0.500", "0.333"]


def test_few_of_many_points_and_none():
    mark = points()[0]
    (table,) = wide_tables(one(mark))
    assert len(table.cells) == MOST_ROWS
    assert table.cells.iloc[0].tolist()[::2] == [f"{mark.x.min():.4g}", mark.texts[mark.x.argmin()]]
    none = Points("isotropic", np.empty(0), np.empty(0), style("isotropic"))
    assert len(wide_tables(one(none))[0].cells) == 0
    assert to_latex(one(none), "nothing")


@pytest.mark.parametrize("name", CHARTS)
def test_latex_is_booktabs_and_balanced(name):
    text = to_latex(CHARTS[name], f"Figure {EVIL}").decode()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == len(wide_tables(CHARTS[name]))
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") > 0
    bare = re.sub(r"\\[{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for shown, columns in zip(
        text.split(r"\begin{tabular}")[1:],
        (table.cells.shape[1] + 1 for table in wide_tables(CHARTS[name])),
        strict=True,
    ):
        rows = re.findall(r"^.*\\\\$", shown, re.MULTILINE)
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
        assert shown.startswith("{" + "l" + "r" * (columns - 1) + "}")
    assert not re.search(r"(?<!\\)[#%_~^]", re.sub(r"^% .*$", "", text, flags=re.MULTILINE).replace(r"$^", "$"))


def test_latex_escapes():
    assert escape(r"a_b & 50 % \x {y} $z$ #1") == r"a\_b \& 50 \% \textbackslash{}x \{y\} \$z\$ \#1"
    assert escape("<a> ~^ |") == r"\textless{}a\textgreater{} \textasciitilde{}\textasciicircum{} \textbar{}"
    assert escape("KL(clean ‖ perturbed)\nε ≥ 1") == r"KL(clean $\Vert$ perturbed) $\varepsilon$ $\geq$ 1"
    assert escape("[x]") == "{[}x{]}"
