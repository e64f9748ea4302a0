"""Sites: the activations that can be perturbed or read, named as in TransformerLens.

`blocks.6.hook_resid_pre` (long) and `resid_pre:6` (short) name one site. Results always use the long name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tiltmeter.errors import TiltmeterError

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
    "mlp_post": "mlp.hook_post",
}
"""Short name to TransformerLens hook name, for each kind of site."""

STREAM = frozenset({"resid_pre", "resid_post"})
"""Kinds of site that hold the whole residual stream between two blocks."""

OF_WIDTH_D_MODEL = frozenset({"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"})
"""Kinds of site that hold the stream or what is added to it: measured centred where the stream is."""

_LONG = re.compile(r"blocks\.(\d{1,9})\.(.+)")
_SHORT = re.compile(r"(\w+):(\d{1,9})")
_KINDS = {hook: kind for kind, hook in HOOKS.items()}


class Site(NamedTuple):
    """An activation of the model: a layer and a kind, one of `HOOKS`."""

    layer: int
    kind: str

    @property
    def name(self) -> str:
        """The TransformerLens name, e.g. `blocks.6.hook_resid_pre`."""
        return f"blocks.{self.layer}.{HOOKS[self.kind]}"

    @property
    def boundary(self) -> int:
        """How many whole blocks run before this site, i.e. the first block that a perturbed run must run again."""
        return self.layer + 1 if self.kind == "resid_post" else self.layer

    def is_visible_from(self, changed: Site) -> bool:
        """Whether a change at `changed` reaches this site."""
        order = {"resid_pre": 0, "z": 1, "attn_out": 2, "resid_mid": 3, "mlp_post": 4, "mlp_out": 5, "resid_post": 6}
        return (self.layer, order[self.kind]) >= (changed.layer, order[changed.kind])


def parse_site(name: str, n_layers: int) -> Site:
    """Parse the name of a site in a model of `n_layers` layers.

    Raises:
        TiltmeterError: such a model has no such site; the message lists the sites it has.
    """
    if match := _LONG.fullmatch(name.strip()):
        layer, kind = int(match[1]), _KINDS.get(match[2])
    elif match := _SHORT.fullmatch(name.strip()):
        layer, kind = int(match[2]), match[1] if match[1] in HOOKS else None
    else:
        layer, kind = 0, None
    if kind is None:
        raise TiltmeterError(f"{name!r} is not a site of this model; it has {describe_sites(n_layers)}.")
    if layer >= n_layers:
        raise TiltmeterError(
            f"{name!r} names layer {layer}, but this model has layers 0 to {n_layers - 1}; choose one of those."
        )
    return Site(layer, kind)


def names_several(site: str) -> bool:
    """Whether a text names several sites: a list with commas, or a pattern with *."""
    return "," in site or "*" in site


def long_name(name: str) -> str:
    """The TransformerLens name of a site given by its short one, of any layer; any other name unchanged."""
    match = _SHORT.fullmatch(name.strip())
    return Site(int(match[2]), match[1]).name if match and match[1] in HOOKS else name.strip()


def all_sites(n_layers: int) -> list[Site]:
    """Every site of a model of `n_layers` layers."""
    return [Site(layer, kind) for layer in range(n_layers) for kind in HOOKS]


def describe_sites(n_layers: int) -> str:
    """A one-line description of the sites of a model, for error messages."""
    names = ", ".join(f"blocks.L.{hook} ({kind}:L)" for kind, hook in HOOKS.items())
    return f"{names}, with L from 0 to {n_layers - 1}"
