"""The command `crossings`, of `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.cli import actions
from tiltmeter.cli.options import (
    Angles,
    BaseName,
    BosAverage,
    BosBefore,
    BosPerturbation,
    BosStatistics,
    Column,
    Device,
    Directions,
    Length,
    Lengths,
    LengthUnit,
    Model,
    NSequences,
    Out,
    PositionsText,
    Precision,
    Revision,
    Saes,
    Seed,
    SiteName,
    StreamName,
    Tokens,
    TokensRevision,
)
from tiltmeter.cli.parsing import crossings_of, path_of, run_folder, sweep_of
from tiltmeter.errors import TiltmeterError


def crossings(
    site: SiteName,
    direction: Directions,
    threshold: Annotated[float | None, typer.Option(help="What the readout must pass, in its units: 0.5.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Instead: a share of each curve's value at the last step, 0 to 1.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="How long the bracket of a crossing may be, in units of the steps. (default: from one to the next)"
        ),
    ] = None,
    guard: Annotated[
        int | None,
        typer.Option(help="Steps that are measured in ascending order before bisection begins. (default: 4)"),
    ] = None,
    lengths: Lengths = "",
    unit: LengthUnit = "absolute",
    angles: Angles = "",
    sae: Saes = None,
    base: BaseName = "clean",
    stream: StreamName = "centred",
    readout: Annotated[str, typer.Option(help="kl, js or l2@SITE.")] = "kl",
    positions: PositionsText = "all",
    bos_statistics: BosStatistics = "out",
    bos_perturbation: BosPerturbation = "in",
    bos_average: BosAverage = "in",
    model: Model = "nano",
    revision: Revision = None,
    tokens: Tokens = None,
    column: Column = None,
    tokens_revision: TokensRevision = None,
    length: Length = None,
    bos_before: BosBefore = "document",
    n_sequences: NSequences = None,
    device: Device = "cpu",
    precision: Precision = "auto",
    seed: Seed = None,
    out: Out = None,
) -> None:
    """Find where each sequence's readout passes a threshold along each direction, by bisection instead of a scan.

    What is promised where a curve passes it several times: docs/crossings.md.

    Example: tiltmeter crossings --site resid_pre:3 --direction real-mixture --direction isotropic
    --angles 0:180:2 --positions last --threshold 0.5
    """
    if bool(lengths) == bool(angles):
        raise TiltmeterError("Give one of --lengths and --angles, and only one.")
    config = {
        "site": site,
        "directions": direction,
        "saes": sae or [],
        "base": base,
        "stream": stream,
        "path": path_of(lengths, unit, angles, False),
        "readouts": [readout],
        "positions": positions,
        "bos": {"statistics": bos_statistics, "perturbation": bos_perturbation, "average": bos_average},
    }
    wanted = crossings_of(
        sweep_of(config, sequences=n_sequences, seed=seed),
        threshold=threshold,
        fraction=fraction,
        tolerance=tolerance,
        guard=guard,
    )
    loaded = actions.load(model, revision, device, precision)
    needed = actions.needed(wanted.sweep)
    token_set = actions.load_tokens(loaded, needed, tokens, column, tokens_revision, length, bos_before)
    sweep = actions.cap_sequences(wanted.sweep, token_set, n_sequences)
    wanted = wanted.model_copy(update={"sweep": sweep})
    place = loaded.model.site(site).name
    folder = out or run_folder(f"crossings-{Path(model).name}-{place}", wanted, model, token_set)
    actions.run_crossings(wanted, loaded, token_set, folder)
