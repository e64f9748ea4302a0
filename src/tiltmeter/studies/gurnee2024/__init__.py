"""Gurnee 2024.

"SAE reconstruction errors are (empirically) pathological", LessWrong, 29 March 2024, with the code of its branch
`error_pathology` where the text leaves something open, and the comment of Logan Riggs Smith on it.
"""

from __future__ import annotations

from tiltmeter.studies import gpt2_presets
from tiltmeter.studies.gurnee2024.claims import CLAIMS
from tiltmeter.studies.gurnee2024.experiments import experiments
from tiltmeter.studies.gurnee2024.figures import FIGURES
from tiltmeter.studies.gurnee2024.topics import HEADLINES, TOPICS
from tiltmeter.studies.study import Preset, Study

STUDY = Study(
    name="gurnee2024",
    citation="Gurnee 2024, SAE reconstruction errors are (empirically) pathological, LessWrong",
    length=128,
    depth=6 / 12,
    experiments=experiments,
    figures=FIGURES,
    claims=CLAIMS,
    topics=TOPICS,
    headlines=HEADLINES,
    presets={
        "nano": Preset("nano", "nano", 3, ("nano:*",)),
        "gpt2": Preset(
            gpt2_presets.MODEL,
            gpt2_presets.DOCUMENTS,
            6,
            (*gpt2_presets.RESIDUAL_SAES, *gpt2_presets.ATTENTION_SAES),
            "both",
        ),
    },
    uncontrolled=frozenset({"predictions", "cosine"}),
)
