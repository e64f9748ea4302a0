"""What a user says of an SAE whose files do not say it: `weights.safetensors?k=32&apply_b_dec_to_input=false`."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.normalisation import NORMALISATIONS


@dataclass(frozen=True)
class Options:
    """How weights are used, as far as the user says; None where not."""

    apply_b_dec_to_input: bool | None = None
    """Whether b_dec is subtracted from the input."""
    activation: str | None = None
    """`relu`, `topk` or `jumprelu`."""
    k: int | None = None
    """How many latents a top-k SAE keeps."""
    normalize_activations: str | None = None
    """`none`, `layer_norm` or `constant_norm_rescale`, as in SAELens."""
    hook_name: str | None = None
    """The site, by its TransformerLens name."""


class Asked(NamedTuple):
    """A name without its options, and the options."""

    name: str
    options: Options


def split_options(name: str) -> Asked:
    """Split `NAME?KEY=VALUE&KEY=VALUE`; a name without a question mark has no options.

    Raises:
        TiltmeterError: an option is unknown, or its value is wrong.
    """
    plain, mark, text = name.partition("?")
    if not mark:
        return Asked(name, Options())
    known = ", ".join(Options.__dataclass_fields__)
    pairs = [one.partition("=") for one in text.split("&")]
    if wrong := [key for key, _, _ in pairs if key not in Options.__dataclass_fields__]:
        raise TiltmeterError(f"{wrong[0]!r} in {name!r} is not an option of an SAE; choose from {known}.")
    try:
        options = TypeAdapter(Options).validate_python({key: value for key, _, value in pairs})
    except ValidationError as error:
        first = error.errors()[0]
        raise TiltmeterError(f"{first['loc'][0]} in {name!r} is {first['input']!r}: {first['msg']}.") from None
    if options.activation not in (None, "relu", "topk", "jumprelu"):
        raise TiltmeterError(f"The activation in {name!r} is {options.activation!r}; choose relu, topk or jumprelu.")
    if options.normalize_activations not in (None, *NORMALISATIONS):
        raise TiltmeterError(f"normalize_activations in {name!r} is unknown; choose from {', '.join(NORMALISATIONS)}.")
    return Asked(plain, options)
