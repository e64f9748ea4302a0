"""The contenders: tools that researchers use, each in plain and in expert use, and tiltmeter in each precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.peers import huggingface, nnsight_peer, peer, tiltmeter_peer, transformerlens
from benchmarks.workloads import Workload
from tiltmeter.models.loading import PRECISIONS

Results = dict[str, Tensor]
"""Values by readout, [layer, point, sequence, read]; a point is one length."""

Group = Literal["plain", "expert", "rounded", "tiltmeter"]
"""`plain`: as in the tool's tutorials. `expert`: by hand, without redundant computation. `rounded`: expert use in TF32
or bfloat16, which a GPU's matrix units multiply faster and less precisely."""

AGREE, ROUNDED_AGREE = 0.02, 0.5
"""Largest relative error of a large KL against float64, in full and in rounded precision. A contender with a
larger one does not do the same work, so its times cannot be compared."""


@dataclass(frozen=True)
class Contender:
    """A tool, used in one way."""

    group: Group
    build: Callable[[GPT2LMHeadModel], Callable[[Workload], Results]]
    package: str = "transformers"
    """The package that it needs."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    agreement: float = AGREE

    def runs_on(self, device: str) -> bool:
        """Whether it is measured on this device."""
        return device.split(":")[0] in self.devices

    @property
    def installed(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.package) is not None


def _peer(group: Group, make: Callable[[GPT2LMHeadModel], peer.Peer], package: str = "transformers") -> Contender:
    def build(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
        tool = make(model)
        return lambda work: peer.measure(tool, work)

    return Contender(group, build, package)


def _tiltmeter(precision: str) -> Contender:
    def build(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
        dtype, kind = PRECISIONS[precision]
        split = kind(model.to(dtype))
        return lambda work: tiltmeter_peer.measure_workload(split, work)

    return Contender("tiltmeter", build)


def _rounded(make: Callable[[GPT2LMHeadModel], peer.Peer]) -> Contender:
    return replace(_peer("rounded", make), devices=("cuda",), agreement=ROUNDED_AGREE)


LENS = "transformer_lens"

CONTENDERS: Mapping[str, Contender] = {
    "hf-hooks": _peer("plain", huggingface.Hooks),
    "nnsight": _peer("plain", lambda model: nnsight_peer.Trace(nnsight_peer.wrapped(model)), "nnsight"),
    "transformer-lens": _peer(
        "plain", lambda model: transformerlens.Hooks(transformerlens.hooked_transformer(model)), LENS
    ),
    "transformer-bridge": _peer("plain", lambda model: transformerlens.Hooks(transformerlens.bridge(model)), LENS),
    "hf-expert": _peer("expert", huggingface.ByHand),
    "nnsight-expert": _peer("expert", lambda model: nnsight_peer.Skip(nnsight_peer.wrapped(model)), "nnsight"),
    "transformer-lens-expert": _peer(
        "expert", lambda model: transformerlens.FromLayer(transformerlens.hooked_transformer(model)), LENS
    ),
    "hf-expert-tf32": _rounded(huggingface.tf32),
    "hf-expert-bf16": _rounded(huggingface.InBfloat16),
    **{f"tiltmeter {precision}": _tiltmeter(precision) for precision in PRECISIONS if precision != "float64"},
}


def float64_oracle(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
    """The oracle: hooks on the whole model and log-softmax, in float64. It does not use `SplitModel`."""
    hooks = huggingface.Hooks(model.double())
    return lambda work: peer.measure(hooks, work, torch.float64, peer.exact_kl)
