"""The figures of Heimersheim & Mendel 2024: what each shows, what the post says of it, how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.heimersheim2024 import findings, plots, plots_maps
from tiltmeter.studies.heimersheim2024.curve_statistics import THRESHOLD
from tiltmeter.studies.heimersheim2024.estimands import (
    MEDIUM,
    SHORT,
    SMALL_ANGLE,
    corner_is_optimum,
    earlier,
    gap_shrinks,
    last_layer_gap,
    last_layer_order,
    plateau,
    random_base_rises,
    real_base_flat,
    real_corner_stands_out,
    stronger,
    together,
)
from tiltmeter.studies.heimersheim2024.experiments import DRAWS, NAIVE, RANDOM, REAL
from tiltmeter.studies.heimersheim2024.findings import both, told
from tiltmeter.studies.heimersheim2024.plots import ALL, BOTH, bases, by_distance, by_step, directions, more_bases
from tiltmeter.studies.study import PaperFigure

_TITLE = "Heimersheim & Mendel 2024"
_READ = (
    "KL(clean ‖ perturbed) of the next-token prediction (left), and L2 distance after the last block (right); the last "
    "of ten tokens is moved and read"
)
_LINES = (
    f"Thin: {plots.SINGLE} prompts, each with a draw of its own (the post has one prompt with many draws, shown in "
    "one-prompt). Thick: mean of all prompts, with 95 % intervals, bootstrap over prompts."
)
_TARGETS = "Perturbations toward samples with the mean and covariance of real activations, the same on all bases."
_BASES = "Bases: the prompt's own activation (real), and such a sample in its place (random)."
_OTHER = "A third base, not drawn by the post, is another prompt's activation in the place of the prompt's own."
_DISTANCE = (
    "Means end where the first prompt's path does, at the norm of its base. Dashed upright: the mean distance of two "
    "real activations."
)
_STRAIGHT, _SPHERE = (
    ("straight", "straight-random-base", "straight-other-base"),
    (
        "sphere",
        "sphere-random-base",
        "sphere-other-base",
    ),
)
_PLATEAU = (
    "Real bases plateau, the perturbation's effect stays minimal for a while; on random bases the curves rise at once."
)
_SENSITIVE = (
    "Directions toward other real activations are more sensitive than random ones: they jump up at a lower angle and a "
    "lower distance."
)

FIGURES: Mapping[str, PaperFigure] = {
    "core-1": PaperFigure(
        f"{_TITLE}, core result 1: activation plateaus",
        f"{_READ}, by the distance from the base. {_TARGETS} {_BASES} {_LINES} {_DISTANCE}",
        _PLATEAU,
        _STRAIGHT[:2],
        by_distance(bases("straight")),
        told(together(plateau("kl", "straight", SHORT), plateau("kl", "straight", MEDIUM))),
    ),
    "core-2": PaperFigure(
        f"{_TITLE}, core result 2: sensitive directions",
        f"{_READ}, by the distance from the prompt's activation x, toward another real activation (real), a sample "
        f"with their mean and covariance (cov-random), and a naive, isotropic one. {_LINES} {_DISTANCE}",
        f"{_SENSITIVE} Naive random directions are much less sensitive.",
        ("straight",),
        by_distance(directions("straight", *ALL)),
        told(together(stronger("kl", "straight", REAL, RANDOM), stronger("kl", "straight", NAIVE, RANDOM))),
    ),
    "plane": PaperFigure(
        f"{_TITLE}, section 1: the plane of three real activations",
        "KL(clean ‖ perturbed) (left) and L2 distance after the last block (right) with x + a (r - x) + b (s - x) in "
        "the place of x, r and s activations of two other prompts. One prompt; above as a surface, below as a map.",
        "There are plateaus around the real activations, with outputs changing less per shift in activations.",
        ("plane",),
        plots_maps.plane,
        findings.plane,
    ),
    "1-straight": PaperFigure(
        f"{_TITLE}, section 1: plateaus in straight mode",
        f"{_READ}, by the length in norms of the base. {_TARGETS} {_BASES} {_OTHER} {_LINES}",
        _PLATEAU,
        _STRAIGHT,
        by_step(more_bases("straight")),
        told(together(plateau("l2", "straight", SHORT), plateau("kl", "straight", SHORT, "-other-base"))),
    ),
    "1-sphere": PaperFigure(
        f"{_TITLE}, section 1: plateaus in sphere mode",
        f"{_READ}, by the angle from the base, at constant norm. {_TARGETS} {_BASES} {_OTHER} {_LINES}",
        "On a real base KL barely changes until the perturbation reaches 40 degrees; random activations do not follow "
        "this pattern.",
        _SPHERE,
        by_step(more_bases("sphere")),
        told(together(plateau("kl", "sphere", SMALL_ANGLE), random_base_rises, real_base_flat)),
    ),
    "2-straight": PaperFigure(
        f"{_TITLE}, section 2: sensitive directions in straight mode",
        f"{_READ}, by the length in norms of the prompt's activation, toward another real activation and toward a "
        f"sample with their mean and covariance. {_LINES}",
        _SENSITIVE,
        ("straight",),
        by_step(directions("straight", *BOTH)),
        told(together(earlier("straight", "absolute"), earlier("straight", "relative"))),
    ),
    "2-sphere": PaperFigure(
        f"{_TITLE}, section 2: sensitive directions in sphere mode",
        f"{_READ}, by the angle from the prompt's activation, at constant norm, toward another real activation and "
        f"toward a sample with their mean and covariance. {_LINES}",
        _SENSITIVE,
        ("sphere",),
        by_step(directions("sphere", *BOTH)),
        told(together(earlier("sphere", "absolute"), earlier("sphere", "relative"))),
    ),
    "one-prompt": PaperFigure(
        f"{_TITLE}, section 2: all directions from one prompt",
        f"KL(clean ‖ perturbed) along {DRAWS} directions toward other real activations and {DRAWS} toward samples with "
        "their mean and covariance, from one prompt each. Thick: mean of the directions.",
        f"{_SENSITIVE} Other prompts look qualitatively similar.",
        ("straight-draws", "sphere-draws"),
        plots.one_prompt,
        findings.one_prompt,
    ),
    "2-histogram": PaperFigure(
        f"{_TITLE}, section 2: telling directions apart",
        f"The angle (above) and the length (below) at which KL passes {THRESHOLD:g}, a curve for each prompt and kind "
        "of direction. Left: counts; right: the part of the curves that is past. Curves that never pass are in no "
        "bin; they are counted in the whole, and above the right panel in the order of the legend.",
        "The angle at which KL exceeds 0.5 reasonably distinguishes the two classes of perturbation.",
        ("sphere", "straight"),
        plots.histograms,
        both(findings.histogram, told(together(earlier("sphere", "absolute"), earlier("straight", "absolute")))),
    ),
    "3": PaperFigure(
        f"{_TITLE}, section 3: local optima of sensitivity",
        f"The angle at which KL passes {THRESHOLD:g}, in sphere mode, toward blends of three targets: three random "
        "ones (above), a real one at the top and two random ones (below). Left: median of all prompts; right: single "
        "prompts, as in the post. Blank where KL never passes.",
        "Between random targets the map is expected to be symmetric; a real corner appears to be a local optimum of "
        "sensitivity, but two random directions of 768 are tested beside it.",
        ("triangle-random", "triangle-real"),
        plots_maps.triangles,
        both(findings.triangles, told(together(corner_is_optimum("absolute"), real_corner_stands_out("absolute")))),
    ),
    "late-layer": PaperFigure(
        f"{_TITLE}, comment: the same in the last layer",
        f"{_READ}, by the angle from the prompt's activation, in the study's layer (above) and in the last one "
        f"(below). {_LINES}",
        "Perturbed in the 12th layer rather than the 2nd, the difference between real and random directions "
        "disappears.",
        ("sphere", "sphere-last-layer"),
        plots.late_layer,
        told(
            together(
                earlier("sphere", "absolute"),
                last_layer_order("absolute"),
                last_layer_gap("absolute"),
                gap_shrinks("absolute"),
            )
        ),
    ),
}
