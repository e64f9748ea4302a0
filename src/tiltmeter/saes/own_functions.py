"""An SAE that is used through an object's own `encode` and `decode`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.object_hashes import tensors_of
from tiltmeter.saes.sae import About


@dataclass(frozen=True)
class OwnSAE:
    """A copy of an object with `encode` and `decode`, which sees activations as [token, d_site]."""

    about: About
    given: Any
    """The copy. A module's is in evaluation mode, without gradients."""
    computes: tuple[torch.device, torch.dtype]
    """Where the copy computes, and in which type. Only modules are moved."""
    returns: tuple[torch.device, torch.dtype]
    """Where decoder rows lie, and their type."""
    shape: tuple[int, int] = (0, 0)
    """Numbers of latents and dimensions, known once it has encoded and decoded an activation."""
    rows: Float[Tensor, "latent d_site"] | None = None

    @property
    def decoder(self) -> Float[Tensor, "latent d_site"]:
        """Decoder rows; NaN where they are not known."""
        if self.rows is not None:
            return self.rows
        device, dtype = self.returns
        return torch.full((), torch.nan, device=device, dtype=dtype).expand(self.shape)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*token d_site"]) -> Float[Tensor, "*token latent"]:
        """Latent activations.

        Raises:
            TiltmeterError: its `encode` raises an error, or returns anything but a tensor.
        """
        return self._call("encode", x)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "*token latent"], like: Float[Tensor, "*token d_site"] | None = None
    ) -> Float[Tensor, "*token d_site"]:
        """The reconstruction; `like` is not used.

        Raises:
            TiltmeterError: its `decode` raises an error, or returns anything but a tensor.
        """
        return self._call("decode", latents)

    def to(self, device: torch.device, dtype: torch.dtype) -> OwnSAE:
        """A copy on this device and of this type, if the object is a module; else only its rows are converted."""
        rows = None if self.rows is None else self.rows.to(device, dtype)
        there = replace(self, returns=(device, dtype), rows=rows)
        if not isinstance(self.given, torch.nn.Module):
            return there
        return replace(there, given=copied(self.given).to(device, dtype), computes=(device, dtype))

    def _call(self, which: str, argument: Tensor) -> Tensor:
        flat = argument.reshape(-1, argument.shape[-1]).to(*self.computes)
        try:
            found = getattr(self.given, which)(flat)
        except Exception as error:  # code of the user
            reason = " ".join(str(error).split()).rstrip(".")[:200]
            raise TiltmeterError(
                f"The {which} of {self.about.name} raised {type(error).__name__}: {reason}, when it was given a tensor "
                f"of shape {list(flat.shape)}; give an object that takes [token, width] there."
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(flat):
            what = f"shape {list(found.shape)}" if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise TiltmeterError(
                f"The {which} of {self.about.name} returned a value of {what} for a tensor of shape "
                f"{list(flat.shape)}; expected a tensor [token, {'latent' if which == 'encode' else 'width'}]."
            )
        return found.to(argument).reshape(*argument.shape[:-1], found.shape[-1])


def own_functions(about: About, given: object) -> OwnSAE:
    """The SAE of a copy of this object, whose shape is not known yet.

    Raises:
        TiltmeterError: the object cannot be copied.
    """
    first = next((one for one in tensors_of(given).values() if one.is_floating_point()), torch.empty(0))
    try:
        copy = copied(given)
    except Exception as error:  # whatever the object's parts raise
        raise TiltmeterError(
            f"{about.name} could not be copied ({type(error).__name__}: {error}), and tiltmeter uses copies, as a run "
            "must not see later changes; give an object that copy.deepcopy copies."
        ) from error
    if isinstance(copy, torch.nn.Module):
        copy = copy.to(first.device, torch.float32)
    place = (first.device, torch.float32 if isinstance(copy, torch.nn.Module) else first.dtype)
    return OwnSAE(about, copy, computes=place, returns=place)


def copied(given: Any) -> Any:
    """A deep copy; of a module, in evaluation mode and without gradients; of SAELens, without parts of the original."""
    copy = deepcopy(given)
    if isinstance(copy, torch.nn.Module):
        copy = copy.eval().requires_grad_(False)
    if is_saelens(copy):
        # These are closures, which a deep copy shares with the original and which keep their state in it.
        copy._setup_activation_normalization()
        copy.turn_off_forward_pass_hook_z_reshaping()
    return copy


def is_saelens(given: object) -> bool:
    """Whether this is an SAE object of SAELens. The library is not imported for it."""
    return any(cls.__module__.partition(".")[0] == "sae_lens" for cls in type(given).__mro__) and hasattr(given, "cfg")
