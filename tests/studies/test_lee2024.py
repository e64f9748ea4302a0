"""Lee & Heimersheim 2024: claims judged on worlds in which they hold, and in which the opposite does."""

import json

import numpy as np
import pytest

from tiltmeter.analysis import curves
from tiltmeter.reports.charts import mpl
from tiltmeter.studies.claims import judge
from tiltmeter.studies.lee2024 import STUDY
from tiltmeter.studies.lee2024.experiments import BASELINES, LENGTHS, PAIR_DISTANCE, SUBSTITUTIONS
from tiltmeter.studies.results import NotMeasured, Results

SAES = {
    "local-3-l0-4": ("local", 4.0),
    "local-3-l0-31": ("local", 31.0),
    "e2e-3-l0-4": ("e2e", 4.0),
    "e2e-3-l0-26": ("e2e", 26.0),
    "e2e+ds-3-l0-5": ("e2e+ds", 5.0),
    "e2e+ds-3-l0-33": ("e2e+ds", 33.0),
}
L2 = "l2@blocks.5.hook_resid_post"
PAIR = 33.0
SEQUENCES = 24


def dataset(heights, steps, units, saes=(), noise=0.03):
    """Curves whose KL at each step is what `heights` gives for a direction, times a sequence's own luck."""
    rng = np.random.default_rng(0)
    luck = np.exp(rng.normal(0, noise, (len(heights), 1, SEQUENCES)))
    kl = np.array([[height(step) for step in steps] for height in heights.values()])[..., None] * luck
    length = np.broadcast_to(np.asarray(steps)[None, :, None], kl.shape)
    readouts = {"kl": kl, L2: np.sqrt(kl + 1e-12) * 10, "length": length}
    facts = {name: {"kind": SAES[name][0], "l0": SAES[name][1]} for name in saes}
    attrs = {"pair_distance": float(PAIR), "saes": json.dumps(facts), "site": "blocks.3.hook_resid_pre"}
    axes = curves.Axes(list(heights), steps, units, range(SEQUENCES))
    return curves.build(readouts, np.full((len(heights), SEQUENCES), 128), axes, attrs)


STEPS = tuple(length / PAIR_DISTANCE * PAIR for length in LENGTHS)
"""The paper's lengths, as another model has them."""


def square(factor):
    return lambda step: factor * (step / 10) ** 2


def directions(**factors):
    given = {name.replace("_", "-"): square(factor) for name, factor in factors.items()}
    return dataset(given, STEPS, "L2")


FACTORS = {
    "isotropic": 1.0,
    "isotropic_difference": 5.0,
    "cov_random_difference": 3.0,
    "cov_random_mixture": 2.0,
    "real_difference": 4.0,
    "real_mixture": 2.1,
}


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
    }


def test_luck_alone_decides_nothing():
    same = {name.replace("_", "-"): square(2.0) for name in FACTORS}
    found = words(Results({"directions": dataset(same, STEPS, "L2", noise=0.3)}, {}))
    assert found["real-difference-above-mixture"] == "inconclusive"
    assert found["cov-random-mixture-above-isotropic"] == "inconclusive"


def plateau(low, high, knee=20.0):
    """Low up to the knee, then a straight rise."""
    return lambda step: low * step / knee if step < knee else low + high * (step - knee)


def errors(end_to_end):
    """Local errors near the mixture, the sparser above; end-to-end ones as given (by kind and rank)."""
    heights = {name: plateau(0.2, 0.2, 12.0) for name in BASELINES}
    heights |= {
        "sae-error:local-3-l0-4": plateau(0.22, 0.24, 12.0),
        "sae-error:local-3-l0-31": plateau(0.18, 0.18, 12.0),
    }
    for kind, saes in (("e2e", ("4", "26")), ("e2e+ds", ("5", "33"))):
        for rank, l0 in enumerate(saes):
            heights[f"sae-error:{kind}-3-l0-{l0}"] = end_to_end(rank)
    return dataset(heights, STEPS, "L2", SAES)


def test_claims_about_errors_hold_in_their_world():
    world = errors(lambda rank: plateau((0.02, 0.04)[rank], (0.6, 0.3)[rank]))
    found = words(Results({"errors": world}, {}))
    assert {name: word for name, word in found.items() if name.startswith("errors")} == {
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


def features(local, e2e, downstream):
    """Features at the paper's L0 by kind; the sparsest of each a fifth above."""
    heights = {name: square(factor) for name, factor in zip(BASELINES, (1.0, 2.0, 2.1), strict=True)}
    for kind, saes, factor in (
        ("local", ("4", "31"), local),
        ("e2e", ("4", "26"), e2e),
        ("e2e+ds", ("5", "33"), downstream),
    ):
        for rank, l0 in enumerate(saes):
            heights[f"sae-feature:{kind}-3-l0-{l0}"] = square(factor * (1.2 if rank == 0 else 1.0))
    return dataset(heights, STEPS, "L2", SAES)


def test_claims_about_features():
    found = words(Results({"features": features(local=2.5, e2e=1.5, downstream=1.9)}, {}))
    assert found["features-above-isotropic"] == "supported"
    assert found["features-sparser-stronger"] == "supported"
    assert found["features-vary-about-cov-random"] == "supported"
    assert found["features-local-above-downstream-near"] == "supported"
    assert found["features-e2e-below-local"] == found["features-e2e-below-downstream"] == "supported"
    opposite = words(Results({"features": features(local=0.8, e2e=1.9, downstream=1.2)}, {}))
    assert opposite["features-above-isotropic"] == "contradicted"
    assert opposite["features-e2e-below-local"] == opposite["features-e2e-below-downstream"] == "contradicted"
    assert opposite["features-local-above-downstream-near"] == "contradicted"


def substitution(saes, factors):
    """KL of each substitution for each SAE."""
    heights = {
        f"{kind}:{sae}": square(factor) for sae in saes for kind, factor in zip(SUBSTITUTIONS, factors, strict=True)
    }
    return dataset(heights, (1.0,), "substitution", saes)


def test_claims_about_substitution_by_layer():
    sae = ("local-3-l0-31",)
    layers = {
        f"layers-{layer}": substitution(sae, (factor, 1.0, 2.0, 2.2)) for layer, factor in enumerate((3.0, 1.5, 2.0))
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
        f"layers-{layer}": substitution(sae, (factor, 1.0, 2.0, 2.2)) for layer, factor in enumerate((3.0, 0.4, 2.0))
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


WORLD = Results(
    {
        "directions": directions(**FACTORS),
        "directions-early": directions(**FACTORS),
        "directions-larger": directions(**FACTORS),
        "errors": errors(lambda rank: plateau(0.02, 0.3)),
        "features": features(2.5, 1.5, 1.9),
        "reconstructions": substitution(SAES, (3.0, 1.0, 2.0, 2.2)),
        **{f"layers-{layer}": substitution(("local-3-l0-31",), (3.0, 1.0, 2.0, 2.2)) for layer in range(3)},
    },
    {},
)


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
    layers = {f"layers-{n}": substitution(sae, (f, 1.0, 2.0, 2.2)) for n, f in enumerate((3.0, 1.5, 2.0))}
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
    (verdict,) = (v for v in judge(STUDY.claims, Results({"errors": world}, {})) if "weaker-near" in v.claim.name)
    assert {finding.label.partition(":")[0] for finding in verdict.estimates} == {"e2e+ds"}
