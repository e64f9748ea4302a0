"""Figures of Lee & Heimersheim 2024: what they show is what was measured, and all of it is in view."""

import numpy as np
import pytest
import xarray as xr

from lee_worlds import L2, SAES, WORLD
from tiltmeter.analysis import estimates
from tiltmeter.reports.charts.chart import Dots, Line, Points, Rule
from tiltmeter.studies.lee2024 import STUDY
from tiltmeter.studies.lee2024.estimands import here
from tiltmeter.studies.lee2024.figures.sae_curves import CLOSE_UP
from tiltmeter.studies.report import StoredStudy, report_figures
from tiltmeter.studies.results import Results

LABELS = {name: f"{kind} SAE, L0 {l0:.0f}" for name, (kind, l0) in SAES.items()}


@pytest.fixture(autouse=True, scope="module")
def hardly_any_draws():
    """How sure the numbers are is not looked at, except where it is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(estimates, "RESAMPLES", 99)
        yield


HELD = Results(WORLD.found, {})
"""Computes its ratios once for all tests, with few draws."""


def lines(panel):
    return {mark.name: mark for mark in panel.marks if isinstance(mark, Line)}


def naive_ratios(curves, readout, direction):
    values = curves[readout]
    return np.array(
        [
            values.sel(direction=direction, step=step).values.mean()
            / values.sel(direction="isotropic", step=step).values.mean()
            for step in curves.step.values[1:]
        ]
    )


@pytest.mark.parametrize(
    ("number", "row", "experiment", "readout", "kind"),
    [
        ("5", 1, "errors", "kl", "sae-error"),
        ("6", 1, "errors", "kl", "sae-error"),
        ("7", 0, "features", "kl", "sae-feature"),
        ("L2-5", 0, "errors", L2, "sae-error"),
        ("L2-6", 1, "errors", L2, "sae-error"),
        ("L2-7", 0, "features", L2, "sae-feature"),
    ],
)
def test_ratios_are_of_means_and_have_a_line_at_one(number, row, experiment, readout, kind):
    chart, curves = STUDY.figures[number].chart(HELD), WORLD[experiment]
    drawn = {}
    for panel in chart.rows[row]:
        assert panel.y.log and "÷" in panel.y.label
        assert [mark.at for mark in panel.marks if isinstance(mark, Rule)] == [1.0]
        drawn |= lines(panel)
    assert drawn.keys() - {"cov-random-mixture", "real-mixture"} == set(LABELS.values())
    for sae, label in LABELS.items():
        line, wanted = drawn[label], naive_ratios(curves, readout, f"{kind}:{sae}")
        np.testing.assert_allclose(line.y, wanted[: len(line.y)], rtol=1e-9)
        np.testing.assert_array_equal(line.x, curves.step.values[1 : 1 + len(line.y)])
        assert np.all(line.low <= line.y) and np.all(line.y <= line.high)


def test_ratios_are_paired_by_sequence():
    """Luck that a sequence has along both directions widens the bands of curves, and not those of ratios."""
    luck = np.exp(np.random.default_rng(1).normal(0, 1, WORLD["errors"].sizes["sequence"]))
    luck = xr.DataArray(luck, dims="sequence")
    lucky = WORLD["errors"].assign(kl=WORLD["errors"].kl * luck)
    above, below = STUDY.figures["5"].chart(Results({"errors": lucky}, {})).rows
    for curves, ratios in zip(above, below, strict=True):
        for name, ratio in lines(ratios).items():
            curve = lines(curves)[name]
            assert (ratio.high[-1] / ratio.low[-1] - 1) < 0.5 * (curve.high[-1] / curve.low[-1] - 1)


def test_the_close_up_has_one_axis_and_cuts_nothing():
    chart, reach = STUDY.figures["6"].chart(HELD), here(WORLD["errors"], CLOSE_UP)
    assert "y-of-row" in chart.share
    for panel in chart.panels:
        assert panel.x.limits is panel.y.limits is None
        for line in lines(panel).values():
            assert line.x[-1] == pytest.approx(reach)


def test_panels_are_kinds_and_their_saes_are_a_group_of_the_legend_from_light_to_dark():
    for number in ("5", "7"):
        for panel, kind in zip(STUDY.figures[number].chart(HELD).rows[0], ("local", "e2e", "e2e+ds"), strict=True):
            assert panel.title == f"{kind} SAEs"
            of_saes = [line for line in lines(panel).values() if line.group]
            assert [line.name for line in of_saes] == [LABELS[name] for name, (of, _) in SAES.items() if of == kind]
            assert {line.group for line in of_saes} == {kind}
            brightness = [sum(int(line.style.color[at : at + 2], 16) for at in (1, 3, 5)) for line in of_saes]
            assert brightness == sorted(brightness, reverse=True)


def test_dots_of_features_are_ratios():
    for number, readout in (("8", "kl"), ("L2-8", L2)):
        curves = WORLD["features"]
        for panel in STUDY.figures[number].chart(HELD).panels:
            step = min(curves.step.values, key=lambda one: abs(one - float(panel.title.split()[-1])))
            dots = [mark for mark in panel.marks if isinstance(mark, Dots)]
            assert len(dots) == 5
            for dot in dots:
                wanted = naive_ratios(curves, readout, dot.name)[list(curves.step.values).index(step) - 1]
                assert dot.y[0] == pytest.approx(wanted)
                assert dot.low[0] <= dot.y[0] <= dot.high[0]


def test_reconstructions_have_their_l0_beside_them():
    (panel,) = STUDY.figures["S3"].chart(HELD).panels
    found = {
        text: label
        for mark in panel.marks
        if isinstance(mark, Points)
        for text, label in zip(mark.texts, mark.labels, strict=True)
    }
    assert found == {name: f"L0 {l0:.0f}" for name, (_, l0) in SAES.items()}


def test_the_report_names_saes_by_kind_and_l0_and_says_on_how_much_it_was_measured():
    some = STUDY._replace(figures={number: STUDY.figures[number] for number in ("4", "5", "8", "S3")})
    figures = {one.name: one for one in report_figures(StoredStudy(some, {}, HELD, {}))}
    for figure in figures.values():
        text = f"{figure.chart} {figure.finding}"
        assert not [sae for sae in SAES if sae in text], figure.name
        assert figure.caption.endswith("Measured on 48 sequences of 48 documents.")
    assert "sae-feature (local SAE, L0 31) above sae-feature (e2e SAE, L0 26)" in figures["figure-8"].finding
    assert [mark.name for mark in figures["figure-8"].chart.panels[0].marks if isinstance(mark, Dots)][2:] == [
        f"sae-feature ({LABELS[sae]})" for sae in ("local-3-l0-31", "e2e-3-l0-26", "e2e+ds-3-l0-33")
    ]
    assert figures["figure-4"].chart.panels[0].marks[0].categories == ("local SAE, L0 4", "local SAE, L0 31")
