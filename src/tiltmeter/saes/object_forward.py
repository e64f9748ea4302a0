"""Whether the `forward` of an SAE object does more than its `encode` and `decode`, which are what tiltmeter calls.

Many SAEs normalise or scale activations in `forward` alone. Their `encode` then expects other activations than those
of the model, and a reconstruction by `encode` and `decode` is meaningless without any error being raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.object_checks import AGREES, apart
from tiltmeter.saes.own_functions import OwnSAE
from tiltmeter.saes.sae import SAE, reconstruct


@torch.no_grad()
def check_forward(sae: SAE, own: OwnSAE, x: Float[Tensor, "token d_site"]) -> None:
    """Check that what an object returns when it is called is its reconstruction, as `sae` computes it.

    An object that cannot be called with activations alone, or returns nothing of their shape, passes.

    Raises:
        TiltmeterError: it returns another reconstruction.
    """
    whole: list[Tensor] = []
    with suppress(Exception):  # code of the user, which may need more than activations
        whole = [one for one in _tensors(own.given(x.to(*own.computes))) if one.shape == x.shape]
    differences = [apart(one.to(x), reconstruct(sae, x)) for one in whole]
    if differences and not min(differences) <= AGREES:
        raise TiltmeterError(
            f"The forward of {own.about.name} gives another reconstruction than {_used(own)}: on {len(x)} activations "
            f"of the site, they differ by {min(differences):.1e} of their norm; {_advice(own)}."
        )


def _used(own: OwnSAE) -> str:
    if _has_functions(own):
        return "its encode and decode, which are what tiltmeter calls"
    return "its weights, used as is said"


def _advice(own: OwnSAE) -> str:
    if not _has_functions(own):
        return "say with tm.wrap_sae how forward uses them, or give an object with encode and decode"
    return (
        "give an object whose encode and decode do all that forward does (one with tiltmeter's interface, tm.SAE, "
        "where decode needs the activation), or, if encode and decode alone are meant, a version: "
        'tm.wrap_sae(object, version="...")'
    )


def _has_functions(own: OwnSAE) -> bool:
    return hasattr(own.given, "encode")


def _tensors(found: Any) -> Iterator[Tensor]:
    """The tensors in what a function returns: one, or a tuple, mapping or dataclass of them."""
    if isinstance(found, Tensor):
        yield found
        return
    found = found if isinstance(found, (Mapping, list, tuple)) else getattr(found, "__dict__", {})
    values = found.values() if isinstance(found, Mapping) else found
    yield from (one for one in values if isinstance(one, Tensor))
