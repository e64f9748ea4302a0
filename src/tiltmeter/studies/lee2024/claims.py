"""The claims of Lee & Heimersheim 2024, as tests."""

from __future__ import annotations

from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import about_all_layers, combined
from tiltmeter.studies.lee2024.estimands import (
    LONG,
    MIDDLE,
    SHORT,
    both_kinds_in_l2,
    early_gap_smaller,
    linear_start,
    ratio_of,
)
from tiltmeter.studies.lee2024.estimands_saes import (
    ALL_KINDS,
    ANY,
    END_TO_END,
    EVERY,
    EXCEPTED_L0,
    FAR,
    FLATTER,
    MATCHED_L0,
    QUADRATIC,
    Lengths,
    above_and_below_mixture,
    each_sae,
    gap_shrinks,
    kinds_compared,
    plateau,
    sparser_is_stronger,
    sparser_is_weaker,
    spike,
    straight_end,
)
from tiltmeter.studies.lee2024.estimands_substitution import (
    at_study_layer,
    farther_with_lower_kl,
    in_each_layer,
    nearer_to_mixtures,
    some_above_some_below,
)
from tiltmeter.studies.margins import LESS, MORE, MUCH_LESS, MUCH_MORE, SIMILAR, SLIGHTLY_MORE

MARGIN = "Our margin: the paper has no number."
LENGTHS_CHOSEN = (
    f"Decided at the paper's lengths {SHORT:g}, {MIDDLE:g} and {LONG:g}; measured at all of its lengths, and qualified "
    "where the others differ."
)
ORDER = (
    "Tested: the fraction of pairs of SAEs, within one family, of which the sparser has the stronger effect in a "
    "sequence, which is (1 + Kendall's τ) / 2."
)
BARS = Lengths((21.0, 41.0, 61.0))
"""The lengths of the paper's bars."""
_PAPER, _FORUM = "Lee & Heimersheim 2024, arXiv 2410.12555", "Lee & Heimersheim 2024, LessWrong"
_CODE = "mean KL printed by the authors' code (error_extrapolation.ipynb), layer 6"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "cov-random-difference-above-mixture",
        "At equal length, cov-random differences change the output more than cov-random mixtures.",
        f"{_PAPER}, section 3.1, Figure 1a",
        ratio_of("directions", "cov-random-difference", "cov-random-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "real-difference-above-mixture",
        "At equal length, real differences change the output more than real mixtures.",
        f"{_PAPER}, section 3.1, Figure 1a",
        ratio_of("directions", "real-difference", "real-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-cov-random-difference-above-mixture",
        "In an early layer, cov-random differences also change the output more than cov-random mixtures.",
        f"{_FORUM}, Supplementary Figure 1",
        ratio_of("directions-early", "cov-random-difference", "cov-random-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-real-difference-above-mixture",
        "In an early layer, real differences also change the output more than real mixtures.",
        f"{_FORUM}, Supplementary Figure 1",
        ratio_of("directions-early", "real-difference", "real-mixture"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "difference-above-mixture-in-l2",
        "Differences also change L2 after the last block more than mixtures, for cov-random and for real directions.",
        f"{_FORUM}, L2 Figure 1",
        both_kinds_in_l2("directions", MORE),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-late-distance-gap-smaller",
        "In an early layer, the gap between difference and mixture in L2 after the last block is smaller than at the "
        "paper's layer.",
        f"{_FORUM}, Supplementary Figure 1",
        early_gap_smaller,
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-late-distance-gap-minimal",
        "In an early layer, the gap between difference and mixture in L2 after the last block is minimal.",
        f"{_FORUM}, Supplementary Figure 1",
        both_kinds_in_l2("directions-early", SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "cov-random-mixture-above-isotropic",
        "Cov-random mixtures change the output significantly more than isotropic directions.",
        f"{_PAPER}, section 3.1, Figure 1b",
        ratio_of("directions", "cov-random-mixture", "isotropic", MUCH_MORE),
        remark=f"Significantly: {MUCH_MORE.low:g} times. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "cov-random-mixture-above-isotropic-in-l2",
        "Cov-random mixtures also change L2 after the last block more than isotropic directions.",
        f"{_FORUM}, L2 Figure 2",
        ratio_of("directions", "cov-random-mixture", "isotropic", readout="l2"),
        remark=f"The post says significantly; L2 grows more slowly than KL, so it is tested as more. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "early-cov-random-mixture-above-isotropic",
        "In an early layer, cov-random mixtures also change the output more than isotropic directions.",
        f"{_FORUM}, Supplementary Figure 2",
        ratio_of("directions-early", "cov-random-mixture", "isotropic"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "early-real-mixture-near-cov-random-mixture",
        "In an early layer, real mixtures also hardly differ from cov-random mixtures.",
        f"{_FORUM}, Supplementary Figure 2",
        ratio_of("directions-early", "real-mixture", "cov-random-mixture", region=SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "real-difference-above-cov-random-difference",
        "Real differences have a stronger effect than cov-random differences.",
        f"{_PAPER}, section 3.1, Figure 1b",
        ratio_of("directions", "real-difference", "cov-random-difference"),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "real-mixture-above-cov-random-mixture",
        "The model is slightly more sensitive to real mixtures than to cov-random mixtures.",
        f"{_FORUM}, Figure 2",
        ratio_of("directions", "real-mixture", "cov-random-mixture", SLIGHTLY_MORE),
        remark=f"The post says that it is more sensitive, and that the difference is minimal. {LENGTHS_CHOSEN}",
    ),
    Claim(
        "real-mixture-near-cov-random-mixture",
        "The difference between real mixtures and cov-random mixtures is minimal.",
        f"{_PAPER}, section 3.1, Figure 1b",
        ratio_of("directions", "real-mixture", "cov-random-mixture", region=SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "late-distance-linear-at-first",
        "L2 after the last block is linear in the length for small lengths.",
        f"{_FORUM}, Experimental Overview",
        linear_start,
        remark=f"Tested: L2 ÷ length at the paper's length 11 ÷ that at 1 is {SIMILAR}.",
    ),
    Claim(
        "substitution-isotropic-smallest",
        "In all layers, isotropic points change the output much less than cov-random mixtures at the same distance.",
        f"{_PAPER}, section 3.2, Figure 2",
        about_all_layers(in_each_layer("epsilon-random", "epsilon-cov-random-mixture", MUCH_LESS)),
        remark="Shown: the layer with the smallest difference.",
    ),
    Claim(
        "substitution-real-above-cov-random",
        "In all layers, cov-random mixtures change the output slightly less than real mixtures at the same distance.",
        f"{_FORUM}, Figure 3",
        about_all_layers(in_each_layer("epsilon-real-mixture", "epsilon-cov-random-mixture", SLIGHTLY_MORE)),
        remark=f"Tested: the ratio of real mixtures to cov-random mixtures is {SLIGHTLY_MORE}.",
    ),
    Claim(
        "substitution-sae-nearer-to-mixtures",
        "In all layers the KL of SAE(x) is closer to that of cov-random mixtures than to that of isotropic points.",
        f"{_PAPER}, abstract and section 3.2",
        about_all_layers(nearer_to_mixtures),
        remark="Closer as a ratio, by the margin. The paper says 'generally'; its main result: errors are not "
        "pathological.",
    ),
    Claim(
        "substitution-isotropic-below-sae",
        "In all layers, SAE(x) changes the output significantly more than an isotropic point at the same distance.",
        f"{_PAPER}, section 3.2, Figure 2; Gurnee 2024",
        about_all_layers(in_each_layer("sae-error", "epsilon-random", MUCH_MORE)),
        Published("2.2 to 4.5 times", "Gurnee 2024"),
        f"Significantly: {MUCH_MORE.low:g} times.",
    ),
    Claim(
        "substitution-sae-varies-by-layer",
        "SAE(x) is below the cov-random mixture in some layers and above it in others.",
        f"{_FORUM}, Figure 3",
        some_above_some_below,
        remark=f"Tested: the largest ratio of any layer is {MORE}, and the smallest is {LESS}.",
    ),
    Claim(
        "substitution-sae-near-cov-random",
        "In the middle layer, SAEs of any L0 have nearly the same KL as cov-random mixtures at the same distance.",
        f"{_PAPER}, section 3.2, Figure 6",
        at_study_layer,
        remark=f"Equivalence: ratios within {SIMILAR}, for SAEs that were trained to reconstruct. {MARGIN}",
    ),
    Claim(
        "errors-plateau",
        "KL along SAE errors has an initial plateau.",
        f"{_PAPER}, section 4.1, Figure 3",
        plateau,
        remark=f"For every SAE: slope of KL up to {SHORT:g} ÷ slope from {MIDDLE:g} to {LONG:g} is {FLATTER}. A KL "
        f"that grows with the square of the length has {QUADRATIC:.3g}, so this requires a plateau. {MARGIN}",
    ),
    Claim(
        "errors-linear-after-plateau",
        "After the plateau, KL along SAE errors grows about linearly.",
        f"{_PAPER}, section 4.1, Figure 3",
        combined(plateau, straight_end),
        remark=f"Tested: there is a plateau, as above, and the slope of mean KL from 51 to 71 ÷ from 81 to 101 is "
        f"{SIMILAR}, for SAEs that were trained to reconstruct; KL of the others spikes.",
    ),
    Claim(
        "errors-local-sparser-stronger",
        "Along errors of local SAEs, lower L0 corresponds to a stronger effect, at all lengths.",
        f"{_PAPER}, section 4.1, Figure 3a",
        sparser_is_stronger("errors", "sae-error", ("local",), EVERY),
        Published("KL 8.68 (L0 10) to 5.50 (L0 513) at length 201", _CODE),
        remark=f"{ORDER} Decided at the paper's lengths 11, 21, 51, 81 and 101.",
    ),
    Claim(
        "errors-local-near-cov-random",
        "Curves of local SAEs' errors are close to that of the cov-random mixture.",
        f"{_PAPER}, section 4.1, Figure 3a",
        each_sae("errors", "sae-error", ("local",), "cov-random-mixture", ANY, SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "errors-end-to-end-low-at-first",
        "Errors of end-to-end SAEs stay low up to about length 50.",
        f"{_PAPER}, section 4.1, Figure 3a",
        each_sae("errors", "sae-error", END_TO_END, "cov-random-mixture", Lengths((SHORT, 41.0), high=50.0), LESS),
        remark="Tested: KL is below that of the cov-random mixture at the paper's lengths 21 and 41. Not tested at 51, "
        "where the paper's curves turn.",
    ),
    Claim(
        "errors-end-to-end-spike",
        "Beyond length 50, KL along errors of end-to-end SAEs spikes.",
        f"{_PAPER}, section 4.1, Figure 3a",
        spike,
        remark="Tested: KL grows by a larger factor from 51 to 101 than along the cov-random mixture.",
    ),
    Claim(
        "errors-end-to-end-sparser-stronger-far",
        "Along errors of end-to-end SAEs beyond length 70, lower L0 corresponds to a stronger effect.",
        f"{_PAPER}, section 4.1, Figure 3a",
        sparser_is_stronger("errors", "sae-error", END_TO_END, FAR),
        Published("e2e 17.4 (L0 21) to 8.1 (L0 428), e2e+ds 11.5 to 7.9, at length 201", _CODE),
        ORDER,
    ),
    Claim(
        "errors-end-to-end-sparser-weaker-near",
        "Along errors of end-to-end SAEs below length 50, lower L0 corresponds to a weaker effect.",
        f"{_PAPER}, section 4.1, Figure 3b",
        sparser_is_weaker,
        Published(
            "e2e+ds at length 21: .023 (L0 31) to .033 (L0 473); e2e: .049 (L0 21), .024 (40), .026 (428)", _CODE
        ),
        remark=f"{ORDER} The paper's next sentence (lower L0, greater KL) contradicts this one and its data. Excluded: "
        f"e2e SAEs with L0 up to {EXCEPTED_L0:g}, which the paper excepts.",
    ),
    Claim(
        "features-above-isotropic",
        "Features of all SAEs change the output more than isotropic directions.",
        f"{_PAPER}, section 4.2, Figure 4",
        each_sae("features", "sae-feature", ALL_KINDS, "isotropic", ANY, MORE),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "features-vary-about-cov-random",
        "Whether features change the output more than cov-random mixtures depends on the kind of SAE and its L0.",
        f"{_PAPER}, section 4.2, Figure 4",
        above_and_below_mixture,
        remark=f"Tested: the largest ratio of any SAE is {MORE}, and the smallest is {LESS}.",
    ),
    Claim(
        "features-sparser-stronger",
        "For all kinds of SAE, lower L0 corresponds to a greater change along features.",
        f"{_PAPER}, section 4.2, Figure 4",
        sparser_is_stronger("features", "sae-feature", ALL_KINDS, ANY),
        remark=f"{ORDER} {LENGTHS_CHOSEN}",
    ),
    Claim(
        "features-local-above-downstream-near",
        "At short lengths, features of local SAEs change the output more than those of e2e+ds SAEs.",
        f"{_PAPER}, section 4.2, Figure 5",
        kinds_compared("local", "e2e+ds", Lengths((SHORT,), high=SHORT)),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-local-downstream-gap-shrinks",
        "The difference between features of local and of e2e+ds SAEs shrinks as the length grows.",
        f"{_PAPER}, section 4.2, Figure 5",
        gap_shrinks,
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-e2e-below-downstream",
        "Features of e2e SAEs change the output less than those of e2e+ds SAEs.",
        f"{_PAPER}, section 4.2, Figure 5",
        kinds_compared("e2e+ds", "e2e", BARS),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-e2e-below-local",
        "Features of e2e SAEs change the output less than those of local SAEs: end-to-end training does not make them "
        "more influential.",
        f"{_PAPER}, section 4.2 and conclusion, Figure 5",
        kinds_compared("local", "e2e", BARS),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "end-to-end-farther-with-lower-kl",
        "Reconstructions of end-to-end SAEs are farther from x than those of local SAEs, but have a lower KL.",
        f"{_FORUM}, Supplementary Figure 3",
        farther_with_lower_kl,
        Published(
            "local L0 43: ε 22.5, KL .230; e2e L0 40: 74.8, .122; e2e+ds L0 37: 49.0, .135",
            "printed by the authors' code (e2e_results.ipynb), layer 6",
        ),
        remark="The post says much lower, but its numbers are .53 and .59 times; tested as lower. SAEs with the L0 "
        f"nearest to {MATCHED_L0:g}.",
    ),
)
