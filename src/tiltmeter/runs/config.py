"""The base class of configurations."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tiltmeter.errors import TiltmeterError, did_you_mean

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Sentences(ModelMetaclass):
    # Not in __init__, which pydantic also calls for nested models: the path to the wrong field would be lost.
    def __call__(self, *places: Any, **given: Any) -> Any:
        try:
            return super().__call__(*places, **given)
        except ValidationError as error:
            raise TiltmeterError(_sentence(error, list(vars(self)["__pydantic_fields__"]))) from None


class Configuration(BaseModel, metaclass=_Sentences):
    """Base class of configurations: immutable, validated by pydantic, unknown fields refused.

    Raises:
        TiltmeterError: a value is missing, unknown or not allowed; in one sentence, where pydantic raises a list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, in which some fields have other values; these are validated, as pydantic's own copies are not.

        Raises:
            TiltmeterError: as for a new configuration of these values.
        """
        copy = super().model_copy(deep=deep)
        if not update:
            return copy
        given = {name: getattr(copy, name) for name in self.model_fields_set}
        return type(self)(**{**given, **update})


def _sentence(error: ValidationError, fields: Sequence[str]) -> str:
    """The error in a sentence: a name that does not exist first, since what is missing may only be misspelt."""
    every = error.errors()
    unknown = [one for one in every if one["type"] == "extra_forbidden"]
    if unknown:
        *outer, name = map(str, unknown[0]["loc"])
        beside = [str(one["loc"][-1]) for one in every if one["type"] == "missing"]
        where = f" in {'.'.join(outer)}" if outer else ""
        hint = did_you_mean(name, beside if outer else [*fields, *beside])
        return f"There is no {name}{where}{hint}; leave it out."
    first = every[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{place} is missing; give it."
    given = textwrap.shorten(repr(first["input"]), 100, placeholder=" …")
    return f"{place} was {given}: {message}." if place else f"{message}."
