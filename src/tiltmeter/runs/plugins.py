"""Directions, readouts, SAE formats and studies of other packages, found by their entry points.

A package names them in its `pyproject.toml`, `[project.entry-points."tiltmeter.directions"]`, and they are there as
soon as it is installed. `examples/plugin` is such a package.
"""

from __future__ import annotations

from collections import UserDict
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tiltmeter.errors import TiltmeterError

GROUPS = ("tiltmeter.directions", "tiltmeter.readouts", "tiltmeter.sae_formats", "tiltmeter.studies")


class Registry(UserDict[str, Any]):
    """What has a name: tiltmeter's own, and what other packages add.

    These are imported when the registry is first used, not when it is made: they import tiltmeter.
    """

    def __init__(self, group: str, own: dict[str, Any]) -> None:
        self._group, self._all = group, own

    @property
    def data(self) -> dict[str, Any]:  # type: ignore[override]
        """All of them.

        Raises:
            TiltmeterError: a package cannot be imported, or gives something a name that is taken.
        """
        for name, value in load(self._group).items():
            if self._all.setdefault(name, value) is not value:
                raise TiltmeterError(
                    f"{_home(find(self._group)[name])} gives something the name {name!r}, which tiltmeter has itself; "
                    "rename it there, or uninstall the package."
                )
        return self._all


@cache
def find(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by their names; nothing is imported.

    Raises:
        TiltmeterError: two packages use one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if (other := found.setdefault(point.name, point)) != point:
            raise TiltmeterError(
                f"{_home(other)} and {_home(point)} both give something the name {point.name!r}; uninstall one of them."
            )
    return found


@cache
def load(group: str) -> dict[str, Any]:
    """What the entry points of a group name.

    Raises:
        TiltmeterError: one cannot be imported.
    """
    found = {}
    for name, point in find(group).items():
        try:
            found[name] = point.load()
        except Exception as error:  # a package may fail in any way
            raise TiltmeterError(
                f"{name} of {_home(point)} could not be imported: {type(error).__name__}: {str(error).rstrip('.')}; "
                "mend the package, or uninstall it."
            ) from error
    return found


def versions() -> dict[str, str]:
    """The packages that add something, with their versions, which may change numbers."""
    points = [point for group in GROUPS for point in find(group).values()]
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def _home(point: EntryPoint) -> str:
    return f"The package {point.dist.name}" if point.dist is not None else point.value
