"""`tiltmeter reproduce`: run a paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

import typer

from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import Device, Precision, Revision, RunOptions, SaeOptions, Saes, TokenSourceOptions
from tiltmeter.cli.parsing import with_options
from tiltmeter.errors import TiltmeterError


def study_names() -> tuple[str, ...]:
    """The names of all studies: of the folders of `tiltmeter.studies`, whose import would load torch."""
    folders = (files("tiltmeter") / "studies").iterdir()
    return tuple(sorted(folder.name for folder in folders if (folder / "claims.py").is_file()))


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """How much of a study is run."""

    figure: Annotated[
        list[str] | None,
        typer.Option(help="Only what this figure needs (tiltmeter list shows them). Repeat for several."),
    ] = None
    size: Annotated[str, typer.Option(help="Amount of data: quick (a minute), default (minutes), paper.")] = "default"
    quick: Annotated[bool, typer.Option("--quick", help="The same as --size quick.")] = False
    control: Annotated[
        str,
        typer.Option(
            help="random-weights: repeat everything on a model of the same shape with random weights; none: no control."
        ),
    ] = "random-weights"

    def chosen_size(self) -> str:
        """`--size`, or quick.

        Raises:
            TiltmeterError: both options were given, with different sizes.
        """
        if self.quick and self.size not in ("default", "quick"):
            raise TiltmeterError(f"Both --quick and --size {self.size} were given; choose one.")
        return "quick" if self.quick else self.size


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """What a study is run on."""

    preset: Annotated[
        str | None,
        typer.Option(help="nano, or gpt2 for the paper's model, data, layers and SAEs. (default: nano)"),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(help="Instead of --preset: a Hugging Face id, or the directory of a Hugging Face model."),
    ] = None
    revision: Revision = None
    layer: Annotated[
        int | None,
        typer.Option(
            help="Layer to perturb. (default: the preset's; with --model, that at the paper's relative depth)"
        ),
    ] = None
    sae: Saes = None
    sae_option: SaeOptions = None
    device: Device = "cpu"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class StudyTokenOptions(TokenSourceOptions):
    """Where token sequences come from, and how they are cut; by default as in the paper."""

    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens per sequence. (default: as in the paper, 10 or 128)")
    ] = None
    bos_before: Annotated[
        str | None,
        typer.Option(
            help="document: each document begins with the tokenizer's boundary token; sequence: each sequence does. "
            "(default: as in the paper's preset, else document)"
        ),
    ] = None


@takes_groups
def reproduce(
    study: Annotated[str, typer.Argument(help=f"{', '.join(study_names())}, or all.")],
    experiments: ExperimentOptions,
    subject: SubjectOptions,
    tokens: StudyTokenOptions,
    run: RunOptions,
) -> None:
    """Run a paper's experiments and test its claims.

    If it is interrupted, the same command resumes where it stopped.

    Example: tiltmeter reproduce lee2024 --model my-model/ --tokens mine.parquet --sae my-sae/
    """
    from tiltmeter.studies.reproduce import ReproduceOptions
    from tiltmeter.studies.reproduce import reproduce as run_study

    wanted = ReproduceOptions(
        figures=tuple(experiments.figure or ()),
        size=experiments.chosen_size(),
        preset=subject.preset,
        model=subject.model,
        revision=subject.revision,
        layer=subject.layer,
        tokens=tokens.tokens,
        column=tokens.column,
        tokens_revision=tokens.tokens_revision,
        length=tokens.sequence_length,
        bos_before=tokens.bos_before,
        saes=tuple(with_options(subject.sae, subject.sae_option)),
        control=experiments.control,
        device=subject.device,
        precision=subject.precision,
        seed=run.seed or 0,
    )
    page, claims = run_study(study, wanted, run.out)
    typer.echo(claims)
    typer.echo(f"report:  {page}")
