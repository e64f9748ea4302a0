"""Lee & Heimersheim 2024.

"Investigating Sensitive Directions in GPT-2: An Improved Baseline and Comparative Analysis of SAEs", arXiv 2410.12555,
and the longer version on LessWrong. `numbering.py` says which figure is which in the two.
"""

from __future__ import annotations

from tiltmeter.studies import gpt2_presets
from tiltmeter.studies.lee2024.claims import CLAIMS
from tiltmeter.studies.lee2024.experiments import experiments
from tiltmeter.studies.lee2024.figures import FIGURES
from tiltmeter.studies.lee2024.topics import HEADLINES, TOPICS
from tiltmeter.studies.study import Preset, Study

STUDY = Study(
    name="lee2024",
    citation="Lee & Heimersheim 2024, arXiv 2410.12555",
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
            (*gpt2_presets.RESIDUAL_SAES, *gpt2_presets.END_TO_END_SAES),
            "both",
            "published",
        ),
    },
    uncontrolled=frozenset({"directions-larger"}),
)
