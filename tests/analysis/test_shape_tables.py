"""Tables of shapes: the right number beside the right labels, in steps and in units of the path."""

import math
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import tiltmeter
from tiltmeter.analysis import curves
from tiltmeter.analysis.shape_tables import shape_column, shape_summary, shape_table
from tiltmeter.analysis.shapes import (
    Shape,
    auc_step,
    crossing,
    ks_distance,
    max_slope_step,
    nonlinearity_step,
    plateau_step,
    relative,
)
from tiltmeter.errors import TiltmeterError

nan = math.nan
STEPS = np.arange(30) * 0.5


def make(positions=None, sequences=(3, 4, 7, 9), directions=("isotropic", "real-mixture"), steps=STEPS, seed=0):
    """Logistic curves, one of them not measured and one flat."""
    rng = np.random.default_rng(seed)
    rows = (len(directions), len(sequences)) + (() if positions is None else (len(positions),))
    middle, height = rng.uniform(5, 25, (*rows, 1)), rng.lognormal(1, 0.5, (*rows, 1))
    values = height / (1 + np.exp((middle - np.arange(len(steps))) / 3))
    values[0, 1], values[1, 2] = nan, 0.0
    values = np.moveaxis(values, -1, 1)
    axes = curves.Axes(directions, steps, "L2", sequences, positions)
    return curves.build({"kl": values, "length": values}, np.ones(rows[:2], int), axes, {})


def one_by_one(ds, row, stop=None):
    """The values of a row, one curve at a time from the dataset by its labels."""
    labels = {name: row[name] for name in ("direction", "sequence", "position") if name in ds.dims}
    curve = ds.kl.sel(labels).values
    end = None if stop is None else np.array(stop)
    step = {
        "max_slope": max_slope_step(curve, stop=end),
        "auc": auc_step(curve, end),
        "nonlinearity": nonlinearity_step(curve, stop=end),
        "plateau": plateau_step(curve, 0.5, end),
        "relative_plateau": plateau_step(relative(curve, end), 0.25, end),
    }
    at = {
        "crossing": crossing(curve, STEPS, 0.5, end),
        "relative_crossing": crossing(relative(curve, end), STEPS, 0.25, end),
    }
    found = {}
    for name, shape in step.items():
        found |= {f"{name}_step": float(shape.value), f"{name}_at": float(shape.value) * 0.5}
    found |= {f"{name}_at": float(shape.value) for name, shape in at.items()}
    return found | {f"{name}_censored": bool(shape.censored) for name, shape in (step | at).items()}


@pytest.mark.parametrize("positions", [None, (2, 5, 6)])
@pytest.mark.parametrize("stopped", [False, True])
def test_every_row_is_its_curve(positions, stopped):
    ds = make(positions)
    stop = xr.DataArray([29, 12, 31, 17], dims="sequence", coords={"sequence": ds.sequence}) if stopped else None
    table = shape_table(ds, "kl", threshold=0.5, fraction=0.25, stop=stop)
    labels = ["direction", "sequence"] + (["position"] if positions else [])
    assert list(table.columns[: len(labels)]) == labels
    assert len(table) == 8 * (len(positions) if positions else 1)
    assert not table[labels].duplicated().any()
    for _, row in table.iterrows():
        expected = one_by_one(ds, row, None if stop is None else int(stop.sel(sequence=row.sequence)))
        assert set(expected) == set(table.columns) - set(labels)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, nan_ok=True), name


def test_rows_are_in_the_order_of_the_curves():
    table = shape_table(make(), "kl")
    assert table.direction.tolist() == ["isotropic"] * 4 + ["real-mixture"] * 4
    assert table.sequence.tolist() == [3, 4, 7, 9] * 2
    assert table.auc_step.dtype == table.auc_at.dtype == np.float64 and table.auc_censored.dtype == bool
    assert "plateau_step" not in table and "relative_crossing_at" not in table


def test_the_order_of_axes_and_of_steps_does_not_matter():
    ds = make((1, 2))
    turned = ds.isel(step=slice(None, None, -1)).transpose("position", "step", "sequence", "direction")
    pd.testing.assert_frame_equal(shape_table(turned, "kl", threshold=0.5), shape_table(ds, "kl", threshold=0.5))


def test_censored_is_not_missing():
    table = shape_table(make(), "kl", threshold=0.5)
    flat = table[(table.direction == "real-mixture") & (table.sequence == 7)].iloc[0]
    missing = table[(table.direction == "isotropic") & (table.sequence == 4)].iloc[0]
    for name in ("max_slope", "auc", "nonlinearity", "plateau", "crossing"):
        assert flat[f"{name}_censored"] and not missing[f"{name}_censored"]
        assert math.isnan(flat[f"{name}_at"]) and math.isnan(missing[f"{name}_at"])


def test_summary_against_plain_loops():
    table = shape_table(make((1, 2, 3), sequences=range(20)), "kl", threshold=2.0)
    found = shape_summary(table).set_index(["direction", "statistic"])
    assert len(found) == 2 * (3 * 2 + 2 + 1)
    for direction in ("isotropic", "real-mixture"):
        for name in ("max_slope", "auc", "nonlinearity", "plateau", "crossing"):
            rows = [row for _, row in table.iterrows() if row.direction == direction]
            values = [row[f"{name}_at"] for row in rows if not math.isnan(row[f"{name}_at"])]
            hidden = sum(row[f"{name}_censored"] for row in rows)
            mean = sum(values) / len(values)
            one = found.loc[direction, f"{name}_at"]
            assert one["mean"] == pytest.approx(mean)
            assert one["std"] == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)))
            assert (one["n"], one["censored"]) == (len(values), hidden)
            assert one["missing"] == len(rows) - len(values) - hidden
            assert one["median"] == pytest.approx(np.median(values + [1e9] * hidden))
    assert found.loc["isotropic", "plateau_step"]["censored"] > 0
    assert found.loc["isotropic", "max_slope_step"]["missing"] == 3


def test_a_median_among_censored_curves_is_none_and_one_curve_has_no_spread():
    table = pd.DataFrame(
        {
            "direction": ["a"] * 4 + ["b"] * 2 + ["c"] * 2 + ["d"],
            "auc_step": [1.0, 2.0, nan, nan, 5.0, nan, nan, nan, nan],
            "auc_censored": [False, False, True, True, False, False, True, True, False],
        }
    )
    found = shape_summary(table)
    assert found.direction.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found["mean"], [1.5, 5.0, nan, nan])
    np.testing.assert_array_equal(found["std"], [0.5, 0.0, nan, nan])
    np.testing.assert_array_equal(found["median"], [nan, 5.0, nan, nan])
    assert found[["n", "censored", "missing"]].to_numpy().tolist() == [[2, 2, 0], [1, 0, 1], [0, 2, 0], [0, 0, 1]]


def test_a_column_keeps_its_censoring():
    table = shape_table(make(sequences=range(30)), "kl", threshold=2.0)
    one, other = (shape_column(table[table.direction == name], "crossing_at") for name in table.direction.unique())
    assert isinstance(one, Shape) and one.censored.any() and not np.isnan(one.value).all()
    last = [np.where(shape.censored, 1e6, shape.value) for shape in (one, other)]
    points = np.unique(np.concatenate(last))
    shares = [np.array([(x <= point).sum() / (~np.isnan(x)).sum() for point in points]) for x in last]
    assert ks_distance(one, other) == pytest.approx(np.abs(shares[0] - shares[1]).max())


def test_uneven_steps_have_crossings_only():
    lengths = np.r_[0.0, 1.0, np.arange(11, 102, 10.0)]
    ds = make(steps=lengths)
    with pytest.raises(TiltmeterError, match="steps 0, 1, 11, 21, … are not equally far apart"):
        shape_table(ds, "kl", threshold=0.5)
    table = shape_table(ds, "kl", statistics=(), threshold=0.5)
    assert set(table.columns) >= {"plateau_at", "crossing_at"} and "auc_step" not in table
    assert set(table.plateau_at.dropna()) <= set(lengths)
    shape_table(ds.isel(step=slice(1, None)), "kl")


def test_steps_scaled_to_a_model_count_as_equal():
    shape_table(make(steps=np.arange(1, 102, 10.0) / 81.59 * 7.3), "kl")


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda ds: ds, {"readout": "kL"}, "no readout kL; choose one of kl, length"),
        (lambda ds: ds, {"readout": "tokens"}, "no readout tokens"),
        (
            lambda ds: ds.rename({"kl": "cos@blocks.5.hook_resid_post"}),
            {"readout": "cos@blocks.5.hook_resid_post"},
            "falls",
        ),
        (lambda ds: ds.isel(step=[3]), {}, "single points"),
        (lambda ds: ds.mean("sequence"), {}, "no axis sequence"),
        (lambda ds: ds, {"statistics": ["crossing"]}, "no statistic crossing; choose from max_slope"),
        (lambda ds: ds, {"stop": xr.DataArray([1, 2], coords={"sequence": [3, 5]}, dims="sequence")}, "not of these"),
        (lambda ds: ds, {"stop": xr.DataArray([1, 2], dims="draw")}, "not of these"),
        (lambda ds: ds, {"stop": xr.DataArray(1.5)}, "type float64"),
    ],
)
def test_refused(change, settings, said):
    with pytest.raises(TiltmeterError, match=said):
        shape_table(change(make()), **{"readout": "kl"} | settings)


def test_it_is_offered_by_the_package():
    assert tiltmeter.shape_table is shape_table


def test_the_example_of_the_definitions_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
    code, *_ = re.findall(r"```python\n(.*?)```", text.partition("## Shapes of curves")[2], flags=re.DOTALL)
    (tmp_path / "runs" / "example").mkdir(parents=True)
    (tmp_path / "runs" / "example" / "curves.nc").write_bytes(curves.to_netcdf(make()))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "definitions.md", "exec"), {})
    assert "real-mixture" in capsys.readouterr().out


def test_ten_thousand_curves_take_no_second():
    ds = make(range(100), range(50), steps=np.arange(100.0))
    began = time.process_time()
    table = shape_table(ds, "kl", threshold=0.5)
    assert len(table) == 10_000
    assert time.process_time() - began < 1
