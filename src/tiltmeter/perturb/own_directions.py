"""Directions that a user gives as objects: a vector, a vector for each position, a function, or a `Direction`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.failures import first_line
from tiltmeter.perturb.directions import Along, Direction, without_rounding
from tiltmeter.perturb.names import ALONG, BLEND, DirectionName
from tiltmeter.perturb.registry import DIRECTIONS
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Context
from tiltmeter.perturb.user_vectors import check_vector
from tiltmeter.runs.versions import Versioned


@runtime_checkable
class OfStatistics(Protocol):
    """A direction that is known once the statistics of the site are."""

    def at(self, statistics: SiteStatistics) -> Direction:
        """The direction at the site."""
        ...


@dataclass(frozen=True)
class OwnDirection:
    """A direction that is given as an object, and what identifies it in a run."""

    direction: Direction | OfStatistics
    identity: str
    """The hash of a vector; the version of a function."""
    function: Versioned | None = None
    """What is run, if it is more than a vector."""


TOGETHER = 1e-3
"""Largest difference of a token's vector alone from its vector beside other sequences, relative to its length."""

Directions = tuple[str, ...] | Mapping[str, OwnDirection | None]
"""The directions of a sweep: names, or a mapping of labels to objects, and of names to None."""


@dataclass(frozen=True)
class AlongPositions:
    """A user's vector for each position of a sequence, the same in all sequences."""

    given: Float[Tensor, "position d_site"]

    def vector(self, context: Context) -> Tensor:
        """Return the vectors of the positions in question."""
        return self.given[context.address.positions].to(context.x).expand_as(context.x)


@dataclass(frozen=True)
class OfFunction:
    """A user's function of the activations and their context, or a `Direction` of theirs."""

    label: str
    function: Callable[[Tensor, Context], Any] | Direction

    def vector(self, context: Context) -> Tensor:
        """Return what the function returns, called twice to see that nothing in it is drawn.

        Raises:
            TiltmeterError: the function fails, or returns no finite vectors of the activations' shape, or other ones
                when called again.
        """
        first, second = self._call(context), self._call(context)
        if not torch.equal(first, second):
            raise self._wrong(
                "returned other vectors when called again; draw random numbers from runs.rng with context.address, so "
                "that a run can be repeated"
            )
        return first

    def check_alone(self, context: Context) -> None:
        """Check that the vectors of a sequence do not depend on the sequences beside it.

        Raises:
            TiltmeterError: they do, or as `vector`.
        """
        together = self.vector(context)
        alone = torch.cat([self.vector(context.of_sequence(row)) for row in range(len(context.x))])
        size = torch.linalg.vector_norm(together, dim=-1, dtype=torch.float64)
        if bool((torch.linalg.vector_norm(together - alone, dim=-1, dtype=torch.float64) > TOGETHER * size).any()):
            raise self._wrong(
                "returned other vectors for a sequence beside others than alone, so it would depend on the batch; let "
                "it treat each sequence by itself"
            )

    def _call(self, context: Context) -> Tensor:
        context = context.copied()  # what the function changes in place must not reach the model
        try:
            if isinstance(self.function, Direction):
                found: Any = self.function.vector(context)
            else:
                found = self.function(context.x.clone(), context)
        except Exception as error:
            raise self._wrong(f"failed: {first_line(error)}".rstrip(".")) from error
        wanted = tuple(context.x.shape)
        if not isinstance(found, Tensor) or tuple(found.shape) not in (wanted, wanted[-1:]):
            shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"type {type(found).__name__}"
            raise self._wrong(f"returned something of {shape}; expected a tensor of shape {wanted} or {wanted[-1:]}")
        if not _holds_reals(found):
            raise self._wrong(f"returned a tensor of {found.dtype}, {found.layout}; expected real numbers, not sparse")
        if not bool(torch.isfinite(found).all()):
            raise self._wrong("returned NaN or an infinity; return finite numbers, zeros where there is no direction")
        return found.detach().to(context.x).expand_as(context.x)

    def _wrong(self, what: str) -> TiltmeterError:
        return TiltmeterError(f"The direction {self.label} {what}.")


def read_directions(given: Any) -> Directions:
    """Check the directions given to a sweep: names, or a mapping of labels to objects.

    In a mapping, a vector (tensor, array or list of numbers) is of shape [d_site], or [position, d_site] for another at
    each position of a sequence; a function gets (x, context) and returns a vector for each token; a `Direction` has a
    method `vector(context)`. `...` stands for the direction that the label names: `{"mine": v, "real-mixture": ...}`.

    Raises:
        TiltmeterError: they are neither, or a label cannot be one.
    """
    if isinstance(given, Mapping) and given:
        return {checked_label(label, one): _read(label, one) for label, one in given.items()}
    if isinstance(given, str):
        raise TiltmeterError(f"directions= was the text {given!r}; give a tuple of names: directions=({given!r},).")
    if isinstance(given, (list, tuple)) and given and all(isinstance(name, str) for name in given):
        return tuple(given)
    shown = "empty" if isinstance(given, (Mapping, list, tuple)) and not given else f"of type {type(given).__name__}"
    raise TiltmeterError(
        f"directions= was {shown}; give names, as ('real-mixture',), or objects with labels of your own, as "
        "{'mine': vector, 'real-mixture': ...}."
    )


def shown(directions: Directions) -> Any:
    """How a configuration is dumped: names as they are, an object as what identifies it."""
    if not isinstance(directions, Mapping):
        return directions
    return {label: None if one is None else one.identity for label, one in directions.items()}


def of_vector(vector: Tensor) -> OwnDirection:
    """The direction along a vector [d_site], or along one at each position [position, d_site]."""
    identity = hashlib.sha256(vector.numpy().tobytes()).hexdigest()
    return OwnDirection(Along(vector) if vector.ndim == 1 else AlongPositions(vector), identity)


def check_positions(name: DirectionName, own: OwnDirection, length: int) -> None:
    """Check that a direction with a vector for each position has as many as a sequence has tokens.

    Raises:
        TiltmeterError: it has not.
    """
    if isinstance(own.direction, AlongPositions) and len(own.direction.given) != length:
        raise TiltmeterError(
            f"The direction {name} has {len(own.direction.given)} vectors, but sequences have {length} positions; give "
            "one vector for each position, or several directions a label each."
        )


def bind(
    name: DirectionName, own: OwnDirection, statistics: SiteStatistics, centre: Callable[[Tensor], Tensor]
) -> Direction:
    """The direction at a site, where `centre` removes what the model is blind to.

    Raises:
        TiltmeterError: its vectors have another width than the site's activations, or the model is blind to them.
    """
    direction, width = own.direction, len(statistics.mean)
    if isinstance(direction, OfStatistics):
        return direction.at(statistics)
    if isinstance(direction, Along | AlongPositions) and (found := direction.given.shape[-1]) != width:
        raise TiltmeterError(
            f"The vector {name} has width {found}, but those at this site {width}; give vectors of that width."
        )
    if isinstance(direction, Along | AlongPositions) and not bool(without_rounding(centre, direction.given).any()):
        raise TiltmeterError(
            f"The vector {name} has the same number in every coordinate, which this model's LayerNorms ignore, so that "
            "nothing is left of it in the centred stream; leave it out."
        )
    return direction


def checked_label(label: Any, one: Any) -> str:
    """The label of a direction that is given as an object.

    Raises:
        TiltmeterError: it is no text, or could be taken for the name of one of tiltmeter's directions.
    """
    if not (isinstance(label, str) and label.strip() and label.isprintable()):
        raise TiltmeterError(f"A direction has the label {label!r}; expected a text of one line that is not empty.")
    if one is None or isinstance(one, EllipsisType | OwnDirection):  # None and OwnDirection: from another sweep
        return label
    if label in {*DIRECTIONS, ALONG, BLEND} or set(label) & set(":@"):
        raise TiltmeterError(
            f"The label {label!r} of a direction of your own is, or may be read as, a name of tiltmeter's; choose one "
            "without : and @ that is not the name of a direction."
        )
    return label


def _read(label: str, one: Any) -> OwnDirection | None:
    if isinstance(one, EllipsisType):
        return None
    if one is None or isinstance(one, OwnDirection):
        return one
    if isinstance(one, str):
        raise TiltmeterError(
            f"The direction {label} was given as the text {one!r}; use the name as the label, {{{one!r}: ...}}."
        )
    if isinstance(one, (Tensor, list, tuple)) or hasattr(one, "__array__"):
        return of_vector(read_vector(label, one))
    function = one if isinstance(one, Versioned) else Versioned(one)
    if callable(function.function) or callable(getattr(function.function, "vector", None)):
        return OwnDirection(OfFunction(label, function.function), function.identity, function)
    raise TiltmeterError(
        f"The direction {label} is of type {type(one).__name__}; give a vector, a function of (x, context), or an "
        "object with a method vector(context)."
    )


def read_vector(label: str, given: Any) -> Tensor:
    """Copy a vector [d_site], or one for each position [position, d_site], in float64.

    Raises:
        TiltmeterError: it is none, is zero or not finite.
    """
    try:
        tensor = _tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TiltmeterError(f"The direction {label} is no vector: {str(error).splitlines()[0].rstrip('.')}.") from None
    if tensor.is_nested or tensor.ndim not in (1, 2) or not tensor.numel() or not _holds_reals(tensor):
        shape = "sequences of several lengths" if tensor.is_nested else f"shape {tuple(tensor.shape)}"
        raise TiltmeterError(
            f"The direction {label} has {shape} and type {tensor.dtype}, {tensor.layout}; expected real numbers of "
            "shape [d_site], or [position, d_site], not sparse."
        )
    tensor = tensor.double().clone()
    check_vector(label, tensor)
    return tensor


def _tensor(given: Any) -> Tensor:
    """What torch, NumPy, pandas and xarray hold, and numbers in lists, as a tensor; floats in lists are float64."""
    if isinstance(given, Tensor):
        return given
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError("it is a masked array, whose masked values are unknown; fill them")
    if isinstance(given, (list, tuple)) and any(isinstance(one, Tensor) for one in given):
        return torch.stack([torch.as_tensor(one).detach().cpu() for one in given])
    array = np.asarray(given)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _holds_reals(tensor: Tensor) -> bool:
    """Whether a tensor holds real numbers, all of them."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    return plain and not tensor.is_complex() and tensor.dtype != torch.bool
