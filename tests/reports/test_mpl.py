"""Drawn charts: the artists carry the chart's numbers, nothing overlaps, and files repeat to the byte."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib import import_module
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

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
    points,
    triangle,
)
from forked import Forked, forget_imports
from tiltmeter.reports.charts.chart import Bars, Chart, Dots, HeatMap, Histogram, Line, Points, Rule, Surface
from tiltmeter.reports.charts.curves import facets
from tiltmeter.reports.charts.mpl import MOST_ENTRIES, WIDEST, draw, to_pdf, to_png, to_svg
from tiltmeter.reports.charts.plotly import to_plotly
from tiltmeter.reports.charts.styles import style


@pytest.fixture(scope="module")
def paper():
    return facets(*measured(), ["kl", L2], {"all $x": [*PAPER, *OWN], "mixtures": ["real-mixture", "isotropic"]})


def drawn(*marks, **more):
    (axes, *_) = draw(one(*marks, **more)).axes
    return axes


def labelled(axes, name):
    return [artist for artist in axes.get_lines() if artist.get_label() == name]


def test_lines_and_bands_are_the_charts(paper):
    for axes, panel in zip(draw(paper).axes, paper.panels, strict=True):
        for mark, band in zip(panel.marks, axes.collections, strict=True):
            (found,) = labelled(axes, mark.name)
            np.testing.assert_array_equal(found.get_xdata(), mark.x)
            np.testing.assert_array_equal(found.get_ydata(), mark.y)
            look = to_hex(found.get_color()).upper(), found.get_marker(), found.get_markerfacecolor()
            assert look == (mark.style.color, mark.style.marker, mark.style.face)
            known = np.isfinite(mark.y)
            vertices = band.get_paths()[0].vertices[:, 1]
            assert {*mark.low[known], *mark.high[known]} <= {*vertices}


def test_a_band_below_all_values_is_drawn_to_its_end_on_a_logarithmic_axis():
    x, y, low = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]), np.array([0.25, 0.5, -1.0])
    axes = drawn(Line("a", x, y, style("isotropic"), low, 2 * y), y_axis={"log": True})
    vertices = axes.collections[0].get_paths()[0].vertices
    at = {place: vertices[vertices[:, 0] == place][:, 1].min() for place in x}
    assert at == {1.0: 0.25, 2.0: 0.5, 3.0: 0.25}  # where it reaches zero, to the least of all


def test_a_band_is_in_the_legend_behind_its_line():
    band = Line("a", *[np.array([1.0, 2.0])] * 2, style("isotropic"), np.zeros(2), np.full(2, 3.0))
    for mark, patches in ((band, 1), (replace(band, low=None, high=None), 0), (replace(band, low=band.y * np.nan), 0)):
        (legend,) = draw(one(mark)).legends
        assert len(legend.findobj(Rectangle)) == patches
        assert len(legend.findobj(Line2D)) == 1


def test_single_curves_are_thin_and_share_their_mean_s_entry():
    chart = CHARTS["curves"]
    figure = draw(chart)
    found = labelled(figure.axes[0], "real-mixture")
    assert sorted(line.get_linewidth() for line in found) == [0.6] * 5 + [1.5]
    np.testing.assert_array_equal(found[0].get_ydata(), chart.panels[0].marks[0].y)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["real-mixture"]
    assert figure.legends[0].findobj(Line2D)[0].get_marker() == style("real-mixture").marker
    turned = draw(one(*reversed(chart.panels[0].marks)))
    assert turned.legends[0].findobj(Line2D)[0].get_marker() == style("real-mixture").marker


def test_points_and_their_whiskers():
    mark = points()[0]
    (container,) = drawn(mark).containers
    (found, _, (whiskers,)) = container
    np.testing.assert_array_equal(found.get_xydata(), np.stack([mark.x, mark.y], 1))
    ends = np.array(whiskers.get_segments())
    np.testing.assert_allclose(ends[:, :, 1], np.stack([mark.low, mark.high], 1))


def test_bars_of_a_category_stand_side_by_side():
    error, epsilon = bars()
    axes = drawn(error, epsilon)
    first, second = axes.containers[1], axes.containers[2]
    assert [bar.get_height() for bar in first] == error.y.tolist()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(error.categories)
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in [*first, *second])
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    for at, bar in enumerate(second, start=1):
        assert at - 0.5 < bar.get_x() < bar.get_x() + bar.get_width() < at + 0.5
    ends = np.array(axes.containers[0][2][0].get_segments())
    np.testing.assert_allclose(ends[:, :, 1], np.stack([error.low, error.high], 1))


def test_bars_with_long_names_lie_and_begin_at_the_top():
    chart = CHARTS["lying bars"]
    (axes, *_) = draw(chart).axes
    assert [bar.get_width() for bar in axes.containers[1]] == chart.panels[0].marks[0].y.tolist()
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlabel() == chart.panels[0].y.label
    assert [rule.get_xdata() for rule in axes.get_lines() if list(rule.get_xdata()) == [2.0, 2.0]]


def test_a_bar_on_its_own_name_is_not_in_the_legend():
    own = [replace(bars(("isotropic",))[0], name="isotropic")]
    assert draw(one(*own)).legends == []
    assert [text.get_text() for text in draw(one(*bars())).legends[0].get_texts()] == ["sae-error", "epsilon-random"]


def test_histograms_are_stairs():
    axes = drawn(*histograms())
    for mark, (filled, outline) in zip(histograms(), np.reshape(axes.patches, (2, 2)), strict=True):
        for patch in (filled, outline):
            values, edges, _ = patch.get_data()
            assert values.tolist() == mark.counts.tolist()
            assert edges.tolist() == mark.edges.tolist()


def test_heat_maps_of_one_quantity_share_their_colours_and_leave_blanks():
    small, large = grid(HeatMap), replace(grid(HeatMap), z=10 * grid(HeatMap).z)
    figure = draw(Chart((tuple(one(mark).panels[0] for mark in (small, large)),)))
    left, right, bar = figure.axes
    for axes, mark in ((left, small), (right, large)):
        (mesh,) = axes.collections
        np.testing.assert_array_equal(mesh.get_array().filled(np.nan), mark.z)
        assert mesh.get_clim() == (1.0, 110.0)
    assert bar.get_ylabel().replace("\n", " ") == small.name


def test_surfaces_have_named_dots_at_the_height_of_the_chart():
    mark = CHARTS["surface"].panels[0].marks[0]
    axes = draw(CHARTS["surface"]).axes[0]
    assert axes.name == "3d"
    assert [text.get_text().strip() for text in axes.texts] == [EVIL, "B"]
    places = [tuple(float(value[0]) for value in dot.get_data_3d()) for dot in axes.get_lines()]
    assert places == [tuple(place) for _, *place in mark.marked]
    assert tuple(axes.get_zlim()) == (1.0, 11.0)


def test_triangles_have_named_corners_and_the_values_colours():
    figure = draw(CHARTS["triangle"])
    axes, bar = figure.axes
    words = ["".join(text.get_text().split()) for text in axes.texts]
    assert words == ["".join(corner.split()) for corner in triangle().corners]
    (filled,) = axes.collections
    assert filled.levels.min() == pytest.approx(triangle().values.min())
    assert filled.levels.max() == pytest.approx(triangle().values.max())
    assert bar.get_ylabel() == "relative distance"


@pytest.mark.parametrize("number", [0, 1])
def test_a_triangle_of_points_on_a_line_or_of_none_is_drawn(number):
    whole = triangle(2)
    few = replace(whole, weights=whole.weights[:number], values=whole.values[:number])
    assert to_png(draw(one(few)))
    flat = replace(whole, weights=whole.weights[:3], values=whole.values[:3])
    assert len(drawn(flat).collections[0].get_offsets()) == 3
    assert to_png(draw(one(replace(whole, values=np.full(len(whole.values), 2.0)))))


def test_a_log_axis_shows_nothing_that_is_not_positive():
    mark = line(low=np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    axes = drawn(mark, x_axis={"log": True}, y_axis={"log": True})
    (found,) = labelled(axes, mark.name)
    assert np.isnan(found.get_ydata()).tolist() == [True, False, False, False, False]
    assert np.isnan(found.get_xdata()).tolist() == [True, False, False, False, False]
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() > 0
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_a_log_axis_of_nothing_positive_is_drawn():
    assert to_svg(draw(one(line(factor=-1.0), x_axis={"log": True}, y_axis={"log": True})))


def test_limits_are_kept(paper):
    axes = drawn(line(), x_axis={"limits": (-3.0, 30.0)}, y_axis={"limits": (0.5, 50.0), "log": True})
    assert (axes.get_xlim(), axes.get_ylim()) == ((-3.0, 30.0), (0.5, 50.0))
    assert draw(on_log_y(paper, 0.05, 2.0)).axes[0].get_ylim() == (0.05, 2.0)


def test_shared_axes_are_labelled_once_and_one_legend_stands_below(paper):
    figure = draw(paper)
    cells = np.reshape(figure.axes, (2, 2))
    assert cells[0, 0].get_ylim() == cells[0, 1].get_ylim() != cells[1, 0].get_ylim()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_title() for axes in cells[0]] == ["all $x", "mixtures"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", *["perturbation length (L2)"] * 2]
    assert cells[0, 0].get_ylabel() == "KL(clean ‖ perturbed), nats"
    assert cells[1, 0].get_ylabel().split() == ["distance", "at", "blocks.5.hook_resid_post,", "L2"]
    assert cells[0, 1].get_ylabel() == cells[1, 1].get_ylabel() == ""
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*PAPER, *OWN]
    assert len(figure.legends) == 1
    alone = draw(replace(paper, share=()))
    assert len({axes.get_ylim() for axes in alone.axes}) == 4


def test_many_columns_are_no_wider_than_three():
    widths = [draw(Chart((one(line()).panels * columns,))).get_figwidth() for columns in range(1, 6)]
    assert widths[2:] == pytest.approx([WIDEST] * 3) and widths == sorted(widths)


def test_no_word_is_alone_on_the_last_line_of_a_label_and_none_is_broken():
    label = "distance at blocks.5.hook_resid_post, L2"
    figure = draw(Chart((one(*bars(), y=label).panels * 3,)))
    (found,) = {axes.get_ylabel() for axes in figure.axes} - {""}
    assert found.split() == label.split() and len(found.splitlines()) == 2
    assert "L2" not in found.splitlines()


def test_groups_of_lines_have_a_column_each_in_the_legend():
    groups = {"": ["isotropic"], "b": ["real", "mean"], "a": ["zero", "clean", "cov-random"]}
    lines = [replace(line(name), group=group) for group, names in groups.items() for name in names]
    legend = draw(Chart((one(*lines).panels * 2,))).legends[0]
    FigureCanvasAgg(legend.figure).draw()
    places = {text.get_text(): round(text.get_window_extent().x0) for text in legend.get_texts()}
    columns = [{places[name] for name in names} for names in groups.values()]
    assert all(len(one) == 1 for one in columns) and len(set.union(*columns)) == 3


def test_dots_are_the_numbers_on_an_axis_that_does_not_begin_at_zero():
    marks = [Dots(name, (name,), np.array([y]), style(name), np.array([y - 1]), np.array([y + 2])) for name, y in DOTS]
    axes = drawn(*marks, Rule(95.0, "y"))
    for mark, place in zip(marks, range(len(marks)), strict=True):
        (found,) = labelled(axes, mark.name) or [axes.containers[place].lines[0]]
        assert found.get_xydata().tolist() == [[place, mark.y[0]]]
        ((ends,),) = [line.get_segments() for line in axes.containers[place].lines[2]]
        assert ends[:, 1].tolist() == [mark.low[0], mark.high[0]]
    assert axes.get_ylim()[0] > 90
    layout = to_plotly(one(*marks, Rule(95.0, "y")))["layout"]
    assert 90 < layout["yaxis"]["range"][0] < 95 and layout["yaxis"]["range"][1] > 105


def test_labels_stand_beside_their_points():
    mark = replace(points()[1], labels=tuple(f"L0 {at}" for at in range(20)))
    assert [text.get_text() for text in drawn(mark).texts] == list(mark.labels)
    assert [text.xy for text in drawn(mark).texts] == list(zip(mark.x, mark.y, strict=True))


def test_a_short_logarithmic_axis_has_round_ticks():
    mark = Line("a", np.arange(3.0), np.array([0.9, 1.1, 1.5]), style("zero"))
    axes = drawn(mark, y_axis={"log": True})
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [label.get_text() for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert len(shown) > 2 and "1" in shown


def test_a_legend_has_room_for_so_many_names():
    many = [line(f"along:{number}.npy") for number in range(40)]
    words = [text.get_text() for text in draw(one(*many)).legends[0].get_texts()]
    assert words == [*(mark.name for mark in many[:MOST_ENTRIES]), "and 16 more"]


def test_a_long_name_leaves_the_legend_in_the_figure():
    figure = draw(one(line("<script>" + "x" * 200), line()))
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
    assert any("…" in text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("name", [name for name in CHARTS if name != "surface"])
def test_nothing_is_cut_off_and_nothing_overlaps(name):
    figure = draw(CHARTS[name])
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [legend.get_tightbbox() for legend in figure.legends]
    for index, box in enumerate(boxes):
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_files_repeat_to_the_byte():
    first, again = (draw(CHARTS["curves"]) for _ in range(2))
    assert to_svg(first) == to_svg(again)
    assert to_png(first) == to_png(again)
    assert to_pdf(first) == to_pdf(again)
    assert to_pdf(first).startswith(b"%PDF") and b"CreationDate" not in to_pdf(first)


@pytest.mark.parametrize("name", CHARTS)
def test_files_keep_text(name):
    drawing = draw(CHARTS[name])
    first, png = to_svg(drawing), to_png(drawing)
    assert b"<dc:date>" not in first
    svg = ElementTree.fromstring(first)
    assert not [node for node in svg.iter() if node.tag.endswith("script")]
    texts = {node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {mark.name for panel in CHARTS[name].panels for mark in panel.marks if isinstance(mark, Line)} <= texts
    assert png.startswith(b"\x89PNG")


def test_a_name_in_any_script_and_with_any_byte_is_drawn():
    svg = to_svg(draw(one(line("along:日本語\x01.npy"), title="\x02")))
    texts = [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "along:日本語?.npy" in texts


DOTS = (("isotropic", 100.0), ("zero", 102.0), ("mean", 103.0))
NOTHING = np.full(5, np.nan)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "mark",
    [
        replace(line(), y=NOTHING, low=NOTHING, high=NOTHING),
        Line("a", *[np.empty(0)] * 2, style("zero"), *[np.empty(0)] * 2),
        Line("a", NOTHING, NOTHING, style("zero"), thin=True),
        Points("a", *[np.empty(0)] * 2, style("zero")),
        Points("a", NOTHING, NOTHING, style("zero"), NOTHING, NOTHING),
        Bars("a", ("x",), np.array([np.nan]), style("zero")),
        Bars("a", (), np.empty(0), style("zero")),
        Histogram("a", np.array([0.0, 1.0]), np.array([0.0]), style("zero")),
    ],
    ids=lambda mark: type(mark).__name__,
)
def test_marks_without_a_number_are_drawn(mark, log):
    chart = one(mark, x_axis={"log": log and not isinstance(mark, Bars)}, y_axis={"log": log})
    assert to_png(draw(chart))
    assert json.dumps(to_plotly(chart), allow_nan=False)


def test_many_points_and_cells_are_pixels_in_the_svg():
    rng = np.random.default_rng(0)
    many = replace(points()[1], x=rng.uniform(size=20_000), y=rng.uniform(size=20_000))
    assert len(to_svg(draw(one(many)))) < 1_000_000
    assert (
        len(to_svg(draw(one(HeatMap("z", np.arange(200.0), np.arange(100.0), rng.uniform(size=(100, 200))))))) < 500_000
    )
    assert to_png(draw(one(Surface("z", np.arange(9.0), np.arange(9.0), np.full((9, 9), np.nan)))))


def test_the_look_of_other_figures_stays():
    before = dict(mpl.rcParams)
    to_svg(draw(CHARTS["lines"]))
    assert dict(mpl.rcParams) == before


PYPLOT = "matplotlib.pyplot"


@pytest.mark.parametrize(("imported", "found"), [("tiltmeter.reports.page", "False"), (PYPLOT, "True")])
def test_pyplot_is_never_imported(imported, found):
    def run():
        forget_imports("tiltmeter", PYPLOT)
        import_module(imported)
        print(PYPLOT in sys.modules)

    with Forked(run) as process:
        assert process.communicate()[0].strip() == found
