"""What a reader of a sweep's numbers must know: cautions that are logged, stored with the curves, and in the report."""

from __future__ import annotations

from tiltmeter.perturb.bases import CLEAN
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.site_statistics import SiteStatistics, concentrated
from tiltmeter.sweeps.plan import Plan


def cautions(plan: Plan, statistics: SiteStatistics) -> list[str]:
    """The cautions that apply to a sweep, each one or two sentences."""
    return [caution for caution in (concentrated(statistics), massive_perturbed(plan, statistics)) if caution]


def massive_perturbed(plan: Plan, statistics: SiteStatistics) -> str | None:
    """A caution if massive activations are perturbed by lengths that grow with their norm.

    An absolute length that suits other tokens hardly moves a massive activation. A fraction of its norm, an angle, or
    its replacement by something else does, and since other tokens attend to it, all their outputs change with it.
    """
    sweep, massive = plan.sweep, statistics.massive
    if sweep.massive.perturbation == "out" or not _grows_with_norm(plan):
        return None
    first = massive.first and 0 in plan.positions.perturbed and sweep.bos.perturbation == "in"
    later = massive.later and max(plan.positions.perturbed) > 0
    if not (first or later):
        return None
    where = "position 0" if first else "later positions"
    return (
        f"Massive activations at {where} are perturbed, too, by lengths that grow with their norm (up to "
        f"{massive.largest / massive.median:.0f} times the median). As other tokens attend to them, they may decide "
        "the means; --massive-perturbation out leaves them as they are."
    )


def _grows_with_norm(plan: Plan) -> bool:
    path = plan.sweep.path
    absolute = isinstance(path, Straight) and path.unit in ("absolute", "pair-distance")
    return not absolute or str(plan.base) != CLEAN
