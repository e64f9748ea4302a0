"""A stored run in the terminal."""

import math

import pytest

from tiltmeter.perturb.paths import Straight
from tiltmeter.reports import terminal
from tiltmeter.sweeps.plan import Sweep

MANIFEST = {"identity": {"sweep": {"path": {"kind": "straight", "unit": "pair-distance"}}}, "record": {"units": "L2"}}


def row(direction, step, mean, readout="kl"):
    return {"direction": direction, "step": str(step), "readout": readout, "mean": str(mean), "low": str(mean - 0.5),
            "high": str(mean + 0.5), "n": "12"}  # fmt: skip


def test_a_table_of_curves():
    rows = [row("isotropic", k, k) for k in range(8)] + [row("mine", k, 7 - k) for k in range(8)]
    rows += [row("isotropic", 1, 3, "length")]
    title, steps, first, second = terminal.curves_text(rows, MANIFEST).splitlines()
    assert title == "kl: mean [95 % interval] by length (L2), n = 12; curves from 0 (▁) to 7 (█)"
    assert steps.split() == ["1", "3", "5", "7", "curve"]
    assert first.split()[:4] == ["isotropic", "1.00", "[0.500,", "1.50]"]
    assert [line.split()[-1] for line in (first, second)] == ["▁▂▃▄▅▆▇█", "█▇▆▅▄▃▂▁"]
    assert steps.index("curve") == first.index("▁▂") == second.index("█▇")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
        ([7.0, math.nan, 0.0], "█ ▁"),
        ([3.0, 3.0], "▄▄"),
        ([0.0] * 100, "▁" * 40),
    ],
    ids=["rising", "gap", "flat", "many"],
)
def test_lines_of_blocks(values, shown):
    assert terminal.line_of_blocks(values, 0.0, 7.0) == shown


def test_a_flat_table_has_a_line():
    assert terminal.line_of_blocks([2.0, 2.0], 2.0, 2.0) == "▁▁"


@pytest.mark.parametrize(("count", "most"), [(1, 4), (4, 4), (5, 4), (41, 4), (100, 40)])
def test_evenly_spread(count, most):
    chosen = terminal.evenly(range(count), most)
    assert len(chosen) == min(count, most) == len(set(chosen)) and chosen[-1] == count - 1
    assert chosen == sorted(chosen)


def test_crossings():
    found = {"direction": "mine", "median": "11.458", "median_low": "9.69", "median_high": "inf", "n": "8",
             "censored": "1", "missing": "0", "points": "4.0"}  # fmt: skip
    head, line = terminal.crossings_table([found], MANIFEST).splitlines()
    assert head.split() == [
        "median,",
        "L2",
        "[95",
        "%",
        "interval]",
        "crossed",
        "never",
        "not",
        "measured",
        "points",
        "per",
        "curve",
    ]
    assert line.split() == ["mine", "11.5", "[9.69,", "inf]", "8", "1", "0", "4.0"]
    assert len(head) == len(line)


def test_an_unfinished_run(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.safetensors").touch()
    assert "1 files of results are stored" in terminal.unfinished(tmp_path)


def test_the_stream_is_the_one_that_was_measured():
    """A model with RMSNorm is measured in its raw stream, whatever was asked for."""
    sweep = Sweep(site="resid_pre:1", path=Straight(lengths=(1,)), sequences=2).model_dump(mode="json")
    identity = {"sweep": sweep, "order": {"directions": ["isotropic"]}}
    told = {
        stream: terminal.heading(
            {"identity": identity, "record": {"policies": {"stream": stream}}, "created": "2026-01-01"}
        )[0]
        for stream in ("raw", "centred: x minus its mean over d_model")
    }
    assert "resid_pre:1 (raw)" in told.pop("raw") and "resid_pre:1 (centred)" in told.popitem()[1]
