"""A run goes on only with a model that computes what it did, however its hooks and modules come by their numbers."""

from __future__ import annotations

from copy import deepcopy
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiltmeter as tm
from tiltmeter.models.trunk import Trunk
from tiny_models import WIDTH, random_tokens, tiny

TOKENS = tm.TokenSet(random_tokens(4, 8), "mine", None, {})
SWEEP = tm.Sweep(
    site="resid_pre:1",
    directions=("isotropic",),
    path=tm.Straight(lengths=(0, 1)),
    sequences=4,
    statistics_sequences=4,
)


def kl(hf, out):
    return float(tm.run_sweep(SWEEP, tm.load_model(hf), TOKENS, out).kl[:, -1].mean())


def namespace(hf):
    """A hook scales by a number in a namespace of its own."""
    held = SimpleNamespace(scale=1.0)
    hf.model.layers[2].mlp.register_forward_hook(lambda module, args, output: output * held.scale)
    return lambda: setattr(held, "scale", 4.0)


def outside(hf):
    """A hook adds what a module outside the model gives."""
    torch.manual_seed(0)
    adapter = nn.Linear(WIDTH, WIDTH, bias=False).to(hf.dtype).requires_grad_(False)
    hf.model.layers[2].mlp.register_forward_hook(lambda module, args, output: output + adapter(args[0]))
    return lambda: adapter.weight.mul_(8)


def private(hf):
    """A module's attribute is an object."""
    block = hf.model.layers[2].mlp
    block._held = SimpleNamespace(scale=1.0)
    block.register_forward_hook(lambda module, args, output: output * module._held.scale)
    return lambda: setattr(block._held, "scale", 4.0)


@pytest.mark.parametrize("edit", [namespace, outside, private])
def test_what_no_description_sees_is_seen_in_the_numbers(edit, tmp_path):
    hf = deepcopy(tiny("llama"))
    change = edit(hf)
    before = kl(hf, tmp_path / "one")
    assert kl(hf, tmp_path / "one") == before
    change()
    with pytest.raises(tm.TiltmeterError, match="was begun with a model that computed something else"):
        kl(hf, tmp_path / "one")
    assert kl(hf, tmp_path / "two") != pytest.approx(before, rel=1e-3)


def test_threads_take_turns(tmp_path):
    loaded, found = tm.load_model(deepcopy(tiny("llama"))), {}

    def measure(number):
        found[number] = tm.run_sweep(SWEEP, loaded, TOKENS, tmp_path / str(number)).kl.values

    threads = [Thread(target=measure, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    measure("after")
    assert len(found) == 5
    assert all((values == found["after"]).all() for values in found.values())


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        (lambda output: output + 1e-3 * torch.randn_like(output), "two outputs for the same tokens"),
        (lambda output: output - output.mean(0, keepdim=True), "another output beside others than alone"),
        (lambda output: output + output.mean(1, keepdim=True), "no decoder"),
    ],
    ids=["noise", "batch", "later tokens"],
)
def test_outputs_that_depend_on_more_than_earlier_tokens_are_refused(hook, sentence):
    hf = deepcopy(tiny("llama"))
    model = tm.SplitModel(hf)
    hf.model.layers[2].mlp.register_forward_hook(lambda module, args, output: hook(output))
    with pytest.raises(tm.TiltmeterError, match=sentence):
        Trunk(hf, model.parts, model.context)
