"""Curves: building, merging, files that keep every bit, and tables."""

import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError

DIRECTIONS = ["isotropic", "real-difference", "along:дом/ü $x$.npy", "<script>"]
STEPS = [0.0, 0.1, 2.5]
READOUTS = ["length", "kl", "l2@blocks.5.hook_resid_post", "cos@blocks.5.ln1.hook_scale"]


def make(sequences=range(5), positions=None, readouts=READOUTS, **attrs):
    """Curves whose value says where it belongs, with one NaN a sequence."""
    shape = (len(DIRECTIONS), len(STEPS), len(sequences)) + (() if positions is None else (len(positions),))
    place = np.indices(shape)
    place[2] += min(sequences)
    arrays = {}
    for number, name in enumerate(readouts):
        arrays[name] = number + np.tensordot(0.1 ** np.arange(1, len(shape) + 1), place, axes=1)
        arrays[name][-1, -1] = np.nan
    axes = curves.Axes(DIRECTIONS, STEPS, "‖x‖", list(sequences), positions)
    tokens = np.full((len(DIRECTIONS), len(sequences)), 127)
    return curves.build(arrays, tokens, axes, {"manifest": '{"α": 1}', **attrs})


def test_axes_and_labels():
    ds = make(positions=[1, 2])
    assert ds.kl.dims == ("direction", "step", "sequence", "position")
    assert ds.tokens.dims == ("direction", "sequence")
    assert ds.sequence.dtype == ds.position.dtype == ds.tokens.dtype == np.int64
    assert ds.step.attrs == {"long_name": "perturbation length", "units": "‖x‖"}
    assert ds.kl.attrs == {"long_name": "KL(clean ‖ perturbed)", "units": "nats"}
    assert ds["l2@blocks.5.hook_resid_post"].attrs["long_name"] == "distance at blocks.5.hook_resid_post"
    value = ds["l2@blocks.5.hook_resid_post"].sel(direction="real-difference", step=0.1, sequence=3, position=2)
    assert value == pytest.approx(2 + 0.1 * 1 + 0.01 * 1 + 0.001 * 3 + 0.0001 * 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"directions": ["a", "b"]}, "kl has the shape"),
        ({"directions": ["a", "a", "b"]}, "direction"),
        ({"steps": [1.0, 1.0]}, "step"),
        ({"positions": [0]}, "kl has the shape"),
    ],
)
def test_build_refuses(change, said):
    axes = curves.Axes(["a", "b", "c"], [0.0, 1.0], "L2", [0, 1, 2, 3])._replace(**change)
    with pytest.raises(TiltmeterError, match=said):
        curves.build({"kl": np.zeros((3, 2, 4))}, np.ones((3, 4), int), axes, {})


def test_build_refuses_attributes_that_are_no_text():
    with pytest.raises(TiltmeterError, match="seed"):
        make(seed=1)


@pytest.mark.parametrize("positions", [None, [1, 5]])
def test_files_keep_everything(tmp_path, positions):
    ds = make(range(3, 9), positions, empty="", lines="one\ntwo ‖")
    (tmp_path / "a.nc").write_bytes(curves.to_netcdf(ds))
    (tmp_path / "b.nc").write_bytes(curves.to_netcdf(ds))
    loaded = curves.load(tmp_path / "a.nc")
    xr.testing.assert_identical(loaded, ds)
    assert list(loaded.data_vars) == list(ds.data_vars)
    assert {name: loaded[name].dtype for name in loaded.variables} == {name: ds[name].dtype for name in ds.variables}
    first = (tmp_path / "a.nc").read_bytes()
    assert first == (tmp_path / "b.nc").read_bytes() == curves.to_netcdf(loaded)
    assert first != curves.to_netcdf(ds + 1e-15)


def test_plain_xarray_opens_a_file(tmp_path):
    (tmp_path / "curves.nc").write_bytes(curves.to_netcdf(make()))
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "curves.nc"), make())


def test_damaged_and_absent_files(tmp_path):
    whole = curves.to_netcdf(make())
    path = tmp_path / "curves.nc"
    for damaged in (b"", whole[:100], whole[:-500], b"\x89HDF\r\n\x1a\nxx", whole.replace(b"tokens", b"tolens")):
        path.write_bytes(damaged)
        with pytest.raises(TiltmeterError, match="not a complete NetCDF file"):
            curves.load(path)
    with pytest.raises(TiltmeterError, match="No such file"):
        curves.load(tmp_path / "none.nc")


def test_merging_shards_in_any_order_gives_the_whole():
    whole = make(range(4, 12))
    shards = [make(range(9, 12)), make(range(4, 7)), make(range(7, 9))]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        merged = curves.merge([shards[index] for index in order], range(4, 12))
        xr.testing.assert_identical(merged, whole)
        assert curves.to_netcdf(merged) == curves.to_netcdf(whole)


def test_one_shard_merges_to_itself():
    xr.testing.assert_identical(curves.merge([make()]), make())


@pytest.mark.parametrize(
    ("shards", "wanted", "said"),
    [
        ([], None, "no shards"),
        ([range(3), range(2, 5)], None, "sequence 2 is in two shards"),
        ([range(3), range(5, 7)], None, "sequence 3 is in no shard"),
        ([range(3)], range(4), "sequence 3 is in no shard"),
        ([range(3)], range(2), "sequence 2 was not asked for"),
    ],
)
def test_merge_refuses(shards, wanted, said):
    with pytest.raises(TiltmeterError, match=said):
        curves.merge([make(shard) for shard in shards], wanted)


def test_merge_refuses_shards_of_other_sweeps():
    later = make(range(5, 8))
    moved = later.assign_coords(step=later.step + 1e-9)
    for other in (make(range(5, 8), x="y"), later.drop_vars("kl"), later.isel(direction=[0, 1, 3, 2]), moved):
        with pytest.raises(TiltmeterError, match="not of one sweep"):
            curves.merge([make(), other])


def test_summary_against_a_loop_over_curves():
    ds = make(range(12), readouts=["kl", "length"])
    ds["kl"][1, 1, 5] = np.nan
    ds["kl"] = ds["kl"] * np.random.default_rng(0).lognormal(size=ds.kl.shape)
    table = curves.summary(ds)
    assert list(table.columns) == ["direction", "step", "readout", "mean", "low", "high", "n"]
    keys = [(d, s, r) for d in DIRECTIONS for s in STEPS for r in ("kl", "length")]
    assert list(table[["direction", "step", "readout"]].itertuples(index=False, name=None)) == keys
    for row in table.itertuples():
        values = ds[row.readout].sel(direction=row.direction, step=row.step).values
        values = values[~np.isnan(values)]
        assert row.n == len(values)
        if row.n:
            assert row.mean == pytest.approx(sum(values) / len(values))
            assert row.low < row.mean < row.high
        else:
            assert np.isnan([row.mean, row.low, row.high]).all()


def test_summary_averages_kept_positions_within_their_sequence():
    ds = make(range(6), positions=[0, 1, 2])
    flat = ds.copy()
    for name in READOUTS:
        flat[name] = ds[name].mean("position").assign_attrs(ds[name].attrs)
    pd.testing.assert_frame_equal(curves.summary(ds), curves.summary(flat.drop_vars("position")))


def test_tables_read_back_exactly_and_repeat_to_the_byte():
    table = curves.summary(make())

    def exactly(file):
        return pd.read_csv(file, float_precision="round_trip")  # the default only since pandas 3

    for write, read in ((curves.to_csv, exactly), (curves.to_parquet, pd.read_parquet)):
        data = write(table)
        assert data == write(curves.summary(make()))
        pd.testing.assert_frame_equal(read(io.BytesIO(data)), table, check_exact=True)


def test_frame_has_a_row_for_every_measurement():
    ds = make(positions=[3, 4])
    frame = curves.to_frame(ds)
    assert list(frame.columns) == ["direction", "step", "sequence", "position", "document", *READOUTS, "tokens"]
    assert len(frame) == ds.kl.size
    row = frame.sample(1, random_state=0).iloc[0]
    assert row.kl == ds.kl.sel(direction=row.direction, step=row.step, sequence=row.sequence, position=row.position)
