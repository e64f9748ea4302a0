"""Lee & Heimersheim 2024.

"Investigating Sensitive Directions in GPT-2: An Improved Baseline and Comparative Analysis of SAEs", arXiv 2410.12555.

Figure 1 (1a and 1b of the arXiv version, 1 and 2 of the LessWrong version, with that version's L2 figures): mean KL,
and L2 late in the model, as a function of the length of a perturbation, for directions that point from the activation
toward another one (*difference*) and for directions between two others (*mixture*).

Figure 3 (3a of the arXiv version, 5 of the LessWrong version): the same along the errors of local, end-to-end and
end-to-end SAEs with downstream reconstruction, at several sparsities.
"""

from __future__ import annotations

from tiltmeter.studies.lee2024.figures import (
    describe_figure_1,
    describe_figure_3,
    draw_figure_1,
    draw_figure_3,
)
from tiltmeter.studies.lee2024.sweeps import figure_1, figure_3
from tiltmeter.studies.study import Study, StudyFigure

STUDY = Study(
    name="lee2024",
    citation="Lee & Heimersheim 2024, arXiv 2410.12555",
    figures={
        "1": StudyFigure(
            title="Lee & Heimersheim 2024, Figure 1: difference, mixture and isotropic directions",
            caption=(
                "Mean KL(clean ‖ perturbed) of the next-token prediction, and mean L2 distance after the last block, "
                "as a function of the length of the perturbation, all positions perturbed. The first two columns (1a) "
                "compare difference with mixture directions, made of samples with the mean and covariance of real "
                "activations (cov-random) or of real activations of other sequences (real); the last two (1b) show the "
                "same curves by kind. Isotropic directions are added to each. Bands: 95 % intervals, bootstrap over "
                "sequences. The lengths are the paper's, 0 to 101, scaled by the mean distance of two real activations "
                "here to the paper's 81.59."
            ),
            sweep=figure_1,
            draw=draw_figure_1,
            finding=describe_figure_1,
        ),
        "3": StudyFigure(
            title="Lee & Heimersheim 2024, Figure 3: errors of SAEs",
            caption=(
                "Mean KL(clean ‖ perturbed) of the next-token prediction, and mean L2 distance after the last block, "
                "as a function of the length of a perturbation along the errors of sparse autoencoders, SAE(x) - x: a "
                "column for each kind of SAE, a curve for each of its sparsities (darker: more latents a token), with "
                "the paper's baselines. All positions perturbed. Bands: 95 % intervals, bootstrap over sequences. The "
                "lengths are the paper's, 0 to 101, scaled by the mean distance of two real activations here to the "
                "paper's 81.59."
            ),
            sweep=figure_3,
            draw=draw_figure_3,
            finding=describe_figure_3,
        ),
    },
)
