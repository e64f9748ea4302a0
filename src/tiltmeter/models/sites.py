"""Sites: the activations that can be perturbed or read, named as in TransformerLens.

`blocks.6.hook_resid_pre` (long) and `resid_pre:6` (short) name one site. Results always use the long name. One head's
part of a site has the head's number after it: `z:9.6`, `blocks.9.attn.hook_z.6`. Any other module's output is a site by
its path in the Hugging Face model: `module:model.layers.3.mlp.down_proj`.
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
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "mlp_pre": "mlp.hook_pre",
    "mlp_post": "mlp.hook_post",
}
"""Short name to TransformerLens hook name, for each kind of site of a block."""

OF_HEADS = {kind: HOOKS[kind] for kind in ("q", "k", "v", "z")} | {"result": "attn.hook_result"}
"""The same for those of which one head's part is a site of its own. A result is always one head's."""

OUTSIDE = {"embed": "hook_embed", "ln_final": "ln_final.hook_normalized"}
"""The same for sites outside the blocks."""

MODULE = "module:"
"""What comes before the path of a module."""

STREAM = frozenset({"resid_pre", "resid_post"})
"""Kinds of site that hold the whole residual stream between two blocks."""

OF_WIDTH_D_MODEL = frozenset({"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"})
"""Kinds of site that hold the stream or what is added to it: measured centred where the stream is."""

_LONG = re.compile(r"blocks\.(\d{1,9})\.(.+?)(?:\.(\d{1,9}))?")
_SHORT = re.compile(r"(\w+):(\d{1,9})(?:\.(\d{1,9}))?")
_KINDS = {hook: kind for kind, hook in (HOOKS | OF_HEADS).items()}
_OUTSIDE = {name: kind for kind, hook in OUTSIDE.items() for name in (kind, hook)}

_ORDER = {
    **{"embed": 0, "before": 0, "resid_pre": 1, "q": 2, "k": 2, "v": 2, "z": 3, "result": 4, "attn_out": 5},
    **{"resid_mid": 6, "mlp_pre": 7, "mlp_post": 8, "mlp_out": 9, "resid_post": 10, "ln_final": 0, "after": 0},
}
"""In which order the sites of a layer are computed. Of those with one number, none depends on another."""


class Site(NamedTuple):
    """An activation of the model."""

    layer: int
    """Its block; for what comes after all blocks, their number."""
    kind: str
    """One of `HOOKS`, `OF_HEADS` or `OUTSIDE`; of a module, where it is: `before` the blocks, `within` or `after`."""
    head: int | None = None
    """The head whose part it is; None for that of all."""
    path: str = ""
    """Of a module."""

    @property
    def name(self) -> str:
        """The TransformerLens name, e.g. `blocks.6.hook_resid_pre`."""
        if self.path:
            return f"{MODULE}{self.path}"
        if self.kind in OUTSIDE:
            return OUTSIDE[self.kind]
        return f"blocks.{self.layer}.{(HOOKS | OF_HEADS)[self.kind]}{self._head}"

    @property
    def short_name(self) -> str:
        """The short name, e.g. `resid_pre:6`."""
        if self.path or self.kind in OUTSIDE:
            return self.kind if not self.path else self.name
        return f"{self.kind}:{self.layer}{self._head}"

    @property
    def _head(self) -> str:
        return "" if self.head is None else f".{self.head}"

    @property
    def boundary(self) -> int:
        """How many whole blocks run before this site, i.e. the first block that a perturbed run must run again."""
        return self.layer + 1 if self.kind == "resid_post" else self.layer

    @property
    def is_in_block(self) -> bool:
        """Whether it is inside a block, whose stream a run from here needs as well; else it is all that is needed."""
        return not (self.kind in STREAM or self.kind in OUTSIDE or self.kind in ("before", "after"))

    def is_visible_from(self, changed: Site) -> bool:
        """Whether a change at `changed` is seen at this site. Of two modules in one block, that is not known.

        A head's result is computed again from its z wherever it is read, so a change of the result is not seen there.
        """
        if self == changed:
            return self.kind != "result"
        if self.layer != changed.layer:
            return self.layer >= changed.layer
        if "within" in (self.kind, changed.kind):
            return changed.kind in ("embed", "before", "resid_pre") or self.kind == "resid_post"
        if self.kind == changed.kind:
            return self.head is None or changed.head is None
        return _ORDER[self.kind] > _ORDER[changed.kind]


def check_visible(read: Site, site: Site) -> None:
    """Refuse to read where a perturbation at `site` does not show.

    Raises:
        TiltmeterError: `read` comes before it, or is not known to come after.
    """
    if read.is_visible_from(site):
        return
    if read == site:
        why = "is computed from its z, and does not show a perturbation at"
    else:
        why = "comes before" if site.is_visible_from(read) else "is not known to come after"
    raise TiltmeterError(f"{read.name} {why} {site.name}; read a later site.")


def parse_site(name: str, n_layers: int) -> Site:
    """Parse the name of a site, other than of a module, in a model of `n_layers` layers.

    Raises:
        TiltmeterError: such a model has no such site; the message lists the sites it has.
    """
    name = name.strip()
    if name in _OUTSIDE:
        kind = _OUTSIDE[name]
        return Site(0 if kind == "embed" else n_layers, kind)
    site = _in_block(name)
    if site is None:
        raise TiltmeterError(f"{name!r} is not a site of this model; it has {describe_sites(n_layers)}.")
    if site.kind == "result" and site.head is None:
        raise TiltmeterError(f"{name!r} holds an activation for each head; give the head, as result:{site.layer}.0.")
    if site.layer >= n_layers:
        raise TiltmeterError(
            f"{name!r} names layer {site.layer}, but this model has layers 0 to {n_layers - 1}; choose one of those."
        )
    return site


def _in_block(name: str) -> Site | None:
    """The site inside or between blocks that has this name; None if none has."""
    if match := _LONG.fullmatch(name):
        layer, kind, head = match[1], _KINDS.get(match[2]), match[3]
    elif match := _SHORT.fullmatch(name):
        layer, kind, head = match[2], match[1] if match[1] in _KINDS.values() else None, match[3]
    else:
        return None
    if kind is None or (head is not None and kind not in OF_HEADS):
        return None
    return Site(int(layer), kind, None if head is None else int(head))


def names_several(site: str) -> bool:
    """Whether a text names several sites: a list with commas, or a pattern with *."""
    return "," in site or "*" in site


def long_name(name: str) -> str:
    """The TransformerLens name of a site given by its short one, of any layer; any other name unchanged."""
    name = name.strip()
    if name in OUTSIDE:
        return OUTSIDE[name]
    site = _in_block(name)
    return name if site is None else site.name


def all_sites(n_layers: int) -> list[Site]:
    """Every site of the blocks of a model of `n_layers` layers, with all heads in one."""
    return [Site(layer, kind) for layer in range(n_layers) for kind in HOOKS]


def describe_sites(n_layers: int) -> str:
    """A one-line description of the sites of a model, for error messages."""
    names = ", ".join(f"blocks.L.{hook} ({kind}:L)" for kind, hook in HOOKS.items())
    outside = ", ".join(f"{hook} ({kind})" for kind, hook in OUTSIDE.items())
    return (
        f"{names}, with L from 0 to {n_layers - 1}; of head H, {', '.join(f'{kind}:L.H' for kind in OF_HEADS)}; "
        f"{outside}; and the output of any module, {MODULE}PATH"
    )
