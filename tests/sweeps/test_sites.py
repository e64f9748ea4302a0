"""Sweeps at several sites."""

import numpy as np
import pytest

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.sweeps.sites import matching_sites
from tiny_models import tiny

TOKENS = token_set(sequences=6)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def sweep(site, **changes):
    lengths = tm.Straight(lengths=(0, 0.5, 1), unit="pair-distance")
    return tm.Sweep(**{"site": site, "path": lengths, "sequences": 6, "directions": ("isotropic", "zero")} | changes)


def test_names_and_patterns_mean_sites_in_their_order(loaded):
    def names(text):
        return [f"{site.kind}:{site.layer}" for site in matching_sites(text, loaded.model)]

    assert names("resid_pre:*") == [f"resid_pre:{layer}" for layer in range(loaded.model.n_layers)]
    assert names("mlp_out:1, blocks.0.hook_resid_pre,mlp_out:*") == [
        "mlp_out:1",
        "resid_pre:0",
        "mlp_out:0",
        "mlp_out:2",
    ]
    assert names("blocks.1.*")[:3] == ["resid_pre:1", "resid_mid:1", "resid_post:1"]
    parallel = matching_sites("resid_*:1", SplitModel(tiny("neox-parallel")))
    assert [site.kind for site in parallel] == ["resid_pre", "resid_post"]  # it has no stream between the two
    with pytest.raises(TiltmeterError, match="No site of this model matches 'resid:"):
        names("resid:*")
    with pytest.raises(TiltmeterError, match="is not a site"):
        names("resid_pre:0,nowhere")


def test_each_site_has_the_curves_that_it_has_alone(loaded, tmp_path):
    found = tm.run_sweep(sweep("resid_pre:0,resid_pre:2,mlp_out:1"), loaded, TOKENS, tmp_path)
    assert found.kl.dims == ("site", "direction", "step", "sequence")
    assert found.step.values.tolist() == [0, 0.5, 1] and found.step.attrs["units"] == "pair distances"
    for site in found.site.values:
        alone = tm.run_sweep(sweep(str(site)), loaded, TOKENS)
        assert np.array_equal(found.kl.sel(site=site), alone.kl)
        assert float(found.pair_distance.sel(site=site)) == alone.attrs["pair_distance"]
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, found.site.values))
    again = tm.run_sweep(sweep("resid_pre:0,resid_pre:2,mlp_out:1"), loaded, TOKENS, tmp_path)
    assert again.identical(found)


def test_sites_may_be_listed():
    assert sweep(["resid_pre:0", "mlp_out:1"]).site == "resid_pre:0,mlp_out:1"


def test_tables_and_figures_have_the_sites(loaded):
    found = tm.run_sweep(sweep("resid_pre:*,mlp_out:0"), loaded, TOKENS)
    table = tm.summary(found)
    row = table[(table.site == "blocks.1.hook_resid_pre") & (table.direction == "zero") & (table.step == 1)].iloc[0]
    of_one = found.kl.sel(site="blocks.1.hook_resid_pre", direction="zero", step=1)
    assert row.readout == "kl" and row["mean"] == pytest.approx(float(of_one.mean()))
    figure = tm.plot.sites(found)
    assert [axes.get_title() for axes in figure.axes] == ["hook_resid_pre", "hook_mlp_out"]
    drawn = figure.axes[0].lines[1]
    np.testing.assert_allclose(drawn.get_xdata(), [0, 1, 2])
    assert drawn.get_ydata()[1] == pytest.approx(float(of_one.mean()))
    with pytest.raises(TiltmeterError, match="of one site; sweep over several"):
        tm.plot.sites(found.isel(site=0))


def test_what_cannot_be_done_at_several_sites_is_refused(loaded):
    with pytest.raises(TiltmeterError, match="until_ci"):
        tm.run_sweep(sweep("resid_pre:*", until_ci=0.1), loaded, TOKENS)
