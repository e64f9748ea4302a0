"""Names of what belongs to one SAE of a run: `KIND:NAME`, NAME the SAE's."""

from __future__ import annotations

from collections.abc import Collection

from tiltmeter.errors import TiltmeterError


def names_an_sae(name: str, kinds: Collection[str], saes: Collection[str]) -> bool:
    """Whether `name` is one of these kinds, of one of these SAEs; False where it is none of the kinds.

    Raises:
        TiltmeterError: it is one of the kinds, but names no SAE, or one that the run does not have.
    """
    kind, colon, sae = name.partition(":")
    if kind not in kinds:
        return False
    if sae in saes:
        return True
    known = f"the SAEs of this run are {', '.join(saes)}" if saes else "this run has none: give one with --sae"
    given = f"{sae!r} in {name!r} is not an SAE of this run" if colon else f"{name!r} needs an SAE, as {name}:NAME"
    raise TiltmeterError(f"{given}; {known}.")
