"""The claims of Giglemiani et al. 2024, as tests."""

from __future__ import annotations

from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import combined
from tiltmeter.studies.giglemiani2024.estimands import (
    ALIKE,
    CLOSE,
    EARLY,
    LATE,
    above,
    alike,
    below,
    gap_shrinks,
    means_in_order,
    nearer,
    plateau_around_real,
    step_like,
    within,
)
from tiltmeter.studies.margins import SIMILAR

_PAPER = "Giglemiani et al. 2024, arXiv 2409.15019"
_CODE = "printed by the authors' notebooks, GPT-2, layer 1"
_STRUCTURED, _BASELINE, _RANDOM = "synthetic-structured", "synthetic-baseline", "cov-random"
_READ = "The paper's random is cov-random here, its model-generated is real."
_SMALLEST = (
    "In the published code a step must rise by at least 0.02; here, by the same fraction of the L2 (or KL) at the end "
    "of curves to real activations."
)
_STOPS = "Absolute curves are read up to their targets: floor(distance ÷ step) steps, as in the published code."
_SAMPLES = (
    "KS distances of samples are biased upward (by about 0.05 for two samples of 500 from one distribution, by less if "
    "the distance is large), so disregard a contradiction by less than that."
)
_THRESHOLD = (
    "In the published code a plateau ends at an L2 of 20, which is 20/241 of the L2 at the end of curves from real to "
    "random activations; here it ends at that fraction of the median end. Read along the whole path. "
    f"Tested as well: curves from real activations have plateaus, that is, at {EARLY} % of the way L2 is below a "
    "straight line by the margin."
)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "step-like",
        "Perturbing an early layer changes the last layer in a step-like way: little at first, then mostly before the "
        "target.",
        f"{_PAPER}, abstract, Figure 1",
        step_like,
        remark=f"Tested: mean L2 toward real activations is below a straight line from start to target at {EARLY} % of "
        f"the way, and above it at {LATE} %. Our choice of places.",
    ),
    Claim(
        "real-before-random",
        "The model is more sensitive to perturbations toward real than toward random activations: MS steps are "
        "smaller, absolute and relative.",
        f"{_PAPER}, abstract, Figures 1, 2 and A.1",
        combined(above("ms-absolute", _RANDOM, "real"), above("ms-relative", _RANDOM, "real")),
        Published("means 41.1 and 52.1 (absolute), 51.6 and 65.0 (relative)", _CODE),
        remark=f"{_READ} {_STOPS} {_SMALLEST}",
    ),
    Claim(
        "structured-nearer-than-baseline",
        "MS steps toward structured synthetic activations are more similar to those toward real activations than MS "
        "steps toward baseline synthetic activations are.",
        f"{_PAPER}, Figure 2",
        nearer("ms-absolute", _STRUCTURED, _BASELINE),
        Published("KS of structured and real .10; not printed for the baseline", _CODE),
        remark=_STOPS,
    ),
    Claim(
        "baseline-nearer-than-random",
        "MS steps toward baseline synthetic activations are more similar to those toward real activations than MS "
        "steps toward random activations are.",
        f"{_PAPER}, Figure 2",
        nearer("ms-absolute", _BASELINE, _RANDOM),
        Published("KS of random and real .43", _CODE),
        remark=_STOPS,
    ),
    Claim(
        "structured-nearer-than-baseline-relative",
        "With relative steps, structured is slightly more similar to real than the baseline is.",
        f"{_PAPER}, Figure A.1",
        nearer("ms-relative", _STRUCTURED, _BASELINE),
        Published("KS .21 and .26", _CODE),
    ),
    Claim(
        "baseline-nearer-than-random-relative",
        "With relative steps, the baseline is more similar to real than random is.",
        f"{_PAPER}, Figure A.1",
        nearer("ms-relative", _BASELINE, _RANDOM),
        Published("KS .26 and .61", _CODE),
    ),
    Claim(
        "relative-gap-smaller",
        "With relative steps, the lead of structured over the baseline is smaller than with absolute steps.",
        f"{_PAPER}, Figures 2 and A.1",
        gap_shrinks,
        remark="Lead: difference of the KS distances from real. The paper implies it by 'slightly' in Figure A.1 only.",
    ),
    Claim(
        "structured-closely-resembles-real",
        "Structured synthetic activations closely resemble real ones.",
        f"{_PAPER}, abstract",
        within(("ms-absolute", "ms-relative"), _STRUCTURED, CLOSE),
        Published("KS .10 (absolute) and .21 (relative)", _CODE),
        remark=f"Tested: KS of MS steps {CLOSE}. Our margin: the paper has none. {_SAMPLES}",
    ),
    Claim(
        "means-in-order",
        "Mean MS steps increase in the order real, structured, baseline, random.",
        f"{_PAPER}, Figure 2",
        means_in_order("ms-absolute", "real", _STRUCTURED, _BASELINE, _RANDOM),
        Published("41.1, 43.3, not printed, 52.1", _CODE),
        remark=f"{_STOPS} {_SMALLEST}",
    ),
    Claim(
        "means-in-order-relative",
        "With relative steps, too, mean MS steps increase in the order real, structured, baseline, random.",
        f"{_PAPER}, Figure A.1",
        means_in_order("ms-relative", "real", _STRUCTURED, _BASELINE, _RANDOM),
        Published("51.6, 55.7, 56.9, 65.0", _CODE),
    ),
    Claim(
        "auc-same-order",
        "Results for absolute AUC steps are similar to those for MS steps: structured is nearest to real, then the "
        "baseline, then random.",
        f"{_PAPER}, Figure B.1, top",
        combined(nearer("auc-absolute", _STRUCTURED, _BASELINE), nearer("auc-absolute", _BASELINE, _RANDOM)),
        remark=_STOPS,
    ),
    Claim(
        "auc-same-order-relative",
        "By relative AUC steps, structured is nearest to real, then the baseline, then random.",
        f"{_PAPER}, Figure B.1, bottom",
        combined(nearer("auc-relative", _STRUCTURED, _BASELINE), nearer("auc-relative", _BASELINE, _RANDOM)),
        Published("KS .21, .22, .59", _CODE),
    ),
    Claim(
        "kl-same-order",
        "By relative MS steps of KL, structured is nearest to real, then the baseline, then random.",
        "the authors' notebooks",
        combined(nearer("kl-ms-relative", _STRUCTURED, _BASELINE), nearer("kl-ms-relative", _BASELINE, _RANDOM)),
        Published("KS .26, .32, .69", _CODE),
        remark=_SMALLEST,
    ),
    Claim(
        "nonlinearity-structured-nearest",
        "By relative NL steps (where curves leave their initial straight line), structured is nearest to real.",
        "the authors' notebooks",
        combined(nearer("nl-relative", _STRUCTURED, _BASELINE), nearer("nl-relative", _STRUCTURED, _RANDOM)),
        Published("KS .17 (structured), .27 (random), .37 (baseline)", _CODE),
    ),
    Claim(
        "reconstruction-like-real",
        "MS steps toward SAE reconstructions of real activations are like those toward real activations.",
        "the authors' notebooks",
        within(("ms-absolute", "ms-relative"), "sae-reconstruction", ALIKE),
        Published("KS .01 (absolute) and .11 (relative)", _CODE),
        remark=f"Equivalence: KS of MS steps {ALIKE}. Our margin. {_SAMPLES}",
    ),
    Claim(
        "plateaus-real-above-random",
        "Plateaus around real activations are flatter than those around random ones: AP steps are larger.",
        f"{_PAPER}, Figure 3",
        combined(plateau_around_real, above("ap", "real", _RANDOM)),
        Published("means 15.1 and 8.3", _CODE),
        remark=_THRESHOLD,
    ),
    Claim(
        "plateaus-synthetic-less-pronounced",
        "Synthetic activations have less pronounced plateaus than real ones.",
        f"{_PAPER}, abstract, Figure 3",
        combined(plateau_around_real, above("ap", "real", _STRUCTURED, _BASELINE)),
        Published("means 15.1 (real), 7.8 (structured), 6.2 (baseline)", _CODE),
        remark=_THRESHOLD,
    ),
    Claim(
        "plateaus-structured-like-random",
        "Plateaus around structured synthetic and random activations look similar.",
        f"{_PAPER}, Figure 3",
        combined(plateau_around_real, alike("ap", _STRUCTURED, _RANDOM)),
        Published("means 7.8 and 8.3", _CODE),
        remark=f"Equivalence: ratio of mean AP steps {SIMILAR}. Our margin. {_THRESHOLD}",
    ),
    Claim(
        "plateaus-baseline-steepest",
        "Baseline synthetic activations have the steepest plateaus.",
        f"{_PAPER}, Figure 3",
        combined(plateau_around_real, below("ap", _BASELINE, _STRUCTURED, _RANDOM, "real")),
        Published("means 6.2 (baseline), 7.8 (structured), 8.3 (random), 15.1 (real)", _CODE),
        remark=_THRESHOLD,
    ),
)
