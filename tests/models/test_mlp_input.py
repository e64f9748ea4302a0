"""What an MLP reads, by its three names, against plain hooks and the formulas of the norms."""

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.hooks import Place
from tiltmeter.models.mlp_input import find_mlp_reader
from tiltmeter.models.split_model import SplitModel
from tiny_models import FAMILIES, WIDTH, block, random_tokens, tiny

TOKENS, LAYER = random_tokens(), 1
NORMS = {
    "gpt2": "ln_2",
    "neox-parallel": "post_attention_layernorm",
    "neox-sequential": "post_attention_layernorm",
    "llama": "post_attention_layernorm",
    "gemma2": "pre_feedforward_layernorm",
}


def hooked(family, model):
    """The inputs of the norm before the MLP and of the MLP, by hooks of torch."""
    seen, owner = {}, block(family, model, LAYER)
    handles = [
        owner.get_submodule(name).register_forward_pre_hook(
            lambda _, args, key=name: seen.update({key: args[0].clone()})
        )
        for name in (NORMS[family], "mlp")
    ]
    with torch.no_grad():
        model(TOKENS)
    for handle in handles:
        handle.remove()
    return seen[NORMS[family]], seen["mlp"]


@pytest.mark.parametrize("family", NORMS)
def test_each_input_is_what_its_name_says(family):
    model = tiny(family)
    split = SplitModel(model)
    found = find_mlp_reader(split, LAYER).inputs(split, TOKENS)
    stream, read = hooked(family, model)
    x = stream - stream.mean(-1, keepdim=True) if FAMILIES[family].layer_norm else stream
    normalised = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(found["hook_resid_mid"], stream)
    torch.testing.assert_close(found["mlp.hook_in"], read)
    torch.testing.assert_close(found["ln2.hook_normalized"], normalised, rtol=1e-3, atol=1e-4)
    assert float((read - normalised).norm() / normalised.norm()) > 0.1  # what the norm's weights and bias do


def test_a_model_whose_mlp_is_no_module_is_refused(monkeypatch):
    split = SplitModel(tiny("gpt2"))
    inner = split.parts.blocks[LAYER].mlp.c_proj  # as if the block's own last matrix were all there is
    monkeypatch.setattr(type(split.parts), "place", lambda *_: Place(inner, "output"))
    with pytest.raises(TiltmeterError, match=r"the MLP of block 1 is no module of its own, .* transcoder-error"):
        find_mlp_reader(split, LAYER)


def test_weights_of_a_norm_that_are_zero_cannot_be_removed():
    model = tiny("gpt2", n_layer=2)
    weight = block("gpt2", model, LAYER).ln_2.weight
    before = weight.detach().clone()
    try:
        weight.data[3] = 0.0
        found = find_mlp_reader(split := SplitModel(model), LAYER).inputs(split, TOKENS)
    finally:
        weight.data.copy_(before)
    assert "ln2.hook_normalized" not in found and found["mlp.hook_in"].shape[-1] == WIDTH
