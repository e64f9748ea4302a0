"""The readouts that a sweep is given: names, or a mapping of labels to functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Any

from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.own_readouts import OwnReadout, read_own
from tiltmeter.models.readouts import OUTPUT_READOUTS, SITE_READOUTS, Readout, own_readout, parse_readout
from tiltmeter.models.split_model import SplitModel

Readouts = tuple[str, ...] | Mapping[str, OwnReadout | None]
"""The readouts of a sweep: names, or a mapping of labels to functions, and of names to None."""

RESERVED = {"length", "tokens", "direction", "step", "sequence", "position"}
"""What datasets of curves call other things."""


def read_readouts(given: Any) -> Readouts:
    """Check the readouts given to a sweep: names, or a mapping of labels to functions.

    In a mapping, `...` stands for the readout that the label names: `{"kl": ..., "mine": f}`. A function may have a
    version (`tm.versioned`) and may be of a later site (`tm.at_site`).

    Raises:
        TiltmeterError: they are neither, a label cannot be one, or a function takes other arguments.
    """
    if isinstance(given, Mapping) and given:
        return {_checked_label(label, one): _read(label, one) for label, one in given.items()}
    if isinstance(given, str):
        raise TiltmeterError(f"readouts= was the text {given!r}; give a tuple of names: readouts=({given!r},).")
    if isinstance(given, (list, tuple)) and given and all(isinstance(name, str) for name in given):
        return tuple(given)
    what = "empty" if isinstance(given, (Mapping, list, tuple)) and not given else f"of type {type(given).__name__}"
    raise TiltmeterError(
        f"readouts= was {what}: give names, as ('kl',), or functions with labels of your own, as "
        "{'mine': f, 'kl': ...}."
    )


def shown_readouts(readouts: Readouts) -> Any:
    """How a configuration is dumped: names as they are, a function as what identifies it."""
    if not isinstance(readouts, Mapping):
        return readouts
    return {label: None if one is None else one.identity for label, one in readouts.items()}


def look_up_readouts(
    readouts: Readouts, model: SplitModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[Readout, ...]:
    """Find sites and tokens of the readouts in a model.

    Raises:
        TiltmeterError: there is no such readout, site or token.
    """
    objects = readouts if isinstance(readouts, Mapping) else {}
    found = [
        parse_readout(name, model, tokenizer) if (own := objects.get(name)) is None else own_readout(own, model)
        for name in readouts
    ]
    return tuple({readout.name: readout for readout in found}.values())


def _checked_label(label: Any, one: Any) -> str:
    if not (isinstance(label, str) and label.strip()):
        raise TiltmeterError(f"A readout of readouts= has the label {label!r}; expected a text that is not empty.")
    if one is None or isinstance(one, EllipsisType | OwnReadout):  # None and OwnReadout: from another sweep
        return label
    if label in {*OUTPUT_READOUTS, *SITE_READOUTS} | RESERVED or not _is_word(label):
        raise TiltmeterError(
            f"The label {label!r} of a readout of your own is, or may be read as, a name of tiltmeter's; choose one "
            "of letters, digits, spaces, - and _ that is not the name of a readout."
        )
    return label


def _is_word(label: str) -> bool:
    """Whether a label can name a variable in a NetCDF file, and no site or token."""
    plain = label.replace("-", "").replace("_", "").replace(" ", "")
    return plain.isascii() and plain.isalnum() and label[0].isalnum() and label == label.strip()


def _read(label: str, one: Any) -> OwnReadout | None:
    if isinstance(one, EllipsisType):
        return None
    if one is None or isinstance(one, OwnReadout):
        return one
    if isinstance(one, str):
        raise TiltmeterError(
            f"The readout {label} was given as the text {one!r}; use the name as the label, {{{one!r}: ...}}."
        )
    return read_own(label, one)
