"""`tiltmeter compare`: ask whether the model cares about a vector more than about any other of its length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tiltmeter.cli.dry_run import DryRun, print_forecast
from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import ModelOptions, RunOptions, SaeOptions, TokenOptions
from tiltmeter.cli.output import OutputOptions, publish_if_possible
from tiltmeter.cli.parsing import given, numbers, with_options
from tiltmeter.cli.sweep_options import MeasurementOptions, PositionOptions, policies, refuse_early
from tiltmeter.runs.user_paths import user_path


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """Where the vectors are added, and what they are compared with."""

    site: Annotated[str, typer.Option(help="Site to perturb: blocks.3.hook_resid_pre, or resid_pre:3 for short.")]
    lengths: Annotated[
        str | None,
        typer.Option(help="Lengths in pair distances, with commas or as START:STOP:STEP. (default: 0.125,0.25,0.5,1)"),
    ] = None
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="isotropic, cov-random-mixture, real-mixture, permutation or (with --sae) sae-feature. Repeat for "
            "several. (default: all)"
        ),
    ] = None
    draws: Annotated[
        int | None, typer.Option(help="Random vectors of each baseline. (default: as many as decide, at least 99)")
    ] = None
    budget: Annotated[
        list[float] | None,
        typer.Option(help="A KL in nats, whose length is searched. Repeat for several. (default: 0.01, 0.1 and 1)"),
    ] = None
    sae: Annotated[
        str | None, typer.Option(help="An SAE, named as in sweep: random rows of its decoder are a baseline, too.")
    ] = None
    sae_option: SaeOptions = None
    stream: Annotated[str, typer.Option(help="Residual stream of a LayerNorm model: centred or raw.")] = "centred"


@dataclass(frozen=True, kw_only=True)
class LastPosition(PositionOptions):
    """Which token positions count; by default the last of each sequence."""

    positions: Annotated[
        str, typer.Option(help="last, all, 32, 32+16 (perturb position 32, read 32 to 48) or 3,7,9.")
    ] = "last"


@dataclass(frozen=True, kw_only=True)
class ComparedSequences(MeasurementOptions):
    """How many sequences are measured, how many serve the statistics, and in which arithmetic."""

    sequences: Annotated[int | None, typer.Option(help="Sequences to measure. (default: 64, or all there are)")] = None


@takes_groups
def compare(
    *,
    vectors: Annotated[
        list[str], typer.Argument(help="Files of one vector each, or FILE#NAME: .npy, .safetensors and others.")
    ],
    comparison: ComparisonOptions,
    positions: LastPosition,
    model: ModelOptions,
    tokens: TokenOptions,
    measurement: ComparedSequences,
    run: RunOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Compare vectors with random vectors of the same length.

    docs/compare.md says what is tested.

    Example: tiltmeter compare refusal.npy --site resid_pre:3
    """
    output.begin()
    saes = with_options([comparison.sae] if comparison.sae else None, comparison.sae_option)
    settings = policies(positions) | {"stream": comparison.stream}
    steps = {"lengths": numbers(comparison.lengths), "unit": "pair-distance"} if comparison.lengths else {}
    names = {"site": comparison.site, "directions": [f"along:{one}" for one in vectors], "saes": saes}
    rest = {"readouts": ["kl"], "base": "clean", "path": steps, "positions": positions.positions}
    refuse_early("compare", names | rest | settings, model, tokens, measurement, run)
    settings |= given(seed=run.seed, statistics_sequences=measurement.statistics_sequences)
    asked = given(
        sae=saes[0] if saes else None,
        baselines=comparison.baseline,
        draws=comparison.draws,
        lengths=steps.get("lengths"),
        budgets=comparison.budget,
        sequences=measurement.sequences,
        positions=positions.positions,
    )
    from tiltmeter.sweeps.compare import SEQUENCES, make_comparison, refuse_other_comparison
    from tiltmeter.sweeps.plan import STATISTICS_SEQUENCES

    decided = {name: one for name, one in asked.items() if name not in ("sae", "baselines", "draws")}
    refuse_other_comparison(run.out, comparison.site, labelled(vectors), **decided, **settings)
    model.refuse_missing_modules(comparison.site)
    loaded = model.load(measurement.precision, output)
    most = max(measurement.sequences or SEQUENCES, measurement.statistics_sequences or STATISTICS_SEQUENCES)
    token_set = tokens.load(loaded, most, "nano")
    site = loaded.model.site(comparison.site).name
    deciding = json.dumps([vectors, [_hash(one) for one in vectors], comparison.site, asked, settings])
    out = run.directory(f"compare-{Path(model.model).name}-{site}", deciding, model.model, token_set)
    if dry_run:
        wanted, *_ = make_comparison(loaded, token_set, site, labelled(vectors), **asked | settings)
        print_forecast(wanted, loaded, token_set, out, output)
        return
    output.say(f"run:   {out}")
    measured = measurement.sequences or min(SEQUENCES, len(token_set.ids))
    output.say(f"tokens: {measured} sequences of {token_set.ids.shape[1]} are measured at {site}")
    _run((loaded, token_set, site, labelled(vectors)), asked | settings, out, output)


def _run(inputs: tuple[Any, ...], asked: dict[str, Any], out: Path, output: OutputOptions) -> None:
    """Measure, draw the figures, and print the verdicts and where everything is."""
    from tiltmeter.reports.sweep import short_table
    from tiltmeter.sweeps.compare import compare as measure

    measure(*inputs, out=out, **asked)
    files = publish_if_possible(out)
    output.give(out, lambda: f"{short_table(out)}\n{files}")


def labelled(vectors: Sequence[str]) -> dict[str, str]:
    """Short names of vectors: what follows the #, or the file's name without its ending; whole where two are equal."""
    short = [one.rpartition("#")[2] if "#" in one else Path(one).stem for one in vectors]
    whole = [one.replace("#", " ") for one in vectors]  # in a comparison, # numbers random draws
    labels = [own if short.count(own) == 1 else full for own, full in zip(short, whole, strict=True)]
    return dict(zip(labels, vectors, strict=True))


def _hash(vector: str) -> str:
    path = user_path(vector)
    path = path if path.is_file() else user_path(vector.rpartition("#")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
