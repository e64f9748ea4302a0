"""What a reader of a sweep's numbers must know: cautions that are logged, stored with the curves, and in the report."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from tiltmeter.perturb.bases import CLEAN
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS
from tiltmeter.perturb.site_statistics import SiteStatistics, concentrated
from tiltmeter.saes.at_site import DictionaryAtSite
from tiltmeter.sweeps.plan import Plan


def cautions(plan: Plan, statistics: SiteStatistics) -> list[str]:
    """The cautions that apply to a sweep, each a few sentences."""
    found = (
        concentrated(statistics, plan.sweep.massive),
        massive_perturbed(plan, statistics),
        one_document(plan.tokens.document[: plan.sweep.sequences]),
    )
    drawn = (any_row(label, at) for label, at in plan.dictionaries.items() if _draws_rows(plan, label))
    return [caution for caution in (*found, *drawn) if caution]


def one_document(documents: Int64[np.ndarray, " sequence"]) -> str | None:
    """A caution if all of several sequences are from one document."""
    if len(documents) < 2 or len(np.unique(documents)) > 1:
        return None
    return (
        f"All {len(documents):,} sequences are from one document. Intervals and verdicts are about this text: they say "
        "how much other sequences of it would differ, and nothing of other documents."
    )


def _draws_rows(plan: Plan, label: str) -> bool:
    return any(name.argument == label and name.kind in SAE_DIRECTIONS for name in plan.directions)


def any_row(label: str, at: DictionaryAtSite) -> str:
    """A caution that the rows of a dictionary are drawn without regard to which latents fire."""
    kept = len(at.not_zero)
    left_out = f" ({at.size - kept:,} rows of zero length are left out)" if kept < at.size else ""
    return (
        f"{label} is {at.what}. Which of its latents fire is not known here, so its decoder rows are drawn from all "
        f"{kept:,}{left_out}, those of dead latents and of latents active in the sequence among them. The same "
        "direction of an SAE draws from latents that are alive and not active."
    )


def massive_perturbed(plan: Plan, statistics: SiteStatistics) -> str | None:
    """A caution if massive activations may be perturbed by lengths that grow with their norm.

    Where they stand is known from the sequences of the statistics.

    An absolute length that suits other tokens hardly moves a massive activation. A fraction of its norm, an angle, or
    its replacement by something else does, and since other tokens attend to it, all their outputs change with it.
    """
    sweep, massive = plan.sweep, statistics.massive
    if sweep.massive.perturbation == "out" or not _grows_with_norm(plan):
        return None
    places = {
        f"position 0 ({massive.first:,} of {massive.of_first:,})": massive.first
        and 0 in plan.positions.perturbed
        and sweep.bos.perturbation == "in",
        f"later positions ({massive.later:,} of {massive.of_later:,})": massive.later
        and max(plan.positions.perturbed) > 0,
    }
    if not any(places.values()):
        return None
    where = " and ".join(place for place, there in places.items() if there)
    return (
        f"In the sequences of the statistics there are massive activations at {where}. Where they are perturbed, it is "
        f"by lengths that grow with their norm (up to {massive.largest / massive.median:.0f} times the median). As "
        "other tokens attend to them, they may decide the means; --massive-perturbation out leaves them as they are."
    )


def _grows_with_norm(plan: Plan) -> bool:
    path = plan.sweep.path
    absolute = isinstance(path, Straight) and path.unit in ("absolute", "pair-distance")
    return not absolute or str(plan.base) != CLEAN
