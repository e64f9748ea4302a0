"""A sweep at several sites: one after the other, merged into one result with an axis `site`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import xarray as xr

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import MODULE, OF_HEADS, Site, all_sites
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.progress import progress
from tiltmeter.sweeps.plan import Sweep

OF_ONE_HEAD = re.compile(r".*(:|hook_)[\w*]+\.[\d*]+")
"""Patterns with a place for the number of a head: `z:5.*`, `blocks.*.attn.hook_z.0`."""

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
        some = [site for site in _known(name, model) if _matches(site, name) and model.has(site)] if "*" in name else []
        if "*" in name and not some:
            raise TiltmeterError(f"No site of this model matches {name!r}; patterns are like resid_pre:*.")
        found += some or [model.site(name)]
    return list(dict.fromkeys(found))


def _known(pattern: str, model: SplitModel) -> Iterator[Site]:
    """The sites that a pattern may mean: single heads only if it has a place for their number."""
    if pattern.startswith(MODULE):
        yield from _modules(pattern, model)
        return
    if not OF_ONE_HEAD.fullmatch(pattern):
        yield from all_sites(model.n_layers)
        return
    for layer in range(model.n_layers):
        for kind in OF_HEADS:
            if _matches(Site(layer, kind, 0), re.sub(r"[^.]+$", "0", pattern)):
                yield from (Site(layer, kind, head) for head in range(model.heads(layer, kind)))


def _modules(pattern: str, model: SplitModel) -> Iterator[Site]:
    """The modules that a pattern matches, as far as their outputs are sites."""
    for path in [path for path, _ in model.hf.named_modules() if fnmatchcase(f"{MODULE}{path}", pattern)]:
        with suppress(TiltmeterError):
            yield model.site(f"{MODULE}{path}")


def _matches(site: Site, pattern: str) -> bool:
    return fnmatchcase(site.short_name, pattern) or fnmatchcase(site.name, pattern)


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
    own = {name: ("site", [curves.attrs[name]]) for name in OF_SITES}
    return curves.assign_coords(step=step).expand_dims(site=[site.name]).assign_coords(own)
