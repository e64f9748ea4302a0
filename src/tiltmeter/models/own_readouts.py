"""Readouts that a user gives as functions: of next-token distributions, or of the activations at a later site."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import first_line
from tiltmeter.runs.versions import Versioned

TARGETS = 3
"""Number of arguments of a function that reads targets besides clean and perturbed log probabilities."""

TOGETHER = 1e-6
"""Largest difference of a token's value alone from its value beside other tokens, relative to the largest value."""


@dataclass(frozen=True)
class AtSite:
    """A function of the activations at a later site."""

    site: str
    function: Any

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Any:
        """What the function returns."""
        return self.function(clean, perturbed)


def at_site(site: Any, function: Any) -> AtSite:
    """A readout of your own of the activations at a later site, for `Sweep(readouts={"mine": ...})`.

    `tm.at_site("resid_post:11", f)`, where `f(clean, perturbed)` gets the activations [token, d_site] of the clean and
    of a perturbed run, in float64 and as the site is measured (centred, in a model with LayerNorm), and returns a
    number for each token.

    Raises:
        TiltmeterError: it is not a function, or the site is not a text.
    """
    if not isinstance(site, str):
        raise TiltmeterError(f"at_site() was given the site {site!r}; expected a name, such as 'resid_post:11'.")
    if not callable(function) and not isinstance(function, Versioned):
        raise TiltmeterError(f"at_site() was given a {type(function).__name__}; expected a function.")
    return AtSite(site, function)


@dataclass(frozen=True)
class OwnReadout:
    """A user's function as a readout. It is called with tokens of several sequences at once, a chunk at a time."""

    label: str
    function: Versioned
    site: str | None = None
    """Where the activations are read; None if the function reads next-token distributions."""
    arguments: int = 2
    """How many arguments the function takes."""

    @property
    def identity(self) -> str:
        """What configurations and manifests say of the readout."""
        return self.function.identity if self.site is None else f"{self.function.identity}, at {self.site}"

    def of_distributions(
        self,
        log_p: Float64[Tensor, "token vocabulary"],
        log_q: Float64[Tensor, "token vocabulary"],
        targets: Int[Tensor, "token"],
    ) -> Float64[Tensor, "token"]:
        """The function's values; NaN at tokens without a next token (target -1), if the function reads targets.

        Raises:
            TiltmeterError: as `values`.
        """
        if self.arguments < TARGETS:
            return self.values(log_p, log_q)
        followed = targets >= 0
        found = log_p.new_full(targets.shape, torch.nan)
        if bool(followed.all()):
            return self.values(log_p, log_q, targets)
        if bool(followed.any()):
            found[followed] = self.values(log_p[followed], log_q[followed], targets[followed])
        return found

    @torch.no_grad()
    def values(self, *given: Float[Tensor, "token _"] | Int[Tensor, "token"]) -> Float64[Tensor, "token"]:
        """What the function returns for these arguments, as float64.

        Raises:
            TiltmeterError: it fails, returns anything but one real number per token, or changes its arguments.
        """
        before = [*map(_edits, given)]
        try:
            found = self.function.function(*given)
        except Exception as error:  # code of the user
            shapes = ", ".join(str(list(one.shape)) for one in given)
            raise self._wrong(f"failed on tensors of shape {shapes}: {first_line(error).rstrip('.')}") from error
        tokens = len(given[0])
        if not _is_plain(found) or tuple(found.shape) != (tokens,):
            raise self._wrong(
                f"returned {_described(found)}; expected a tensor of real numbers, one per token, of shape [{tokens}]"
            )
        if before != [*map(_edits, given)]:
            raise self._wrong("changed the tensors that it was given; let it work on copies")
        return found.detach().to(given[0].device, torch.float64)

    def _wrong(self, what: str) -> TiltmeterError:
        return TiltmeterError(f"The readout {self.label} {what}.")


@dataclass(frozen=True)
class CheckedReadout(OwnReadout):
    """The same with the checks that a run makes once, before it measures."""

    def values(self, *given: Tensor) -> Float64[Tensor, "token"]:
        """What the function returns, called again on the same arguments and on a part of the tokens.

        Raises:
            TiltmeterError: it returns other numbers then, as what is drawn or depends on other tokens does; or
                changes its arguments.
        """
        kept = [one.clone() for one in given]
        found = super().values(*given)
        if not all(torch.equal(one, other) for one, other in zip(kept, given, strict=True)):
            raise self._wrong("changed the tensors that it was given; let it work on copies")
        if not torch.equal(found.nan_to_num(0.5), super().values(*given).nan_to_num(0.5)):
            raise self._wrong("returned other numbers when called again; let nothing in it be drawn or kept")
        few = (len(found) + 1) // 2
        alone = super().values(*(one[:few] for one in given))
        near = torch.isclose(alone, found[:few], rtol=0, atol=TOGETHER * _largest(found), equal_nan=True)
        if not bool(near.all()):
            raise self._wrong(
                "returned other numbers for the same tokens beside fewer others, so it would depend on the batch; let "
                "it treat each token by itself"
            )
        return found


def read_own(label: str, given: Any) -> OwnReadout:
    """A user's function under its label; it may be versioned, at a site, or both.

    Raises:
        TiltmeterError: it is not a function, or one of other arguments.
    """
    version, site = None, None
    while isinstance(given, (Versioned, AtSite)):
        if isinstance(given, Versioned):
            version = version or given.version
        else:
            site = given.site
        given = given.function
    if not callable(given):
        raise TiltmeterError(
            f"The readout {label} is of type {type(given).__name__}; give a function, or ... for the readout of "
            "tiltmeter's with that name."
        )
    return OwnReadout(label, Versioned(given, version), site, _arguments(label, given, site))


def _arguments(label: str, function: Callable[..., Any], site: str | None) -> int:
    """How many arguments a function is called with: as many as it needs, of those there are."""
    most = 2 if site is not None else TARGETS
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return 2
    if any(one.kind == one.VAR_POSITIONAL for one in parameters):
        return most
    needed = [one for one in parameters if one.default is one.empty and one.kind != one.VAR_KEYWORD]
    if any(one.kind == one.KEYWORD_ONLY for one in needed) or not 2 <= len(needed) <= most:
        more = "" if site is not None else " log probabilities, or of these and the targets"
        raise TiltmeterError(
            f"The readout {label} is a function of ({', '.join(one.name for one in needed)}); expected one of (clean, "
            f"perturbed){more}."
        )
    return len(needed)


def _is_plain(found: Any) -> bool:
    """Whether it is a tensor of real numbers that is not sparse."""
    return isinstance(found, Tensor) and found.layout == torch.strided and not found.is_complex()


def _described(found: Any) -> str:
    if not isinstance(found, Tensor):
        return type(found).__name__
    return f"a tensor of shape {list(found.shape)}, {found.dtype}, {found.layout}"


def _edits(one: Tensor) -> int:
    """How often a tensor was changed in place, which torch counts outside of inference mode."""
    return 0 if one.is_inference() else one._version


def _largest(values: Tensor) -> float:
    return float(values.nan_to_num(0.0, 0.0, 0.0).abs().max()) if values.numel() else 0.0
