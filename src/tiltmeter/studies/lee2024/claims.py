"""The claims of Lee & Heimersheim 2024, as tests: first those about directions that need no SAE."""

from __future__ import annotations

from tiltmeter.studies.claims import Claim
from tiltmeter.studies.lee2024.claim_words import CONSTANT_NORM, FORUM, LENGTHS_CHOSEN, MARGIN, PAPER, WORK
from tiltmeter.studies.lee2024.claims_saes import OF_ERRORS, OF_FEATURES
from tiltmeter.studies.lee2024.claims_substitution import OF_SUBSTITUTION
from tiltmeter.studies.lee2024.estimands import (
    OF_SINGLE_CURVES,
    at_constant_norm,
    both_kinds_in_l2,
    early_gap_smaller,
    linear_start,
    ratio_of,
    single_curves_above,
)
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.margins import MORE, MUCH_MORE, SIMILAR, SLIGHTLY_MORE

OF_DIRECTIONS: tuple[Claim, ...] = (
    Claim(
        "cov-random-difference-above-mixture",
        "At equal length, cov-random differences change the output more than cov-random mixtures.",
        f"{PAPER}, section 3.1; {figure('1')}",
        ratio_of("directions", "cov-random-difference", "cov-random-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "real-difference-above-mixture",
        "At equal length, real differences change the output more than real mixtures.",
        f"{PAPER}, section 3.1; {figure('1')}",
        ratio_of("directions", "real-difference", "real-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "cov-random-difference-not-above-mixture-at-constant-norm",
        "Cov-random differences owe their strength to the subtraction of x, so that at equal angles and constant norm, "
        "where a mixture takes as much of x away, they do not change the output more than cov-random mixtures.",
        f"{PAPER}, section 3.1 (the explanation of {figure('1')}; the comparison is ours)",
        at_constant_norm("cov-random"),
        remark=CONSTANT_NORM,
    ),
    Claim(
        "real-difference-not-above-mixture-at-constant-norm",
        "Real differences owe their strength to the subtraction of x, so that at equal angles and constant norm, "
        "where a mixture takes as much of x away, they do not change the output more than real mixtures.",
        f"{PAPER}, section 3.1 (the explanation of {figure('1')}; the comparison is ours)",
        at_constant_norm("real"),
        remark=CONSTANT_NORM,
    ),
    Claim(
        "early-cov-random-difference-above-mixture",
        "In an early layer, cov-random differences also change the output more than cov-random mixtures.",
        f"{WORK}, {figure('S1')}",
        ratio_of("directions-early", "cov-random-difference", "cov-random-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-real-difference-above-mixture",
        "In an early layer, real differences also change the output more than real mixtures.",
        f"{WORK}, {figure('S1')}",
        ratio_of("directions-early", "real-difference", "real-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "difference-above-mixture-in-l2",
        "Differences also change L2 after the last block more than mixtures, for cov-random and for real directions.",
        f"{WORK}, {figure('L2-1')}",
        both_kinds_in_l2("directions", MORE),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-late-distance-gap-smaller",
        "In an early layer, the gap between difference and mixture in L2 after the last block is smaller than at the "
        "paper's layer.",
        f"{WORK}, {figure('S1')}",
        early_gap_smaller,
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-late-distance-gap-minimal",
        "In an early layer, the gap between difference and mixture in L2 after the last block is minimal.",
        f"{WORK}, {figure('S1')}",
        both_kinds_in_l2("directions-early", SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "cov-random-mixture-above-isotropic",
        "Cov-random mixtures change the output significantly more than isotropic directions.",
        f"{PAPER}, section 3.1; {figure('2')}",
        ratio_of("directions", "cov-random-mixture", "isotropic", MUCH_MORE),
        remark=f"Significantly: {MUCH_MORE.low:g} times. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "cov-random-mixture-above-isotropic-in-l2",
        "Cov-random mixtures also change L2 after the last block more than isotropic directions.",
        f"{WORK}, {figure('L2-2')}",
        ratio_of("directions", "cov-random-mixture", "isotropic", readout="l2"),
        remark=f"The post says significantly; L2 grows more slowly than KL, so it is tested as more. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "early-cov-random-mixture-above-isotropic",
        "In an early layer, cov-random mixtures also change the output more than isotropic directions.",
        f"{WORK}, {figure('S2')}",
        ratio_of("directions-early", "cov-random-mixture", "isotropic"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-real-mixture-near-cov-random-mixture",
        "In an early layer, real mixtures also hardly differ from cov-random mixtures.",
        f"{WORK}, {figure('S2')}",
        ratio_of("directions-early", "real-mixture", "cov-random-mixture", region=SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "real-difference-above-cov-random-difference",
        "Real differences have a stronger effect than cov-random differences.",
        f"{PAPER}, section 3.1; {figure('2')}",
        ratio_of("directions", "real-difference", "cov-random-difference"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "real-mixture-above-cov-random-mixture",
        "The model is slightly more sensitive to real mixtures than to cov-random mixtures.",
        f"{WORK}, {figure('2')}",
        ratio_of("directions", "real-mixture", "cov-random-mixture", SLIGHTLY_MORE),
        remark=f"The post says that it is more sensitive, and that the difference is minimal. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "real-mixture-near-cov-random-mixture",
        "The difference between real mixtures and cov-random mixtures is minimal.",
        f"{PAPER}, section 3.1; {figure('2')}",
        ratio_of("directions", "real-mixture", "cov-random-mixture", region=SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "late-distance-linear-at-first",
        "L2 after the last block is linear in the length for small lengths.",
        f"{FORUM}, Experimental Overview",
        linear_start,
        remark=f"Tested: L2 ÷ length at the paper's length 11 ÷ that at 1 is {SIMILAR}.",
    ),
    Claim(
        "real-difference-above-cov-random-difference-in-l2",
        "Real differences also change L2 after the last block more than cov-random differences.",
        f"{WORK}, {figure('L2-2')}",
        ratio_of("directions", "real-difference", "cov-random-difference", readout="l2"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "real-mixture-near-cov-random-mixture-in-l2",
        "In L2 after the last block, too, there is minimal difference between real mixtures and cov-random mixtures.",
        f"{WORK}, {figure('L2-2')}",
        ratio_of("directions", "real-mixture", "cov-random-mixture", SIMILAR, "l2"),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "early-real-mixture-near-cov-random-mixture-in-l2",
        "In an early layer, there is minimal difference between real mixtures and cov-random mixtures, especially in "
        "L2 after the last block.",
        f"{WORK}, {figure('S2')}",
        ratio_of("directions-early", "real-mixture", "cov-random-mixture", SIMILAR, "l2"),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "single-curves-mixtures-above-isotropic",
        "Individual curves, too, generally exhibit a greater change for real mixtures and cov-random mixtures than for "
        "isotropic directions.",
        f"{PAPER}, Limitation",
        single_curves_above(("real-mixture", "cov-random-mixture"), "isotropic"),
        remark="Tested: the fraction of tokens whose KL is higher along the mixture. Decided at the lengths "
        f"{', '.join(f'{length:g}' for length in OF_SINGLE_CURVES)}, nearest to those of the means. The paper adds "
        "that the pattern was not as clear-cut.",
    ),
)

CLAIMS = (*OF_DIRECTIONS, *OF_SUBSTITUTION, *OF_ERRORS, *OF_FEATURES)
