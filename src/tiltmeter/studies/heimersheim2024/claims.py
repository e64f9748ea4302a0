"""The claims of Heimersheim & Mendel 2024, as tests."""

from __future__ import annotations

from tiltmeter.analysis.estimates import Region
from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import Estimands, combined
from tiltmeter.studies.heimersheim2024.estimands import (
    APART,
    FLAT,
    HALFWAY,
    MEDIUM,
    MEDIUM_SPHERE,
    MEDIUM_STRAIGHT,
    PLATEAU_ANGLE,
    SHORT,
    SHORT_SPHERE,
    SHORT_STRAIGHT,
    SMALL_ANGLE,
    Reach,
    corner_is_optimum,
    earlier,
    flat_start,
    gap_shrinks,
    last_layer_gap,
    last_layer_order,
    plateau,
    quadratic,
    random_base_rises,
    real_base_flat,
    real_corner_stands_out,
    stronger,
    symmetric,
)
from tiltmeter.studies.heimersheim2024.experiments import NAIVE, RANDOM, REAL
from tiltmeter.studies.margins import AS_OFTEN, LESS, MARGIN, MORE, MUCH_LESS, SIMILAR

_POST = "Heimersheim & Mendel 2024"
_CORE_1, _CORE_2 = f"{_POST}, core result 1", f"{_POST}, core result 2"
_SECTION_1, _SECTION_2, _SECTION_3 = (f"{_POST}, section {number}" for number in (1, 2, 3))
_COMMENT = f"{_POST}, Heimersheim's answer in the comments"

_SAME_TARGETS = "In each prompt, both bases have the same random targets."
_SHORT_AT = (
    f"Short: decided at {SHORT:g} times the pair distance and at {SMALL_ANGLE:g}°, measured at smaller ones, too. The "
    "post has a plot, no numbers."
)
_FLAT_START = (
    "Tested as well: at the real activation it is below that of a curve without a plateau through the same value at "
    "90° or the length ‖x‖ (KL and 1 - cosine with the square of the distance, L2 in proportion to it), by the margin."
)
_RELATIVE = (
    "The relative threshold is half of what the compared directions of the prompt reach on average at 90° or at the "
    "length ‖x‖. It is also defined on random weights, where KL never reaches 0.5."
)
_PROBABILITY = (
    "The number is the fraction of prompts in which the real direction crosses before the random one, among prompts in "
    "which at least one of them crosses (a tie counts half). It equals the area under the ROC curve within a prompt, "
    "averaged over prompts."
)
_AT = (
    f"Decided at {HALFWAY:g} ‖x‖ and at {PLATEAU_ANGLE:g}°, measured at all lengths and angles. Our choice: the post "
    "compares curves by eye."
)


def _short(readout: str, base: str = "") -> Estimands:
    return _plateau(readout, (SHORT_STRAIGHT, SHORT_SPHERE), base)


def _plateau(readout: str, reaches: tuple[Reach, ...], base: str = "") -> Estimands:
    return combined(*(part(readout, reach, base) for part in (plateau, flat_start) for reach in reaches))


def _stronger(readout: str, one: str, region: Region = MORE) -> Estimands:
    return combined(*(stronger(readout, mode, one, RANDOM, region) for mode in ("straight", "sphere")))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "plateau-short",
        "A short perturbation toward a random point changes the output less at a real activation than at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        _short("kl"),
        remark=f"{_SAME_TARGETS} {_FLAT_START} {_SHORT_AT}",
    ),
    Claim(
        "plateau-medium",
        "A perturbation of medium length toward a random point also changes the output less at a real activation than "
        "at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        _plateau("kl", (MEDIUM_STRAIGHT, MEDIUM_SPHERE)),
        remark=f"{_FLAT_START} Medium: {MEDIUM:g} times the pair distance, and {PLATEAU_ANGLE:g}°, where the post's "
        "plateau ends.",
    ),
    Claim(
        "plateau-short-l2",
        "A short perturbation also changes L2 after the last block less at a real activation than at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        _short("l2"),
        remark=f"{_FLAT_START} {_SHORT_AT}",
    ),
    Claim(
        "plateau-short-cosine",
        "A short perturbation also changes the cosine similarity after the last block less at a real activation than "
        "at a random one.",
        _CORE_1,
        _short("cos"),
        remark=f"Tested: 1 - cosine. {_FLAT_START} {_SHORT_AT}",
    ),
    Claim(
        "plateau-short-transplanted",
        "A short perturbation also has less effect at a real activation than at a random one if the real one is "
        "another prompt's, transplanted into this prompt.",
        f"{_SECTION_1}: bases are random or real-other",
        _short("kl", "-other-base"),
        remark="The post's methods start from the prompt's own activation, but its section 1 names real-other ones: "
        "both are tested. This test is fairer: neither a random base nor a transplanted one fits the prompt.",
    ),
    Claim(
        "random-base-rises-at-once",
        "From a random base, the curves rise immediately.",
        f"{_CORE_1}, {_SECTION_1}",
        random_base_rises,
        remark=f"Tested: KL at {SMALL_ANGLE:g}° ÷ KL at 90° is higher than for a KL that grows with the square of the "
        f"distance, {100 * quadratic(SMALL_ANGLE):.1f} %, by the margin of {MARGIN:g}.",
    ),
    Claim(
        "real-base-flat-to-40-degrees",
        "From a real base, KL barely changes until 40 degrees.",
        _SECTION_1,
        real_base_flat,
        Published("until about 40 degrees", f"{_SECTION_1}, text"),
        f"Tested: KL is less than {100 * FLAT:g} % of KL at 90°. A KL that grows with the square of the distance has "
        f"{100 * quadratic(PLATEAU_ANGLE):.0f} % there, so this requires a plateau.",
    ),
    Claim(
        "real-direction-stronger",
        "A perturbation toward another real activation changes the output more than one in a random direction.",
        _CORE_2,
        _stronger("kl", REAL),
        remark=_AT,
    ),
    Claim(
        "real-direction-earlier-sphere",
        "In sphere mode, KL passes 0.5 at a smaller angle toward other real activations than toward random points.",
        _SECTION_2,
        earlier("sphere", "absolute"),
        remark=_PROBABILITY,
    ),
    Claim(
        "real-direction-earlier-sphere-relative",
        "In sphere mode, real directions pass the relative threshold at a smaller angle than random ones.",
        _SECTION_2,
        earlier("sphere", "relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "real-direction-earlier-straight",
        "In straight mode, KL passes 0.5 at a smaller length toward other real activations than toward random points.",
        _SECTION_2,
        earlier("straight", "absolute"),
        remark=_PROBABILITY,
    ),
    Claim(
        "real-direction-earlier-straight-relative",
        "In straight mode, real directions pass the relative threshold at a smaller length than random ones.",
        _SECTION_2,
        earlier("straight", "relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "real-direction-stronger-l2",
        "Real directions also change L2 after the last block more than random ones.",
        f"{_SECTION_2}, right panels",
        _stronger("l2", REAL),
        remark=_AT,
    ),
    Claim(
        "real-direction-earlier-l2",
        "Real directions also change the activation after the last block earlier than random ones.",
        f"{_SECTION_2}, right panels",
        combined(earlier("sphere", "relative", "l2"), earlier("straight", "relative", "l2")),
        remark=f"The post has no threshold for L2. {_RELATIVE}",
    ),
    Claim(
        "threshold-tells-directions-apart",
        "The angle or length at KL 0.5 reasonably distinguishes real from random directions.",
        f"{_SECTION_2}, histograms",
        combined(earlier("sphere", "absolute", region=APART), earlier("straight", "absolute", region=APART)),
        remark=f"Tested: an area under the ROC curve of {APART.low:g} or more, which Hosmer & Lemeshow (2000) call "
        f"acceptable; the post has no number. {_PROBABILITY}",
    ),
    Claim(
        "naive-random-less-sensitive",
        "Naive isotropic random directions are less sensitive than random ones with the covariance of activations.",
        _CORE_2,
        _stronger("kl", NAIVE, LESS),
        remark=_AT,
    ),
    Claim(
        "naive-random-much-less-sensitive",
        "Naive isotropic random directions are much less sensitive than random ones with the covariance of "
        "activations.",
        _CORE_2,
        _stronger("kl", NAIVE, MUCH_LESS),
        remark=f"Much less: less than half the KL; the post has no number. {_AT} In straight mode a naive random "
        "direction is g - x. If g is short, it leads nearly to zero: a change of scale, which a layer norm undoes.",
    ),
    Claim(
        "last-layer-no-order",
        "In the last layer, neither real nor random directions pass KL 0.5 before the other.",
        _COMMENT,
        last_layer_order("absolute"),
        remark=f"Equivalence: the fraction of prompts in which the real one is first is {AS_OFTEN}, odds within the "
        f"margin of {MARGIN:g}. {_PROBABILITY}",
    ),
    Claim(
        "last-layer-no-order-relative",
        "In the last layer, neither real nor random directions pass the relative threshold before the other.",
        _COMMENT,
        last_layer_order("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "last-layer-same-angle",
        "In the last layer, real and random directions pass KL 0.5 at the same angle.",
        _COMMENT,
        last_layer_gap("absolute"),
        remark=f"Equivalence: the ratio of medians is {SIMILAR}. Our margin. "
        "If all crossings are at small angles, this test is easy to pass; the fraction in which real is first is not.",
    ),
    Claim(
        "last-layer-same-angle-relative",
        "In the last layer, real and random directions pass the relative threshold at the same angle.",
        _COMMENT,
        last_layer_gap("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "last-layer-gap-smaller",
        "The gap between real and random directions is smaller in the last layer than in the early one.",
        _COMMENT,
        gap_shrinks("absolute"),
        remark="Tested: the odds that the real direction is first, which need no unit.",
    ),
    Claim(
        "last-layer-gap-smaller-relative",
        "By the relative threshold, too, the gap between real and random directions is smaller in the last layer than "
        "in the early one.",
        _COMMENT,
        gap_shrinks("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "real-corner-local-optimum",
        "Among blends of a real and two random targets, the real one is a local optimum of sensitivity.",
        f"{_SECTION_3}, lower row",
        corner_is_optimum("absolute"),
        remark="Tested: the fraction of prompts in which the angle at KL 0.5 is smaller at the real corner than at the "
        "next point on either side.",
    ),
    Claim(
        "real-corner-local-optimum-relative",
        "By the relative threshold, too, a real target among two random ones is a local optimum of sensitivity.",
        f"{_SECTION_3}, lower row",
        corner_is_optimum("relative"),
        remark="Relative threshold: half of the mean KL at 90° over the prompt's whole triangle.",
    ),
    Claim(
        "real-corner-stands-out",
        "A real corner is a local optimum more often than a random corner is.",
        f"{_SECTION_3}, lower row beside the upper",
        real_corner_stands_out("absolute"),
        remark="The post does not say this. Without it, a corner could be an optimum merely because it is a corner.",
    ),
    Claim(
        "real-corner-stands-out-relative",
        "By the relative threshold, too, a real corner is a local optimum more often than a random corner is.",
        f"{_SECTION_3}, lower row beside the upper",
        real_corner_stands_out("relative"),
        remark="Relative threshold: half of the mean KL at 90° over the prompt's whole triangle.",
    ),
    Claim(
        "random-triangle-symmetric",
        "Between three random targets, sensitivity is expected to be symmetric.",
        f"{_SECTION_3}, upper row",
        symmetric("absolute"),
        remark=f"A check of the method. Equivalence: ratios of medians within {SIMILAR}. Our margin.",
    ),
    Claim(
        "random-triangle-symmetric-relative",
        "Between three random targets, sensitivity by the relative threshold is also expected to be symmetric.",
        f"{_SECTION_3}, upper row",
        symmetric("relative"),
        remark="Relative threshold: half of the mean KL at 90° over the prompt's whole triangle.",
    ),
)
