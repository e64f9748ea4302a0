"""The controls of a study: models that have learned nothing, on which its experiments are repeated.

A claim that also holds there is no evidence about what the model has learned. The controls differ in what they keep.
*Initialised* keeps the architecture alone: its weights are those that training begins with, and its output hardly
depends on the text. *Shuffled* keeps the values of the trained weights too, tensor by tensor, and with them their scale
and their heavy tails; only the place of each value is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.fingerprint import model_sha256
from tiltmeter.models.loading import LoadedModel


def initialised(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """A model of the same configuration, initialised as its class initialises it before training.

    For GPT-2 (transformers) these are normal weights of standard deviation 0.02, embeddings included, but for the two
    matrices of each block that write to the residual stream (`c_proj` of attention and MLP), which have
    0.02 / √(2 · layers) (Radford et al. 2019, section 2.3); biases are 0, gains of norms 1.

    The weights depend only on the configuration and the seed; float64 weights are float32 weights, converted. The
    random state of torch is unchanged, and nothing is read from disk or from the hub.

    Args:
        loaded: the model whose shape, tokenizer, device, precision and attention implementation are taken.
        seed: from 0 to 2^63 - 1.

    Raises:
        TiltmeterError: the seed is out of range; the model is spread over devices.
    """
    _refuse(loaded, seed)
    return _control(loaded, _initialised(loaded.model.hf, seed), "initialised", seed)


def shuffled(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """A model with the trained weights in random order: the values of each parameter tensor are permuted within it.

    All parameters are shuffled, also embeddings, biases and gains of norms, since all are learned: which tokens have
    similar embeddings, and which coordinates a norm enlarges. Tied tensors stay tied, and buffers stay as they are.
    What a model keeps in one tensor (queries, keys and values in GPT-2's `c_attn`) is mixed.

    The order depends only on the seed and the shapes. The model itself and the random state of torch are unchanged.

    Args:
        loaded: the trained model.
        seed: from 0 to 2^63 - 1.

    Raises:
        TiltmeterError: the seed is out of range; the model is spread over devices, or has quantised weights.
    """
    _refuse(loaded, seed)
    return _control(loaded, _shuffled(loaded.model.hf, seed), "shuffled", seed)


CONTROLS: dict[str, Callable[[LoadedModel, int], LoadedModel]] = {"initialised": initialised, "shuffled": shuffled}


def _refuse(loaded: LoadedModel, seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise TiltmeterError(f"The seed of a control is {seed}; expected 0 to {2**63 - 1}.")
    if any(hasattr(module, "_hf_hook") for module in loaded.model.hf.modules()):
        raise TiltmeterError(
            f"{loaded.model.name} is spread over devices, where no control can be made of it; load it on one device."
        )


def _control(loaded: LoadedModel, hf: PreTrainedModel, kind: str, seed: int) -> LoadedModel:
    name = f"{loaded.model.name}, {kind}"
    facts = loaded.facts | {
        "name": name,
        "class": type(hf).__name__,
        "revision": f"{kind}, seed {seed}",
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


def _shuffled(original: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Permute on the CPU, so that a seed gives the same order everywhere."""
    random = torch.Generator("cpu").manual_seed(seed)
    hf = deepcopy(original)
    for name, own in hf.named_parameters():
        if not own.is_floating_point():
            raise TiltmeterError(
                f"{name} holds quantised weights ({own.dtype}), which mean nothing in another order; "
                "load the model unquantised."
            )
        order = torch.randperm(own.numel(), generator=random).to(own.device)
        own.data = own.data.flatten()[order].view(own.shape)
    return hf
