"""Names of sites, checked before there is a model: one that no model has is refused, with the nearest that there is."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from tiltmeter.errors import TiltmeterError, did_you_mean
from tiltmeter.models.sites import HOOKS, MODULE, OF_HEADS, OUTSIDE, parse_site

MANY_LAYERS = 1000
"""Layers of a model that is not known yet, of which a pattern of sites may mean one."""

MOST_LAYERS = 10**9
"""Stands for the number of layers of a model that is not known yet."""


def check_site(name: str, layers: int | None = None) -> None:
    """Refuse a site that no model has, or none of so many layers.

    Raises:
        TiltmeterError: so it is; the message names the nearest.
    """
    if name.strip().startswith(MODULE):
        return  # which modules there are is not known without the model
    if kind_of_site(name) is None:
        hint = did_you_mean(name, _sites_of(_layer_in(name)))
        raise TiltmeterError(f"{name!r} is not a site{hint}; tiltmeter list sites shows all.")
    parse_site(name, layers or MOST_LAYERS)


def check_sites(names: str, layers: int | None = None) -> None:
    """Refuse a list of sites, or of patterns such as `resid_pre:*`, in which one is wrong.

    Raises:
        TiltmeterError: the message names the nearest.
    """
    for name in map(str.strip, names.split(",")):
        if "*" not in name:
            check_site(name, layers)
        elif not name.startswith(MODULE) and not _means_some(name, layers or MANY_LAYERS):
            raise TiltmeterError(f"No site matches {name!r}; patterns are like resid_pre:* (tiltmeter list sites).")


def kind_of_site(name: str) -> str | None:
    """The kind of a site, whatever its layer; None if there is no such site."""
    try:
        return parse_site(name, MOST_LAYERS).kind
    except TiltmeterError:
        return None


def _means_some(pattern: str, layers: int) -> bool:
    return any(_matches(site, pattern) for layer in range(layers) for site in _sites_of(str(layer)))


def _sites_of(layer: str) -> list[str]:
    """The names of the sites of a layer, short and long; of single heads, those of the first."""
    kinds = [(kind, hook, "") for kind, hook in HOOKS.items()] + [(kind, hook, ".0") for kind, hook in OF_HEADS.items()]
    short = [f"{kind}:{layer}{head}" for kind, _, head in kinds]
    return [*short, *(f"blocks.{layer}.{hook}{head}" for _, hook, head in kinds), *OUTSIDE, *OUTSIDE.values()]


def _matches(site: str, pattern: str) -> bool:
    """Whether a pattern matches a site, whichever head it names."""
    return fnmatchcase(site, pattern) or fnmatchcase(site, re.sub(r"\.[\d*]+$", ".0", pattern))


def _layer_in(name: str) -> str:
    """The number of a layer in what is no site's name; L if there is none."""
    parts = [part for part in re.split(r"[.:]", name) if part.isdigit()]
    return parts[-1] if parts else "L"
