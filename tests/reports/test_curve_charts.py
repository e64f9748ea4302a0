"""Charts of curves: what they hold is the summary, and what was not measured is refused."""

import numpy as np
import pytest

from chart_cases import L2, OWN, PAPER, line, measured, one
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.charts import curves
from tiltmeter.reports.charts.chart import Chart, panel_names
from tiltmeter.reports.charts.styles import styles


@pytest.fixture(scope="module")
def data():
    return measured()


def test_lines_are_the_means_and_bands_the_intervals(data):
    ds, table = data
    lines = curves.lines(ds, table, "kl", ["real-mixture", "cov-random-difference"])
    assert [line.name for line in lines] == ["real-mixture", "cov-random-difference"]
    np.testing.assert_allclose(lines[0].y, ds.kl.sel(direction="real-mixture").mean("sequence"))
    np.testing.assert_array_equal(lines[0].x, ds.step)
    rows = table[(table.readout == "kl") & (table.direction == "real-mixture")]
    assert lines[0].low.tolist() == rows.low.tolist()
    assert lines[0].high.tolist() == rows.high.tolist()
    assert np.isnan(lines[1].y).tolist() == [False, False, False, True]


def test_styles_are_those_of_the_run_not_of_the_figure(data):
    ds, table = data
    (alone,) = curves.lines(ds, table, "kl", [OWN[0]])
    among = curves.lines(ds, table, L2, [*OWN, *PAPER])
    assert alone.style == among[0].style == styles([str(name) for name in ds.direction.values])[OWN[0]]


def test_facets_are_readouts_by_groups(data):
    groups = {"cov-random": PAPER[:4], "real $x": [*PAPER[:2], *PAPER[4:], *OWN]}
    chart = curves.facets(*data, ["kl", L2], groups)
    assert [[panel.title for panel in row] for row in chart.rows] == [list(groups), ["", ""]]
    assert [panel.y.label for panel in chart.panels[::2]] == [
        "KL(clean ‖ perturbed), nats",
        "distance at blocks.5.hook_resid_post, L2",
    ]
    assert {panel.x.label for panel in chart.panels} == {"perturbation length (L2)"}
    assert [[mark.name for mark in panel.marks] for panel in chart.rows[1]] == list(groups.values())
    assert len(set(panel_names(chart))) == 4


def test_bars_are_the_only_step():
    ds, table = measured(steps=(7.0,))
    chart = curves.bars(ds, table, ["kl", L2], "at a site")
    assert chart.title == "at a site"
    for panel, readout in zip(chart.panels, ("kl", L2), strict=True):
        for bar in panel.marks:
            (row,) = table[(table.readout == readout) & (table.direction == bar.name)].itertuples()
            assert (bar.categories, *bar.y, *bar.low, *bar.high) == ((bar.name,), row.mean, row.low, row.high)
    assert [bar.name for bar in chart.panels[0].marks] == [*PAPER, *OWN]


@pytest.mark.parametrize(("readout", "directions"), [("js", ["isotropic"]), ("kl", ["sideways"])])
def test_what_was_not_measured_is_refused(data, readout, directions):
    with pytest.raises(TiltmeterError, match="was measured; available:"):
        curves.facets(*data, [readout], {"one": directions})
    with pytest.raises(TiltmeterError, match="no readout js was measured"):
        curves.bars(*data, ["js"], "")


def test_empty_charts_are_refused(data):
    for readouts, groups in (([], {"one": ["isotropic"]}), (["kl"], {})):
        with pytest.raises(TiltmeterError, match="at least one"):
            curves.facets(*data, readouts, groups)
    with pytest.raises(TiltmeterError, match="at least one"):
        curves.bars(*data, [], "")


@pytest.mark.parametrize("rows", [(), ((),), (one(line()).rows[0], ())])
def test_a_chart_has_a_panel_in_each_row(rows):
    with pytest.raises(TiltmeterError, match="at least one panel in each row"):
        Chart(rows)
