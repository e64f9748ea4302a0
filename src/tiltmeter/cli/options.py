"""Options that several commands share: single options, and groups of options (see `grouping`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiltmeter.cli.config_file import Config
from tiltmeter.cli.from_manifest import warn_of_other_tokens
from tiltmeter.cli.output import OutputOptions
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import MODULE

if TYPE_CHECKING:
    from tiltmeter.data.token_set import TokenSet
    from tiltmeter.models.loading import LoadedModel

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hugging Face model.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1; auto: spread over all devices.")]
Precision = Annotated[
    str,
    typer.Option(
        help="float64; float32; float32-difference, which keeps the digits of small changes; bf16-difference, which "
        "is up to 2.7 times as fast on GPUs and on CPUs with bfloat16 units, with an error of about 0.1% in KL; auto: "
        "float32-difference, or float32 where a model has an operation that differences are not implemented for."
    ),
]
Saes = Annotated[
    list[str] | None,
    typer.Option(
        "--sae",
        help="nano:NAME, RELEASE:SAE_ID of SAELens, OWNER/REPO:FOLDER or OWNER/REPO:FILE of the Hugging Face hub, or a "
        "folder or file. nano:e2e-* means all matching SAEs (in sweep and crossings, those at the site). Of "
        "crosscoders and most transcoders, only decoder rows are used (sae-feature). Repeat for several.",
    ),
]
SaeOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--sae-option",
        help="KEY=VALUE that the files of the SAEs do not say: apply_b_dec_to_input, activation, k, "
        "normalize_activations, hook_name or hook_name_out. Repeat for several. It is of every --sae; FILE?KEY=VALUE "
        "is of one.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is run, and on which device."""

    model: Annotated[str, typer.Option(help="nano, a Hugging Face id, or the directory of a Hugging Face model.")] = (
        "nano"
    )
    revision: Revision = None
    device: Device = "cpu"

    def refuse_missing_modules(self, *sites: str) -> None:
        """Refuse sites `module:PATH` that the model does not have, before its weights are read.

        Raises:
            TiltmeterError: the message names the nearest.
        """
        if any(MODULE in one for one in sites):
            from tiltmeter.models.skeleton import refuse_missing_modules

            refuse_missing_modules([one for names in sites for one in names.split(",")], self.model, self.revision)

    def load(self, precision: str, output: OutputOptions) -> LoadedModel:
        """Load the model, and say its name."""
        from tiltmeter.models.loading import load_model

        output.say(f"model: {self.model}")
        return load_model(self.model, revision=self.revision, device=self.device, precision=precision)


@dataclass(frozen=True, kw_only=True)
class TokenSourceOptions:
    """Where token sequences come from."""

    tokens: Annotated[
        str | None,
        typer.Option(
            help="nano (held-out modules of Python's standard library), nano-train (the modules nano was trained on); "
            "a .npy, .safetensors, .parquet, .jsonl or text file; or a data set of the Hugging Face hub, "
            "owner/dataset or owner/dataset:split. (default for the model nano: nano; for train-sae, nano-train)"
        ),
    ] = None
    column: Annotated[
        str | None, typer.Option(help="Column of token ids or text. (default: tokens, input_ids, text)")
    ] = None
    tokens_revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a data set on the Hugging Face hub.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TokenOptions(TokenSourceOptions):
    """Where token sequences come from, and how they are cut."""

    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens per sequence. (default: as stored; 128 for text)")
    ] = None
    bos_before: Annotated[
        str,
        typer.Option(
            help="document: each document begins with the tokenizer's boundary token; sequence: each sequence does; "
            "both: either, and sequences run on over the ends of documents."
        ),
    ] = "document"

    def load(self, loaded: LoadedModel, at_most: int, default_for_nano: str) -> TokenSet:
        """Load at most so many sequences; the model nano has a default, other models have not.

        Raises:
            TiltmeterError: no tokens were named for a model other than nano, or they cannot be loaded.
        """
        model = loaded.model.name
        if self.tokens is None and model != "nano":
            raise TiltmeterError(
                f"No tokens were named for {model}; give --tokens a file or a data set of token sequences."
            )
        return loaded.load_tokens(
            default_for_nano if self.tokens is None else self.tokens,
            at_most=at_most,
            length=self.sequence_length,
            column=self.column,
            revision=self.tokens_revision,
            bos_before=self.bos_before,
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The seed, the run directory, and a file of options."""

    seed: Annotated[int | None, typer.Option(help="Seed of every random vector. (default: 0)")] = None
    out: Annotated[Path | None, typer.Option(help="Run directory. (default: runs/NAME-MODEL-...)")] = None
    config: Config = None

    def directory(self, name: str, config: str, model: str, tokens: TokenSet) -> Path:
        """`--out`, or a directory that is the same whenever configuration, model and tokens are the same.

        So a repeated command resumes its own run, and a changed one begins another. If the options came from a manifest
        and the tokens are not those of its run, a warning says so.
        """
        warn_of_other_tokens(self.config, tokens)
        if self.out:
            return self.out
        run_key = hashlib.sha256(f"{config}/{model}/{tokens.sha256()}".encode()).hexdigest()
        return Path("runs") / f"{name}-{run_key[:8]}"
