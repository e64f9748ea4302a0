"""`tiltmeter train-sae`: train a sparse autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.catalogue import choices
from tiltmeter.cli.early.device import check_device_early
from tiltmeter.cli.early.model_facts import model_facts
from tiltmeter.cli.early.out import check_out
from tiltmeter.cli.early.tokens import token_facts
from tiltmeter.cli.early.values import at_least_one, one_of
from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import ModelOptions, RunOptions, TokenOptions
from tiltmeter.cli.output import OutputOptions
from tiltmeter.cli.parsing import given
from tiltmeter.models.site_names import check_site

if TYPE_CHECKING:
    from tiltmeter.saes.training.config import Training


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What is trained, and how; the fields of `Training`."""

    kind: Annotated[str, typer.Option(help="local, topk, e2e or e2e+ds.")]
    site: Annotated[str, typer.Option(help="Site the SAE reads: blocks.3.hook_resid_pre, or resid_pre:3 for short.")]
    sparsity: Annotated[float, typer.Option(help="Coefficient of the L1 norm; for topk, k.")]
    latents: Annotated[int | None, typer.Option(help="Number of latents. (default: 2048)")] = None
    n_tokens: Annotated[int | None, typer.Option(help="Tokens to train on. (default: 5,000,000)")] = None
    batch: Annotated[int | None, typer.Option(help="Sequences per step. (default: 32)")] = None
    at_once: Annotated[int | None, typer.Option(help="Sequences in memory at the same time. (default: 8)")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate. (default: 0.0005)")] = None
    downstream: Annotated[
        list[str] | None,
        typer.Option(
            help="e2e+ds: a later site whose activations are matched. Repeat for several. (default: resid_pre of "
            "every later layer)"
        ),
    ] = None
    bos: Annotated[str | None, typer.Option(help="Boundary positions in or out of the training. (default: in)")] = None
    massive: Annotated[
        str | None, typer.Option(help="Massive activations in or out of the training. (default: out)")
    ] = None
    massive_ratio: Annotated[
        float | None,
        typer.Option(
            help="Activations with more than this many times the site's median norm are massive. (default: 10)"
        ),
    ] = None
    evaluation: Annotated[int | None, typer.Option(help="Sequences held out for evaluation. (default: 64)")] = None
    every: Annotated[int | None, typer.Option(help="Steps between evaluations and checkpoints. (default: 100)")] = None
    arithmetic: Annotated[
        str | None,
        typer.Option(help="Precision of matrix products: float32, or the faster bfloat16. (default: float32)"),
    ] = None

    def config(self, seed: int | None) -> Training:
        """The training's configuration, with its own defaults for options that are not given."""
        from tiltmeter.saes.training.config import Training

        options = vars(self) | {"downstream": tuple(self.downstream) if self.downstream else None, "seed": seed}
        tokens = options.pop("n_tokens")
        return Training(**given(**options, tokens=tokens))


@takes_groups
def train_sae(
    training: TrainingOptions, model: ModelOptions, tokens: TokenOptions, run: RunOptions, output: OutputOptions
) -> None:
    """Train a sparse autoencoder and save it in SAELens's format.

    If it is interrupted, the same command resumes from the last checkpoint. For nano the default tokens are nano-train,
    the text that nano itself was trained on.

    Example: tiltmeter train-sae --kind e2e+ds --site resid_pre:3 --sparsity 1 --n-tokens 1000000
    """
    output.begin()
    _refuse_early(training, model, tokens, run)
    from tiltmeter.saes.training.run import train_sae as train

    config = training.config(run.seed)
    model.refuse_missing_modules(training.site, *(training.downstream or ()))
    loaded = model.load("float32", output)
    token_set = tokens.load(loaded, config.sequences_to_load(tokens.sequence_length), "nano-train")
    site = loaded.model.site(training.site).name
    name = f"sae-{Path(model.model).name}-{site}-{training.kind}-{training.sparsity:g}"
    out = run.directory(name, config.model_dump_json(), model.model, token_set)
    train(config, loaded, token_set, out)
    files = f"SAE:     {out / 'sae'}\npicture: {out / 'training.png'}"
    output.give(out, lambda: f"{_end_of_log(out)}\n{files}")


def _refuse_early(training: TrainingOptions, model: ModelOptions, tokens: TokenOptions, run: RunOptions) -> None:
    """Refuse wrong options as far as that is possible without torch and without the model.

    Raises:
        TiltmeterError: a name does not exist, a file is not there, a number is out of range, or the run directory
            belongs to a run of another kind.
    """
    one_of("--kind", training.kind, choices("kind"))
    one_of("--bos", training.bos, ("in", "out"))
    one_of("--massive", training.massive, ("in", "out"))
    one_of("--arithmetic", training.arithmetic, ("float32", "bfloat16"))
    counts = ("latents", "n_tokens", "batch", "at_once", "evaluation", "every")
    at_least_one(**{name: getattr(training, name) for name in counts})
    facts = model_facts(model.model)
    for site in (training.site, *(training.downstream or ())):
        check_site(site, facts.layers)
    token_facts(tokens.tokens, model.model, tokens.sequence_length)
    one_of("--bos-before", tokens.bos_before, choices("bos-before"))
    check_out(run.out, "train-sae")
    check_device_early(model.device)


def _end_of_log(out: Path) -> str:
    """The last evaluations of a training, as a table."""
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
