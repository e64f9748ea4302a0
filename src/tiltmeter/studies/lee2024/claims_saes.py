"""The claims of Lee & Heimersheim 2024 about errors and features of SAEs."""

from __future__ import annotations

from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import combined
from tiltmeter.studies.lee2024.claim_words import ANALOGOUS, BARS, CODE, LENGTHS_CHOSEN, MARGIN, ORDER, PAPER, WORK
from tiltmeter.studies.lee2024.estimands import LONG, MIDDLE, SHORT
from tiltmeter.studies.lee2024.estimands_saes import (
    ALL_KINDS,
    ANY,
    END_TO_END,
    EVERY,
    EXCEPTED_L0,
    FAR,
    FLATTER,
    LOW,
    MATCHED_L0,
    NEAREST,
    QUADRATIC,
    above_and_below_mixture,
    each_sae,
    gap_shrinks,
    kinds_compared,
    more_isotropic,
    plateau,
    sparser_is_stronger,
    sparser_is_weaker,
    spike,
    straight_end,
)
from tiltmeter.studies.lee2024.numbering import figure
from tiltmeter.studies.margins import IN_ORDER, LESS, MORE, SIMILAR

OF_ERRORS: tuple[Claim, ...] = (
    Claim(
        "errors-plateau",
        "KL along SAE errors has an initial plateau.",
        f"{PAPER}, section 4.1; {figure('5', '6')}",
        plateau,
        remark=f"For every SAE: slope of KL up to {SHORT:g} ÷ slope from {MIDDLE:g} to {LONG:g} is {FLATTER}. A KL "
        f"that grows with the square of the length has {QUADRATIC:.3g}, so this requires a plateau. The last norm "
        f"alone makes one where an error points against x, with nothing in between. {MARGIN}",
    ),
    Claim(
        "errors-linear-after-plateau",
        "After the plateau, KL along SAE errors grows about linearly.",
        f"{PAPER}, section 4.1; {figure('5', '6')}",
        combined(plateau, straight_end),
        remark=f"Tested: there is a plateau, as above, and the slope of mean KL from 51 to 71 ÷ from 81 to 101 is "
        f"{SIMILAR}, for SAEs that were trained to reconstruct; KL of the others spikes.",
    ),
    Claim(
        "errors-local-sparser-stronger",
        "Along errors of local SAEs, lower L0 corresponds to a stronger effect, at all lengths.",
        f"{PAPER}, section 4.1; {figure('5')}",
        sparser_is_stronger("errors", "sae-error", ("local",), EVERY),
        Published("KL 8.68 (L0 10) to 5.50 (L0 513) at length 201", CODE),
        remark=f"{ORDER} Decided at the paper's lengths 11, 21, 51, 81 and 101.",
    ),
    Claim(
        "errors-local-near-cov-random",
        "Curves of local SAEs' errors are close to that of the cov-random mixture.",
        f"{PAPER}, section 4.1; {figure('5')}",
        each_sae("errors", "sae-error", ("local",), "cov-random-mixture", ANY, SIMILAR),
        remark=f"Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "errors-end-to-end-low-at-first",
        "Errors of end-to-end SAEs stay low up to about length 50.",
        f"{PAPER}, section 4.1; {figure('5')}",
        each_sae("errors", "sae-error", END_TO_END, "cov-random-mixture", LOW, LESS),
        remark="Tested: KL is below that of the cov-random mixture at the paper's lengths 21 and 41. Not tested at 51, "
        "where the paper's curves turn.",
    ),
    Claim(
        "errors-end-to-end-spike",
        "Beyond length 50, KL along errors of end-to-end SAEs spikes.",
        f"{PAPER}, section 4.1; {figure('5')}",
        spike,
        remark="Tested: KL grows by a larger factor from 51 to 101 than along the cov-random mixture.",
    ),
    Claim(
        "errors-end-to-end-sparser-stronger-far",
        "Along errors of end-to-end SAEs beyond length 70, lower L0 corresponds to a stronger effect.",
        f"{PAPER}, section 4.1; {figure('5')}",
        sparser_is_stronger("errors", "sae-error", END_TO_END, FAR),
        Published("e2e 17.4 (L0 21) to 8.1 (L0 428), e2e+ds 11.5 to 7.9, at length 201", CODE),
        ORDER,
    ),
    Claim(
        "errors-end-to-end-sparser-weaker-near",
        "Along errors of end-to-end SAEs below length 50, lower L0 corresponds to a weaker effect.",
        f"{PAPER}, section 4.1; {figure('6')}",
        sparser_is_weaker("kl"),
        Published("e2e+ds at length 21: .023 (L0 31) to .033 (L0 473); e2e: .049 (L0 21), .024 (40), .026 (428)", CODE),
        remark=f"{ORDER} The paper's next sentence (lower L0, greater KL) contradicts this one and its data. Excluded: "
        f"e2e SAEs with L0 up to {EXCEPTED_L0:g}, which the paper excepts.",
    ),
    Claim(
        "errors-local-sparser-stronger-in-l2",
        "Along errors of local SAEs, lower L0 corresponds to a stronger effect in L2 after the last block.",
        f"{WORK}, {figure('L2-5')}",
        sparser_is_stronger("errors", "sae-error", ("local",), EVERY, "l2"),
        remark=f"{ANALOGOUS} {ORDER}",
    ),
    Claim(
        "errors-local-near-cov-random-in-l2",
        "In L2 after the last block, curves of local SAEs' errors are close to that of the cov-random mixture.",
        f"{WORK}, {figure('L2-5')}",
        each_sae("errors", "sae-error", ("local",), "cov-random-mixture", ANY, SIMILAR, "l2"),
        remark=f"{ANALOGOUS} Equivalence: ratios within {SIMILAR}. {MARGIN}",
    ),
    Claim(
        "errors-end-to-end-low-at-first-in-l2",
        "In L2 after the last block, errors of end-to-end SAEs stay low up to about length 50.",
        f"{WORK}, {figure('L2-5', 'L2-6')}",
        each_sae("errors", "sae-error", END_TO_END, "cov-random-mixture", LOW, LESS, "l2"),
        remark=f"{ANALOGOUS} Tested: L2 is below that of the cov-random mixture at the paper's lengths 21 and 41.",
    ),
    Claim(
        "errors-end-to-end-sparser-stronger-far-in-l2",
        "Along errors of end-to-end SAEs beyond length 70, lower L0 corresponds to a stronger effect in L2 after the "
        "last block.",
        f"{WORK}, {figure('L2-5')}",
        sparser_is_stronger("errors", "sae-error", END_TO_END, FAR, "l2"),
        remark=f"{ANALOGOUS} {ORDER}",
    ),
    Claim(
        "errors-end-to-end-sparser-weaker-near-in-l2",
        "Along errors of end-to-end SAEs below length 50, lower L0 corresponds to a weaker effect in L2 after the last "
        "block.",
        f"{WORK}, {figure('L2-6')}",
        sparser_is_weaker("l2"),
        remark=f"{ANALOGOUS} {ORDER} Excluded: e2e SAEs with L0 up to {EXCEPTED_L0:g}, which the paper excepts.",
    ),
)

OF_FEATURES: tuple[Claim, ...] = (
    Claim(
        "features-above-isotropic",
        "Features of all SAEs change the output more than isotropic directions.",
        f"{PAPER}, section 4.2; {figure('7')}",
        each_sae("features", "sae-feature", ALL_KINDS, "isotropic", ANY, MORE),
        remark=LENGTHS_CHOSEN,
    ),
    Claim(
        "features-vary-about-cov-random",
        "Whether features change the output more than cov-random mixtures depends on the kind of SAE and its L0.",
        f"{PAPER}, section 4.2; {figure('7')}",
        above_and_below_mixture,
        remark=f"Tested: the largest ratio of any SAE is {MORE}, and the smallest is {LESS}.",
    ),
    Claim(
        "features-sparser-stronger",
        "For all kinds of SAE, lower L0 corresponds to a greater change along features.",
        f"{PAPER}, section 4.2; {figure('7')}",
        sparser_is_stronger("features", "sae-feature", ALL_KINDS, ANY),
        remark=f"{ORDER} {LENGTHS_CHOSEN}",
    ),
    Claim(
        "features-local-above-downstream-near",
        "At short lengths, features of local SAEs change the output more than those of e2e+ds SAEs.",
        f"{PAPER}, section 4.2; {figure('8')}",
        kinds_compared("local", "e2e+ds", NEAREST),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-local-downstream-gap-shrinks",
        "The difference between features of local and of e2e+ds SAEs shrinks as the length grows.",
        f"{PAPER}, section 4.2; {figure('8')}",
        gap_shrinks,
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-e2e-below-downstream",
        "Features of e2e SAEs change the output less than those of e2e+ds SAEs.",
        f"{PAPER}, section 4.2; {figure('8')}",
        kinds_compared("e2e+ds", "e2e", BARS),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-e2e-below-local",
        "Features of e2e SAEs change the output less than those of local SAEs: end-to-end training does not make them "
        "more influential.",
        f"{PAPER}, section 4.2 and conclusion; {figure('8')}",
        kinds_compared("local", "e2e", BARS),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-e2e-more-isotropic",
        "Features of e2e SAEs are more isotropic than those of local SAEs.",
        f"{PAPER}, section 4.2, Discussion",
        more_isotropic("e2e", "local"),
        remark="The paper's hypothesis, after Figure 3a of Braun et al. 2024. Tested: the mean cosine of a feature "
        "with the nearest other one is lower. Features of latents that are active at some token; each counts as one "
        f"sequence, and pairs are by chance. SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-local-greatest",
        "Features of the local SAE generally induce the greatest change of the kinds of SAE.",
        f"{WORK}, {figure('8')}",
        combined(*(kinds_compared("local", kind, BARS, IN_ORDER) for kind in END_TO_END)),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-local-greatest-in-l2",
        "Features of the local SAE generally exhibit the greatest change of the kinds of SAE in L2 after the last "
        "block.",
        f"{WORK}, {figure('L2-8')}",
        combined(*(kinds_compared("local", kind, BARS, IN_ORDER, "l2") for kind in END_TO_END)),
        remark=f"SAEs with the L0 nearest to {MATCHED_L0:g}.",
    ),
    Claim(
        "features-above-isotropic-in-l2",
        "Features of all SAEs change L2 after the last block more than isotropic directions.",
        f"{WORK}, {figure('L2-7')}",
        each_sae("features", "sae-feature", ALL_KINDS, "isotropic", ANY, MORE, "l2"),
        remark=f"{ANALOGOUS} {LENGTHS_CHOSEN}",
    ),
    Claim(
        "features-sparser-stronger-in-l2",
        "For all kinds of SAE, lower L0 corresponds to a greater change in L2 after the last block along features.",
        f"{WORK}, {figure('L2-7')}",
        sparser_is_stronger("features", "sae-feature", ALL_KINDS, ANY, "l2"),
        remark=f"{ANALOGOUS} {ORDER}",
    ),
)
