"""`tiltmeter reproduce`: run a paper's experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from tiltmeter.cli.catalogue import catalogue, choices
from tiltmeter.cli.dry_run import DryRun, print_study_forecasts
from tiltmeter.cli.early.device import check_device_early
from tiltmeter.cli.early.model_facts import model_facts
from tiltmeter.cli.early.names import check_saes
from tiltmeter.cli.early.out import check_out
from tiltmeter.cli.early.tokens import token_facts
from tiltmeter.cli.early.values import at_least_one, one_of
from tiltmeter.cli.grouping import takes_groups
from tiltmeter.cli.options import Device, Precision, Revision, RunOptions, SaeOptions, Saes, TokenSourceOptions
from tiltmeter.cli.output import OutputOptions
from tiltmeter.cli.parsing import with_options
from tiltmeter.errors import TiltmeterError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """How much of a study is run."""

    figure: Annotated[
        list[str] | None,
        typer.Option(help="Only what this figure needs (tiltmeter list figures). Repeat for several."),
    ] = None
    size: Annotated[str, typer.Option(help="Amount of data: quick (for a first look), default, paper.")] = "default"
    quick: Annotated[bool, typer.Option("--quick", help="The same as --size quick.")] = False
    control: Annotated[
        str | None,
        typer.Option(
            help="Repeat everything on a model that has learned nothing. initialised: with the weights that training "
            "begins with; shuffled: with the trained weights in random order; both; none. "
            "(default: initialised with --quick, else both)"
        ),
    ] = None
    control_seeds: Annotated[int, typer.Option(help="How many models to make of each control.")] = 1

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
            help="document: each document begins with the tokenizer's boundary token; sequence: each sequence does; "
            "both: either, and sequences run on over the ends of documents. (default: as in the paper's preset, else "
            "document)"
        ),
    ] = None


@takes_groups
def reproduce(
    *,
    study: Annotated[str, typer.Argument(help=f"{', '.join(catalogue()['studies'])}, or all.")],
    experiments: ExperimentOptions,
    subject: SubjectOptions,
    tokens: StudyTokenOptions,
    run: RunOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Run a paper's experiments and test its claims.

    If it is interrupted, the same command resumes where it stopped.

    Example: tiltmeter reproduce lee2024 --model my-model/ --tokens mine.parquet --sae my-sae/
    """
    output.begin()
    size, saes = experiments.chosen_size(), with_options(subject.sae, subject.sae_option)
    _check_study(study, experiments.figure or (), subject.preset)
    one_of("--size", size, choices("size"))
    one_of("--control", experiments.control, choices("control"))
    at_least_one(control_seeds=experiments.control_seeds)
    _check_subject(subject, tokens, saes)
    check_out(run.out, study)
    check_device_early(subject.device)
    from tiltmeter.studies.reproduce import ReproduceOptions
    from tiltmeter.studies.reproduce import reproduce as run_study

    wanted = ReproduceOptions(
        figures=tuple(experiments.figure or ()),
        size=size,
        preset=subject.preset,
        model=subject.model,
        revision=subject.revision,
        layer=subject.layer,
        tokens=tokens.tokens,
        column=tokens.column,
        tokens_revision=tokens.tokens_revision,
        length=tokens.sequence_length,
        bos_before=tokens.bos_before,
        saes=tuple(saes),
        control=experiments.control,
        control_seeds=experiments.control_seeds,
        device=subject.device,
        precision=subject.precision,
        seed=run.seed or 0,
    )
    if dry_run:
        print_study_forecasts(study, wanted, run.out, output)
        return
    page, claims = run_study(study, wanted, run.out)
    output.give(page.parent, lambda: f"{claims}\nreport:  {page}")


def _check_study(name: str, figures: Sequence[str], preset: str | None) -> None:
    """Refuse a study, a figure or a preset that there is not.

    Raises:
        TiltmeterError: the message names the nearest.
    """
    studies = [*catalogue()["studies"], "all"]
    if name not in studies:
        raise TiltmeterError(f"{name!r} is not a study{did_you_mean(name, studies)}; choose from {', '.join(studies)}.")
    if name == "all":
        if figures:
            raise TiltmeterError("--figure needs one study; name the study instead of all.")
        return
    known = [one.removeprefix(f"{name} --figure ") for one in catalogue()["figures"] if one.startswith(f"{name} ")]
    for figure in figures:
        if figure not in known:
            raise TiltmeterError(
                f"{name} has no figure {figure!r}{did_you_mean(figure, known)}; choose from {', '.join(known)}."
            )
    one_of("--preset", preset, catalogue()["choices"]["presets"][name])


def _check_subject(subject: SubjectOptions, tokens: StudyTokenOptions, saes: Sequence[str]) -> None:
    """Refuse models, tokens and SAEs that are not there.

    Raises:
        TiltmeterError: they are not, or a model was named without tokens, or beside a preset.
    """
    if subject.model and subject.preset:
        raise TiltmeterError("Give --preset or --model, not both: a preset is a model, its data and its SAEs.")
    one_of("--precision", subject.precision, choices("precision"))
    model_facts(subject.model or "nano")
    check_saes(saes)
    if subject.model and tokens.tokens is None:
        raise TiltmeterError(
            f"No tokens were named for {subject.model}; give --tokens a file or a data set of token sequences."
        )
    token_facts(tokens.tokens, subject.model or "nano", tokens.sequence_length)
    one_of("--bos-before", tokens.bos_before, choices("bos-before"))
