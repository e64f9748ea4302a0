"""Options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="nano, a Hugging Face id, or the directory of a Hugging Face model.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hugging Face model.")]
SiteName = Annotated[str, typer.Option("--site", help="Where to push: blocks.3.hook_resid_pre, or short resid_pre:3.")]
Directions = Annotated[
    list[str],
    typer.Option("--direction", help="A direction's name, or along:FILE (.npy, .safetensors). Repeat for several."),
]
Lengths = Annotated[str, typer.Option(help="Comma-separated lengths, or START:STOP:STEP.")]
LengthUnit = Annotated[
    str,
    typer.Option("--unit", help="Unit of the lengths: absolute, norm (of x), target (1 reaches it) or pair-distance."),
]
Angles = Annotated[str, typer.Option(help="Instead of lengths: degrees on the sphere, in the same form.")]
BaseName = Annotated[
    str, typer.Option("--base", help="Where paths begin: clean, real, cov-random, ... (tiltmeter list).")
]
StreamName = Annotated[str, typer.Option("--stream", help="Residual stream of a LayerNorm model: centred or raw.")]
PositionsText = Annotated[
    str, typer.Option("--positions", help="all, last, 32, 32+16 (perturb 32, read 32 to 48) or 3,7,9.")
]
BosStatistics = Annotated[str, typer.Option(help="Boundary positions in or out of the statistics.")]
BosPerturbation = Annotated[str, typer.Option(help="Boundary positions in or out of the perturbation.")]
BosAverage = Annotated[str, typer.Option(help="Boundary positions in or out of the averages.")]
Tokens = Annotated[
    str | None,
    typer.Option(
        help="nano (held-out modules of Python's standard library), nano-train (those nano was trained on); a "
        ".npy, .safetensors, .parquet, .jsonl or text "
        "file; or a data set of the Hugging Face hub, owner/dataset or owner/dataset:split "
        "(default for the model nano: nano; for train-sae, nano-train)"
    ),
]
Column = Annotated[str | None, typer.Option(help="Column of token ids or text. (default: tokens, input_ids, text)")]
TokensRevision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a data set on the hub.")]
BosBefore = Annotated[
    str,
    typer.Option(help="document: text begins with the tokenizer's boundary token; sequence: each sequence does."),
]
Length = Annotated[int | None, typer.Option(help="Tokens per sequence. (default: as stored; 128 for text)")]
NSequences = Annotated[int | None, typer.Option(help="Sequences to measure. (default: 192, or all there are)")]
UntilCI = Annotated[
    str | None,
    typer.Option(
        "--until-ci",
        help="Stop when every mean is known to ± this share of it: 2% or 0.02. --n-sequences is then the most it takes "
        "(default: 16,000, or all there are).",
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")]
Precision = Annotated[
    str,
    typer.Option(
        help="float64; float32; float32-difference, where small changes keep their digits; bf16-difference, the same "
        "to three digits and several times as fast on new processors and GPUs; auto: float32-difference, or float32 "
        "where a model has an operation that differences are not carried through."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random vector. (default: 0)")]
Out = Annotated[Path | None, typer.Option(help="Run directory. (default: runs/NAME-MODEL-...)")]
Saes = Annotated[
    list[str] | None,
    typer.Option(
        "--sae",
        help="nano:NAME, RELEASE:SAE_ID of SAELens, OWNER/REPO:FOLDER, or a folder or file. nano:e2e-* means all of "
        "those at the site. Repeat for several.",
    ),
]
