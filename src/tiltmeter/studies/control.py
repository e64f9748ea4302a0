"""The control of a study: the same experiments on a randomly initialised model of the same architecture.

A claim that also holds there says nothing about what the model has learned. An SAE of the model is meaningless on
random weights, so a control SAE is trained on them in its place.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.fingerprint import model_sha256
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
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


def random_weights(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """A model of the same configuration, initialised as its class initialises it before training.

    Its weights depend only on the configuration and the seed; float64 weights are float32 weights, converted. The
    random state of torch is unchanged, and nothing is read from disk or from the hub.

    Args:
        loaded: the model whose shape, tokenizer, device, precision and attention implementation are taken.
        seed: from 0 to 2^63 - 1.

    Raises:
        TiltmeterError: the seed is out of range; the model is spread over devices.
    """
    if not 0 <= seed < 2**63:
        raise TiltmeterError(f"The seed of random weights is {seed}; expected 0 to {2**63 - 1}.")
    if any(hasattr(module, "_hf_hook") for module in loaded.model.hf.modules()):
        raise TiltmeterError(
            f"{loaded.model.name} is spread over devices, where random weights are not drawn; load it on one device."
        )
    name = f"{loaded.model.name} with random weights"
    hf = _initialised(loaded.model.hf, seed)
    facts = loaded.facts | {
        "name": name,
        "class": type(hf).__name__,
        "revision": f"random weights, seed {seed}",
        "sha256": model_sha256(hf),
    }
    return LoadedModel(type(loaded.model)(hf, name), loaded.tokenizer, facts)


def _initialised(original: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Draw weights on the CPU in float32, so that a seed gives the same ones everywhere; then convert them."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators, too
        hf = AutoModelForCausalLM.from_config(deepcopy(original.config), dtype=torch.float32, trust_remote_code=False)
    like = {**dict(original.named_parameters()), **dict(original.named_buffers())}
    drawn = hf.state_dict().keys()
    for name, own in [*hf.named_parameters(), *hf.named_buffers()]:
        # Buffers that weights files omit (angles of rotary embeddings) follow from the configuration: copy them.
        value = own.data if name in drawn else like[name].data.clone()
        own.data = value.to(like[name])
    return hf


def control_saes(
    names: Sequence[str],
    control: LoadedModel,
    tokens: TokenSet,
    folder: Path,
    budget: int,
    l0: Mapping[str, float] | None = None,
    site: Site | None = None,
) -> dict[str, str]:
    """Train control SAEs on random weights: for each SAE a top-k SAE with its site, its number of latents and its L0.

    A finished one is not trained again; an interrupted one is resumed.

    Args:
        names: SAEs of the model, as `load_sae` names them.
        control: the model with random weights.
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
    for label, name in short_names(names).items():
        sae = load_sae(name)
        known, own = (l0 or {}).get(name, sae.about.l0), own_site(sae, control.model) or site
        if reason := why_no_control_sae(sae, known, own):
            _log.warning("%s", reason)
            continue
        assert known is not None and own is not None
        out = folder / re.sub(r"[/:]", "_", label)
        training = _training(label, len(sae.decoder), known, own, tokens, budget)
        train_sae(training, _measured_for(sae, control), tokens, out)
        found[name] = str(out)
    return found


def why_no_control_sae(sae: SAE, l0: float | None = None, site: Site | None = None) -> str | None:
    """Why an SAE has no control SAE on random weights, in a sentence; None if it can have one.

    `l0` and `site` are used if its files do not say them.
    """
    about, nothing = sae.about, f"There is no control SAE for {sae.about.name} on random weights"
    if about.kind not in LOCAL_KINDS:
        return (
            f"{nothing}: it was trained for the model's output ({about.kind}), and its sparsity coefficient has no "
            "counterpart in a model whose output hardly depends on the text."
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
