"""The control of a study: the same experiments on a model of the same shape that has learned nothing.

A claim that holds there, too, says nothing about what the model has learned. An SAE of the model means nothing on
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
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.sites import Site
from tiltmeter.runs.hashes import weights_sha256
from tiltmeter.saes.compatibility import own_site
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.names import short_names
from tiltmeter.saes.sae import LOCAL_KINDS, SAE
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.run import train_sae

_log = logging.getLogger(__name__)

STEP = 512
"""Tokens, about, of a training step. A small budget is better spent on many small steps than on few large ones."""

LEARNING_RATE = 3e-3

REVIVED = 10
"""A latent is dead where it has not fired in this part (a tenth) of the budget."""

EVALUATION = 32
"""Sequences, at most, that a control SAE is evaluated on."""


def random_weights(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """A model of the same configuration, initialised as its class initialises it before training.

    Its weights depend on the configuration and the seed alone: in float64 they are those of float32. The random state
    of torch stays as it was, and nothing is read from a disk or a hub.

    Args:
        loaded: the model whose shape, tokenizer, device, precision and attention implementation are taken.
        seed: from 0 to 2^63 - 1.

    Raises:
        TiltmeterError: another seed.
    """
    if not 0 <= seed < 2**63:
        raise TiltmeterError(f"The seed of random weights is {seed}; expected 0 to {2**63 - 1}.")
    name = f"{loaded.model.name} with random weights"
    hf = _initialised(loaded.model.hf, seed)
    facts = loaded.facts | {
        "name": name,
        "class": type(hf).__name__,
        "revision": f"random weights, seed {seed}",
        "sha256": weights_sha256(hf.state_dict().items()),
    }
    return LoadedModel(type(loaded.model)(hf, name), loaded.tokenizer, facts)


def _initialised(original: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Drawn on the CPU in float32, so that a seed is the same weights everywhere; then of the original's types."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators, too
        hf = AutoModelForCausalLM.from_config(deepcopy(original.config), dtype=torch.float32, trust_remote_code=False)
    like = {**dict(original.named_parameters()), **dict(original.named_buffers())}
    drawn = hf.state_dict().keys()
    for name, own in [*hf.named_parameters(), *hf.named_buffers()]:
        # What weights files leave out (angles of rotary embeddings) follows from the configuration: it is the same.
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
    """Train control SAEs on random weights: for each SAE a top-k SAE of the same site, size and L0.

    One that is finished is not trained again, and one that was interrupted goes on.

    Args:
        names: SAEs of the model, as `load_sae` names them.
        control: the model with random weights.
        tokens: training sequences; the first few are measured on.
        folder: each control SAE has a run directory here, called as directions call the SAE (`local-3-l0-12`).
        budget: training tokens of each.
        l0: of SAEs by name, where it is known better than from their files.
        site: of SAEs whose files name none.

    Returns:
        Names or folders of the control SAEs, for `load_sae`, by the name of each SAE that has one; for each other one a
        warning says why not.

    Raises:
        TiltmeterError: an SAE that does not exist, is there twice or is not of a site of the model; too few tokens.
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
    """Why an SAE has no control SAE on random weights, in a sentence; None where it can have one.

    `l0` and `site` are what is known of it besides what its files say.
    """
    about, nothing = sae.about, f"There is no control SAE for {sae.about.name} on random weights"
    if about.kind not in LOCAL_KINDS:
        return (
            f"{nothing}: it was trained for the model's output ({about.kind}), and its sparsity coefficient has no "
            "counterpart where the output hardly depends on the text."
        )
    if l0 is None and about.l0 is None:
        return f"{nothing}: its files do not say its L0."
    if site is None and about.hook_name is None:
        return f"{nothing}: its files do not say at which site it belongs."
    return None


def _training(label: str, latents: int, l0: float, site: Site, tokens: TokenSet, budget: int) -> Training:
    """A seed of its own for each, so that two of one L0 differ: a sweep refuses equal SAEs."""
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
    """The control, its residual stream raw where the SAE reads the raw one: a control SAE is used where the SAE is."""
    raw = sae.about.processing == "raw"
    return replace(control, model=control.model.measured_in("raw")) if raw else control
