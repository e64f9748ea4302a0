"""Giglemiani et al. 2024.

"Evaluating Synthetic Activations composed of SAE Latents in GPT-2", arXiv 2409.15019, and the notebooks that the
authors published (jettjaniak/teren), whose definitions and printed numbers are used where the paper has none.
"""

from __future__ import annotations

from tiltmeter.studies import gpt2_presets
from tiltmeter.studies.giglemiani2024.claims import CLAIMS
from tiltmeter.studies.giglemiani2024.experiments import experiments
from tiltmeter.studies.giglemiani2024.figures import FIGURES
from tiltmeter.studies.giglemiani2024.topics import HEADLINES, TOPICS
from tiltmeter.studies.study import Preset, Study

STUDY = Study(
    name="giglemiani2024",
    citation="Giglemiani et al. 2024, arXiv 2409.15019",
    length=10,
    depth=1 / 12,
    experiments=experiments,
    figures=FIGURES,
    claims=CLAIMS,
    topics=TOPICS,
    headlines=HEADLINES,
    presets={
        "nano": Preset("nano", "nano", 1, ("nano:*",)),
        "gpt2": Preset(
            gpt2_presets.MODEL, gpt2_presets.PROMPTS, 1, (gpt2_presets.RESIDUAL_SAES[1],), lengths="published"
        ),
    },
)
