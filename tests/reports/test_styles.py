"""Styles: one look per name wherever it is drawn, and looks that eyes and printers can tell apart."""

import colorsys
import itertools
import random

import pytest

from chart_cases import PAPER
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.bases import BASES, SAE_BASES
from tiltmeter.perturb.registry import DIRECTIONS
from tiltmeter.reports.charts.styles import SAE_COLORS, shade, style, styles

NAMED = [*DIRECTIONS]
SAES = [f"{kind}-3-l0-{l0}" for kind in ("local", "e2e", "e2e+ds") for l0 in (4, 12, 40, 80)]
OWN = [f"along:{number}.npy" for number in range(40)]


def look(style):
    return style.linestyle, style.marker, style.face == "white"


def lightness(color):
    return colorsys.rgb_to_hls(*(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)))[1]


def hue(color):
    return colorsys.rgb_to_hls(*(int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)))[0]


def test_everything_that_has_a_name_has_a_style_and_no_two_look_alike():
    found = {name: style(name) for name in [*NAMED, *BASES, *SAE_BASES]}
    assert len({found[name] for name in NAMED}) == len(NAMED)
    assert len({found[name] for name in [*BASES, *SAE_BASES]}) == len(BASES) + len(SAE_BASES)


def test_without_colours_they_still_differ():
    assert len({look(style(name)) for name in NAMED}) == len(NAMED)


def test_families_share_their_hue():
    assert style("epsilon-random").color == style("isotropic").color == "#000000"
    assert style("epsilon-cov-random-mixture").color == style("cov-random-mixture").color == style("cov-random").color
    assert style("epsilon-real-mixture").color == style("real-mixture").color == style("real").color
    assert style("minus-sae-error").color == style("sae-error").color == "#882255"
    assert style("latent-ablation").color == style("latent-doubling").color
    for kind in ("structured", "baseline"):
        assert style(f"synthetic-{kind}").color == style(f"synthetic-{kind}-difference").color


def test_a_user_s_own_name_has_no_style_of_its_own():
    assert style("sae-error:mine") == style("sae-error")
    for name in ("along:x.npy", "", "sae-error-2", "minus-real-mixture", "isotropic:x"):
        with pytest.raises(TiltmeterError, match="has no style of its own"):
            style(name)


@pytest.mark.parametrize("others", [[], PAPER, OWN, [f"sae-error:{sae}" for sae in SAES]])
def test_a_named_direction_looks_the_same_whatever_else_is_there(others):
    for name in (*PAPER, "zero", "mean", "clean"):
        assert styles([*others, name])[name] == styles([name, *others])[name] == style(name)


def test_order_decides_nothing():
    names = [*PAPER, *OWN, *(f"sae-error:{sae}" for sae in SAES), "sae-error:mine", "sae-feature:mine"]
    shuffled = random.Random(0).sample(names, len(names))
    assert styles(names) == styles(shuffled)
    assert list(styles(shuffled)) == shuffled


def test_a_lone_name_of_a_user_s_keeps_its_look_among_named_ones():
    assert styles(["along:x.npy"])["along:x.npy"] == styles([*PAPER, "along:x.npy"])["along:x.npy"]
    together = styles(["along:a.npy", "along:b.npy"])  # their hashes want different colours
    assert together == styles(["along:a.npy"]) | styles(["along:b.npy"])


def test_many_names_of_a_user_s_differ():
    found = styles([*OWN, *PAPER])
    assert len(set(found.values())) == len(found)
    few = styles(OWN[:5])
    assert len({style.color for style in few.values()}) == 5
    assert len(styles([f"along:{number}" for number in range(200)])) == 200


def test_saes_differ_in_shade_or_marker_and_kinds_of_direction_in_hue_and_dash():
    kinds = ("sae-error", "epsilon-random", "sae-feature")
    found = styles([*PAPER, *(f"{kind}:{sae}" for kind in kinds for sae in SAES)])
    assert len(set(found.values())) == len(found)
    for kind, sae in itertools.product(kinds, ("local", "e2e", "e2e+ds")):
        shades = [lightness(found[f"{kind}:{sae}-3-l0-{l0}"].color) for l0 in (4, 12, 40, 80)]
        assert shades == sorted(shades, reverse=True)
        assert shades[0] - shades[-1] > 0.4
    assert found["sae-error:e2e-3-l0-4"].marker == found["sae-feature:e2e-3-l0-80"].marker
    assert found["sae-error:e2e-3-l0-4"].color == found["sae-error:local-3-l0-4"].color


def test_kinds_of_sae_have_hues_where_there_is_one_kind_of_direction():
    found = styles([*PAPER, *(f"sae-feature:{sae}" for sae in SAES)])
    for kind, color in SAE_COLORS.items():
        shades = [found[f"sae-feature:{kind}-3-l0-{l0}"].color for l0 in (4, 12, 40, 80)]
        assert [lightness(one) for one in shades] == sorted(map(lightness, shades), reverse=True)
        assert [hue(one) for one in shades] == pytest.approx([hue(color)] * 4, abs=0.02)
    assert len({found[f"sae-feature:{sae}"].color for sae in SAES}) == len(SAES)


def test_one_sae_of_a_kind_has_the_kind_s_look():
    assert styles(["sae-error:local-3-l0-4", "isotropic"])["sae-error:local-3-l0-4"] == style("sae-error")


def test_saes_of_other_names_get_markers_of_their_own():
    found = styles(["sae-error:mine", "sae-error:yours", "sae-error:local-2-l0-3"])
    assert len({style.marker for style in found.values()}) == 3
    assert (
        found["sae-error:local-2-l0-3"].marker
        == styles([f"sae-error:{sae}" for sae in SAES])["sae-error:local-3-l0-4"].marker
    )


def test_shades_keep_their_hue():
    for part in (0.0, 0.5, 1.0):
        assert hue(shade("#882255", part)) == pytest.approx(hue("#882255"), abs=0.02)
    assert lightness(shade("#000000", 0.0)) > lightness(shade("#000000", 1.0))
