"""Styles of directions and bases: the same colour, dash and marker in every figure.

Families share a hue from the Okabe-Ito and Tol palettes, which colour-blind readers can distinguish: black isotropic,
blue cov-random, vermilion real, wine an SAE's error, green and purple the syntheses. Differences are dashed with open
markers, mixtures solid with filled ones, substitutes of an SAE's length dash-dotted, opposites dotted, so that they
stay distinct in greyscale. SAEs of one kind that differ only in sparsity (`...-l0-4`, `...-l0-12`) go from light
(sparsest) to dark. If a run has one kind of direction for SAEs of several kinds, the hue tells the kinds of SAE apart.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from tiltmeter.errors import TiltmeterError

Dash = Literal["solid"] | tuple[float, tuple[float, ...]]
"""`solid`, or matplotlib's offset and on-off lengths, in units of the line width."""


class Style(NamedTuple):
    """How one name is drawn, in matplotlib's notation."""

    color: str
    linestyle: Dash = "solid"
    marker: str = "o"
    """Empty for a line without markers."""
    face: str = "white"
    """Fill colour of the marker."""


_DASHED: Dash = (0.0, (4.0, 1.6))
_DASH_DOT: Dash = (0.0, (6.0, 1.5, 1.0, 1.5))
_DOTTED: Dash = (0.0, (1.2, 1.2))


def _solid(color: str, marker: str) -> Style:
    return Style(color, "solid", marker, color)


_BLACK, _BLUE, _VERMILION = "#000000", "#0072B2", "#D55E00"
_FIXED: Mapping[str, Style] = {
    "isotropic": _solid(_BLACK, "s"),
    "isotropic-difference": Style("#7A7A7A", _DASHED, "s"),
    "cov-random": _solid(_BLUE, "o"),
    "cov-random-difference": Style("#56B4E9", _DASHED, "o"),
    "cov-random-mixture": _solid(_BLUE, "o"),
    "cov-trimmed-difference": Style("#56B4E9", _DASHED, "h"),
    "cov-trimmed-mixture": Style(_BLUE, _DASH_DOT, "h", _BLUE),
    "clean": Style("#E69F00", "solid", "^"),
    "real": _solid(_VERMILION, "^"),
    "real-difference": Style("#E69F00", _DASHED, "^"),
    "real-mixture": _solid(_VERMILION, "^"),
    "zero": Style("#555555", _DOTTED, "X", "#555555"),
    "mean": Style("#999999", _DASH_DOT, "P", "#999999"),
}
_OF_SAES: Mapping[str, Style] = {
    "sae-error": _solid("#882255", "D"),
    "sae-error-linear": _solid("#CC6677", "p"),
    "sae-error-nonlinear": _solid("#AA4499", "h"),
    "sae-feature": _solid("#117733", "P"),
    "sae-feature-active": _solid("#44AA99", "X"),
    "sae-feature-dead": _solid("#999933", "d"),
    "latent-doubling": _solid("#332288", ">"),
    "transcoder-error": Style("#882255", _DASHED, "D"),
    "sae-norm-corrected": Style("#CC6677", _DASH_DOT, "<"),
    "sae-cos-corrected": Style("#AA4499", _DASHED, ">"),
    "epsilon-random": Style(_BLACK, _DASH_DOT, "s"),
    "theta-random-sae-norm": Style("#5A5A5A", _DOTTED, "d", "#5A5A5A"),
    "theta-random-true-norm": Style("#9A9A9A", _DOTTED, "p", "#9A9A9A"),
    "epsilon-cov-random-mixture": Style(_BLUE, _DASH_DOT, "o"),
    "epsilon-real-mixture": Style(_VERMILION, _DASH_DOT, "^"),
    "synthetic-baseline": _solid("#CC79A7", "v"),
    "synthetic-baseline-difference": Style("#CC79A7", _DASHED, "v"),
    "synthetic-structured": _solid("#009E73", "*"),
    "synthetic-structured-difference": Style("#009E73", _DASHED, "*"),
    "sae-reconstruction": _solid("#8C510A", "<"),
    "sae-reconstruction-difference": Style("#8C510A", _DASHED, "<"),
}
_OPPOSITE_OF = {"latent-ablation": "latent-doubling"}

_SAE_MARKERS: Mapping[str, str] = {"local": "D", "e2e": "v", "e2e+ds": "P"}
SAE_COLORS: Mapping[str, str] = {"local": "#882255", "e2e": "#332288", "e2e+ds": "#117733"}
"""The hue of each kind of SAE, where it is not needed for the kind of direction."""
_SPARSITY = re.compile(r"(?P<sae>.+)-l0-(?P<l0>\d+(\.\d+)?)")
_LIGHT, _DARK = 0.76, 0.2
# Five colours, three dashes and four markers are pairwise coprime, so sixty other names get distinct styles.
_OTHER_COLORS = ("#44AA99", "#AA4499", "#999933", "#332288", "#CC6677")
_OTHER_DASHES: tuple[Dash, ...] = ("solid", _DASHED, _DASH_DOT)
_OTHER_MARKERS = ("h", "v", "*", "X")
_OTHERS = tuple(
    Style(_OTHER_COLORS[i % 5], _OTHER_DASHES[i % 3], _OTHER_MARKERS[i % 4], _OTHER_COLORS[i % 5]) for i in range(60)
)


def style(name: str) -> Style:
    """Return the style of a name with a fixed one: a direction, a base, or a kind of either that needs an SAE.

    Args:
        name: `real-mixture`, `sae-error` or `sae-error:NAME`.

    Raises:
        TiltmeterError: the name has no fixed style, because it is a user's own.
    """
    found = _fixed(name)
    if found is None:
        raise TiltmeterError(f"{name!r} has no style of its own; request the styles of all names of the run together.")
    return found


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Assign each name of a run its style. The result does not depend on the order of names.

    Args:
        names: all directions (or bases) of the run, so that its figures agree. SAEs that differ only in sparsity
            form a ramp of shades. A user's own names get a style by hash, or the next free one on a collision.
    """
    own = {name: found for name in names if (found := _fixed(name)) is not None}
    others = sorted(set(names) - own.keys())
    given = own | _of_several_saes([name for name in own if ":" in name]) | _others(others)
    return {name: given[name] for name in names}


def shade(color: str, part: float) -> str:
    """Shade a hue from light (0) to dark (1)."""
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    shaded = colorsys.hls_to_rgb(hue, _LIGHT + (_DARK - _LIGHT) * part, saturation)
    return "#" + "".join(f"{round(255 * value):02X}" for value in shaded)


def _fixed(name: str) -> Style | None:
    kind = name.partition(":")[0]
    if name in _FIXED:
        return _FIXED[name]
    if kind in _OF_SAES:
        return _OF_SAES[kind]
    twin = _OF_SAES.get(_OPPOSITE_OF.get(kind, kind.removeprefix("minus-")))
    return twin and Style(twin.color, _DOTTED, twin.marker)


def _of_several_saes(names: Collection[str]) -> dict[str, Style]:
    """Use shades for sparsities, and markers (and hues, if they are free) for kinds of SAE, if there are several."""
    groups: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for name in names:
        kind, _, sae = name.partition(":")
        found = _SPARSITY.fullmatch(sae)
        family, l0 = (found["sae"], float(found["l0"])) if found else (sae, 0.0)
        groups.setdefault((kind, family), []).append((l0, name))
    markers, hues = _markers({family for _, family in groups}), _hues(groups.keys())
    looks = {}
    for (kind, family), members in groups.items():
        look = _fixed(kind) or _OTHERS[0]
        look = look._replace(color=hues.get(family, look.color))
        for rank, (_, name) in enumerate(sorted(members)):
            color = look.color if len(members) == 1 else shade(look.color, rank / (len(members) - 1))
            face = "white" if look.face == "white" else color
            looks[name] = Style(color, look.linestyle, markers.get(family, look.marker), face)
    return looks


def _hues(groups: Collection[tuple[str, str]]) -> dict[str, str]:
    """Return a hue per kind of SAE that has one, unless there is a single kind, or hues show the kind of direction."""
    families = {family for _, family in groups}
    if len(families) < 2 or len({kind for kind, _ in groups}) > 1:
        return {}
    return {family: SAE_COLORS[kind] for family in families if (kind := _kind_of_sae(family)) in SAE_COLORS}


def _kind_of_sae(family: str) -> str:
    """Return `e2e` of `e2e-3`: the name without the layer."""
    return re.sub(r"(-\d+)+$", "", family)


def _markers(families: set[str]) -> dict[str, str]:
    """Return a marker per kind of SAE, or none if there is a single kind, so that directions keep their markers."""
    if len(families) < 2:
        return {}
    known = {family: _SAE_MARKERS.get(_kind_of_sae(family)) for family in families}
    taken = Counter(marker for marker in known.values() if marker)
    markers = {family: marker for family, marker in known.items() if marker}
    for family in sorted(families - markers.keys()):
        start = _hash(family)
        cycle = ("o", "s", "^", "X", "*", "h", "<", ">", "D", "v", "P")
        order = [cycle[(start + step) % len(cycle)] for step in range(len(cycle))]
        markers[family] = min(order, key=lambda marker: taken[marker])
        taken[markers[family]] += 1
    return markers


def _others(names: Iterable[str]) -> dict[str, Style]:
    """Assign styles by hash, choosing the next in the cycle among the least used styles and colours."""
    colors: Counter[str] = Counter()
    used: Counter[Style] = Counter()
    looks = {}
    for name in names:
        start = _hash(name)
        order = [_OTHERS[(start + step) % len(_OTHERS)] for step in range(len(_OTHERS))]
        look = min(order, key=lambda one: (used[one], colors[one.color]))
        looks[name] = look
        used[look] += 1
        colors[look.color] += 1
    return looks


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
