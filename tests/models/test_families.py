"""Families whose parts are not what their names say, or whose heads ask for more: numbers or a sentence."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, MixtralConfig, OlmoConfig

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.self_check import check_additive, check_split
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TOKENS = torch.arange(1, 13).reshape(2, 6)


def split(config):
    torch.manual_seed(0)
    return SplitModel(AutoModelForCausalLM.from_config(config))  # float32: experts and some norms know no other


@pytest.mark.parametrize("config", [MixtralConfig(num_local_experts=2, **SMALL), OlmoConfig(**SMALL)])
def test_experts_and_norms_without_parameters_are_split(config):
    model = split(config)
    for site in ("resid_pre:1", "attn_out:1", "mlp_out:0", "z:1"):
        check_split(model, model.start(TOKENS, model.site(site)))
        check_additive(model, TOKENS, model.site(site))
    assert model.centred == isinstance(config, OlmoConfig)  # OLMo's norm subtracts the mean


def test_sites_that_do_not_add_up_are_refused():
    model = split(GraniteConfig(**SMALL, residual_multiplier=0.5))
    check_additive(model, TOKENS, model.site("resid_pre:1"))
    for site in ("attn_out:1", "mlp_out:1"):  # Granite scales them afterwards
        with pytest.raises(TiltmeterError, match="not what is added to the stream"):
            check_additive(model, TOKENS, model.site(site))


def test_equal_activations_are_no_unit_of_length():
    path = Straight(lengths=(0, 1), unit="pair-distance")
    assert path.resolved(2.0).steps == (0, 2)
    with pytest.raises(TiltmeterError, match="mean pair distance is zero"):
        path.resolved(0.0)
