"""Measure trained SAEs, ship them with nano in half precision, and write their card.

    python scripts/train_saes.py --out family
    python scripts/sae_card.py --family family

All metrics are of the weights as shipped, on held-out modules that neither nano nor the SAEs were trained on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

import tiltmeter as tm
from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.saes.evaluation import SAEMetrics, evaluate, through
from tiltmeter.saes.formats.saelens_export import saelens_files
from tiltmeter.saes.loading import EMBEDDED_SAES
from tiltmeter.saes.sae import LinearSAE
from train_saes import MIDDLE

CARD = """# SAEs on nano

Sparse autoencoders on the residual stream of nano (and one on `hook_z`), trained by tiltmeter on the text that nano was
trained on, in SAELens's format and half precision: {count} SAEs of {latents:,} latents, {size:,} bytes in all.

    tiltmeter sweep --site resid_pre:3 --sae "nano:*" --direction sae-error --lengths 0:40:5

| SAE | site | sparsity | L0 | explained variance | ε | loss increase, nats | KL, nats | alive |
|---|---|---|---|---|---|---|---|---|
{rows}

Measured on {sequences} sequences of {length} tokens of held-out modules (Python {python}), which neither nano nor an
SAE was trained on: L0, explained variance, ε = ‖x - SAE(x)‖ and alive (latents that fire at least once on these
{tokens:,} tokens) without position 0 and boundary tokens; loss and KL with the SAE spliced in at every position, over
all of them. The clean loss is {clean_loss:.3f} nats; with zeros in the place of every activation at the middle layer
it is {zero_loss:.3f}, with their mean {mean_loss:.3f}. ‖x‖ is {norm:.1f} there.

## Training

{budget:,} tokens each, of `nano-train`; losses, schedule and initialisation of Braun et al. 2024 (`local`, `e2e`,
`e2e+ds` with the coefficients of their GPT-2 configurations; sparsity is the coefficient of the L1 norm), learning rate
{rate:g}, batches of {batch} sequences, matrix products in bfloat16, seed {seed}. This trains and measures them again:

    python scripts/train_saes.py --out family --tokens {budget}
    python scripts/sae_card.py --family family

Names say kind, layer (`z3`: `blocks.3.attn.hook_z`) and L0. Each folder's `cfg.json` holds these figures.
"""


class Measured(NamedTuple):
    """An SAE as shipped, with its metrics."""

    name: str
    sae: LinearSAE
    metrics: SAEMetrics
    training: dict[str, Any]


def as_shipped(sae: LinearSAE) -> LinearSAE:
    """Round the SAE's weights to half precision, as they are stored."""
    return sae.to(torch.device("cpu"), torch.float16).to(torch.device("cpu"), torch.float32)


def measure(loaded: LoadedModel, tokens: TokenSet, run: Path) -> Measured:
    """Evaluate the SAE of a training run, as shipped."""
    training = read_manifest(run)["identity"]["training"]
    sae = tm.load_sae(str(run / "sae"))
    assert isinstance(sae, LinearSAE)
    sae = as_shipped(sae)
    site = loaded.model.site(training["site"])

    metrics = evaluate(loaded.model, through(sae), tokens.ids, tokens.boundary, site)
    place = f"z{site.layer}" if site.kind == "z" else str(site.layer)
    name = f"{training['kind']}-{place}-l0-{max(1, round(metrics.l0))}"
    print(f"{name}: {metrics}", flush=True)
    return Measured(name, sae, metrics, training)


def ablated(loaded: LoadedModel, tokens: TokenSet, layer: int, mean: bool) -> SAEMetrics:
    """Compute the loss with every activation replaced by zero, or by the mean activation."""
    site = loaded.model.site(f"resid_pre:{layer}")
    x = loaded.model.activation(tokens.ids[:64], site)
    point = x.flatten(0, 1).mean(0) if mean else torch.zeros_like(x[0, 0])
    return evaluate(
        loaded.model, lambda x: (torch.zeros_like(x), point.expand_as(x)), tokens.ids, tokens.boundary, site
    )


def ship(one: Measured, folder: Path) -> int:
    """Write an SAE's files and return their size in bytes."""
    metrics = one.metrics
    metadata = {
        "kind": one.training["kind"],
        "sparsity": one.training["sparsity"],
        "training_tokens": one.training["tokens"],
        "dataset_path": "nano-train",
        "context_size": 128,
        "l0": metrics.l0,
        "explained_variance": metrics.explained_variance,
        "ce_increase": metrics.loss_increase,
        "kl": metrics.kl,
        "distance": metrics.distance,
        "alive": metrics.alive,
    }
    folder.mkdir(parents=True)
    files = saelens_files(one.sae, metadata, torch.float16)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sum(map(len, files.values()))


def _rank(one: Measured) -> tuple:
    """Sort key: middle layer first, local before end-to-end, sparse before dense."""
    kind, place, *_ = one.name.split("-")
    return place != str(MIDDLE), place, kind != "local", kind, one.metrics.l0


def row(one: Measured) -> str:
    """Format a row of the card's table."""
    q = one.metrics
    return (
        f"| `nano:{one.name}` | `{one.sae.about.hook_name}` | {one.training['sparsity']:g} | {q.l0:.1f} | "
        f"{q.explained_variance:.3f} | {q.distance:.1f} | {q.loss_increase:+.3f} | {q.kl:.3f} | {q.alive:,} |"
    )


def main() -> None:
    """Measure the SAEs, write their files and the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", type=Path, required=True, help="folder of finished trainings")
    parser.add_argument("--sequences", type=int, default=256, help="held-out sequences to measure on")
    args = parser.parse_args()

    loaded = tm.load_model("nano")
    tokens = loaded.load_tokens("nano", at_most=args.sequences)
    runs = sorted(path.parent.parent for path in args.family.glob("*/sae/cfg.json"))
    measured = [measure(loaded, tokens, run) for run in runs]
    measured.sort(key=_rank)
    root = EMBEDDED_SAES["nano"]
    shutil.rmtree(root, ignore_errors=True)
    size = sum(ship(one, root / one.name) for one in measured)
    middle = next(one for one in measured if "-3-" in one.name)
    training = middle.training
    card = CARD.format(
        count=len(measured),
        latents=middle.sae.W_dec.shape[0],
        size=size,
        rows="\n".join(row(one) for one in measured),
        sequences=len(tokens.ids),
        length=tokens.ids.shape[1],
        tokens=tokens.ids.numel(),
        python=tokens.facts["python"],
        clean_loss=middle.metrics.clean_loss,
        zero_loss=ablated(loaded, tokens, 3, mean=False).loss,
        mean_loss=ablated(loaded, tokens, 3, mean=True).loss,
        norm=middle.metrics.norm,
        budget=training["tokens"],
        rate=training["learning_rate"],
        batch=training["batch"],
        seed=training["seed"],
    )
    (root / "README.md").write_text(card, encoding="utf-8")
    print(pd.DataFrame([one.metrics for one in measured], index=[one.name for one in measured]).to_string())


if __name__ == "__main__":
    main()
