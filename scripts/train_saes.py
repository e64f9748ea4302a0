"""Train the SAEs that ship with nano.

    python scripts/train_saes.py --out family
    python scripts/sae_card.py --family family

At the middle layer: local, e2e and e2e+ds, each at several sparsities, chosen from short trials so that L0 spans a
factor of ten or more, and so that kinds can be compared at matched L0. A local SAE at every other layer, and one at a
`hook_z`. Each is a run of `tiltmeter train-sae`, with its own checkpoint: the same command resumes an interrupted one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import tiltmeter as tm
from tiltmeter.saes.training.config import SAEKind, Training
from tiltmeter.saes.training.run import train_sae

MIDDLE = 3

SPARSITIES: dict[SAEKind, tuple[float, ...]] = {
    "e2e": (0.6, 2.5, 6.0, 13.0),
    "e2e+ds": (5.0, 12.0, 30.0, 52.0),
    "local": (1.0, 3.5, 7.0, 13.0),
}
"""Sparsity coefficients at the middle layer, from dense to sparse."""

OTHERS: dict[str, float] = {
    "resid_pre:0": 0.3,
    "resid_pre:1": 3.0,
    "resid_pre:2": 3.0,
    "resid_pre:4": 4.0,
    "resid_pre:5": 5.0,
    f"z:{MIDDLE}": 2.0,
}
"""Sparsity coefficients of the local SAEs elsewhere, roughly proportional to the mean norm of activations there."""


def trainings(tokens: int) -> list[Training]:
    """List all trainings, those of the middle layer first."""
    middle = [
        Training(kind=kind, site=f"resid_pre:{MIDDLE}", sparsity=sparsities[rank], **settings(tokens))
        for rank in range(4)
        for kind, sparsities in SPARSITIES.items()
    ]
    others = [Training(kind="local", site=site, sparsity=value, **settings(tokens)) for site, value in OTHERS.items()]
    return middle + others


def settings(tokens: int) -> dict:
    """Settings common to all. The learning rate is higher than for GPT-2, because nano's trainings are short."""
    return {"tokens": tokens, "latents": 2048, "learning_rate": 3e-3, "arithmetic": "bfloat16", "every": 200}


def folder(training: Training) -> str:
    """Name of a run's folder."""
    return f"{training.kind}-{training.site.replace(':', '-')}-{training.sparsity:g}"


def main() -> None:
    """Run every training that is not finished yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--tokens", type=int, default=7_000_000, help="training tokens of each SAE")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    loaded = tm.load_model("nano", device=args.device)
    sequences = loaded.load_tokens("nano-train")
    for training in trainings(args.tokens):
        out = args.out / folder(training)
        if (out / "sae" / "cfg.json").exists():
            continue
        began = time.monotonic()
        train_sae(training, loaded, sequences, out)
        print(f"{out.name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
