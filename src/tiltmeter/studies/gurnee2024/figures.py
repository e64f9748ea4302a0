"""The figures of Gurnee 2024: what each shows, what the paper says of it, how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping

from tiltmeter.studies.gurnee2024 import findings, plots, plots_tokens
from tiltmeter.studies.gurnee2024.experiments import AFTER, DRAWN_TOKEN, TOKEN
from tiltmeter.studies.study import PaperFigure

_TITLE = "Gurnee 2024"
_ALL = "Every token of a sequence is replaced, one layer at a time; all positions but the last."
_PAIR = "SAE(x) (`sae-error`) and a random point as far away from x (`epsilon-random`)"
_WHISKERS = "Whiskers: 95 % intervals, bootstrap over sequences."
_BANDS = "Bands: 95 % intervals, bootstrap over sequences."
_INTERVENTIONS = (
    "What is put in the place of x: SAE(x) (`sae-error`), SAE(x) scaled to the norm of x, a random point as far away "
    "(`epsilon-random`), random points at the angle of SAE(x) with its norm or that of x, and x scaled to the norm of "
    "SAE(x) (`sae-cos-corrected`)."
)
_GAP = "The KL gap of a token is the KL of SAE(x) less that of the random point as far away."

FIGURES: Mapping[str, PaperFigure] = {
    "1": PaperFigure(
        f"{_TITLE}, Figure 1: what the next token is predicted to be",
        f"Log-probabilities of the 25 likeliest next tokens of the clean run, after three sequences of the token set "
        f"cut after token {TOKEN}, where that token alone is replaced by {_PAIR}. Titles: the prompt's end, and the KL "
        "of both.",
        "SAE(x) changes the prediction far more than the random point.",
        ("predictions",),
        plots.predictions,
        findings.predictions,
    ),
    "2": PaperFigure(
        f"{_TITLE}, Figure 2: interventions by layer",
        f"Mean KL(clean ‖ perturbed). {_INTERVENTIONS} {_ALL} {_WHISKERS}",
        "Three clusters: the norm change alone matters little, the three random points more, SAE(x) and its "
        "norm-corrected version most; in all layers SAE(x) has 2.2 to 4.5 times the KL of the random point.",
        ("layers",),
        plots.by_layer("layers"),
        findings.by_layer("layers"),
    ),
    "3": PaperFigure(
        f"{_TITLE}, Figure 3: distribution of KL",
        f"How many tokens have what KL with {_PAIR}, in each layer; what is above 1 is counted in the last bin, as in "
        f"the paper. Titles: 99.9th percentiles of both. {_ALL}",
        "The whole distribution is shifted, rather than a few outliers driving the mean increase.",
        ("layers",),
        plots.kl_histograms,
        findings.distribution,
    ),
    "4": PaperFigure(
        f"{_TITLE}, Figure 4: distribution of the loss increase",
        f"How many tokens have what increase of the next-token loss with {_PAIR}, in each layer; what is beyond 1 is "
        f"counted in the first and the last bin. Titles: means of both. {_ALL}",
        "The mean loss increase of SAE(x) is 2 to 4 times that of the random point.",
        ("layers", "tokens"),
        plots.loss_histograms,
        findings.losses,
    ),
    "5": PaperFigure(
        f"{_TITLE}, Figure 5: KL by position",
        f"Mean KL with {_PAIR} by position in the sequence, in each layer; with fewer than {plots.ENOUGH} sequences, "
        f"over {plots.WINDOW} positions at a time. {_ALL} {_BANDS}",
        "There is some relationship with the absolute position.",
        ("layers", "tokens"),
        plots.by_position,
        findings.positions,
    ),
    "6": PaperFigure(
        f"{_TITLE}, Figure 6: one token replaced",
        f"Mean KL at token {TOKEN}, which alone is replaced by {_PAIR}, and at the {AFTER} after it, in each layer. "
        f"{_BANDS}",
        "There is a clear gap, and it persists through the following tokens, although the magnitude depends on how "
        "early the layer is.",
        ("single",),
        plots.after_one_token,
        findings.single,
    ),
    "7": PaperFigure(
        f"{_TITLE}, Figure 7: one token replaced, all interventions",
        f"Mean KL at token {TOKEN}, which alone is replaced, and at the next. {_INTERVENTIONS} {_WHISKERS}",
        "KL is lower than where all tokens are replaced, but that of SAE(x) is still more than twice that of the "
        "random point, at both tokens, but for token 33 in layer 11.",
        ("single",),
        plots.one_token_bars,
        findings.single,
    ),
    "8": PaperFigure(
        f"{_TITLE}, Figure 8: many random points for one token",
        f"KL of SAE(x) (line) and of many random points as far away, at token {DRAWN_TOKEN}, which alone is replaced: "
        f"{plots_tokens.SHOWN} tokens, evenly spaced in the order of how many standard deviations of its random "
        "points SAE(x) lies above their mean; and that number of all tokens (below -5 and above 20 in the outer bins).",
        "The gap has a high variance: many SAE(x) are around the expectation, and many are very bad.",
        ("draws",),
        plots_tokens.many_draws,
        findings.many_draws,
    ),
    "9": PaperFigure(
        f"{_TITLE}, Figure 9: what goes with the gap",
        f"{_GAP} Mean gap in groups of equally many tokens by the cosine of SAE(x) with x, the number of active "
        "latents, the position and the logarithm of the token's part of the token set, at the layer that corresponds "
        f"to the paper's layer 6; in titles Pearson's correlation over tokens. {_ALL} {_BANDS}",
        "The gap goes with the cosine; a little with the number of active latents; not with the token's frequency.",
        ("layers", "tokens", "draws"),
        plots_tokens.predictors,
        findings.predictors,
    ),
    "10": PaperFigure(
        f"{_TITLE}, Figure 10: the gap in other layers",
        f"{_GAP} Pearson's correlation over tokens of the gaps of two layers. {_ALL}",
        "The strongest correlations are with the gaps of other layers.",
        ("layers", "tokens", "draws"),
        plots_tokens.between_layers,
        findings.between_layers,
    ),
    "11": PaperFigure(
        f"{_TITLE}, Figure 11: tokens with the largest gap",
        f"{_GAP} The {plots_tokens.TOP} tokens with the largest mean gap of those that occur "
        f"{plots_tokens.FEWEST_OCCURRENCES} times or more (in brackets: how often). Whiskers: one standard deviation "
        "over the token's occurrences, to each side.",
        "There is no obvious pattern, and the variance is quite high.",
        ("layers", "tokens", "draws"),
        plots_tokens.worst_tokens,
        findings.worst_tokens,
    ),
    "12": PaperFigure(
        f"{_TITLE}, Figure 12: SAEs on the heads' outputs",
        f"Figure 2 for SAEs on the concatenated outputs of the attention heads (`hook_z`). {_INTERVENTIONS} {_ALL} "
        f"{_WHISKERS}",
        "The gap is smaller (0.9 to 1.7 times), and a larger part of it is due to the norm change.",
        ("attention",),
        plots.by_layer("attention"),
        findings.by_layer("attention"),
    ),
    "riggs": PaperFigure(
        f"{_TITLE}, Riggs' comment: KL against cosine",
        "Mean KL of random points with the norm of x, by their cosine with x, and of the outputs of the layer's SAEs, "
        f"scaled to the norm of x, at their mean cosine. {_BANDS}",
        "The comment's alternative hypothesis: SAEs are better than random points at low cosine, and worse at high.",
        ("cosine", "saes"),
        plots_tokens.against_cosine,
        findings.against_cosine,
    ),
}
