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
        ("blocks.3.mlp.hook_pre", Site(3, "mlp_pre")),
        ("q:3", Site(3, "q")),
        ("z:9.6", Site(9, "z", 6)),
        ("blocks.9.attn.hook_k.0", Site(9, "k", 0)),
        ("result:9.6", Site(9, "result", 6)),
        ("embed", Site(0, "embed")),
        ("hook_embed", Site(0, "embed")),
        ("ln_final.hook_normalized", Site(12, "ln_final")),
        (" resid_post:11 ", Site(11, "resid_post")),
    ],
)
def test_a_name_means_one_site(name, site):
    assert parse_site(name, 12) == site


def test_every_site_has_one_long_and_one_short_name():
    sites = all_sites(12)
    assert len(set(sites)) == len({site.name for site in sites}) == 12 * 11
    for site in sites:
        assert parse_site(site.name, 12) == parse_site(site.short_name, 12) == site


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resid_pre",
        "resid_pre:",
        "resid_pre:-1",
        "resid_pre:1.0",
        "x:1",
        "resid_pre:1.0",
        "blocks.1.hook_result.0",
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
    assert "L from 0 to 5" in describe_sites(6)


def test_the_boundary_counts_the_blocks_that_have_run():
    assert Site(4, "resid_pre").boundary == 4
    assert Site(4, "resid_post").boundary == Site(5, "resid_pre").boundary == 5
    assert {Site(4, kind).boundary for kind in set(HOOKS) - STREAM} == {4}


def test_visibility_is_the_order_of_computation():
    """Every site sees itself and whatever comes before it; queries, keys and values do not see each other."""
    order = ["resid_pre", "qkv", "z", "attn_out", "resid_mid", "mlp_pre", "mlp_post", "mlp_out", "resid_post"]
    steps = [
        (layer, at, kind)
        for layer in range(3)
        for at, one in enumerate(order)
        for kind in (one if one == "qkv" else [one])
    ]
    for (i, a, earlier), (j, b, later) in itertools.product(steps, repeat=2):
        seen = (j, b) > (i, a) or (i, earlier) == (j, later)
        assert Site(j, later).is_visible_from(Site(i, earlier)) == seen


def test_one_head_is_seen_from_all_and_not_from_another():
    assert Site(1, "z", 2).is_visible_from(Site(1, "z")) and Site(1, "z").is_visible_from(Site(1, "z", 2))
    assert not Site(1, "z", 2).is_visible_from(Site(1, "z", 3))


def test_of_two_modules_in_a_block_the_order_is_not_known():
    one, other = Site(1, "within", path="h.1.mlp.c_fc"), Site(1, "within", path="h.1.attn")
    assert not one.is_visible_from(other) and not other.is_visible_from(one)
    assert Site(1, "resid_post").is_visible_from(one) and one.is_visible_from(Site(0, "embed"))


def test_a_result_is_that_of_one_head():
    with pytest.raises(TiltmeterError, match=r"give the head, as result:3\.0"):
        parse_site("result:3", 12)
