"""Plot of a training run: L0, explained variance, loss increase and alive latents against tokens."""

from __future__ import annotations

import io

import pandas as pd

from tiltmeter.runs.extras import require


def draw(log: pd.DataFrame) -> bytes:
    """Draw the log of a training run (`log.csv`) as a PNG."""
    table = log.assign(increase=log["loss"] - log["clean_loss"])
    panels = {
        "l0": "L0: active latents per token",
        "explained_variance": "explained variance",
        "increase": "loss increase, nats",
        "alive": "latents that fired",
    }
    figure = require("matplotlib.figure", "report", "The picture of a training").Figure(
        figsize=(9, 5), layout="constrained"
    )
    for axes, (column, title) in zip(figure.subplots(2, 2, sharex=True).flat, panels.items(), strict=True):
        axes.plot(table["tokens"] / 1e6, table[column], marker=".")
        axes.set_title(title, loc="left", fontsize="medium")
        axes.grid(alpha=0.3)
    figure.supxlabel("million training tokens")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
