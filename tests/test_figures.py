"""Figures: what is drawn is what was measured, one look per direction, and files that repeat to the byte."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tiltmeter import curves, figures
from tiltmeter.errors import TiltmeterError

PAPER = [
    "isotropic",
    "isotropic-difference",
    "cov-random-difference",
    "cov-random-mixture",
    "real-difference",
    "real-mixture",
]
OWN = ["along:$x$_{1}.npy", "_hidden", "<script>"]
L2 = "l2@blocks.5.hook_resid_post"


@pytest.fixture(scope="module")
def measured():
    directions, steps = [*PAPER, *OWN], np.array([0.0, 1.0, 4.0, 9.0])
    scale = np.arange(1, 10)[:, None, None] * np.random.default_rng(0).lognormal(sigma=0.2, size=(1, 1, 20))
    kl = scale * steps[:, None] ** 2 / 50
    kl[2, 3] = np.nan
    axes = curves.Axes(directions, steps, "L2", range(20))
    ds = curves.build({"kl": kl, L2: 1 + scale * steps[:, None]}, np.ones((9, 20), int), axes, {})
    return ds, curves.summary(ds, resamples=50)


def test_lines_and_bands_are_the_summary(measured):
    ds, table = measured
    axes = Figure().subplots()
    lines = figures.mean_curves(axes, table, "kl", ["real-mixture", "cov-random-difference"])
    assert [line.get_label() for line in lines] == ["real-mixture", "cov-random-difference"]
    np.testing.assert_allclose(lines[0].get_ydata(), ds.kl.sel(direction="real-mixture").mean("sequence"))
    assert lines[1].get_xdata().tolist() == [0.0, 1.0, 4.0]
    rows = table[(table.readout == "kl") & (table.direction == "real-mixture")]
    drawn = axes.collections[0].get_paths()[0].vertices
    assert {*rows.low, *rows.high} <= {*drawn[:, 1]}


def test_a_direction_looks_the_same_in_every_figure(measured):
    _, table = measured
    axes = Figure().subplots()
    alone = figures.mean_curves(axes, table, "kl", ["<script>"])[0]
    among = figures.mean_curves(axes, table, "kl", [*PAPER, *OWN])[-1]
    look = [(to_hex(line.get_color()), line.get_linestyle(), line.get_marker()) for line in (alone, among)]
    assert look[0] == look[1] == (figures.styles(OWN)["<script>"].color, *look[0][1:])


def test_directions_differ_in_colour_and_without_colour():
    styles = figures.styles([*PAPER, *(f"along:{number}" for number in range(12))])
    assert len(set(styles.values())) == len(styles)
    paper = [styles[name] for name in PAPER]
    assert len({style.color for style in paper}) == len({(style.linestyle, style.marker) for style in paper}) == 6
    assert {style.color for style in paper}.isdisjoint(style.color for style in list(styles.values())[6:])


def test_many_saes_differ_in_colour_dash_or_marker():
    kinds, saes = ("sae-error", "epsilon-random", "sae-feature"), ("local-3", "e2e-3", "e2e+ds-3")
    names = [f"{kind}:{sae}-l0-{l0}" for kind in kinds for sae in saes for l0 in (4, 12, 40, 80)]
    styles = figures.styles([*PAPER, *names])
    looks = {(style.color, style.linestyle, style.marker) for style in styles.values()}
    assert len(looks) == len(PAPER) + len(names)
    assert styles["sae-error:e2e-3-l0-4"].marker == styles["sae-feature:e2e-3-l0-80"].marker
    assert styles["sae-error:e2e-3-l0-4"].color == styles["sae-error:local-3-l0-4"].color


def test_a_long_name_leaves_the_legend_in_the_figure(measured):
    ds, table = measured
    names = [*PAPER, "<script>" + "x" * 200, OWN[1], OWN[2]]
    renamed = dict(zip([*PAPER, *OWN], names, strict=True))
    figure = figures.facets(ds, table.assign(direction=table.direction.map(renamed)), ["kl"], {"one": names})
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
    assert any("…" in text.get_text() for text in figure.legends[0].get_texts())


def test_facets_share_axes_and_have_one_legend(measured):
    groups = {"cov-random": PAPER[:4], "real $x": [*PAPER[:2], *PAPER[4:], *OWN]}
    figure = figures.facets(*measured, ["kl", L2], groups)
    grid = np.reshape(figure.axes, (2, 2))
    assert grid[0, 0].get_ylim() == grid[0, 1].get_ylim() != grid[1, 0].get_ylim()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_title() for axes in grid[0]] == list(groups)
    assert grid[0, 0].get_ylabel() == "KL(clean ‖ perturbed), nats"
    assert grid[1, 0].get_ylabel().split() == ["distance", "at", "blocks.5.hook_resid_post,", "L2"]
    assert grid[1, 1].get_xlabel() == "perturbation length (L2)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*PAPER, *OWN]
    assert len(figure.legends) == 1
    assert not any(axes.get_legend() for axes in figure.axes)


def test_nothing_is_cut_off_and_nothing_overlaps(measured):
    figure = figures.facets(*measured, ["kl", L2], {"all": [*PAPER, *OWN]})
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_tightbbox()]
    for index, box in enumerate(boxes):
        assert box.x0 >= page.x0
        assert box.x1 <= page.x1
        assert box.y0 >= page.y0
        assert box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[:index])


@pytest.mark.parametrize(("readout", "directions"), [("js", ["isotropic"]), ("kl", ["sideways"])])
def test_what_was_not_measured_is_refused(measured, readout, directions):
    with pytest.raises(TiltmeterError, match="was measured; there are"):
        figures.facets(*measured, [readout], {"one": directions})


def test_empty_figures_are_refused(measured):
    with pytest.raises(TiltmeterError):
        figures.facets(*measured, [], {"one": ["isotropic"]})
    with pytest.raises(TiltmeterError):
        figures.facets(*measured, ["kl"], {})


def test_log_axes_start_at_the_floor(measured):
    figure = figures.facets(*measured, ["kl", L2], {"all": PAPER})
    figures.log_y(figure, floor=0.05)
    kl, l2 = figure.axes
    assert kl.get_yscale() == l2.get_yscale() == "log"
    assert kl.get_ylim()[0] == 0.05
    assert 0.05 < l2.get_ylim()[0] < 1
    assert kl.get_ylim()[1] > measured[1]["mean"].max() / 10
    assert figures.to_png(figure)


def test_files_repeat_to_the_byte_and_keep_text(measured, tmp_path):
    groups = {"a & b": [*PAPER, *OWN]}
    first, second = (figures.facets(*measured, ["kl"], groups) for _ in range(2))
    figures.save(first, tmp_path / "new", "one")
    figures.save(second, tmp_path / "new", "two")
    for suffix in ("png", "svg"):
        one = (tmp_path / "new" / f"one.{suffix}").read_bytes()
        assert one == (tmp_path / "new" / f"two.{suffix}").read_bytes()
    svg = ElementTree.parse(tmp_path / "new" / "one.svg").getroot()
    texts = {node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"KL(clean ‖ perturbed), nats", "a & b", *PAPER, *OWN} <= texts
    assert b"<dc:date>" not in one
    assert (tmp_path / "new" / "one.png").read_bytes().startswith(b"\x89PNG")


def test_save_says_what_cannot_be_written(measured, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TiltmeterError, match="cannot write figures"):
        figures.save(Figure(), tmp_path / "file" / "below", "one")


def test_the_look_of_other_figures_stays(measured):
    before = dict(mpl.rcParams)
    figures.to_svg(figures.facets(*measured, ["kl"], {"all": PAPER}))
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_imported():
    code = "import sys, tiltmeter.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
