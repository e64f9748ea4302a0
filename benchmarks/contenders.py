"""Who takes part: the tools that researchers use, each as a good user and as an expert writes it, and tiltmeter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from benchmarks.peers import huggingface, nnsight_peer, peer, tiltmeter_peer, transformerlens
from benchmarks.workloads import Workload
from tiltmeter.models.loading import PRECISIONS

Results = dict[str, Tensor]
"""By readout, [layer, point, sequence, read]."""

Group = Literal["plain", "expert", "rounded", "tiltmeter"]
"""`rounded`: an expert who gives up digits for the matrix units of a GPU."""

AGREE, ROUNDED_AGREE = 0.02, 0.5
"""How far, relatively, anyone's large KL may be from float64 before the times are of different work."""


@dataclass(frozen=True)
class Contender:
    """Someone who does the work."""

    group: Group
    build: Callable[[GPT2LMHeadModel], Callable[[Workload], Results]]
    package: str = "transformers"
    """What must be installed."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    agreement: float = AGREE

    def runs_on(self, device: str) -> bool:
        """Whether it is of interest there."""
        return device.split(":")[0] in self.devices

    @property
    def installed(self) -> bool:
        """Whether it can take part here."""
        return find_spec(self.package) is not None


def _peer(group: Group, make: Callable[[GPT2LMHeadModel], peer.Peer], package: str = "transformers") -> Contender:
    def build(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
        one = make(model)
        return lambda work: peer.measure(one, work)

    return Contender(group, build, package)


def _tiltmeter(precision: str) -> Contender:
    def build(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
        dtype, kind = PRECISIONS[precision]
        split = kind(model.to(dtype))
        return lambda work: tiltmeter_peer.measure_workload(split, work)

    return Contender("tiltmeter", build)


def _rounded(make: Callable[[GPT2LMHeadModel], peer.Peer]) -> Contender:
    build = _peer("rounded", make).build
    return Contender("rounded", build, devices=("cuda",), agreement=ROUNDED_AGREE)


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


def exactly(model: GPT2LMHeadModel) -> Callable[[Workload], Results]:
    """The oracle: hooks on the whole model and log-softmax, all in float64, with no code that sweeps use."""
    one = huggingface.Hooks(model.double())
    return lambda work: peer.measure(one, work, torch.float64, peer.exact_kl)
