"""Misspelt sites are refused without a model, with the nearest name; every site of a model is let pass."""

import pytest

import tiltmeter as tm
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.site_names import check_site, check_sites
from tiltmeter.models.sites import all_sites


def refused(check, *arguments):
    with pytest.raises(TiltmeterError) as raised:
        check(*arguments)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resid-pre:3", "resid_pre:3"),
        ("blocks.3.resid_post", "blocks.3.hook_resid_post"),
        ("mlp-out:12", "mlp_out:12"),
    ],
)
def test_misspelt_sites(name, meant):
    assert f"did you mean {meant}?" in refused(check_site, name, 6)


def test_every_site_of_the_model_is_let_pass_and_no_other():
    for site in all_sites(6):
        check_site(site.name, 6)
    assert "has layers 0 to 5" in refused(check_site, "resid_pre:6", 6)
    check_site("resid_pre:6")


def test_several_sites():
    check_sites("resid_pre:*, mlp_out:1,blocks.2.*", 6)
    assert "No site matches 'resid:*'" in refused(check_sites, "resid_pre:1,resid:*", 6)
    assert "has layers 0 to 5" in refused(check_sites, "resid_pre:1,resid_pre:6", 6)
    assert "'resid_pre:*' is not a site" in refused(check_site, "resid_pre:*", 6)


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ("residpre:10", r"'residpre:10' is not a site \(did you mean resid_pre:10\?\)"),
        ("resid_pre:1,resid_pst:2", r"'resid_pst:2' is not a site \(did you mean resid_post:2\?\)"),
        (["resid_pre:1", "nowhere"], "'nowhere' is not a site"),
        ("resid:*", "No site matches 'resid:*'"),
        ("result:3", "'result:3' is not a site"),
    ],
)
def test_a_site_of_no_model_is_refused_where_a_sweep_is_made(site, sentence):
    with pytest.raises(TiltmeterError, match=sentence.replace("*", r"\*") if "*" in sentence else sentence):
        tm.Sweep(site=site, path=tm.Substitute())


def test_sites_that_some_model_has_are_let_pass():
    names = [site for one in all_sites(2) for site in (one.name, one.short_name)]
    for name in (
        *names,
        "resid_pre:77",
        "z:3.5",
        "result:3.5",
        "embed",
        "ln_final",
        "module:a.b",
        "module:a.*",
        "z:5.*",
    ):
        assert tm.Sweep(site=name, path=tm.Substitute()).site == name
    assert tm.Training(kind="local", site="resid_pre:3", sparsity=1).site == "resid_pre:3"
    with pytest.raises(TiltmeterError, match="did you mean resid_pre:3"):
        tm.Training(kind="local", site="residpre:3", sparsity=1)
    with pytest.raises(TiltmeterError, match="did you mean resid_pre:4"):
        tm.Training(kind="e2e+ds", site="resid_pre:3", sparsity=1, downstream=("residpre:4",))
