"""Names of sites."""

import itertools

import pytest

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import HOOKS, STREAM, Site, all_sites, describe_sites, parse_site


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("blocks.0.hook_resid_pre", Site(0, "resid_pre")),
        ("blocks.11.hook_resid_post", Site(11, "resid_post")),
        ("blocks.3.hook_attn_out", Site(3, "attn_out")),
        ("blocks.3.hook_resid_mid", Site(3, "resid_mid")),
        ("blocks.3.hook_mlp_out", Site(3, "mlp_out")),
        ("blocks.10.attn.hook_z", Site(10, "z")),
        ("resid_pre:6", Site(6, "resid_pre")),
        ("z:0", Site(0, "z")),
        ("blocks.3.mlp.hook_post", Site(3, "mlp_post")),
        (" resid_post:11 ", Site(11, "resid_post")),
    ],
)
def test_a_name_means_one_site(name, site):
    assert parse_site(name, 12) == site


def test_every_site_has_one_long_and_one_short_name():
    sites = all_sites(12)
    assert len(set(sites)) == len({site.name for site in sites}) == 12 * 7
    for site in sites:
        assert parse_site(site.name, 12) == parse_site(f"{site.kind}:{site.layer}", 12) == site


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resid_pre",
        "resid_pre:",
        "resid_pre:-1",
        "resid_pre:1.0",
        "q:1",
        "resid_pre:1 resid_pre:2",
        "hook_resid_pre:1",
        "blocks.1.resid_pre",
        "blocks.1.hook_z",
        "blocks.-1.hook_resid_pre",
        "blocks.1.hook_resid_pre.0",
        "Blocks.1.hook_resid_pre",
        "h.1.attn",
    ],
)
def test_a_name_of_no_site_is_refused_with_those_that_exist(name):
    with pytest.raises(TiltmeterError) as refused:
        parse_site(name, 12)
    message = str(refused.value)
    assert repr(name) in message and "L from 0 to 11" in message
    for kind, hook in HOOKS.items():
        assert f"blocks.L.{hook}" in message and f"{kind}:L" in message


@pytest.mark.parametrize("name", ["resid_pre:12", "blocks.12.attn.hook_z", "resid_post:999"])
def test_a_layer_out_of_range_is_refused_with_the_range(name):
    with pytest.raises(TiltmeterError, match="layers 0 to 11"):
        parse_site(name, 12)


def test_the_description_follows_the_model():
    assert describe_sites(6).endswith("L from 0 to 5")


def test_the_boundary_counts_the_blocks_that_have_run():
    assert Site(4, "resid_pre").boundary == 4
    assert Site(4, "resid_post").boundary == Site(5, "resid_pre").boundary == 5
    assert {Site(4, kind).boundary for kind in set(HOOKS) - STREAM} == {4}


def test_visibility_is_the_order_of_computation():
    """Every site sees itself and whatever comes before it, and of two sites exactly one sees the other."""
    order = ["resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post"]
    sites = [Site(layer, kind) for layer in range(3) for kind in order]
    for (i, earlier), (j, later) in itertools.product(enumerate(sites), repeat=2):
        assert later.is_visible_from(earlier) == (j >= i)
