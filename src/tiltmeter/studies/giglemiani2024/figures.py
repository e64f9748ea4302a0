"""The figures of Giglemiani et al. 2024: what each shows, what the paper says of it, how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.giglemiani2024 import findings, plots
from tiltmeter.studies.study import PaperFigure

_PATH = (
    "The last of ten tokens is perturbed in an early layer; its L2 distance after the last block from the unperturbed "
    "activation is read."
)
_ABSOLUTE = (
    "A step is a hundredth of the mean distance of two real activations, about what the paper's 0.5 is in GPT-2; a "
    "curve is read up to its target."
)
_RELATIVE = "A step is a hundredth of the way to the target."
_TYPES = (
    "Targets: activations of other sequences (real; the paper's model-generated), samples with the mean and covariance "
    "of real activations (cov-random; the paper's random), two kinds of synthetic activations made of the latents of "
    "an SAE, and real activations as the SAE reconstructs them (sae-reconstruction; of the notebooks)."
)
_DRAWN = (
    "Left: counts in at most 30 common bins. Right: the part of all curves; censored curves, in which there is no such "
    "step, are counted above the panel in the order of the legend, and keep their line below one."
)
_MS = "The MS step ends at the steepest rise."
_AUC = (
    "The AUC step is where the triangle under the chord from the start is largest beside the area under the curve; it "
    "is 5 on a straight line."
)
_NL = "The NL step is the last before the curve is 20 % off the line through its first ten values."
_AP = (
    "The AP step is the first where the L2 distance reaches 20/241 of the median at the end of the curves from real "
    "activations: the paper's 20."
)
_TITLE = "Giglemiani et al. 2024"
_ORDER = "Structured is more like real than the baseline is."
_BOTH = ("absolute", "relative")

FIGURES: Mapping[str, PaperFigure] = {
    "1": PaperFigure(
        f"{_TITLE}, Figure 1: curves toward real and random activations",
        f"L2 distance after the last block (left) and KL of the next-token prediction (right). {_PATH} Solid: curves "
        "of the first three sequences, with dots at their MS steps, the ends of their steepest rises. Dashed: means "
        "over all sequences, with 95 % intervals (bootstrap over sequences). A step is a hundredth of the mean "
        "distance of two real activations, about what the paper's 0.5 is in GPT-2.",
        "A linear part at the start (the activation plateau), then a sharp rise (the blowup), earlier toward real "
        "activations than toward random ones.",
        ("absolute", "relative"),
        plots.examples,
        findings.examples,
    ),
    "2": PaperFigure(
        f"{_TITLE}, Figure 2: max-slope steps",
        f"{_MS} {_PATH} {_ABSOLUTE} {_TYPES} {_DRAWN}",
        "Perturbing toward synthetic-structured activations is more similar to perturbing toward model-generated ones "
        "than perturbing toward synthetic-baseline ones is.",
        _BOTH,
        plots.distribution("ms-absolute"),
        findings.distribution("ms-absolute"),
    ),
    "3": PaperFigure(
        f"{_TITLE}, Figure 3: activation plateaus",
        f"{_AP} {_PATH} Paths begin at activations of four types, put in the place of the real one, and lead toward "
        "random activations; changes are from the output with the base in place. A step is a hundredth of the mean "
        f"distance of two real activations; the first 40 are shown. {_DRAWN}",
        "Model-generated activations have flatter plateaus around them than all others; synthetic-baseline ones have "
        "the steepest; those around synthetic-structured and random ones look similar.",
        ("plateaus-real", "plateaus-cov-random", "plateaus-synthetic-baseline", "plateaus-synthetic-structured"),
        plots.distribution("ap", part=plots.CLIPPED),
        findings.distribution("ap"),
    ),
    "A.1": PaperFigure(
        f"{_TITLE}, Figure A.1: max-slope steps, relative",
        f"{_MS} {_PATH} {_RELATIVE} {_TYPES} {_DRAWN}",
        "With relative steps, synthetic-structured is slightly more similar to model-generated than "
        "synthetic-baseline is.",
        _BOTH,
        plots.distribution("ms-relative"),
        findings.distribution("ms-relative"),
    ),
    "B.1": PaperFigure(
        f"{_TITLE}, Figure B.1: AUC steps",
        f"{_AUC} {_PATH} Top: absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_DRAWN}",
        "The results for AUC steps are similar to those for MS steps.",
        _BOTH,
        plots.distribution("auc-absolute", "auc-relative"),
        findings.distribution("auc-absolute", "auc-relative"),
    ),
    "NL": PaperFigure(
        f"{_TITLE}: nonlinearity steps",
        f"{_NL} {_PATH} Top: absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_DRAWN}",
        f"{_ORDER} (The authors' notebooks.)",
        _BOTH,
        plots.distribution("nl-absolute", "nl-relative"),
        findings.distribution("nl-absolute", "nl-relative"),
    ),
    "KL-MS": PaperFigure(
        f"{_TITLE}: max-slope steps of KL",
        f"{_MS} The last of ten tokens is perturbed in an early layer; KL of the next-token prediction is read. Top: "
        f"absolute. {_ABSOLUTE} Bottom: relative. {_RELATIVE} {_TYPES} {_DRAWN}",
        f"{_ORDER} (The authors' notebooks.)",
        _BOTH,
        plots.distribution("kl-ms-absolute", "kl-ms-relative"),
        findings.distribution("kl-ms-absolute", "kl-ms-relative"),
    ),
    "KS": PaperFigure(
        f"{_TITLE}: how far each type is from real activations",
        "Kolmogorov-Smirnov distance between the steps of a type and those of real activations, the greatest "
        "difference of the lines at the right of the other figures: 0 for equal distributions (but two samples of 500 "
        "of one distribution are about 0.05 apart), 1 for disjoint ones. Whiskers: 95 % intervals, Student's with the "
        "standard error of a bootstrap over sequences.",
        "By MS and AUC steps synthetic-structured is nearest to real, then synthetic-baseline, then random; in the "
        "authors' notebooks, the SAE's reconstructions are hardly to be told from real.",
        (
            *_BOTH,
            "plateaus-real",
            "plateaus-cov-random",
            "plateaus-synthetic-baseline",
            "plateaus-synthetic-structured",
        ),
        plots.distances,
        findings.distances,
    ),
}
