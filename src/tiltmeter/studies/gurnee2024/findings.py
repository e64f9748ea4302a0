"""What a run found in the figures of Gurnee 2024, in a sentence or two each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tiltmeter.analysis.estimates import ABOVE_ONE, BELOW_ONE, MIN_SEQUENCES, Estimand, Estimate, estimate
from tiltmeter.studies.estimands import Quantities, correlation
from tiltmeter.studies.gurnee2024.estimands import at_offsets, in_each_layer, loss_ratios, quantiles
from tiltmeter.studies.gurnee2024.estimands_replications import beside_random_at
from tiltmeter.studies.gurnee2024.estimands_tokens import FAR, TYPICAL, gap_with, gaps, layer_of, typical_and_far
from tiltmeter.studies.gurnee2024.experiments import AFTER
from tiltmeter.studies.gurnee2024.per_token import PREDICTORS, drawn, study_layer
from tiltmeter.studies.gurnee2024.plots_tokens import FEWEST_OCCURRENCES, Worst, worst
from tiltmeter.studies.results import NotMeasured, Results

Find = Callable[[Results], str]

INTERVALS = "In brackets: 95 % intervals, bootstrap over sequences."


def predictions(results: Results) -> str:
    """KL of both substitutes, by prompt."""
    found = results["predictions"]
    pairs = [
        tuple(float(found.kl.sel(run=run)[case]) for run in ("sae-error", "epsilon-random")) for case in found.case
    ]
    words = ", ".join(f"{own:.2g} and {random:.2g}" for own, random in pairs)
    return f"KL of SAE(x) and of the random point as far away, by prompt: {words} nats."


def ratios(what: str, estimands: Quantities) -> Find:
    """The smallest and the largest of one number per layer."""

    def find(results: Results) -> str:
        return " ".join([_range(what, estimands(results)), INTERVALS])

    return find


def _range(what: str, estimands: Sequence[Estimand]) -> str:
    """`What is 1.2 [1.1, 1.3] (layer 3) to 2.0 [1.9, 2.1] (layer 0)`; how many intervals lie above one."""
    found = [one for one in map(_weighed, estimands) if one.value == one.value]
    if not found:
        return f"{what} is not defined here."
    few = found[0].n < MIN_SEQUENCES
    if len(found) == 1:
        return f"{what}: {found[0]} ({_where(found[0])}){_too_few(found[0].n) if few else ''}."
    low, high = (pick(found, key=lambda one: one.value) for pick in (min, max))
    above, below = sum(one.low > 1 for one in found), sum(one.high < 1 for one in found)
    said = (
        _too_few(found[0].n) if few else f"; above 1 in {above} and below 1 in {below} of {len(found)}, each by itself"
    )
    return f"{what}: {low} ({_where(low)}) to {high} ({_where(high)}){said}."


def _where(finding: Estimate) -> str:
    return finding.what.partition(":")[0]


def _too_few(n: int) -> str:
    return f"; {n} sequences are too few to say more"


def _weighed(quantity: Estimand) -> Estimate:
    return estimate(quantity, 1)


def by_layer(experiment: str) -> Find:
    """SAE(x), its norm-corrected version and the norm change alone beside the random point."""
    wanted = {
        "KL of SAE(x) ÷ that of the random point as far away": "sae-error",
        "With SAE(x) scaled to the norm of x": "sae-norm-corrected",
        "With the norm change alone": "sae-cos-corrected",
    }

    def find(results: Results) -> str:
        parts = [
            _range(what, in_each_layer(kind, "epsilon-random", experiment=experiment)(results))
            for what, kind in wanted.items()
        ]
        return " ".join([*parts, INTERVALS])

    return find


def distribution(results: Results) -> str:
    """The median and the upper tail."""
    every = quantiles(results)
    found = {part: [one for one in every if f" {part} quantile" in one.what] for part in ("10%", "50%", "90%")}
    parts = [_range(f"{part} quantile of KL, SAE(x) ÷ random point", some) for part, some in found.items()]
    return " ".join([*parts, INTERVALS])


def losses(results: Results) -> str:
    """Ratio of the loss increases."""
    return " ".join([_range("Loss increase of SAE(x) ÷ random point", loss_ratios(results)), INTERVALS])


def positions(results: Results) -> str:
    """Correlation of the gap with position, by layer."""
    found = gaps(results)
    sizes = {
        layer: _weighed(
            correlation(f"layer {layer}: r", values, PREDICTORS["position"](layer_of(results, layer)), ABOVE_ONE)
        )
        for layer, values in found.items()
    }
    words = ", ".join(f"{layer} {one}" for layer, one in sizes.items())
    return f"Correlation of the KL gap with position, by layer: {words}. {INTERVALS}"


def single(results: Results) -> str:
    """The ratio at the token, at the next one and at the far end."""
    places = {
        "at the token": slice(0, 1),
        "at the next": slice(1, 2),
        f"at the {AFTER // 2 + 1}th to {AFTER}th after": slice(AFTER // 2 + 1, AFTER + 1),
    }
    parts = [
        _range(f"KL of SAE(x) ÷ random point {what}", at_offsets(what, place, ABOVE_ONE)(results))
        for what, place in places.items()
    ]
    return " ".join([*parts, INTERVALS])


def many_draws(results: Results) -> str:
    """How many tokens are around the mean of their random points, and how many far above."""
    found = drawn(results)
    near, far = map(_weighed, typical_and_far(results))
    return (
        f"Of {len(found.sae)} tokens with {found.random.shape[1]} random points each, the part whose SAE(x) lies "
        f"within {TYPICAL:g} standard deviations of their mean is {near}; more than {FAR:g} above: {far}. {INTERVALS}"
    )


def predictors(results: Results) -> str:
    """Correlations of the gap."""
    found = {name: _weighed(gap_with(name, ABOVE_ONE)(results)[0]) for name in PREDICTORS}
    parts = [f"{name} {one if one.value == one.value else '(which does not vary)'}" for name, one in found.items()]
    return f"Correlation of the KL gap at layer {study_layer(results)} with {', '.join(parts)}. {INTERVALS}"


def between_layers(results: Results) -> str:
    """The strongest and the weakest correlation of the study layer's gap with another's."""
    layer, found = study_layer(results), gaps(results)
    if layer not in found or len(found) < 2:
        raise NotMeasured("The gap was not measured at the study's layer and at another.")
    others = {
        at: _weighed(correlation(f"layer {at}", found[layer], values, ABOVE_ONE))
        for at, values in found.items()
        if at != layer
    }
    words = ", ".join(f"{at} {one}" for at, one in others.items())
    return f"Correlation of the KL gap at layer {layer} with that at layer {words}. {INTERVALS}"


def worst_tokens(results: Results) -> str:
    """The first few, and how their gap varies beside its mean."""
    found: Worst = worst(results)
    first = ", ".join(
        f"{name} {mean:.2g} ± {spread:.2g}"
        for name, mean, spread in zip(found.names[:3], found.mean, found.spread, strict=False)
    )
    wide = int((found.spread > found.mean).sum())
    return (
        f"Of tokens that occur {FEWEST_OCCURRENCES} times or more, the largest mean gaps (± standard deviation over "
        f"occurrences, nats): {first}. Of {len(found.names)} tokens, {wide} have a standard deviation above their mean."
    )


def against_cosine(results: Results) -> str:
    """The SAEs with the lowest and the highest cosine beside random points of equal norm and angle."""
    low, high = (_weighed(beside_random_at(which, BELOW_ONE)(results)[0]) for which in (0, -1))
    return f"{low.what}: {low}. {high.what}: {high}. {INTERVALS}"
