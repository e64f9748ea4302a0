"""Lee & Heimersheim 2024: claims judged on worlds in which they hold, and in which the opposite does."""

import numpy as np
import pytest

from lee_worlds import (
    FACTORS,
    PAIR,
    SAES,
    STEPS,
    WORLD,
    at_constant_norm,
    dataset,
    decoders,
    directions,
    errors,
    features,
    plateau,
    shapes,
    square,
    substitution,
)
from tiltmeter.reports.charts import mpl
from tiltmeter.studies.claims import judge
from tiltmeter.studies.lee2024 import STUDY
from tiltmeter.studies.lee2024.experiments import PAIR_DISTANCE, SUBSTITUTIONS
from tiltmeter.studies.results import NotMeasured, Results


def words(results):
    return {verdict.claim.name: verdict.word for verdict in judge(STUDY.claims, results)}


def test_claims_about_directions_hold_in_their_world():
    found = words(Results({"directions": directions(**FACTORS)}, {}))
    supported = [name for name, word in found.items() if word == "supported"]
    assert supported == [
        "cov-random-difference-above-mixture",
        "real-difference-above-mixture",
        "difference-above-mixture-in-l2",
        "cov-random-mixture-above-isotropic",
        "cov-random-mixture-above-isotropic-in-l2",
        "real-difference-above-cov-random-difference",
        "real-mixture-above-cov-random-mixture",
        "real-mixture-near-cov-random-mixture",
        "late-distance-linear-at-first",
        "real-mixture-near-cov-random-mixture-in-l2",
    ]


def test_claims_about_directions_fail_in_the_opposite_world():
    opposite = dict(zip(FACTORS, reversed(FACTORS.values()), strict=True)) | {
        "real_mixture": 1.0,
        "cov_random_mixture": 4.0,
    }
    opposite |= {"cov_random_difference": 3.0, "real_difference": 0.9, "isotropic": 6.0}
    found = words(Results({"directions": directions(**opposite)}, {}))
    contradicted = {name for name, word in found.items() if word == "contradicted"}
    assert contradicted == {
        "cov-random-difference-above-mixture",
        "real-difference-above-mixture",
        "difference-above-mixture-in-l2",
        "cov-random-mixture-above-isotropic",
        "cov-random-mixture-above-isotropic-in-l2",
        "real-difference-above-cov-random-difference",
        "real-mixture-above-cov-random-mixture",
        "real-mixture-near-cov-random-mixture",
        "real-difference-above-cov-random-difference-in-l2",
        "real-mixture-near-cov-random-mixture-in-l2",
    }


@pytest.mark.parametrize(("times", "word"), [(1.0, "supported"), (0.5, "supported"), (1.6, "contradicted")])
def test_at_constant_norm_differences_are_not_above_mixtures_or_they_are(times, word):
    found = words(Results({"directions-sphere": at_constant_norm(times)}, {}))
    for kind in ("cov-random", "real"):
        assert found[f"{kind}-difference-not-above-mixture-at-constant-norm"] == word


def test_the_claims_at_constant_norm_are_those_of_the_sphere_and_nothing_else():
    """Differences stronger on straight lines alone: the claims of both kinds hold."""
    found = words(Results({"directions": directions(**FACTORS), "directions-sphere": at_constant_norm(1.0)}, {}))
    assert found["real-difference-above-mixture"] == "supported"
    assert found["real-difference-not-above-mixture-at-constant-norm"] == "supported"


def test_luck_alone_decides_nothing():
    same = {name.replace("_", "-"): square(2.0) for name in FACTORS}
    found = words(Results({"directions": dataset(same, STEPS, "L2", noise=0.3)}, {}))
    assert found["real-difference-above-mixture"] == "inconclusive"
    assert found["real-mixture-near-cov-random-mixture"] == "inconclusive"
    linear_and_alike = ["late-distance-linear-at-first", "real-mixture-near-cov-random-mixture-in-l2"]
    assert [name for name, word in found.items() if word == "supported"] == linear_and_alike


def test_claims_about_errors_hold_in_their_world():
    world = errors(lambda rank: plateau((0.02, 0.04)[rank], (0.6, 0.3)[rank]))
    found = words(Results({"errors": world}, {}))
    assert {name: word for name, word in found.items() if name.startswith("errors") and not name.endswith("l2")} == {
        "errors-plateau": "supported",
        "errors-linear-after-plateau": "supported",
        "errors-local-sparser-stronger": "supported",
        "errors-local-near-cov-random": "supported",
        "errors-end-to-end-low-at-first": "supported",
        "errors-end-to-end-spike": "supported",
        "errors-end-to-end-sparser-stronger-far": "supported",
        "errors-end-to-end-sparser-weaker-near": "supported",
    }


def test_claims_about_errors_fail_in_the_opposite_world():
    world = errors(lambda rank: lambda step: (0.3, 0.2)[rank] * step)
    found = words(Results({"errors": world}, {}))
    assert found["errors-end-to-end-low-at-first"] == "contradicted"
    assert found["errors-end-to-end-sparser-weaker-near"] == "contradicted"
    assert found["errors-end-to-end-spike"] == "contradicted"


@pytest.mark.parametrize("kl", [square(0.2), lambda step: 10.8 * -np.expm1(-0.01 * step**2)], ids=["square", "full"])
def test_a_quadratic_is_no_plateau(kl):
    world = dataset({f"sae-error:{sae}": kl for sae in SAES}, STEPS, "L2", SAES)
    assert words(Results({"errors": world}, {}))["errors-plateau"] == "contradicted"


def test_claims_about_features():
    found = words(Results({"features": features(local=2.7, e2e=1.35, downstream=1.9)}, {}))
    assert found["features-above-isotropic"] == "supported"
    assert found["features-sparser-stronger"] == "supported"
    assert found["features-vary-about-cov-random"] == "supported"
    assert found["features-local-above-downstream-near"] == "supported"
    assert found["features-e2e-below-local"] == found["features-e2e-below-downstream"] == "supported"
    opposite = words(Results({"features": features(local=0.8, e2e=1.9, downstream=1.2)}, {}))
    assert opposite["features-above-isotropic"] == "contradicted"
    assert opposite["features-e2e-below-local"] == opposite["features-e2e-below-downstream"] == "contradicted"
    assert opposite["features-local-above-downstream-near"] == "contradicted"


def test_claims_about_substitution_by_layer():
    sae = ("local-3-l0-31",)
    layers = {
        f"layers-{layer}": substitution(sae, (factor, 0.6, 2.0, 2.2)) for layer, factor in enumerate((3.0, 1.5, 2.0))
    }
    found = words(Results(layers, {}))
    names = ("isotropic-smallest", "real-above-cov-random", "isotropic-below-sae", "sae-varies-by-layer")
    assert [found[f"substitution-{name}"] for name in names] == ["supported"] * 4
    one_fails = layers | {"layers-1": substitution(sae, (0.5, 1.0, 0.9, 0.8))}
    found = words(Results(one_fails, {}))
    assert [found[f"substitution-{name}"] for name in names[:3]] == ["contradicted"] * 3


def test_the_deciding_layer_is_named():
    sae = ("local-3-l0-31",)
    layers = {
        f"layers-{layer}": substitution(sae, (factor, 0.6, 2.0, 2.2)) for layer, factor in enumerate((3.0, 0.4, 2.0))
    }
    verdicts = {verdict.claim.name: verdict for verdict in judge(STUDY.claims, Results(layers, {}))}
    assert verdicts["substitution-isotropic-below-sae"].deciding.label.startswith("layer 1")


def test_a_ratio_is_of_means_over_sequences():
    world = directions(**FACTORS)
    (verdict, *_) = judge(STUDY.claims[1:2], Results({"directions": world}, {}))
    naive = world.kl.sel(direction=["real-difference", "real-mixture"]).sel(
        step=21 / PAIR_DISTANCE * PAIR, method="nearest"
    )
    one, other = naive.mean("sequence").values
    assert verdict.estimates[0].value == pytest.approx(one / other)


def test_what_is_not_there_is_said():
    found = {v.claim.name: v for v in judge(STUDY.claims, Results({}, {"errors": "errors: No SAE was given."}))}
    assert {verdict.word for verdict in found.values()} == {"not tested"}
    assert found["errors-plateau"].reason == "errors: No SAE was given."
    only_local = substitution([name for name in SAES if name.startswith("local")], (2.0, 1.0, 2.0, 2.1))
    (verdict,) = (
        v for v in judge(STUDY.claims, Results({"reconstructions": only_local}, {})) if "farther" in v.claim.name
    )
    assert verdict.reason == "No end-to-end SAE was given."


@pytest.mark.parametrize("number", [number for number in STUDY.figures if number != "shapes"])
def test_every_figure_is_drawn_and_says_what_was_found(number):
    figure = STUDY.figures[number]
    assert mpl.draw(figure.chart(WORLD)).axes
    assert len(figure.finding(WORLD)) > 40


def test_a_figure_without_its_experiment_says_so():
    with pytest.raises(NotMeasured, match="No SAE"):
        STUDY.figures["5"].chart(Results({}, {"errors": "errors: No SAE."}))


def test_bars_are_the_means():
    chart = STUDY.figures["3"].chart(WORLD)
    (panel,) = chart.panels
    heights = {mark.name: mark.y for mark in panel.marks}
    for kind in SUBSTITUTIONS:
        naive = [float(WORLD[f"layers-{layer}"].kl.sel(direction=f"{kind}:local-3-l0-31").mean()) for layer in range(3)]
        np.testing.assert_allclose(heights[kind], naive)


def test_the_largest_of_several_is_picked_once_and_pays_for_it():
    sae = ("local-3-l0-31",)
    layers = {f"layers-{n}": substitution(sae, (f, 0.6, 2.0, 2.2)) for n, f in enumerate((3.0, 1.5, 2.0))}
    (verdict,) = (
        v for v in judge(STUDY.claims, Results(layers, {})) if v.claim.name == "substitution-sae-varies-by-layer"
    )
    largest, smallest = verdict.estimates
    assert "layer 0, the largest of 3" in largest.label and "layer 1, the smallest of 3" in smallest.label
    nearer = words(Results(layers, {}))["substitution-sae-nearer-to-mixtures"]
    assert nearer == "supported"
    far = {f"layers-{n}": substitution(sae, (1.05, 1.0, 2.0, 2.2)) for n in range(3)}
    assert words(Results(far, {}))["substitution-sae-nearer-to-mixtures"] == "contradicted"


def test_the_saes_that_the_paper_excepts_are_left_out():
    world = errors(lambda rank: plateau((0.02, 0.04)[rank], (0.6, 0.3)[rank]))
    (verdict,) = (
        v for v in judge(STUDY.claims, Results({"errors": world}, {})) if v.claim.name.endswith("weaker-near")
    )
    assert {finding.label.partition(":")[0] for finding in verdict.estimates} == {"e2e+ds"}


def test_single_curves_are_counted():
    """Tokens of which the mixture's own KL is the higher; means do not matter."""
    found = words(Results({"shapes": shapes(3.0)}, {}))
    assert found["single-curves-mixtures-above-isotropic"] == "supported"
    opposite = shapes(0.4)
    assert words(Results({"shapes": opposite}, {}))["single-curves-mixtures-above-isotropic"] == "contradicted"
    loud = opposite.assign(kl=opposite.kl.where((opposite.direction == "isotropic") | (opposite.position > 0), 1e6))
    assert words(Results({"shapes": loud}, {}))["single-curves-mixtures-above-isotropic"] != "supported"


def test_isotropic_points_are_far_below_for_every_sae_and_the_others_alike():
    local = [name for name in SAES if name.startswith("local")]
    names = ("saes-isotropic-much-smaller", "saes-others-similar")
    alike = words(Results({"reconstructions": substitution(local, (2.0, 0.6, 2.0, 2.1))}, {}))
    assert [alike[name] for name in names] == ["supported", "supported"]
    apart = words(Results({"reconstructions": substitution(local, (4.0, 1.8, 2.0, 2.1))}, {}))
    assert [apart[name] for name in names] == ["contradicted", "contradicted"]


L2_OF_SAES = (
    "errors-local-sparser-stronger",
    "errors-end-to-end-low-at-first",
    "errors-end-to-end-sparser-stronger-far",
    "errors-end-to-end-sparser-weaker-near",
    "features-above-isotropic",
    "features-sparser-stronger",
    "features-local-greatest",
)


def test_claims_in_l2_follow_l2_and_not_kl():
    held = Results(
        {
            "errors": errors(lambda rank: plateau((0.02, 0.04)[rank], (0.6, 0.3)[rank])),
            "features": features(local=4.0, e2e=2.0, downstream=2.8),
        },
        {},
    )
    found = words(held)
    assert {name: found[f"{name}-in-l2"] for name in L2_OF_SAES} == dict.fromkeys(L2_OF_SAES, "supported")
    l2 = "l2@blocks.5.hook_resid_post"
    inverted = {name: one.assign({l2: 100 / (1 + one[l2])}) for name, one in held.found.items()}
    found = words(Results(inverted, {}))
    assert {name: found[f"{name}-in-l2"] for name in L2_OF_SAES} == dict.fromkeys(L2_OF_SAES, "contradicted")
    assert found["features-local-greatest"] == "supported"


def test_in_l2_differences_of_mixtures_are_minimal_and_of_differences_not():
    found = words(Results({"directions": directions(**FACTORS | {"real_difference": 8.0})}, {}))
    assert found["real-difference-above-cov-random-difference-in-l2"] == "supported"
    opposite = FACTORS | {"real_difference": 2.0, "real_mixture": 4.5}
    found = words(Results({"directions": directions(**opposite), "directions-early": directions(**opposite)}, {}))
    for name in ("real-difference-above-cov-random-difference-in-l2", "real-mixture-near-cov-random-mixture-in-l2"):
        assert found[name] == "contradicted"
    assert found["early-real-mixture-near-cov-random-mixture-in-l2"] == "contradicted"


@pytest.mark.parametrize(("e2e", "word"), [(0.3, "supported"), (0.6, "contradicted"), (0.48, "inconclusive")])
def test_isotropic_features_are_far_from_each_other(e2e, word):
    world = {"features": features(2.5, 1.3, 1.9), "decoders": decoders(local=0.6, e2e=e2e, e2e_ds=0.5)}
    assert words(Results(world, {}))["features-e2e-more-isotropic"] == word
