"""What the commands `sweep` and `crossings` share: their options, and how these become a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiltmeter.cli.catalogue import choices
from tiltmeter.cli.early.device import check_device_early
from tiltmeter.cli.early.model_facts import model_facts
from tiltmeter.cli.early.names import (
    check_base_name,
    check_directions,
    check_readouts,
    check_saes,
)
from tiltmeter.cli.early.out import check_out
from tiltmeter.cli.early.tokens import check_number, check_positions, token_facts
from tiltmeter.cli.early.values import at_least_one, check_path, one_of
from tiltmeter.cli.options import ModelOptions, Precision, RunOptions, SaeOptions, Saes, TokenOptions
from tiltmeter.cli.output import OutputOptions
from tiltmeter.cli.parsing import given, with_options
from tiltmeter.models.site_names import check_site, check_sites
from tiltmeter.models.sites import names_several

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.sweeps.plan import Sweep


@dataclass(frozen=True, kw_only=True)
class PerturbationOptions:
    """What is added to the activations, and where."""

    site: Annotated[
        str,
        typer.Option(
            help="Site to perturb: blocks.3.hook_resid_pre, or resid_pre:3; in sweep also several: resid_pre:*."
        ),
    ]
    direction: Annotated[
        list[str],
        typer.Option(
            help="A direction (tiltmeter list directions), or along:FILE (.npy, .safetensors). Repeat for several."
        ),
    ]
    lengths: Annotated[str, typer.Option(help="Comma-separated lengths, or START:STOP:STEP.")] = ""
    unit: Annotated[
        str,
        typer.Option(
            help="Unit of the lengths: absolute (L2), norm (that of x), target (1 reaches the target), or "
            "pair-distance (the mean L2 distance of two real activations of different sequences at the site)."
        ),
    ] = "absolute"
    angles: Annotated[str, typer.Option(help="Instead of lengths: degrees on the sphere, in the same form.")] = ""
    sae: Saes = None
    sae_option: SaeOptions = None
    base: Annotated[
        str, typer.Option(help="Where paths begin: clean, real, cov-random, ... (tiltmeter list bases).")
    ] = "clean"
    stream: Annotated[str, typer.Option(help="Residual stream of a LayerNorm model: centred or raw.")] = "centred"


@dataclass(frozen=True, kw_only=True)
class PositionOptions:
    """Which token positions count."""

    positions: Annotated[
        str, typer.Option(help="all, last, 32, 32+16 (perturb position 32, read 32 to 48) or 3,7,9.")
    ] = "all"
    bos_statistics: Annotated[
        str, typer.Option(help="Whether the statistics include boundary positions: in or out.")
    ] = "out"
    bos_perturbation: Annotated[str, typer.Option(help="Whether boundary positions are perturbed: in or out.")] = "in"
    bos_average: Annotated[str, typer.Option(help="Whether averages include boundary positions: in or out.")] = "in"
    massive_statistics: Annotated[
        str, typer.Option(help="Whether the statistics include massive activations: in or out.")
    ] = "out"
    massive_perturbation: Annotated[str, typer.Option(help="Whether massive activations are perturbed: in or out.")] = (
        "in"
    )
    massive_average: Annotated[str, typer.Option(help="Whether averages include massive activations: in or out.")] = (
        "in"
    )
    massive_ratio: Annotated[
        float, typer.Option(help="An activation is massive if its norm is above this multiple of the site's median.")
    ] = 10.0


@dataclass(frozen=True, kw_only=True)
class MeasurementOptions:
    """How many sequences are measured, how many serve the statistics, and in which arithmetic."""

    sequences: Annotated[int | None, typer.Option(help="Sequences to measure. (default: 192, or all there are)")] = None
    statistics_sequences: Annotated[
        int | None,
        typer.Option(
            help="Most sequences for the statistics of real activations: mean, covariance, pool, pair distance. "
            "(default: 2048)"
        ),
    ] = None
    precision: Precision = "auto"


def sweep_config(perturbation: PerturbationOptions, positions: PositionOptions) -> dict[str, Any]:
    """The part of a `Sweep`'s configuration that these options decide."""
    return {
        "site": perturbation.site,
        "directions": perturbation.direction,
        "saes": with_options(perturbation.sae, perturbation.sae_option),
        "base": perturbation.base,
        "stream": perturbation.stream,
        "positions": positions.positions,
    } | policies(positions)


def policies(positions: PositionOptions) -> dict[str, Any]:
    """What boundary positions and massive activations count in."""
    return {
        "bos": {
            "statistics": positions.bos_statistics,
            "perturbation": positions.bos_perturbation,
            "average": positions.bos_average,
        },
        "massive": {
            "statistics": positions.massive_statistics,
            "perturbation": positions.massive_perturbation,
            "average": positions.massive_average,
            "ratio": positions.massive_ratio,
        },
    }


def refuse_early(
    kind: str,
    config: dict[str, Any],
    model: ModelOptions,
    tokens: TokenOptions,
    measurement: MeasurementOptions,
    run: RunOptions,
) -> None:
    """Refuse wrong options as far as that is possible without the model, in less than a second.

    torch is imported only for a device other than the CPU.

    Raises:
        TiltmeterError: a name does not exist, a file is not there or of another shape, a number is out of range, or the
            run directory belongs to a run of another kind than `kind`.
    """
    one_of("--precision", measurement.precision, choices("precision"))
    one_of("--stream", config["stream"], ("centred", "raw"))
    for group, policies in (("bos", config["bos"]), ("massive", config["massive"])):
        for name in ("statistics", "perturbation", "average"):
            one_of(f"--{group}-{name}", policies[name], ("in", "out"))
    at_least_one(sequences=measurement.sequences, statistics_sequences=measurement.statistics_sequences)
    check_path(config["path"])
    check_saes(config["saes"])
    check_base_name(config["base"], config["saes"])
    facts = model_facts(model.model)
    (check_sites if kind == "sweep" else check_site)(config["site"], facts.layers)
    check_readouts(config["readouts"], config["site"], facts)
    check_directions(config["directions"], config["site"], config["saes"], facts)
    there = token_facts(tokens.tokens, model.model, tokens.sequence_length)
    check_number(measurement.sequences, there, tokens.tokens)
    check_positions(config["positions"], there.length)
    one_of("--bos-before", tokens.bos_before, choices("bos-before"))
    if not names_several(config["site"]):  # several sites have each a run of their own in the directory
        check_out(run.out, kind)
    check_device_early(model.device)


def make_sweep(config: dict[str, Any], **options: Any) -> Sweep:
    """A sweep of this configuration and of those options that are not None.

    Names are checked as far as that is possible without the model, so that a wrong one is refused before a model is
    loaded.

    Raises:
        TiltmeterError: a value or a name is wrong.
    """
    from tiltmeter.models.sites import long_name
    from tiltmeter.saes.loading import read_early, refuse_unknown
    from tiltmeter.saes.names import loaded_by_name, short_names
    from tiltmeter.sweeps.plan import Sweep, look_up

    sweep = Sweep(**config | given(**options))
    saes = loaded_by_name(sweep.saes)
    for name in saes:
        refuse_unknown(name)
        read_early(name, long_name(sweep.site))
    names = tuple(short_names(saes))
    if not any("*" in name for name in names):  # which SAEs a pattern matches depends on the site
        look_up(sweep, names)
    return sweep


def load_for(
    sweep: Sweep, model: ModelOptions, tokens: TokenOptions, measurement: MeasurementOptions, output: OutputOptions
) -> tuple[Sweep, LoadedModel, TokenSet]:
    """Load the model and the token sequences of a sweep.

    Without `--sequences` the returned sweep measures no more sequences than there are.
    """
    model.refuse_missing_modules(sweep.site, *(name.partition("@")[2] for name in sweep.readouts))
    loaded = model.load(measurement.precision, output)
    token_set = tokens.load(loaded, sweep.sequences_to_load, "nano")
    if not measurement.sequences:
        sweep = sweep.model_copy(update={"sequences": min(sweep.sequences, len(token_set.ids))})
    return sweep, loaded, token_set


def announce(sweep: Sweep, tokens: TokenSet, out: Path, output: OutputOptions) -> None:
    """Say where results go, how many sequences are measured, and how many serve the statistics."""
    there, length = tokens.ids.shape
    number = f"{sweep.sequences}" if sweep.until_ci is None else f"at most {sweep.sequences}"
    output.say(f"run:   {out}")
    output.say(
        f"tokens: {number} sequences of {length} are measured at {sweep.site}; "
        f"{min(there, sweep.statistics_sequences)} serve the statistics (--statistics-sequences)"
    )
