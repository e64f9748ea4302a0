"""SAEs of a control: an SAE of the model means nothing there, so one is trained in its place."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.compatibility import own_site
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.names import short_names
from tiltmeter.saes.sae import LOCAL_KINDS, SAE
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.run import train_sae

_log = logging.getLogger(__name__)

STEP = 512
"""Tokens per training step, about. A small budget is better spent on many small steps than on a few large ones."""

LEARNING_RATE = 3e-3

REVIVED = 10
"""A latent is dead if it has not fired in the last 1 / 10 of the budget."""

EVALUATION = 32
"""The most sequences that a control SAE is evaluated on."""


def control_saes(
    names: Sequence[str],
    control: LoadedModel,
    tokens: TokenSet,
    folder: Path,
    budget: int,
    l0: Mapping[str, float] | None = None,
    site: Site | None = None,
) -> dict[str, str]:
    """Train control SAEs: for each SAE a top-k SAE with its site, its number of latents and its L0.

    A finished one is not trained again; an interrupted one is resumed.

    Args:
        names: SAEs of the model, as `load_sae` names them.
        control: the control, as `initialised` or `shuffled` makes it.
        tokens: training sequences; the first few are kept for evaluation.
        folder: each control SAE has a run directory here, under the short name of the SAE (`local-3-l0-12`).
        budget: training tokens of each.
        l0: by name, the L0 of SAEs for which a better value is known than that in their files.
        site: the site of SAEs whose files name none.

    Returns:
        Folders of the control SAEs, for `load_sae`, by name of the SAE. If an SAE has none, a warning says why.

    Raises:
        TiltmeterError: an SAE does not exist, is named twice or belongs to no site of the model; too few tokens.
    """
    found: dict[str, str] = {}
    for name, training in control_trainings(names, control.model, tokens, budget, l0, site).items():
        out = folder / training.folder
        train_sae(training.config, _measured_for(training.sae, control), tokens, out)
        found[name] = str(out)
    return found


class ControlTraining(NamedTuple):
    """How a control SAE is trained."""

    sae: SAE
    """The SAE in whose place it stands."""
    folder: str
    """Its run directory, below that of all."""
    config: Training


def control_trainings(
    names: Sequence[str],
    model: SplitModel,
    tokens: TokenSet,
    budget: int,
    l0: Mapping[str, float] | None = None,
    site: Site | None = None,
) -> dict[str, ControlTraining]:
    """The trainings of `control_saes`, by name of the SAE. If an SAE has no control SAE, a warning says why.

    Raises:
        TiltmeterError: an SAE does not exist, is named twice or belongs to no site of the model.
    """
    found: dict[str, ControlTraining] = {}
    for label, name in short_names(names).items():
        sae = load_sae(name)
        known, own = (l0 or {}).get(name, sae.about.l0), own_site(sae, model) or site
        if reason := why_no_control_sae(sae, known, own):
            _log.warning("%s", reason)
            continue
        assert known is not None and own is not None
        config = _training(label, len(sae.decoder), known, own, tokens, budget)
        found[name] = ControlTraining(sae, re.sub(r"[/:]", "_", label), config)
    return found


def why_no_control_sae(sae: SAE, l0: float | None = None, site: Site | None = None) -> str | None:
    """Why an SAE has no control SAE, in a sentence; None if it can have one.

    `l0` and `site` are used if its files do not say them.
    """
    about, nothing = sae.about, f"There is no control SAE for {sae.about.name}"
    if about.kind not in LOCAL_KINDS:
        return (
            f"{nothing}: it was trained for the model's output ({about.kind}), and its sparsity coefficient has no "
            "counterpart in a model whose output says little of the text."
        )
    if l0 is None and about.l0 is None:
        return f"{nothing}: its files do not say its L0."
    if site is None and about.hook_name is None:
        return f"{nothing}: its files do not say to which site it belongs."
    return None


def _training(label: str, latents: int, l0: float, site: Site, tokens: TokenSet, budget: int) -> Training:
    """Training of a control SAE. Each has its own seed, so that two of one L0 differ: a sweep refuses equal SAEs."""
    return Training(
        kind="topk",
        site=site.name,
        sparsity=min(max(1, round(l0)), latents),
        latents=latents,
        tokens=budget,
        batch=max(1, STEP // tokens.ids.shape[1]),
        learning_rate=LEARNING_RATE,
        dead_after=max(1, budget // REVIVED),
        evaluation=min(EVALUATION, max(1, len(tokens.ids) // 8)),
        seed=int.from_bytes(hashlib.sha256(label.encode()).digest()[:7]),
    )


def _measured_for(sae: SAE, control: LoadedModel) -> LoadedModel:
    """The control model, with its residual stream raw if the SAE reads the raw one: both must read the same stream."""
    raw = sae.about.processing == "raw"
    return replace(control, model=control.model.measured_in("raw")) if raw else control
