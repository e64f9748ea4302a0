"""Measure a trained nano and write its model card, `README.md` beside the weights.

    python scripts/nano_card.py --model nano-training/model --log nano-training/log.jsonl

The losses are of the weights as shipped, over all held-out modules; a unigram and a 5-gram model (`ngram.py`) predict
the same tokens. Run it with the interpreter that trained the model: the text is that interpreter's standard library.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from scipy.stats import bootstrap
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from ngram import NgramModel
from tiltmeter.data import stdlib
from tiltmeter.errors import TiltmeterError
from train_nano import BOUNDARY, CONTEXT, VOCABULARY, encode, learning_rate_factor, optimizers

Pieces = Int64[np.ndarray, "piece position"]
Nats = Float64[np.ndarray, "piece position-1"]
Packages = Int64[np.ndarray, " piece"]

CONTEXT_GROUPS = ((1, 8), (9, 32), (33, CONTEXT - 1))
"""Groups by tokens of context: first and last of each."""

CARD = """# nano

A GPT-2 of {parameters:,} parameters, trained from scratch on Python source, so that tiltmeter runs without a download.

- Layers {config.n_layer}, d_model {config.n_embd}, heads {config.n_head}, context {config.n_positions}; tied embeddings
- Byte-level BPE tokenizer of {config.vocab_size:,} tokens, made from the training side. `{boundary}` begins a module
- Weights stored in {dtype}. Weights, tokenizer and configuration together: {size:,} bytes

## Data

The source of CPython's standard library: the `Lib` of Python {python}, without site-packages. Its licence is the Python
Software Foundation License Version 2 (PSF-2.0); some files carry notices of their own. No text ships with nano.

{sides}

A hash of the module's top-level name decides its side (`tiltmeter.data.stdlib.side`), so it is the same in every Python
version and a package's modules stay together. Packages of tests are trained on, also those of held-out modules, and so
are those that some distributions lack (`OPTIONAL_PACKAGES` there). Generated tables (`GENERATED`) are on neither side.
Held out are {share_modules:.0%} of the modules outside tests, {share_bytes:.0%} of their bytes: {held_out_names}.

## Training

{end[step]:,} steps of {batch} random windows of {config.n_positions} tokens: {end[tokens]:,} tokens seen, {epochs:.1f}
times the training side, in {end[seconds]:,.0f} seconds on a CPU, seed {seed}. Optimizers: {optimizers}. The learning
rate warms up over the first 1 %, stays constant to 40 % and falls linearly to zero. This command trains it again:

    {command}

Use the same Python version: its library is the data. Sums round differently elsewhere, so weights will differ a little.

The log, thinned. The learning rate is relative to its peak; as it ends at zero, the last rows are flat partly for that
reason. `train` is the loss of one batch, `held out` that of 512 evenly spaced windows, which may span two modules: its
last row differs a little from the losses below. What ships is the last step. The curve was watched, so the held-out
side is a validation set rather than a test set.

{curve}

## Held-out loss

Measured on the weights as they ship, run in float32 (torch {torch}). Every held-out module is the boundary token and
then its own tokens, cut into pieces of {config.n_positions}; the incomplete last piece is dropped, and with it the
{too_short} modules shorter than one piece. In each piece every token but the first is predicted from the tokens before
it in that piece: {predicted:,} tokens in {pieces:,} pieces. Nats per token is the mean over these tokens; nats per byte
is their sum over the {bytes:,} bytes of UTF-8 that these tokens stand for. Intervals: 95 %, BCa
bootstrap over top-level packages.

{overall}

nano minus 5-gram: {difference:+.3f} nats per token ({difference_interval}). The 5-gram model is interpolated modified
Kneser-Ney, the unigram model its order 1 (`scripts/ngram.py`). Both were counted on nano's training stream, boundary
tokens included, and see no token before the piece, as nano does not.

The rows `trained on` show the gap to text that nano has seen: a random sample of as many training modules, outside
tests and `OPTIONAL_PACKAGES`, cut and measured the same way. Their unigram loss beside the held-out one says how alike
the two are in difficulty.

By tokens of context, held out, in nats per token:

{groups}

## Use and limits

For testing tiltmeter and for showing what it measures. The weights are under tiltmeter's MIT licence. nano knows Python
source and little else, and is far too small to write code with. It can repeat passages of the standard library, which
are under that library's licence. What is measured on nano is about nano: try it on a larger model before believing it
of language models. Tests of held-out modules were trained on, and library modules resemble each other: expect a higher
loss on unrelated Python code.
"""


class Source(NamedTuple):
    """A module of the standard library."""

    name: str
    size: int
    """Bytes of UTF-8."""
    stream: np.ndarray
    """Token ids, the boundary token first."""


class Measured(NamedTuple):
    """The loss of each model on the same tokens."""

    nats: dict[str, Nats]
    """Losses by model name. Column i has i + 1 tokens of context."""
    package: Packages
    bytes: int
    """Number of bytes encoded by the predicted tokens."""


def read(which: stdlib.Side, tokenizer: PreTrainedTokenizerFast) -> list[Source]:
    """Tokenise all modules of one side."""
    return [Source(name, len(text.encode()), encode(tokenizer, [text])) for name, text in stdlib.texts(which)]


def comparable_sample(train: list[Source], count: int, seed: int) -> list[Source]:
    """Sample at most `count` training modules that could have been held out: no tests, no optional packages."""
    like = [s for s in train if not stdlib.is_test(s.name) and s.name.split(".")[0] not in stdlib.OPTIONAL_PACKAGES]
    return [like[i] for i in np.random.default_rng(seed).permutation(len(like))[:count]]


def cut(modules: list[Source]) -> tuple[Pieces, Packages]:
    """Cut each module into pieces of CONTEXT tokens, dropping its tail. Also return each piece's package index."""
    _, package = np.unique([module.name.split(".")[0] for module in modules], return_inverse=True)
    counts = [len(module.stream) // CONTEXT for module in modules]
    kept = [module.stream[: n * CONTEXT] for module, n in zip(modules, counts, strict=True)]
    return np.concatenate(kept).reshape(-1, CONTEXT).astype(np.int64), np.repeat(package, counts)


@torch.no_grad()
def model_nats(model: GPT2LMHeadModel, pieces: Pieces) -> Nats:
    """Compute the cross-entropy (nats) of every token but the first, given the preceding tokens of its piece."""
    rows = []
    for part in torch.from_numpy(pieces).split(16):  # small enough for the cache
        logits = model(input_ids=part[:, :-1], use_cache=False).logits
        rows.append(torch.nn.functional.cross_entropy(logits.mT, part[:, 1:], reduction="none").double())
    return torch.cat(rows).numpy()


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> Int64[np.ndarray, " token"]:
    """Return the number of bytes each token encodes: byte-level BPE uses one character per byte."""
    return np.array([len(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])


def measure(
    modules: list[Source], model: GPT2LMHeadModel, ngrams: dict[str, NgramModel], sizes: Int64[np.ndarray, " token"]
) -> Measured:
    """Evaluate nano and the n-gram models on every piece of the modules; `sizes` are `token_bytes`."""
    pieces, package = cut(modules)
    nats = {"nano": model_nats(model, pieces)}
    nats |= {name: -ngram.log_probabilities(pieces) for name, ngram in ngrams.items()}
    return Measured(nats, package, int(sizes[pieces[:, 1:]].sum()))


def interval(nats: Nats, package: Packages, seed: int) -> str:
    """Compute the 95 % interval of the mean, by a bootstrap over top-level packages, as their modules are similar."""
    _, index, pieces = np.unique(package, return_inverse=True, return_counts=True)
    low, high = bootstrap(
        (np.bincount(index, nats.sum(axis=1)), nats.shape[1] * pieces),
        lambda nats, tokens, axis: nats.sum(axis) / tokens.sum(axis),
        paired=True,
        rng=seed,
    ).confidence_interval
    return f"{low:.3f} to {high:.3f}"


def table(*lines: list[str]) -> str:
    """Format a Markdown table, with the first column left-aligned and the others right-aligned."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def describe_data(train: list[Source], held_out: list[Source]) -> dict[str, object]:
    """Describe which modules are on which side, and how much text they contain."""
    outside_tests = [*held_out, *(m for m in train if not stdlib.is_test(m.name))]
    rows = [
        [label, f"{len(side):,}", f"{sum(m.size for m in side):,}", f"{sum(len(m.stream) for m in side):,}"]
        for label, side in (("trained on", train), ("held out", held_out))
    ]
    return {
        "python": platform.python_version(),
        "sides": table(["side", "modules", "bytes", "tokens with boundaries"], *rows),
        "share_modules": len(held_out) / len(outside_tests),
        "share_bytes": sum(m.size for m in held_out) / sum(m.size for m in outside_tests),
        "held_out_names": ", ".join(sorted({f"`{m.name.split('.')[0]}`" for m in held_out})),
        "too_short": sum(len(m.stream) < CONTEXT for m in held_out),
    }


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the evaluations of a training run, one per step. `seconds` accumulate across restarts."""
    if not path.is_file() or not (lines := path.read_text().splitlines()):
        raise TiltmeterError(f"{path} is no training log; give the log.jsonl that train_nano.py wrote")
    records, before, last = {}, 0.0, 0.0
    for record in map(json.loads, lines):
        if record["seconds"] < last:
            before += last
        last = record["seconds"]
        records[record["step"]] = record | {"seconds": before + last}
    return list(records.values())


def describe_training(records: list[dict[str, float]], model: GPT2LMHeadModel, seed: int) -> dict[str, object]:
    """Describe the run from its log and the training script, with about twelve rows of the log."""
    end = records[-1]
    steps, batch = int(end["step"]), round(end["tokens"] / end["step"] / CONTEXT)
    groups = [(type(each).__name__, each.param_groups[0]) for each in optimizers(model)]
    used = [f"{name} (learning rate {g['lr']:g}, weight decay {g['weight_decay']:g})" for name, g in groups]
    row = "{step:,}|{tokens:,}|{rate:.2f}|{train:.3f}|{held_out:.3f}|{seconds:,.0f}"
    rows = [
        row.format(rate=learning_rate_factor(int(record["step"]), steps), **record).split("|")
        for record in (records[i] for i in np.unique(np.linspace(0, len(records) - 1, 12).round().astype(int)))
    ]
    return {
        "batch": batch,
        "end": end,
        "seed": seed,
        "optimizers": f"{used[0]} for the matrices of the blocks, {used[1]} for the rest",
        "command": f"python scripts/train_nano.py --out nano-training --steps {steps} --batch {batch} --seed {seed}",
        "curve": table(["step", "tokens seen", "learning rate", "train", "held out", "seconds"], *rows),
    }


def describe_losses(held_out: Measured, trained: Measured, seed: int) -> dict[str, object]:
    """Build the tables of losses: by model, by tokens of context, and on both sides."""
    overall = [
        [name, label, f"{nats.mean():.3f}", interval(nats, side.package, seed), f"{nats.sum() / side.bytes:.4f}"]
        for label, side in (("held out", held_out), ("trained on", trained))
        for name, nats in side.nats.items()
    ]
    context = [
        [f"{first} to {last}", *(f"{nats[:, first - 1 : last].mean():.3f}" for nats in held_out.nats.values())]
        for first, last in CONTEXT_GROUPS
    ]
    difference = held_out.nats["nano"] - held_out.nats["5-gram"]
    return {
        "predicted": difference.size,
        "pieces": len(difference),
        "bytes": held_out.bytes,
        "overall": table(["model", "modules", "nats per token", "95 % interval", "nats per byte"], *overall),
        "difference": difference.mean(),
        "difference_interval": interval(difference, held_out.package, seed),
        "groups": table(["tokens of context", *held_out.nats], *context),
    }


def write_card(folder: Path, log: Path, seed: int) -> Path:
    """Measure the model in `folder` and write its card there."""
    if not (folder / "config.json").is_file():
        raise TiltmeterError(f"{folder} holds no config.json; give the Hugging Face directory of a trained nano")
    records = read_log(log)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    stored = GPT2LMHeadModel.from_pretrained(folder, dtype="auto").dtype
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    train, held_out = read("train", tokenizer), read("held-out", tokenizer)
    stream = np.concatenate([module.stream for module in train])
    ngrams = {name: NgramModel.train(stream, order, VOCABULARY) for name, order in (("5-gram", 5), ("unigram", 1))}
    sizes = token_bytes(tokenizer)
    measured = measure(held_out, model, ngrams, sizes)
    trained = measure(comparable_sample(train, len(held_out), seed), model, {"unigram": ngrams["unigram"]}, sizes)
    facts = describe_data(train, held_out) | describe_training(records, model, seed)
    facts |= describe_losses(measured, trained, seed)
    card = folder / "README.md"
    text = CARD.format(
        **facts,
        config=model.config,
        parameters=model.num_parameters(),
        dtype=str(stored).removeprefix("torch."),
        boundary=BOUNDARY,
        size=sum(path.stat().st_size for path in folder.iterdir() if path != card),
        epochs=records[-1]["tokens"] / len(stream),
        torch=torch.__version__,
    )
    card.write_text(text)
    return card


def main() -> None:
    """Measure, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of the trained model")
    parser.add_argument("--log", type=Path, required=True, help="log.jsonl of its training")
    parser.add_argument("--seed", type=int, default=0, help="of its training; also draws the sample and the intervals")
    args = parser.parse_args()
    print(f"wrote {write_card(args.model, args.log, args.seed)}")


if __name__ == "__main__":
    main()
