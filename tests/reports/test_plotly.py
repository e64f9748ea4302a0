"""Interactive figures: plain JSON that carries the chart's numbers and shows every name as it is."""

import html
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from chart_cases import (
    CHARTS,
    EVIL,
    L2,
    OWN,
    PAPER,
    bars,
    grid,
    histograms,
    line,
    measured,
    on_log_y,
    one,
    panel,
    points,
    single_curves,
    triangle,
)
from tiltmeter.reports.charts.chart import Chart, HeatMap, Rule
from tiltmeter.reports.charts.curves import facets
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.reports.charts.styles import style, styles


def values(numbers):
    return np.array([math.nan if number is None else number for number in numbers])


def of(figure, kind, **wanted):
    """Traces of a kind, and of these settings."""
    found = [trace for trace in figure["data"] if trace["type"] == kind]
    return [trace for trace in found if all(trace.get(name) == value for name, value in wanted.items())]


@pytest.fixture(scope="module")
def paper():
    return facets(*measured(), ["kl", L2], {"all": [*PAPER, *OWN], "mixtures": ["real-mixture", "isotropic"]})


@pytest.mark.parametrize("name", CHARTS)
def test_plain_json_without_typed_arrays_or_nan(name):
    figure = to_plotly(CHARTS[name])
    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert "bdata" not in json.dumps(figure)


@pytest.mark.parametrize("name", CHARTS)
def test_names_are_neither_markup_nor_templates(name):
    """Outside of JSON's own names and of what is never shown, no text of the chart's stands unescaped."""

    def strings(value, key=""):
        if isinstance(value, dict):
            for inner, one in value.items():
                yield from strings(one, inner)
        elif isinstance(value, list):
            for one in value:
                yield from strings(one, key)
        elif isinstance(value, str):
            yield key, value

    for key, shown in strings(to_plotly(CHARTS[name])):
        if key != "legendgroup":
            assert "</script" not in shown
            assert "<b onclick" not in shown
        if "template" in key:
            assert "onclick" not in shown and "frac" not in shown


def test_lines_carry_the_chart_s_numbers_and_looks(paper):
    figure = to_plotly(paper)
    panels = iter(paper.panels)
    for number in ("", "2", "3", "4"):
        panel = next(panels)
        lines = of(figure, "scatter", mode="lines+markers", xaxis=f"x{number}", yaxis=f"y{number}")
        assert [html.unescape(trace["name"]) for trace in lines] == [mark.name for mark in panel.marks]
        for trace, mark in zip(lines, panel.marks, strict=True):
            np.testing.assert_allclose(values(trace["x"]), mark.x, rtol=1e-5)
            np.testing.assert_allclose(values(trace["y"]), mark.y, rtol=1e-5)
            assert trace["line"]["color"] == mark.style.color
            assert trace["marker"]["color"] == mark.style.face
            assert (trace["line"]["dash"] == "solid") == (mark.style.linestyle == "solid")
            known = mark.low[np.isfinite(mark.y)], mark.high[np.isfinite(mark.y)]
            assert [f"[{low:.3g}, {high:.3g}]" for low, high in zip(*known, strict=True)] == [
                words.strip() for words in trace["customdata"] if words
            ]


def test_bands_follow_their_lines(paper):
    figure = to_plotly(paper)
    for mark in paper.panels[0].marks:
        (band,) = of(figure, "scatter", fill="toself", xaxis="x", legendgroup=mark.name)
        known = np.isfinite(mark.y)
        outline = np.concatenate([mark.high[known], mark.low[known][::-1]])
        np.testing.assert_allclose(values(band["y"]), outline, rtol=1e-5, atol=1e-12)
        assert band["showlegend"] is False


def test_a_gap_divides_a_band():
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    bands = of(to_plotly(one(replace(line(), y=y, low=y - 0.5, high=y + 0.5))), "scatter", fill="toself")
    assert [values(band["x"]).tolist() for band in bands] == [[0, 1, 1, 0], [9, 16, 16, 9]]


def test_a_band_that_reaches_zero_can_be_shown_on_a_log_axis():
    mark = line(low=np.array([0.0, 0.0, 0.5, 1.0, 2.0]))
    (band,) = of(to_plotly(one(mark)), "scatter", fill="toself")
    low = values(band["y"])[5:][::-1]
    assert low[0] == 0  # where the mean is zero, too
    assert 0 < low[1] < 1.001e-4 * mark.y.max()
    assert low[2:].tolist() == [0.5, 1.0, 2.0]


def test_a_name_is_in_the_legend_once_and_switches_all_of_its_marks(paper):
    for chart in (paper, CHARTS["lines"], CHARTS["curves"], CHARTS["bars"]):
        figure = to_plotly(chart)
        shown = [trace["legendgroup"] for trace in figure["data"] if trace["showlegend"]]
        assert sorted(shown) == sorted(
            {mark.name for panel in chart.panels for mark in panel.marks if hasattr(mark, "name")}
        )
        assert all(trace["legendgroup"] for trace in figure["data"])
    assert of(to_plotly(CHARTS["curves"]), "scatter", showlegend=True)[0]["mode"] == "lines+markers"


def test_single_curves_are_one_trace_with_gaps():
    (trace,) = of(to_plotly(one(*single_curves(3))), "scatter", mode="lines", showlegend=False, fill=None)
    curves = [mark for mark in single_curves(3) if mark.thin]
    wanted = np.concatenate([np.append(mark.y, np.nan) for mark in curves])[:-1]
    np.testing.assert_allclose(values(trace["y"]), wanted)
    assert trace["legendgroup"] == "real-mixture"


def test_points_have_their_texts_and_whiskers():
    mark = points()[0]
    trace = to_plotly(one(mark))["data"][0]
    np.testing.assert_allclose(values(trace["x"]), mark.x, rtol=1e-5)
    np.testing.assert_allclose(values(trace["y"]) + values(trace["error_y"]["array"]), mark.high, rtol=1e-5)
    np.testing.assert_allclose(values(trace["y"]) - values(trace["error_y"]["arrayminus"]), mark.low, rtol=1e-5)
    assert [html.unescape(text) for text in trace["hovertext"]] == list(mark.texts)
    assert "%{hovertext}" in trace["hovertemplate"]


@pytest.mark.parametrize(("name", "way", "across"), [("bars", "y", "x"), ("lying bars", "x", "y")])
def test_bars_stand_or_lie_beside_each_other(name, way, across):
    figure = to_plotly(CHARTS[name])
    error, epsilon = figure["data"]
    marks = [mark for mark in CHARTS[name].panels[0].marks if hasattr(mark, "categories")]
    for trace, mark in zip((error, epsilon), marks, strict=True):
        assert values(trace[way]).tolist() == mark.y.tolist()
    assert values(error[f"error_{way}"]["array"]).tolist() == [0.25] * 3
    gap = values(epsilon[across]) - values(error[across])[1:]
    assert (gap >= values(epsilon["width"])).all()
    axis = figure["layout"][f"{across}axis"]
    assert len(axis["ticktext"]) == 3
    low, high = sorted(figure["layout"][f"{way}axis"]["range"])
    assert low <= 0 < 3.25 < high


def test_histograms_begin_and_end_at_zero():
    for trace, mark in zip(to_plotly(one(*histograms()))["data"], histograms(), strict=True):
        assert trace["line"]["shape"] == "hv"
        assert trace["x"] == [mark.edges[0], *mark.edges]
        assert trace["y"] == [0, *mark.counts, 0]
        assert trace["customdata"][1] == f"0 to 1: {mark.counts[0]:g}"


def test_grids_and_triangles_are_coloured_on_one_scale():
    figure = to_plotly(CHARTS["heat map"])
    for trace in of(figure, "heatmap"):
        np.testing.assert_array_equal([values(row) for row in trace["z"]], grid(HeatMap).z)
        assert trace["coloraxis"] == "coloraxis"
    axis = figure["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"], axis["colorscale"]) == (1, 11, "Cividis")
    surface = to_plotly(CHARTS["surface"])
    (dots,) = of(surface, "scatter3d")
    assert [html.unescape(name) for name in dots["text"]] == [EVIL, "B"]
    assert (dots["x"], dots["y"], dots["z"]) == ([0, 1], [5, 5], [5, 6])
    ternary, corners = of(to_plotly(CHARTS["triangle"]), "scatterternary")
    np.testing.assert_allclose(np.stack([ternary[way] for way in "abc"], 1), triangle().weights, rtol=1e-5)
    np.testing.assert_allclose(ternary["marker"]["color"], triangle().values, rtol=1e-5)
    names = [html.unescape(name.replace("<br>", " ")) for name in corners["text"]]
    assert names == list(triangle().corners)
    assert np.array_equal(np.stack([corners[way] for way in "abc"]), np.eye(3))


def test_rules_cross_their_panel():
    first, second = to_plotly(CHARTS["curves"])["layout"]["shapes"]
    assert (first["x0"], first["x1"], first["xref"], first["yref"]) == (4, 4, "x", "y domain")
    assert (second["y0"], second["y1"], second["yref"], second["xref"]) == (2, 2, "y", "x domain")
    assert second["line"]["color"] == style("clean").color
    (lying,) = to_plotly(CHARTS["lying bars"])["layout"]["shapes"]
    assert (lying["x0"], lying["yref"]) == (2, "y domain")


def test_the_word_of_a_rule_stands_where_there_is_room():
    left, right = (Rule(at, text="here") for at in (3.0, 14.0))
    shapes = to_plotly(one(line(), left, right))["layout"]["shapes"]
    assert [shape["label"]["xanchor"] for shape in shapes] == ["left", "right"]
    log = to_plotly(one(line(), left, right, x_axis={"log": True, "limits": (0.01, 30.0)}))["layout"]["shapes"]
    assert [shape["label"]["xanchor"] for shape in log] == ["right", "right"]
    bar = CHARTS["lying bars"].panels[0].marks[0]
    lying = to_plotly(one(bar, Rule(2.9, "y"), Rule(0.2, "y")))["layout"]["shapes"]
    assert [shape["label"]["xanchor"] for shape in lying] == ["right", "left"]


def test_names_of_lying_bars_have_room_beside_other_panels():
    panels = tuple(panel(*bars(tuple(f"a long name of a kind {name}" for name in "abc"))) for _ in range(3))
    layout = to_plotly(Chart((panels,), share=()))["layout"]
    first, second = layout["xaxis"]["domain"], layout["xaxis2"]["domain"]
    assert 880 * (second[0] - first[1]) > 6.5 * len("a long name of a kind a")
    together = to_plotly(Chart((panels,), share=("x",)))["layout"]
    assert together["xaxis2"]["domain"][0] - together["xaxis"]["domain"][1] < 0.04


def test_panels_share_axes_and_do_not_overlap(paper):
    layout = to_plotly(paper)["layout"]
    assert (layout["xaxis4"]["matches"], layout["yaxis2"]["matches"], layout["yaxis4"]["matches"]) == ("x", "y", "y3")
    assert "matches" not in layout["yaxis3"]
    spans = [(*layout[f"xaxis{n}"]["domain"], *layout[f"yaxis{n}"]["domain"]) for n in ("", "2", "3", "4")]
    for index, (left, right, low, high) in enumerate(spans):
        assert 0 <= left < right <= 1 and 0 <= low < high <= 1
        assert all(left >= r or right <= b or low >= t or high <= s for b, r, s, t in spans[:index])
    assert layout["xaxis"]["title"]["text"] == layout["yaxis2"]["title"]["text"] == ""


def test_buttons_switch_axes_where_nothing_is_negative(paper):
    low, high = 0.05, 2.0
    menus = to_plotly(on_log_y(paper, low, high))["layout"]["updatemenus"]
    assert [[button["label"] for button in menu["buttons"]] for menu in menus] == [
        ["x linear", "x log"],
        ["y linear", "y log"],
    ]
    assert [menu["active"] for menu in menus] == [0, 1]
    (change,) = menus[1]["buttons"][1]["args"]
    assert {change[f"yaxis{n}.type"] for n in ("", "2", "3", "4")} == {"log"}
    assert change["yaxis.range"] == pytest.approx([math.log10(low), math.log10(high)])
    (back,) = menus[1]["buttons"][0]["args"]
    assert {back[f"yaxis{n}.type"] for n in ("", "2", "3", "4")} == {"linear"}
    assert back["yaxis.range"] == [low, high]
    negative = to_plotly(one(line(factor=-1.0)))["layout"]["updatemenus"]
    assert [menu["buttons"][0]["label"] for menu in negative] == ["x linear"]
    for name in ("bars", "histograms", "heat map", "surface", "triangle"):
        assert to_plotly(CHARTS[name])["layout"]["updatemenus"] == []


def test_a_panel_that_shares_its_axis_with_a_histogram_is_not_switched():
    lines, counts = one(line()).panels[0], one(*histograms(), y="curves").panels[0]
    (menu,) = to_plotly(Chart(((lines, counts),)))["layout"]["updatemenus"]
    assert menu["buttons"][0]["label"] == "y linear"
    assert list(menu["buttons"][0]["args"][0]) == ["yaxis.type", "yaxis.autorange"]


def test_markers_exist_for_every_style():
    names = [*PAPER, *(f"along:{number}" for number in range(60)), *(f"sae-error:{name}" for name in "abcdefghijkl")]
    marks = [replace(line(), name=name, style=look) for name, look in styles(names).items()]
    assert len(of(to_plotly(one(*marks)), "scatter", mode="lines+markers")) == len(names)
