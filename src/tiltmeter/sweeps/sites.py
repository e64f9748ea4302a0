"""A sweep at several sites: one after the other, merged into one result with an axis `site`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import xarray as xr

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import HOOKS, Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.sweeps.plan import Sweep

OF_SITES = ("pair_distance", "mean_norm")
"""Attributes of curves that differ from site to site, and become coordinates."""


def matching_sites(text: str, model: SplitModel) -> list[Site]:
    """The sites that a list of names and patterns means, `resid_pre:*,resid_post:5`, each once.

    A pattern means those among the sites it matches that the model has.

    Raises:
        TiltmeterError: a name is no site of the model, or nothing matches a pattern.
    """
    found: list[Site] = []
    for name in map(str.strip, text.split(",")):
        known = [Site(layer, kind) for layer in range(model.n_layers) for kind in HOOKS] if "*" in name else []
        some = [site for site in known if _matches(site, name) and model.has(site)]
        if "*" in name and not some:
            raise TiltmeterError(f"No site of this model matches {name!r}; patterns are like resid_pre:*.")
        found += some or [model.site(name)]
    return list(dict.fromkeys(found))


def _matches(site: Site, pattern: str) -> bool:
    return fnmatchcase(_short(site), pattern) or fnmatchcase(site.name, pattern)


def _short(site: Site) -> str:
    return f"{site.kind}:{site.layer}"


def sweep_sites(
    sweep: Sweep, sites: Sequence[Site], run: Callable[[Sweep, Path | None], xr.Dataset], out: Path | None
) -> xr.Dataset:
    """Run a sweep at each of these sites.

    Args:
        sweep: its `site` is replaced.
        sites: where.
        run: runs the sweep at one site, in a run directory.
        out: the folder of the run directories, which are called as their sites.

    Returns:
        The curves with a dimension `site`, in the order of `sites`. `step` has the units of the sweep's path; pair
        distances are not converted to lengths, as they differ from site to site.

    Raises:
        TiltmeterError: the sweep stops by itself, or as `run`.
    """
    if sweep.until_ci is not None:
        raise TiltmeterError("Where a sweep stops by itself (until_ci) differs from site to site; give one site.")
    parts = []
    for site in progress(sites, "sites"):
        found = run(sweep.model_copy(update={"site": site.name}), out / site.name if out else None)
        parts.append(_with_site(found, site, sweep))
    together = xr.concat(parts, "site", data_vars="all", coords="minimal", compat="override", join="exact")
    kept = {key: value for key, value in parts[0].attrs.items() if all(part.attrs.get(key) == value for part in parts)}
    return together.assign_attrs(kept | {"site": ", ".join(site.name for site in sites)})


def _with_site(curves: xr.Dataset, site: Site, sweep: Sweep) -> xr.Dataset:
    step = xr.Variable("step", np.asarray(sweep.path.steps, float), curves.step.attrs | {"units": sweep.path.units})
    own = {name: ("site", [float(curves.attrs[name])]) for name in OF_SITES}
    return curves.assign_coords(step=step).expand_dims(site=[site.name]).assign_coords(own)
