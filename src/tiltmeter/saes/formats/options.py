"""What a user says of an SAE whose files do not say it: `weights.safetensors?k=32&apply_b_dec_to_input=false`."""

from __future__ import annotations

from collections.abc import Mapping
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
    hook_name_out: str | None = None
    """The site that a transcoder writes to."""


FIELDS = tuple(Options.__dataclass_fields__)


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
    pairs = [one.partition("=") for one in text.split("&")]
    if wrong := [key for key, _, _ in pairs if key not in FIELDS]:
        raise TiltmeterError(f"{wrong[0]!r} in {name!r} is not an option of an SAE; choose from {', '.join(FIELDS)}.")
    return Asked(plain, options_of(name, {key: value for key, _, value in pairs}))


def options_of(name: str, said: Mapping[str, object]) -> Options:
    """The options with these values, of a name or of a file's metadata.

    Raises:
        TiltmeterError: a value is wrong.
    """
    try:
        options = TypeAdapter(Options).validate_python(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise TiltmeterError(f"{first['loc'][0]} in {name!r} is {first['input']!r}: {first['msg']}.") from None
    if options.activation not in (None, "relu", "topk", "jumprelu"):
        raise TiltmeterError(f"The activation in {name!r} is {options.activation!r}; choose relu, topk or jumprelu.")
    if options.normalize_activations not in (None, *NORMALISATIONS):
        raise TiltmeterError(f"normalize_activations in {name!r} is unknown; choose from {', '.join(NORMALISATIONS)}.")
    return options


def refuse_options(name: str, options: Options) -> None:
    """Refuse options beside files that say how the SAE is used.

    Raises:
        TiltmeterError: there are some.
    """
    if options != Options():
        raise TiltmeterError(f"The files of {name.partition('?')[0]} say how it is used; leave out what follows the ?.")
