"""Decoder rows of files that are no SAEs: transcoders, crosscoders, and autoencoders with latents of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.hook_names import layer_of, site_name
from tiltmeter.saes.formats.linear import Facts, fingerprint
from tiltmeter.saes.formats.names import SCHEMES, TRANSCODER, Scheme, scheme_of
from tiltmeter.saes.sae import About, check_finite

UNUSED = frozenset(
    {"W_skip", "affine_skip_connection", "b_dec_out", "threshold", "log_threshold", "k", "code_normalization_id"}
)
"""Tensors that do not change what a latent adds to the output, except by a positive factor."""


class Choice(NamedTuple):
    """Which of several decoders is wanted."""

    said: str = ""
    """What follows the # in the name; empty if nothing does."""
    site: str = ""
    """The site at which the rows will be used; empty where it is not known."""


def dictionary(name: str, kind: str, what: str, rows: Tensor, facts: Facts) -> Dictionary:
    """Build a dictionary from its decoder rows [latent, d_site], in float32.

    Args:
        name: the name by which the user gave it.
        kind: its architecture: `transcoder`, `crosscoder`, ...
        what: the same as the end of a sentence.
        rows: its decoder.
        facts: its metadata.

    Raises:
        TiltmeterError: the rows are no finite matrix of floating point numbers.
    """
    if rows.ndim != 2 or not rows.numel() or not rows.is_floating_point():
        raise TiltmeterError(
            f"The decoder of {name} is {list(rows.shape)} of type {rows.dtype}; expected [latents, d], floating point."
        )
    decoder = rows.detach().to("cpu", torch.float32).contiguous()
    check_finite(name, {"its decoder": decoder})
    settings = {"architecture": kind, "hook_name": facts.get("hook_name")}
    return Dictionary(About(name, kind, fingerprint({"W_dec": decoder}, settings), **facts), decoder, what)


def transcoder(name: str, rows: Tensor, reads: str | None, facts: Facts) -> Dictionary:
    """Build the dictionary of a transcoder, which reads one activation and writes another, `facts["hook_name"]`."""
    there = f"reads {reads or 'what its files do not name'} and writes {facts.get('hook_name') or 'another activation'}"
    return dictionary(name, "transcoder", f"a transcoder, which {there}", rows, facts)


def is_transcoder(tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights alone show that their output is not in the space of their input."""
    return bool(TRANSCODER & tensors.keys()) or any(_widths_differ(tensors, one) for one in SCHEMES.values())


def _widths_differ(tensors: Mapping[str, Tensor], scheme: Scheme) -> bool:
    """Whether weights of this scheme read and write different numbers of coordinates."""
    W_enc, b_enc, b_dec = (tensors.get(scheme.names.get(key, "")) for key in ("W_enc", "b_enc", "b_dec"))
    if W_enc is None or b_enc is None or b_dec is None or not W_enc.ndim == b_enc.ndim + 1 == b_dec.ndim + 1 == 2:
        return False
    d_in, latents = W_enc.shape[::-1] if scheme.as_linear else W_enc.shape
    return latents == len(b_enc) and d_in != len(b_dec)


def is_crosscoder(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a decoder's matrix has a third axis, of layers or models."""
    return any(tensors[one.names["W_dec"]].ndim == 3 for one in SCHEMES.values() if one.names["W_dec"] in tensors)


def rows_of(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Decoder rows of weights alone: [latent, d], or [latent, layer, d] of a crosscoder.

    Raises:
        TiltmeterError: the names are of no known format; another tensor might change the rows; the axes of the decoder
            cannot be told apart.
    """
    scheme = SCHEMES[scheme_of(name, tensors)]
    if strangers := sorted(tensors.keys() - {*scheme.names.values()} - scheme.ignored - UNUSED):
        raise TiltmeterError(f"{name} has {strangers[0]}, and what it does to the decoder rows is not known.")
    W_dec = tensors[scheme.names["W_dec"]]
    bias = tensors[scheme.names["b_enc"] if scheme.names.get("b_enc") in tensors else scheme.names["b_gate"]]
    out = tensors.get("b_dec_out", tensors[scheme.names["b_dec"]])
    if W_dec.ndim == 3:
        return _with_layers(name, W_dec, bias, out)
    latents, d = bias.shape[-1], out.shape[-1]
    if tuple(W_dec.shape) not in ((latents, d), (d, latents)):
        raise TiltmeterError(f"The decoder of {name} is {list(W_dec.shape)}; expected [{latents}, {d}], as its biases.")
    across = W_dec.shape == (d, latents) and (d != latents or scheme.as_linear)
    return W_dec.T if across else W_dec


def _with_layers(name: str, decoder: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """The decoder of a crosscoder as [latent, layer, d], whatever the order of the first two axes.

    Raises:
        TiltmeterError: its axes are not those of its biases.
    """
    latents, d = b_enc.shape[-1], b_dec.shape[-1]
    first, second, last = decoder.shape
    if last != d or (first == latents) == (second == latents):
        raise TiltmeterError(
            f"The decoder of {name} is {list(decoder.shape)}, with biases {list(b_enc.shape)} and {list(b_dec.shape)}; "
            "expected [latents, layers, d] or [layers, latents, d], with biases [latents] and [layers, d]."
        )
    return decoder if first == latents else decoder.transpose(0, 1)


def crosscoder(name: str, tensors: Mapping[str, Tensor], choice: Choice, facts: Facts) -> Dictionary:
    """Build the dictionary of one layer, or one model, of a crosscoder whose files do not say which there are.

    Raises:
        TiltmeterError: the choice is no number of one; as `rows_of`.
    """
    rows = rows_of(name, tensors)
    count = rows.shape[1]
    if not choice.said.isdecimal() or int(choice.said) >= count:
        raise TiltmeterError(
            f"{name} is a crosscoder of {count} layers or models, and does not say which they are; give the number of "
            f"one, 0 to {count - 1}, as in {_with(name, '0')}."
        )
    one = int(choice.said)
    what = f"a crosscoder, whose latents are computed from {count} activations"
    return dictionary(name, "crosscoder", what, rows[:, one], facts)


def chosen(name: str, hooks: Sequence[str], choice: Choice) -> int:
    """Which of these sites is wanted: the one after the #, by its name or its layer, or else the one of the sweep.

    Raises:
        TiltmeterError: none or several are.
    """
    wanted = choice.said or choice.site
    names = [site_name(hook) for hook in hooks]
    found = [
        place
        for place, one in enumerate(names)
        if one == site_name(wanted) or (wanted.isdecimal() and layer_of(one) == int(wanted))
    ]
    if len(found) != 1:
        some = ", ".join(hooks[:3]) + (f", ..., {hooks[-1]}" if len(hooks) > 3 else "")
        asked = f"not to {wanted}" if wanted else "and which is wanted is not known"
        raise TiltmeterError(
            f"{name} writes to {some}, {asked}; use it at one of these sites, or give one, as in "
            f"{_with(name, hooks[0])}."
        )
    return found[0]


def _with(name: str, said: str) -> str:
    """The name with this choice, which stands before the options."""
    plain, mark, options = name.partition("?")
    return f"{plain.partition('#')[0]}#{said}{mark}{options}"


def refuse_choice(name: str, choice: Choice) -> None:
    """Refuse a choice among the SAEs of a file that has one.

    Raises:
        TiltmeterError: something follows a # in the name.
    """
    if choice.said:
        raise TiltmeterError(
            f"{name} has one SAE, but {choice.said!r} was asked for; leave out the # and what follows."
        )
