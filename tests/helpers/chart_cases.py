"""A chart of each kind of mark, with names that try to be markup, templates, formulas and paths."""

from dataclasses import replace

import numpy as np

from tiltmeter.analysis import curves
from tiltmeter.reports.charts.chart import (
    Axis,
    Bars,
    Chart,
    Dots,
    HeatMap,
    Histogram,
    Line,
    Panel,
    Points,
    Rule,
    Surface,
    Triangle,
)
from tiltmeter.reports.charts.styles import style, styles

PAPER = [
    "isotropic",
    "isotropic-difference",
    "cov-random-difference",
    "cov-random-mixture",
    "real-difference",
    "real-mixture",
]
OWN = ["along:$x$_{1}.npy", "_hidden", "<script>"]
EVIL = "</script><b onclick='alert(1)'>%{x} $\\frac{1}{2}$ & 50 % #1 [a] ~ ‖ε‖"
L2 = "l2@blocks.5.hook_resid_post"
X = np.array([0.0, 1.0, 4.0, 9.0, 16.0])


def measured(names=(*PAPER, *OWN), steps=(0.0, 1.0, 4.0, 9.0)):
    """Curves of these directions, one value missing, and their summary."""
    steps = np.asarray(steps)
    scale = np.arange(1, len(names) + 1)[:, None, None] * np.random.default_rng(0).lognormal(sigma=0.2, size=(1, 1, 20))
    kl = scale * steps[:, None] ** 2 / 50
    if len(steps) > 3:
        kl[min(2, len(names) - 1), 3] = np.nan
    axes = curves.Axes(list(names), steps, "L2", range(20))
    values = {"kl": kl, L2: 1 + scale * steps[:, None], "length": steps[:, None] + 0 * scale}
    ds = curves.build(values, np.ones((len(names), 20), int), axes, {})
    return ds, curves.summary(ds)


def line(name="real-mixture", factor=1.0, **changes):
    y = factor * np.array([0.0, 0.1, 0.8, 1.7, 3.123456789])
    return Line(name, X, y, styles([name])[name], **{"low": 0.9 * y, "high": 1.2 * y, **changes})


def single_curves(number=5):
    """Curves of one name, with a gap in one, behind their mean."""
    gap = np.array([0.0, 1.0, np.nan, 3.0, 4.0])
    thin = [Line("real-mixture", X, gap * (1 + at), style("real-mixture"), thin=True) for at in range(number)]
    return (*thin, line())


def points():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 2, 20), rng.uniform(1, 2, 20)
    texts = tuple(f"token {number} {EVIL}" for number in range(20))
    return (
        Points("synthetic-structured", x, y, style("synthetic-structured"), y - 0.1, y + 0.2, texts),
        Points(EVIL, x[::-1] + 1, y, styles([EVIL])[EVIL]),
    )


def bars(kinds=("local", "e2e", "e2e+ds")):
    y = np.arange(1.0, len(kinds) + 1)
    return (
        Bars("sae-error", kinds, y, style("sae-error"), y - 0.5, y + 0.25),
        Bars("epsilon-random", kinds[1:], y[:-1], style("epsilon-random")),
    )


def as_dots(mark):
    """The same numbers, as dots."""
    return Dots(mark.name, mark.categories, mark.y, mark.style, mark.low, mark.high)


def histograms():
    return (
        Histogram("real", np.array([0.0, 1.0, 2.0, 4.0]), np.array([3.0, 5.0, 1.0]), style("real")),
        Histogram("isotropic", np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 2.0, 7.0]), style("isotropic")),
    )


def grid(kind, **more):
    """A surface or a heat map of three rows and four columns, one cell of which was not measured."""
    z = np.arange(12.0).reshape(3, 4)
    z[0, 0] = np.nan
    return kind(f"KL of {EVIL}", np.array([-1.0, 0.0, 1.0, 2.0]), np.array([0.0, 5.0, 7.0]), z, **more)


def triangle(number=6):
    weights = np.array([(i, j, number - i - j) for i in range(number + 1) for j in range(number + 1 - i)]) / number
    return Triangle("relative distance", weights, (weights**2).sum(1), ("The top", EVIL, "right"))


def panel(*marks, title="", x="length (L2)", y="KL, nats", **axes):
    return Panel(title, Axis(x, **axes.get("x_axis", {})), Axis(y, **axes.get("y_axis", {})), marks)


def one(*marks, **more):
    return Chart(((panel(*marks, **more),),))


CHARTS = {
    "lines": Chart(
        (
            (panel(line(), line("isotropic", 0.5), title="first"), panel(line(OWN[2], 2.0), title=EVIL)),
            (panel(line("real-mixture", 7.0), y="L2"), panel(line("isotropic", 3.0), y="L2")),
        ),
        title=EVIL,
    ),
    "curves": one(*single_curves(), Rule(4.0, text=EVIL), Rule(2.0, "y", "half", style("clean"))),
    "logarithmic": one(line(), *points(), x_axis={"log": True}, y_axis={"log": True, "limits": (0.01, 10.0)}),
    "points": one(*points()),
    "bars": one(*bars(), x="kind of SAE"),
    "lying bars": one(
        *bars(tuple(f"a kind of SAE called {name} {EVIL}" for name in "abc")), Rule(2.0, "y", "two"), x=""
    ),
    "dots": one(*(as_dots(mark) for mark in bars()), Rule(1.0, "y", "one")),
    "histograms": one(*histograms(), y="curves"),
    "heat map": Chart(((panel(grid(HeatMap)), panel(grid(HeatMap))),)),
    "surface": one(grid(Surface, marked=((EVIL, 0.0, 5.0, 5.0), ("B", 1.0, 5.0, 6.0)))),
    "triangle": one(triangle(), x="", y=""),
}


def on_log_y(chart: Chart, low: float, high: float) -> Chart:
    """The same marks on logarithmic y axes between these limits."""
    rows = [[replace(panel, y=replace(panel.y, log=True, limits=(low, high))) for panel in row] for row in chart.rows]
    return replace(chart, rows=tuple(map(tuple, rows)))
