"""What a package adds to tiltmeter: a direction, a readout and a format of SAEs.

After `pip install ./examples/plugin` they have names: `tiltmeter sweep --direction half-mean --readout surprise ...`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tiltmeter.models.readouts import ReadoutDefinition
from tiltmeter.perturb.directions import Toward
from tiltmeter.perturb.registry import SiteDirection
from tiltmeter.saes.formats.linear import Convention, Facts, linear_sae
from tiltmeter.saes.loading import Format
from tiltmeter.saes.sae import LinearSAE

HALF_MEAN = SiteDirection(lambda site: Toward(site.mean / 2), "half the mean activation - x", is_random=False)
"""From x toward half the mean of real activations."""

SURPRISE = ReadoutDefinition(lambda change: change.loss() - change.kl, "loss minus KL, nats")
"""A readout is a function of an `OutputChange`: two next-token distributions in float64, and the targets."""


def _read(folder: Path, name: str) -> LinearSAE:
    """An SAE without biases, whose encoder and decoder are two files."""
    encoder, decoder = (torch.from_numpy(np.load(folder / f"{part}.npy")) for part in ("encoder", "decoder"))
    latents, width = decoder.shape
    biases = {"b_enc": torch.zeros(latents), "b_dec": torch.zeros(width)}
    weights = {"W_enc": encoder, "W_dec": decoder, **biases}
    return linear_sae(name, weights, Convention(apply_b_dec_to_input=False), Facts())


TWO_ARRAYS = Format(lambda path: (path / "encoder.npy").is_file(), _read)
