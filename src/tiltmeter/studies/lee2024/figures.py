"""The figures of Lee & Heimersheim 2024: what each shows, what the paper says of it, how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.lee2024 import findings, plots
from tiltmeter.studies.lee2024.experiments import BASELINES
from tiltmeter.studies.lee2024.findings import pairs
from tiltmeter.studies.study import PaperFigure

_SCALED = (
    "The lengths are the paper's, 0 to 101, scaled by the mean distance of two real activations here to the paper's "
    "81.59. All positions are perturbed. Bands: 95 % intervals, bootstrap over sequences."
)
_KL = "Mean KL(clean ‖ perturbed) of the next-token prediction as a function of the length of a perturbation"
_L2 = "Mean L2 distance after the last block as a function of the length of a perturbation"
_ERRORS = (
    "along the errors of SAEs, SAE(x) - x: a column for each kind, a curve for each sparsity (darker: more latents)"
)
_FEATURES = (
    "along decoder rows of latents that are alive but not active in the sequence: a column for each kind of SAE, a "
    "curve for each sparsity (darker: more latents)"
)
_DIFFERENCE_PAIRS = (
    ("cov-random-difference", "cov-random-mixture"),
    ("real-difference", "real-mixture"),
)
_KIND_PAIRS = (
    ("real-difference", "cov-random-difference"),
    ("real-mixture", "cov-random-mixture"),
    ("cov-random-mixture", "isotropic"),
)
_DIFFERENCES = "Perturbations that include the negative of the activation cause a greater change than mixtures."
_KINDS = (
    "Cov-random mixtures are far above isotropic directions; real differences above cov-random differences; real and "
    "cov-random mixtures hardly differ."
)
_TITLE = "Lee & Heimersheim 2024"


def _main(number: str, readout: str) -> dict[str, PaperFigure]:
    """The main figures with one of the two readouts; `number` is put before theirs."""
    what, said = (_KL, "") if readout == "kl" else (_L2, "The paper's L2 version of the same: ")
    end = "" if readout == "kl" else ", L2"
    return {
        f"{number}1": PaperFigure(
            f"{_TITLE}, Figure {number}1: difference and mixture{end}",
            f"{what}, for directions toward another activation (difference) and between two others (mixture); "
            f"activations are samples with the mean and covariance of real ones (cov-random), or real. {_SCALED}",
            said + _DIFFERENCES,
            ("directions",),
            plots.by_length("directions", readout, plots.DIFFERENCE_OR_MIXTURE),
            pairs("directions", readout, _DIFFERENCE_PAIRS),
        ),
        f"{number}2": PaperFigure(
            f"{_TITLE}, Figure {number}2: isotropic, cov-random and real{end}",
            f"{what}: the curves of Figure {number}1 by kind of sample, with isotropic ones. {_SCALED}",
            said + _KINDS,
            ("directions",),
            plots.by_length("directions", readout, plots.COV_RANDOM_OR_REAL),
            pairs("directions", readout, _KIND_PAIRS),
        ),
        f"{number}5": PaperFigure(
            f"{_TITLE}, Figure {number}5: errors of SAEs{end}",
            f"{what} {_ERRORS}, with the paper's baselines. {_SCALED}",
            ""
            if end
            else "A plateau, then a more linear increase. Local SAEs: close to the cov-random mixture, lower L0 "
            "above. End-to-end SAEs: low up to about 50, then a spike; above 70 lower L0 is above, below 50 the "
            "opposite.",
            ("errors",),
            plots.by_kind("errors", readout, "sae-error", BASELINES),
            findings.beside("cov-random-mixture", "errors", "sae-error", readout),
        ),
        f"{number}6": PaperFigure(
            f"{_TITLE}, Figure {number}6: errors of SAEs, close up{end}",
            f"The beginning of Figure {number}5, each column with an axis of its own. {_SCALED}",
            ""
            if end
            else "At small lengths errors of end-to-end SAEs matter little, and less so the lower the L0 (the paper's "
            "next sentence says the reverse).",
            ("errors",),
            plots.close_up(readout),
            findings.beside("isotropic", "errors", "sae-error", readout, (21.0, 41.0)),
        ),
        f"{number}7": PaperFigure(
            f"{_TITLE}, Figure {number}7: features of SAEs{end}",
            f"{what} {_FEATURES}, with the paper's baselines. {_SCALED}",
            ""
            if end
            else "All features are above isotropic directions; lower L0 means a greater change, for all kinds.",
            ("features",),
            plots.by_kind("features", readout, "sae-feature", BASELINES),
            findings.beside("cov-random-mixture", "features", "sae-feature", readout),
        ),
        f"{number}8": PaperFigure(
            f"{_TITLE}, Figure {number}8: features of three kinds of SAE{end}",
            "Features of the SAEs whose L0 is nearest to 30, and the baselines, at the paper's lengths 21, 41 and 61, "
            "scaled. Whiskers: 95 % intervals, bootstrap over sequences.",
            "Local SAEs generally exhibit the greatest change."
            if end
            else "Features of local SAEs generally induce the greatest change among SAEs, those of e2e SAEs the "
            "least; the gap between local and e2e+ds shrinks with length.",
            ("features",),
            plots.bars_at_lengths(readout),
            findings.bars_at_lengths(readout),
        ),
    }


_KL_FIGURES, _L2_FIGURES = _main("", "kl"), _main("L2-", "l2")

FIGURES: Mapping[str, PaperFigure] = {
    **{number: _KL_FIGURES[number] for number in ("1", "2")},
    "3": PaperFigure(
        f"{_TITLE}, Figure 3: substitution by layer",
        "Mean KL(clean ‖ perturbed) where every activation of a layer is replaced: by SAE(x), of an SAE that was "
        "trained to reconstruct, or by a point as far away along an isotropic direction, a cov-random or a real "
        "mixture. Whiskers: 95 % intervals, bootstrap over sequences.",
        "Isotropic substitutions have a much smaller KL than the others. Across all layers cov-random mixtures are "
        "slightly below real mixtures. SAE(x) is sometimes below, sometimes above the cov-random mixture.",
        ("layers",),
        plots.substitution_by_layer,
        findings.substitution_by_layer,
    ),
    "4": PaperFigure(
        f"{_TITLE}, Figure 4: substitution by SAE",
        "The same at one layer, for SAEs of several sparsities that were trained to reconstruct.",
        "Isotropic substitutions have a much smaller KL; the three others are generally similar.",
        ("reconstructions",),
        plots.substitution_by_sae,
        findings.substitution_by_sae,
    ),
    **{number: _KL_FIGURES[number] for number in ("5", "6", "7", "8")},
    **_L2_FIGURES,
    "S1": PaperFigure(
        f"{_TITLE}, Supplementary Figure 1: an early layer, difference and mixture",
        f"L2 after the last block and KL, in an early layer (2 of 12 in the paper). {_SCALED}",
        "The trend of Figure 1 holds, but in L2 the difference is minimal, much smaller than in the later layer.",
        ("directions-early",),
        plots.early,
        pairs("directions-early", "kl", _DIFFERENCE_PAIRS),
    ),
    "S2": PaperFigure(
        f"{_TITLE}, Supplementary Figure 2: an early layer, mixtures",
        f"L2 after the last block and KL of mixtures and isotropic directions, in an early layer. {_SCALED}",
        "Cov-random mixtures induce a significantly greater change than isotropic directions; real mixtures the most, "
        "with minimal difference to cov-random mixtures, especially in L2.",
        ("directions-early",),
        plots.early_mixtures,
        pairs("directions-early", "kl", _KIND_PAIRS[1:]),
    ),
    "S3": PaperFigure(
        f"{_TITLE}, Supplementary Figure 3: distance and KL of reconstructions",
        "Every SAE of the layer: mean KL(clean ‖ perturbed) with SAE(x) in the place of x, by the mean distance of "
        "SAE(x) from x. Whiskers: 95 % intervals of the KL, bootstrap over sequences.",
        "End-to-end SAEs have a high reconstruction error with a low KL.",
        ("reconstructions",),
        plots.reconstruction_error,
        findings.reconstruction_error,
    ),
    "larger": PaperFigure(
        f"{_TITLE}, arXiv Figure 7: Figure 1 with more tokens",
        f"{_KL}: Figures 1 and 2 on several times as many tokens, at every other length. {_SCALED}",
        "Figure 1 does not change with 15 million tokens.",
        ("directions-larger",),
        plots.by_length("directions-larger", "kl", {**plots.DIFFERENCE_OR_MIXTURE, **plots.COV_RANDOM_OR_REAL}),
        pairs("directions-larger", "kl", (*_DIFFERENCE_PAIRS, *_KIND_PAIRS)),
    ),
    "shapes": PaperFigure(
        f"{_TITLE}: shapes of single curves",
        "Not in the paper, which names it as its limitation: every token has a curve of its own, and means hide its "
        "shape. Left: counts; right: the part of the curves that is no farther. Above: where a curve is halfway to its "
        "own end; below: where it is steepest. Curves that never get there are counted in the whole.",
        "Relying on the mean alone might oversimplify; the shape of each curve could be an important feature.",
        ("shapes",),
        plots.shapes,
        findings.shapes,
    ),
}
