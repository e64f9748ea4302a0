"""Figures of results, as users make them in notebooks."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tiltmeter import plot
from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError


def results(names=("isotropic", "mine"), steps=(0.0, 1.0, 2.0)):
    shape = (len(names), len(steps), 6)
    kl = np.random.default_rng(0).exponential(size=shape).cumsum(1)
    axes = curves.Axes(names, steps, "L2", range(6))
    tokens = np.ones((len(names), 6), int)
    attrs = {"site": "blocks.1.hook_resid_pre", "pair_distance": 2.0}
    return curves.build({"kl": kl, "loss": 2 * kl, "length": kl}, tokens, axes, attrs)


def test_curves_are_drawn_with_title_labels_and_size(tmp_path):
    data = results()
    figure = plot.curves(data, title="Mine", size=(4.0, 5.0))
    width, height = figure.get_size_inches()
    assert isinstance(figure, Figure) and width == 4 and 5 <= height < 5.5  # with the legend
    assert figure.get_suptitle() == "Mine"
    assert [axes.get_ylabel().splitlines()[0] for axes in figure.axes] == [
        "KL(clean ‖ perturbed), nats",
        "next-token loss, nats",
    ]
    (tmp_path / "curves.nc").write_bytes(curves.to_netcdf(data))
    (axes,) = plot.curves(tmp_path, "kl", ("mine",)).axes
    drawn = axes.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, data.kl.sel(direction="mine").mean("sequence"))
    assert axes.figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it without pyplot


def test_one_step_is_drawn_as_bars_and_shapes_need_several():
    assert plot.curves(results(steps=(1.0,)), "kl").axes[0].patches
    assert len(plot.shapes(results()).axes) == 2
    with pytest.raises(TiltmeterError, match="a single step, and so no shape"):
        plot.shapes(results(steps=(1.0,)))


def test_a_selection_is_drawn_and_summarised_as_the_whole_is():
    data = results()
    pd.testing.assert_frame_equal(curves.summary(data.transpose("step", "sequence", "direction")), curves.summary(data))
    for part in ({"direction": 1}, {"step": 1}, {"step": 1, "direction": 0}):
        of_list = data.isel({name: [at] for name, at in part.items()})
        pd.testing.assert_frame_equal(curves.summary(data.isel(part)), curves.summary(of_list))
        assert curves.checked(data.isel(part)).tokens.dims == ("direction", "sequence")
    (axes,) = plot.curves(data[["kl"]].sel(direction="mine")).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), data.kl.sel(direction="mine").mean("sequence"))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda data: plot.curves(data.mean("sequence")), "no axis sequence"),
        (lambda data: curves.summary(data.mean("sequence")), "no axis sequence"),
        (lambda _: curves.checked("runs/example"), "is of type str; give curves"),
        (lambda data: plot.curves(data, size=(-1.0, 2.0)), r"size was \(-1.0, 2.0\); give width and height"),
        (lambda data: plot.curves(data, directions="min"), "no direction 'min'"),
        (lambda data: plot.shapes(data.expand_dims(site=["a", "b"])), "of several sites; give those of one"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        call(results())


def test_a_comparison_is_a_panel_for_each_baseline():
    names = ("mine", "minus-mine", *(f"isotropic#{i}" for i in range(3)), *(f"permutation:mine#{i}" for i in range(3)))
    data = results(names)
    figure = plot.compare(data)
    assert [axes.get_title() for axes in figure.axes] == ["isotropic", "permutation"]
    assert len(figure.axes[0].lines) == 3 + 2
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0, 0.5, 1])  # in pair distances
    two = plot.compare(results((*names, "other", "minus-other")), ("mine", "other"))
    assert [axes.get_title() for axes in two.axes] == ["isotropic", "permutation", "", ""]
    with pytest.raises(TiltmeterError, match="not the curves of a comparison"):
        plot.compare(results())
    with pytest.raises(TiltmeterError, match="no vector 'other'; the curves have mine"):
        plot.compare(data, ("other",))


def test_plotly_figures_have_the_same_numbers():
    figure = plot.curves(results(), "kl", library="plotly")
    assert type(figure).__module__.startswith("plotly")
    assert {trace.name for trace in figure.data} >= {"isotropic", "mine"}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plot.curves(results(), "kll"), "no readout 'kll'; the curves have kl, loss, length"),
        (lambda: plot.curves(results(), directions=("real",)), "no direction 'real'"),
        (lambda: plot.curves(3), "This is of type int; give curves"),
        (lambda: plot.curves(results(), library="bokeh"), "'bokeh' is not a library"),
        (lambda: plot.curves("nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        call()
