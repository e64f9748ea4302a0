"""`--out`: a directory that belongs to a run of another kind, or to something else, is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiltmeter.errors import TiltmeterError


def check_out(out: Path | None, kind: str) -> None:
    """Refuse a directory that a run of this kind cannot use.

    Args:
        out: the directory; None if none was named.
        kind: `sweep`, `crossings`, `compare`, `train-sae`, or the name of a study or `all`.

    Raises:
        TiltmeterError: it is no directory, not empty and not a run, or a run of another kind.
    """
    if out is None:
        return
    from tiltmeter.runs.run_directory import MANIFEST, has_results, read_manifest, refuse_foreign  # with NumPy

    refuse_foreign(out)
    folder = out.expanduser()
    if (folder / MANIFEST).is_file() and (found := kind_of(read_manifest(folder))) != kind and has_results(folder):
        raise TiltmeterError(f"{out} is a run of {found}, not of {kind}; choose another directory (--out).")


def kind_of(manifest: dict[str, Any]) -> str:
    """The command that made a run; of a study, its name, and of several, `all`."""
    identity, purpose = manifest["identity"], str(manifest["record"].get("purpose", ""))
    if "crossings" in identity:
        return "crossings"
    if "compare" in identity:
        return "compare"
    if purpose == "study":
        return str(identity.get("study", purpose))
    return {"studies": "all", "train-sae": "train-sae"}.get(purpose, "sweep")
