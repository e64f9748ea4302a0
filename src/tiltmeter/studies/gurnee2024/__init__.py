"""Gurnee 2024.

"SAE reconstruction errors are (empirically) pathological", LessWrong, 29 March 2024, with the code of its branch
`error_pathology` where the text leaves something open, and the comment of Logan Riggs Smith on it.
"""

from __future__ import annotations

from tiltmeter.studies.gurnee2024.claims import CLAIMS
from tiltmeter.studies.gurnee2024.exhibits import FIGURES
from tiltmeter.studies.gurnee2024.sweeps import experiments
from tiltmeter.studies.study import Preset, Study

GPT2_SAES = (
    *(f"gpt2-small-res-jb:blocks.{layer}.hook_resid_pre" for layer in range(12)),
    *(f"gpt2-small-hook-z-kk:blocks.{layer}.hook_z" for layer in range(12)),
)
"""The paper's: Bloom's on the residual stream, Kissane's on the heads' outputs."""

STUDY = Study(
    name="gurnee2024",
    citation="Gurnee 2024, SAE reconstruction errors are (empirically) pathological, LessWrong",
    length=128,
    middle=6 / 12,
    experiments=experiments,
    figures=FIGURES,
    claims=CLAIMS,
    presets={
        "nano": Preset("nano", "nano", 3, ("nano:*",)),
        "gpt2": Preset("gpt2", "apollo-research/Skylion007-openwebtext-tokenizer-gpt2:train", 6, GPT2_SAES),
    },
    uncontrolled=frozenset({"predictions", "cosine"}),
)
