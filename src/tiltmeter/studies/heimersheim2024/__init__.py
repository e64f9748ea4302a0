"""Heimersheim & Mendel 2024.

"[Interim research report] Activation plateaus & sensitive directions in GPT2", LessWrong.
"""

from __future__ import annotations

from tiltmeter.studies import gpt2_presets
from tiltmeter.studies.heimersheim2024.claims import CLAIMS
from tiltmeter.studies.heimersheim2024.experiments import experiments
from tiltmeter.studies.heimersheim2024.figures import FIGURES
from tiltmeter.studies.heimersheim2024.topics import HEADLINES, TOPICS
from tiltmeter.studies.study import Preset, Study

STUDY = Study(
    name="heimersheim2024",
    citation="Heimersheim & Mendel 2024, LessWrong",
    length=10,
    depth=1 / 12,
    experiments=experiments,
    figures=FIGURES,
    claims=CLAIMS,
    topics=TOPICS,
    headlines=HEADLINES,
    presets={
        "nano": Preset("nano", "nano", 1, ("nano:local-1-l0-24",)),
        "gpt2": Preset(gpt2_presets.MODEL, gpt2_presets.PROMPTS, 1, (gpt2_presets.RESIDUAL_SAES[1],)),
    },
    uncontrolled=frozenset({"plane", "straight-draws", "sphere-draws", "latents"}),
)
