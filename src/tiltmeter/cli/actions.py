"""What commands of the command line have in common: load, run, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tiltmeter.errors import TiltmeterError

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel
    from tiltmeter.saes.training.config import Training
    from tiltmeter.sweeps.crossings import Crossings
    from tiltmeter.sweeps.plan import Sweep


def load(model: str, revision: str | None, device: str, precision: str) -> LoadedModel:
    """Load a model, saying which."""
    from tiltmeter.models.loading import load_model

    typer.echo(f"model: {model}", err=True)
    return load_model(model, revision, device, precision)


def load_tokens(
    loaded: LoadedModel,
    at_most: int,
    name: str | None,
    column: str | None,
    revision: str | None,
    length: int | None,
    bos_before: str,
    nano: str = "nano",
) -> TokenSet:
    """The sequences that were named; for the model nano, where none were, those called `nano`."""
    model = loaded.model.name
    if name is None and model != "nano":
        raise TiltmeterError(
            f"No tokens were named for {model}; give --tokens a file or a data set of token sequences."
        )
    return loaded.load_tokens(
        nano if name is None else name,
        at_most=at_most,
        length=length,
        column=column,
        revision=revision,
        bos_before=bos_before,
    )


def cap_sequences(sweep: Sweep, tokens: TokenSet, asked: int | None) -> Sweep:
    """Where no number of sequences was asked for, measure no more than there are."""
    return sweep if asked else sweep.model_copy(update={"sequences": min(sweep.sequences, len(tokens.ids))})


def needed(sweep: Sweep) -> int:
    """Sequences to measure, and as many more as the statistics may want."""
    return max(sweep.sequences, sweep.statistics_sequences)


def run(sweep: Sweep, loaded: LoadedModel, tokens: TokenSet, out: Path, purpose: str) -> None:
    """Measure, draw, and say what came out and where it is."""
    from tiltmeter.analysis.stopping import Stopped
    from tiltmeter.reports.sweep import publish, short_table
    from tiltmeter.sweeps.run import run_sweep

    number = f"{sweep.sequences}" if sweep.until_ci is None else f"at most {sweep.sequences}"
    typer.echo(f"run:   {out}  ({number} sequences of {tokens.ids.shape[1]} tokens at {sweep.site})", err=True)
    curves = run_sweep(sweep, loaded, tokens, out, purpose)
    page = publish(out)
    if (stopped := Stopped.of_curves(curves)) and stopped.reached:
        typer.echo(stopped.sentence)
    typer.echo(f"mean distance of two real activations: {float(curves.attrs['pair_distance']):.2f}")
    typer.echo(short_table(out))
    typer.echo(f"figures: {out / 'figures'}\nreport:  {page}")


def run_crossings(wanted: Crossings, loaded: LoadedModel, tokens: TokenSet, out: Path) -> None:
    """Find crossings, draw them, and say where they are and what it cost."""
    from tiltmeter.reports.sweep import publish, short_table
    from tiltmeter.sweeps import crossings

    sweep = wanted.sweep
    typer.echo(f"run:   {out}  ({sweep.sequences} sequences of {tokens.ids.shape[1]} tokens at {sweep.site})", err=True)
    crossings.run_crossings(wanted, loaded, tokens, out)
    page = publish(out)
    typer.echo(short_table(out))
    typer.echo(f"tables: {out / 'crossings.csv'}, {out / 'summary.csv'} (and .parquet)")
    typer.echo(f"figures: {out / 'figures'}\nreport:  {page}")


def publish_again(folder: Path) -> tuple[Path, str]:
    """Draw a finished run again: of a sweep, of a study, or of all studies. The page, and a table as text."""
    from tiltmeter.reports.sweep import publish, short_table
    from tiltmeter.runs.user_paths import user_path
    from tiltmeter.studies.report import claims_text, is_study, publish_all, publish_study, studies_in

    folder = user_path(folder)
    if studies_in(folder):
        for name in studies_in(folder):
            publish_study(folder / name)
        return publish_all(folder), claims_text(folder)
    if is_study(folder):
        return publish_study(folder), claims_text(folder)
    return publish(folder), short_table(folder)


def sequences_for(config: Training, length: int | None) -> int:
    """Sequences that a training can use: no more than its budget asks for."""
    return config.evaluation + config.batch + config.tokens // (length or 1)


def training_table(out: Path) -> str:
    """The last lines of a training's log."""
    import pandas as pd

    log = pd.read_csv(out / "log.csv")
    columns = {
        "tokens": log["tokens"],
        "L0": log["l0"].round(1),
        "explained variance": log["explained_variance"].round(3),
        "loss increase": (log["loss"] - log["clean_loss"]).round(3),
        "alive": log["alive"].astype(int),
    }
    return pd.DataFrame(columns).tail(5).to_string(index=False)
