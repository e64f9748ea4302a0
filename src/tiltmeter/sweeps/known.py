"""What is known of a run before its model is loaded: a run directory of another run is refused then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltmeter.models import provenance
from tiltmeter.models.sites import long_name, names_several
from tiltmeter.runs.run_directory import refuse_other
from tiltmeter.runs.user_paths import user_path
from tiltmeter.sweeps.plan import Sweep

NOT_KNOWN = {"site", "saes", "readouts"}
"""Fields of a sweep that are looked up in a model; of `site` and `readouts` the names are known."""

CHOSEN_LATER = {"sequences", "directions"}
"""Fields that, if they are not given, may be chosen once model and tokens are loaded."""


def refuse_other_run(out: str | Path | None, sweep: Sweep, **more: Any) -> None:
    """Refuse a run directory with results of another sweep, or of another version of the code.

    What depends on the model and the tokens is compared when the run is opened.

    Args:
        out: the run directory; None if none was named.
        sweep: what would be measured.
        more: further entries of the run's identity (`tiltmeter.sweeps.records.identity`).

    Raises:
        TiltmeterError: the message says what differs.
    """
    if out is not None and not names_several(sweep.site):  # several sites have each a run of their own in the directory
        refuse_other(user_path(out), {**provenance.software(), "sweep": _known(sweep), **more})


def _known(sweep: Sweep) -> dict[str, Any]:
    """The entries of a sweep in its identity, as far as they are known."""
    left_out = NOT_KNOWN | (CHOSEN_LATER - sweep.model_fields_set)
    if sweep.until_ci is not None:
        left_out |= {"sequences"}  # a maximum, of which the tokens may be fewer
    found = sweep.model_dump(mode="json", exclude=left_out) | {"site": long_name(sweep.site)}
    readouts = [_long(name) for name in sweep.readouts]
    return found if isinstance(sweep.readouts, Mapping) or None in readouts else found | {"readouts": readouts}


def _long(readout: str) -> str | None:
    """The name of a readout as results have it; None where that depends on the tokenizer."""
    kind, at, site = readout.partition("@")
    return None if ":" in kind else f"{kind}{at}{long_name(site) if at else ''}"
