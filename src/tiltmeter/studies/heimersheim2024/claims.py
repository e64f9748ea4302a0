"""What Heimersheim & Mendel 2024 claim, as tests."""

from __future__ import annotations

from tiltmeter.analysis.estimates import ABOVE_ONE, BELOW_ONE, Region
from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import SIMILAR, Estimands, combined
from tiltmeter.studies.heimersheim2024.estimands import (
    APART,
    FLAT,
    HALFWAY,
    MEDIUM,
    MUCH_LESS,
    NO_GAP,
    NO_ORDER,
    PLATEAU_ANGLE,
    SHORT,
    SMALL_ANGLE,
    corner_is_optimum,
    earlier,
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

_POST = "Heimersheim & Mendel 2024"
_CORE_1, _CORE_2 = f"{_POST}, core result 1", f"{_POST}, core result 2"
_SECTION_1, _SECTION_2, _SECTION_3 = (f"{_POST}, section {number}" for number in (1, 2, 3))
_COMMENT = f"{_POST}, Heimersheim's answer in the comments"

_SAME_TARGETS = "Both bases have the same random targets, prompt by prompt."
_SHORT_AT = (
    f"Short is {SHORT:g} mean distances of two real activations, and {SMALL_ANGLE:g}°; the post has a plot, no numbers."
)
_RELATIVE = (
    "The relative threshold, half of what the prompt's compared directions reach on average at 90° or at the "
    "length ‖x‖, is defined on random weights, too, where KL never reaches 0.5."
)
_PROBABILITY = (
    "The part of the prompts in which it does, of those in which one of the two passes at all: the area under the ROC "
    "curve of the two kinds of direction from one prompt, averaged over prompts."
)
_AT = f"At {HALFWAY:g} ‖x‖ and at {PLATEAU_ANGLE:g}°: chosen here, the post compares curves by eye."


def _short(readout: str, base: str = "") -> Estimands:
    return combined(plateau(readout, "straight", SHORT, base), plateau(readout, "sphere", SMALL_ANGLE, base))


def _stronger(readout: str, one: str, region: Region = ABOVE_ONE) -> Estimands:
    return combined(*(stronger(readout, mode, one, RANDOM, region) for mode in ("straight", "sphere")))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "plateau-short",
        "A short perturbation toward a random point changes the output less at a real activation than at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        _short("kl"),
        remark=f"{_SAME_TARGETS} {_SHORT_AT}",
    ),
    Claim(
        "plateau-medium",
        "A perturbation of medium length toward a random point, too, changes the output less at a real activation "
        "than at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        combined(plateau("kl", "straight", MEDIUM), plateau("kl", "sphere", PLATEAU_ANGLE)),
        remark=f"Medium is {MEDIUM:g} mean distances, and the {PLATEAU_ANGLE:g}° where the post has the plateau end.",
    ),
    Claim(
        "plateau-short-l2",
        "In the L2 distance after the last block, too, a short perturbation has less effect at a real activation "
        "than at a random one.",
        f"{_CORE_1}, {_SECTION_1}",
        _short("l2"),
        remark=_SHORT_AT,
    ),
    Claim(
        "plateau-short-cosine",
        "In the cosine similarity after the last block, too, a short perturbation has less effect at a real "
        "activation than at a random one.",
        _CORE_1,
        _short("cos"),
        remark=f"1 - the cosine. {_SHORT_AT}",
    ),
    Claim(
        "plateau-short-transplanted",
        "A short perturbation has less effect at a real activation than at a random one where the real one is "
        "another prompt's, too, in the place of the prompt's own.",
        f"{_SECTION_1}: bases are random or real-other",
        _short("kl", "-other-base"),
        remark="The post's methods start from the prompt's own activation, its section 1 names real-other ones: both "
        "are tested. A random base fits its prompt as little as a transplanted one, so this one is fairer.",
    ),
    Claim(
        "random-base-rises-at-once",
        "On a random base the curves rise at once.",
        f"{_CORE_1}, {_SECTION_1}",
        random_base_rises,
        remark=f"More of the movement at 90° is reached at {SMALL_ANGLE:g}° than a KL that grows with the square of "
        f"the distance has reached there, {100 * quadratic(SMALL_ANGLE):.1f} %.",
    ),
    Claim(
        "real-base-flat-to-40-degrees",
        "On a real base, KL barely changes until 40 degrees.",
        _SECTION_1,
        real_base_flat,
        Published("until about 40 degrees", f"{_SECTION_1}, text"),
        f"Less than {100 * FLAT:g} % of KL at 90°. A KL that grows with the square of the distance has "
        f"{100 * quadratic(PLATEAU_ANGLE):.0f} % there, so this asks for a plateau.",
    ),
    Claim(
        "real-direction-stronger",
        "Toward another real activation, a perturbation changes the output more than in a random direction.",
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
        "In sphere mode, real directions pass a threshold relative to what the output moves at a smaller angle "
        "than random ones.",
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
        "In straight mode, real directions pass a threshold relative to what the output moves at a smaller length "
        "than random ones.",
        _SECTION_2,
        earlier("straight", "relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "real-direction-stronger-l2",
        "Real directions change the L2 distance after the last block more than random ones, too.",
        f"{_SECTION_2}, right panels",
        _stronger("l2", REAL),
        remark=_AT,
    ),
    Claim(
        "real-direction-earlier-l2",
        "Real directions move the activation after the last block earlier than random ones, too.",
        f"{_SECTION_2}, right panels",
        combined(earlier("sphere", "relative", "l2"), earlier("straight", "relative", "l2")),
        remark=f"The post gives no threshold for L2. {_RELATIVE}",
    ),
    Claim(
        "threshold-tells-directions-apart",
        "The angle or length at KL 0.5 reasonably distinguishes real from random directions.",
        f"{_SECTION_2}, histograms",
        combined(earlier("sphere", "absolute", region=APART), earlier("straight", "absolute", region=APART)),
        remark=f"An area under the ROC curve of {APART.low:g} or more, which Hosmer & Lemeshow (2000) call acceptable; "
        f"the post has no number. {_PROBABILITY}",
    ),
    Claim(
        "naive-random-less-sensitive",
        "Naive isotropic random directions are less sensitive than random ones with the covariance of activations.",
        _CORE_2,
        _stronger("kl", NAIVE, BELOW_ONE),
        remark=_AT,
    ),
    Claim(
        "naive-random-much-less-sensitive",
        "Naive isotropic random directions are much less sensitive than random ones with the covariance of "
        "activations.",
        _CORE_2,
        _stronger("kl", NAIVE, MUCH_LESS),
        remark=f"Less than half the KL; the post has no number. {_AT} In straight mode a naive random direction is g - "
        "x, and where g is short it leads nearly to zero, a change of scale that a layer norm undoes.",
    ),
    Claim(
        "last-layer-no-order",
        "Perturbed in the last layer, neither of real and random directions passes KL 0.5 before the other.",
        _COMMENT,
        last_layer_order("absolute"),
        remark=f"Equivalence: the real one is first in {NO_ORDER} of the prompts, a margin chosen here. {_PROBABILITY}",
    ),
    Claim(
        "last-layer-no-order-relative",
        "Perturbed in the last layer, neither of real and random directions passes a threshold relative to what "
        "the output moves before the other.",
        _COMMENT,
        last_layer_order("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "last-layer-same-angle",
        "Perturbed in the last layer, real and random directions pass KL 0.5 at the same angle.",
        _COMMENT,
        last_layer_gap("absolute"),
        remark=f"Equivalence: medians within {NO_GAP.high:g}°, a margin chosen here, one step of the scan. Where all "
        "crossings are early it asks for little; how often one is first does not depend on that.",
    ),
    Claim(
        "last-layer-same-angle-relative",
        "Perturbed in the last layer, real and random directions pass a threshold relative to what the output "
        "moves at the same angle.",
        _COMMENT,
        last_layer_gap("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "last-layer-gap-smaller",
        "The gap between real and random directions is smaller in the last layer than in the early one.",
        _COMMENT,
        gap_shrinks("absolute"),
        remark="By how often the real direction of a prompt is first, which needs no unit.",
    ),
    Claim(
        "last-layer-gap-smaller-relative",
        "By a threshold relative to what the output moves, too, the gap between real and random directions is "
        "smaller in the last layer than in the early one.",
        _COMMENT,
        gap_shrinks("relative"),
        remark=_RELATIVE,
    ),
    Claim(
        "real-corner-local-optimum",
        "Among blends of a real and two random targets, the real one is a local optimum of sensitivity.",
        f"{_SECTION_3}, lower row",
        corner_is_optimum("absolute"),
        remark="Part of the prompts in which the angle of KL 0.5 is smaller at the real corner than at the next point "
        "on either side.",
    ),
    Claim(
        "real-corner-local-optimum-relative",
        "By a threshold relative to what the output moves, too, a real target among two random ones is a local "
        "optimum of sensitivity.",
        f"{_SECTION_3}, lower row",
        corner_is_optimum("relative"),
        remark="Half of what the prompt's whole triangle reaches on average at 90°.",
    ),
    Claim(
        "real-corner-stands-out",
        "A real corner is a local optimum more often than a random corner is.",
        f"{_SECTION_3}, lower row beside the upper",
        real_corner_stands_out("absolute"),
        remark="Not said so by the post, but without it a corner would be an optimum for being a corner.",
    ),
    Claim(
        "real-corner-stands-out-relative",
        "By a threshold relative to what the output moves, too, a real corner is a local optimum more often than a "
        "random corner is.",
        f"{_SECTION_3}, lower row beside the upper",
        real_corner_stands_out("relative"),
        remark="Half of what the prompt's whole triangle reaches on average at 90°.",
    ),
    Claim(
        "random-triangle-symmetric",
        "Between three random targets, sensitivity is expected to be symmetric.",
        f"{_SECTION_3}, upper row",
        symmetric("absolute"),
        remark=f"A check of the method. Equivalence: ratios of medians within {SIMILAR}, chosen here.",
    ),
    Claim(
        "random-triangle-symmetric-relative",
        "Between three random targets, sensitivity by a threshold relative to what the output moves is expected to "
        "be symmetric, too.",
        f"{_SECTION_3}, upper row",
        symmetric("relative"),
        remark="Half of what the prompt's whole triangle reaches on average at 90°.",
    ),
)
