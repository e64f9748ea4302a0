"""The claims of Gurnee 2024, as tests."""

from __future__ import annotations

from tiltmeter.analysis.estimates import Region
from tiltmeter.studies.claims import Claim, Published
from tiltmeter.studies.estimands import about_all_layers, combined
from tiltmeter.studies.gurnee2024.estimands import (
    at_offsets,
    but_the_last_layer,
    clusters,
    early_persists,
    in_each_layer,
    loss_ratios,
    losses,
    quantiles,
    smaller_alone,
)
from tiltmeter.studies.gurnee2024.gap import (
    FAR,
    TYPICAL,
    absolute_gap_with,
    gap_with,
    l0_with_cosine,
    other_layers_first,
    typical_and_far,
)
from tiltmeter.studies.gurnee2024.replications import (
    attention_gap_smaller,
    attention_norm_matters_more,
    beside_random_at,
)
from tiltmeter.studies.gurnee2024.top_tokens import varies_within_tokens
from tiltmeter.studies.margins import (
    ANTICORRELATED,
    CORRELATED,
    HARDLY_CORRELATED,
    LESS,
    MORE,
    MUCH_LESS,
    MUCH_MORE,
    SIMILAR,
    UNCORRELATED,
)

MARGIN = "Our margin: the paper has no number."
_POST = "Gurnee 2024"
_CODE = "means printed by the author's code (eval.ipynb), layer 6"
_PRINTED = "Which interventions are in which cluster follows from the means printed by the author's code."
_COMMENT = "Riggs' comment on Gurnee 2024"
_AT_STUDY_LAYER = (
    "At the layer that corresponds to the paper's layer 6, over all tokens, including the first of each sequence."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "sae-above-epsilon-random",
        "In all layers, replacing x by SAE(x) changes the prediction significantly more (KL) than replacing it by a "
        "random point at the same distance.",
        f"{_POST}, Summary",
        about_all_layers(in_each_layer("sae-error", "epsilon-random", MUCH_MORE)),
        Published("2.2 to 4.5 times, by layer", f"{_POST}, Introduction"),
        f"Significantly: {MUCH_MORE.low:g} times.",
    ),
    Claim(
        "kl-ratio-as-published",
        "In all layers, the KL of SAE(x) is 2.2 to 4.5 times that of a random point at the same distance.",
        f"{_POST}, Introduction",
        about_all_layers(in_each_layer("sae-error", "epsilon-random", Region(2.2, 4.5))),
        Published("2.2 to 4.5 times, by layer", f"{_POST}, Introduction"),
        "The paper's numbers are for GPT-2 small and SAEs with 32 latents per dimension; other SAEs may well differ.",
    ),
    Claim(
        "loss-above-epsilon-random",
        "In all layers, replacing x by SAE(x) results in a higher loss than replacing it by a random point at the same "
        "distance.",
        f"{_POST}, Summary",
        about_all_layers(losses),
        Published("increases of 0.137 and 0.060 nats", _CODE),
        "The number is the loss increase of SAE(x) minus that of the random point times the margin of 1.25.",
    ),
    Claim(
        "loss-ratio-as-published",
        "In all layers, the loss increase of SAE(x) is 2 to 4 times that of a random point at the same distance.",
        f"{_POST}, Layerwise Intervention Results",
        about_all_layers(loss_ratios),
        Published("2 to 4 times, by layer", f"{_POST}, Layerwise Intervention Results"),
        "Not defined if the random point does not increase the loss, for example if the clean loss is already at "
        "chance level.",
    ),
    Claim(
        "whole-distribution-shifted",
        "In all layers, the whole distribution of KL over tokens is shifted, not just a few outliers.",
        f"{_POST}, Layerwise Intervention Results",
        about_all_layers(quantiles),
        remark="Tested: the 10, 50 and 90 % quantiles of KL are higher for SAE(x) than for the random point.",
    ),
    Claim(
        "norm-corrected-similar",
        "In all layers, SAE(x) scaled to the norm of x changes the prediction about as much as SAE(x).",
        f"{_POST}, Intervention Types",
        about_all_layers(in_each_layer("sae-norm-corrected", "sae-error", SIMILAR)),
        Published("1.06", _CODE),
        f"Equivalence: ratios within {SIMILAR}. {MARGIN} {_PRINTED}",
    ),
    Claim(
        "not-shrinkage",
        "In all layers, the gap is not caused by shrinkage: it is also present at equal norm and equal angle.",
        f"{_POST}, Summary",
        about_all_layers(in_each_layer("sae-norm-corrected", "theta-random-true-norm")),
        Published("2.50", _CODE),
        "SAE(x) scaled to the norm of x is compared with random points of that norm at the angle of SAE(x).",
    ),
    Claim(
        "three-clusters",
        "In all layers, SAE(x) and its norm-corrected version both have a higher KL than all three kinds of random "
        "point.",
        f"{_POST}, Intervention Types",
        about_all_layers(clusters),
        Published("2.26", _CODE),
        f"Published number: the lower of the two ÷ the highest of the three. {_PRINTED}",
    ),
    Claim(
        "random-points-alike",
        "In all layers, the three kinds of random point change the prediction by about the same amount.",
        f"{_POST}, Intervention Types",
        about_all_layers(
            combined(
                in_each_layer("theta-random-sae-norm", "epsilon-random", SIMILAR),
                in_each_layer("theta-random-true-norm", "epsilon-random", SIMILAR),
            )
        ),
        Published("1.12 and 1.07", _CODE),
        f"Equivalence: ratios within {SIMILAR}. {MARGIN} {_PRINTED}",
    ),
    Claim(
        "norm-change-smallest",
        "In all layers, changing the norm alone changes the prediction much less than a random point does.",
        f"{_POST}, Intervention Types",
        about_all_layers(in_each_layer("sae-cos-corrected", "epsilon-random", MUCH_LESS)),
        Published("0.046", _CODE),
        f"Much less: less than half. {_PRINTED}",
    ),
    Claim(
        "single-token-gap",
        "If only one token is replaced, the KL of SAE(x) at that token is more than twice that of the random point.",
        f"{_POST}, Single Token Intervention Results",
        at_offsets("the token", slice(0, 1), MUCH_MORE),
        Published("above 2 in all layers", f"{_POST}, Single Token Intervention Results"),
        "Token 32, in each layer.",
    ),
    Claim(
        "next-token-gap",
        "If only one token is replaced, the KL of SAE(x) at the next token, too, is more than twice that of the random "
        "point, except in the last layer.",
        f"{_POST}, Single Token Intervention Results",
        but_the_last_layer(at_offsets("the next token", slice(1, 2), MUCH_MORE)),
        Published("above 2 in layers 0 to 10", f"{_POST}, Single Token Intervention Results"),
        "Token 33, in each layer except the last.",
    ),
    Claim(
        "gap-persists",
        "If only one token is replaced, the gap persists through the following tokens.",
        f"{_POST}, Single Token Intervention Results",
        at_offsets("the 9th to 16th token after", slice(9, 17), MORE),
        remark="Tested in the second half of the 16 following tokens that the paper shows.",
    ),
    Claim(
        "gap-persists-more-in-early-layers",
        "How much of the gap persists depends on how early the layer is (tested: more in the first layer than in the "
        "last).",
        f"{_POST}, Single Token Intervention Results",
        early_persists,
        remark="The paper does not state the direction; with more layers to come, more can be carried to later tokens. "
        "Fraction that persists: mean gap at the 16 tokens after ÷ gap at the token.",
    ),
    Claim(
        "single-token-smaller",
        "KL is lower if only one token is replaced than if all are.",
        f"{_POST}, Single Token Intervention Results",
        smaller_alone,
        remark="At token 32, for SAE(x) and the random point at the same distance, in each layer.",
    ),
    Claim(
        "gap-varies",
        "For many tokens the KL of SAE(x) is close to the mean KL of random points at its distance, and for many it is "
        "far above.",
        f"{_POST}, How pathological are the errors?",
        typical_and_far,
        remark=f"Tested: for at least a tenth of the tokens each, KL is within {TYPICAL:g} standard deviations of the "
        f"random points' mean, and more than {FAR:g} above it. Our choice of bounds: the paper shows examples.",
    ),
    Claim(
        "gap-with-position",
        "There is some relationship between the gap and the position in the context.",
        f"{_POST}, When do these errors happen?",
        absolute_gap_with("position", CORRELATED),
        remark=f"The paper does not state the direction. Tested: a correlation of either sign with an absolute value "
        f"{CORRELATED}, since less counts as none elsewhere in this table. {_AT_STUDY_LAYER}",
    ),
    Claim(
        "gap-grows-with-angle",
        "The gap is larger for tokens whose SAE(x) has a lower cosine with x.",
        f"{_POST}, When do these errors happen?",
        gap_with("cosine", ANTICORRELATED),
        remark=_AT_STUDY_LAYER,
    ),
    Claim(
        "gap-hardly-with-l0",
        "The correlation between the gap and the number of active latents is small.",
        f"{_POST}, When do these errors happen?",
        gap_with("L0", HARDLY_CORRELATED),
        remark=f"Equivalence: within {HARDLY_CORRELATED}. {MARGIN} Not defined for top-k SAEs, whose L0 does not vary. "
        f"{_AT_STUDY_LAYER}",
    ),
    Claim(
        "l0-with-cosine",
        "The number of active latents is correlated with the cosine of x and SAE(x).",
        f"{_POST}, When do these errors happen?",
        l0_with_cosine,
        remark=f"The post does not state the direction. Tested: an absolute correlation {CORRELATED}. Not defined for "
        f"top-k SAEs, whose L0 does not vary. {_AT_STUDY_LAYER}",
    ),
    Claim(
        "top-tokens-vary",
        "Among the tokens with the largest mean gap, the variance is quite high: failures depend on the context more "
        "than on the token.",
        f"{_POST}, When do these errors happen?",
        varies_within_tokens,
        remark="Tested: the variance over occurrences of a token ÷ the variance of the means of the 20 tokens with the "
        f"largest mean gap that occur at least 5 times is {MORE}. {_AT_STUDY_LAYER}",
    ),
    Claim(
        "gap-not-with-frequency",
        "There is no correlation between the gap and the token's frequency.",
        f"{_POST}, When do these errors happen?",
        gap_with("log frequency", UNCORRELATED),
        remark=f"Equivalence: within {UNCORRELATED}, with the logarithm of the frequency in the token set. {MARGIN} "
        f"{_AT_STUDY_LAYER}",
    ),
    Claim(
        "gap-most-with-other-layers",
        "The strongest correlation of the gap is with the gap in other layers.",
        f"{_POST}, When do these errors happen?",
        other_layers_first,
        remark="Compared with the largest absolute correlation with cosine, L0 (if it varies), position and log "
        f"frequency. {_AT_STUDY_LAYER}",
    ),
    Claim(
        "attention-ratio-as-published",
        "For SAEs on the heads' outputs, the KL of SAE(x) is 0.9 to 1.7 times that of a random point at the same "
        "distance.",
        f"{_POST}, Replication with Attention SAEs",
        in_each_layer("sae-error", "epsilon-random", Region(0.9, 1.7), "attention"),
        Published("0.9 to 1.7 times, by layer", f"{_POST}, Replication with Attention SAEs"),
    ),
    Claim(
        "attention-gap-smaller",
        "The ratio of the KL of SAE(x) to that of a random point at the same distance is smaller for SAEs on the "
        "heads' outputs than for those on the residual stream.",
        f"{_POST}, Replication with Attention SAEs",
        attention_gap_smaller,
        remark="In the same layer.",
    ),
    Claim(
        "attention-norm-matters-more",
        "A larger fraction of the difference between SAE(x) and a random point at the same distance is due to the norm "
        "change at the heads' outputs than in the residual stream.",
        f"{_POST}, Replication with Attention SAEs",
        attention_norm_matters_more,
        remark="Tested: (KL of SAE(x) - KL of its norm-corrected version) ÷ (KL of SAE(x) - KL of the random point), "
        f"each KL summed over the layers, is {MORE} times that in the stream; the post says that it depends on the "
        "layer. Not defined where SAE(x) is not above the random point.",
    ),
    Claim(
        "sae-worse-at-high-cosine",
        "An SAE whose output has a high cosine with x is worse than random points at the same angle.",
        _COMMENT,
        beside_random_at(-1, MORE),
        remark="Tested on the SAE with the highest mean cosine, of those at one layer that were trained to "
        "reconstruct; its output is scaled to the norm of x.",
    ),
    Claim(
        "sae-better-at-low-cosine",
        "An SAE whose output has a low cosine with x is better than random points at the same angle.",
        _COMMENT,
        beside_random_at(0, LESS),
        remark="Tested on the SAE with the lowest mean cosine. The commenter offers both claims as an alternative to "
        "the post's interpretation.",
    ),
)
