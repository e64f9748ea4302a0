"""Families whose parts are not what their names say, or whose heads ask for more: numbers or a sentence."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BltConfig,
    BltForCausalLM,
    DbrxConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MllamaForCausalLM,
    OlmoConfig,
    ReformerConfig,
    ReformerModelWithLMHead,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from tiltmeter.errors import TiltmeterError
from tiltmeter.models import architectures
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.hooks import Rankings
from tiltmeter.models.positions import Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout
from tiltmeter.models.self_check import check_additive, check_split
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Straight
from tiny_families import build, families

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
    with pytest.raises(TiltmeterError, match="pair distance is zero"):
        path.resolved(0.0)


def test_blocks_that_attend_to_an_image_are_passed_over():
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4}
    config = MllamaTextConfig(
        **SMALL | {"num_hidden_layers": 4, "vocab_size": 50}, cross_attention_layers=[1, 3], rope_parameters=rope
    )
    model = SplitModel(MllamaForCausalLM(config).double())
    assert model.n_layers == 4 and model.parts.running == (0, 2)
    for name in ("resid_pre:1", "resid_post:1", "resid_pre:3", "resid_post:3", "attn_out:2", "z:2"):
        site = model.site(name)
        check_split(model, model.start(TOKENS, site, [model.site("resid_post:3")], Span(3, 6)))
        check_additive(model, TOKENS, site)
    before, after = (model.activation(TOKENS, model.site(name)) for name in ("resid_pre:1", "resid_post:1"))
    assert torch.equal(before, after)
    assert not model.has(model.site("attn_out:1"))
    with pytest.raises(TiltmeterError, match="block 1 does not run on text"):
        model.tap(model.site("attn_out:1"))


def test_attention_inside_a_module_named_after_its_norm_is_found():
    config = DbrxConfig(
        vocab_size=50,
        d_model=16,
        n_heads=2,
        n_layers=2,
        max_seq_len=16,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 2},
    )
    model = split(config)
    assert model.has(model.site("z:1"))
    check_split(model, model.start(TOKENS, model.site("z:1")))


def blt():
    part = {
        key: SMALL[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    }
    part |= {"vocab_size": 50, "intermediate_size": 32, "max_position_embeddings": 16, "hidden_size_global": 16}
    parts = dict.fromkeys(("patcher_config", "encoder_config", "decoder_config", "global_config"), part)
    torch.manual_seed(0)
    return BltForCausalLM(BltConfig(vocab_size=50, encoder_hash_byte_group_vocab=50, **parts)).eval()


def test_a_model_with_several_streams_is_refused():
    with pytest.raises(TiltmeterError, match=r"several residual streams \(model\.\w+\.layers, model\.\w+\.layers"):
        SplitModel(blt())


def test_what_returns_several_things_is_no_final_norm(monkeypatch):
    monkeypatch.setattr(architectures, "_refuse_several", lambda *_: None)
    assert (
        architectures.find_parts(blt()).final_norm is None
    )  # rotary angles are computed from what the last block wrote


def test_a_stream_with_other_positions_than_the_tokens_is_refused():
    config = ReformerConfig(
        vocab_size=50,
        hidden_size=16,
        num_attention_heads=2,
        attention_head_size=8,
        attn_layers=["local", "local"],
        axial_pos_embds=False,
        local_attn_chunk_length=3,
        is_decoder=True,
    )
    with pytest.raises(TiltmeterError, match=r"returns shape \(2, 9, 16\) for token ids of shape \(2, 8\)"):
        SplitModel(ReformerModelWithLMHead(config).eval())


def test_a_model_that_does_not_predict_a_token_at_every_position_is_refused():
    class Last(LlamaForCausalLM):
        def forward(self, input_ids=None, **kwargs):
            return super().forward(input_ids, logits_to_keep=1, **kwargs)

    with pytest.raises(TiltmeterError, match=r"returns logits of shape \(2, 1, 50\) for token ids of shape \(2, 8\)"):
        SplitModel(Last(LlamaConfig(**SMALL)).eval())


def test_where_attention_chooses_positions_sequences_are_not_cut():
    """Of equal scores, the largest k are chosen by the length of the row; experts are chosen among as many anywhere."""
    names = families()
    for family, cut in {"deepseek_v32": False, "mixtral": True, "llama": True}.items():
        assert SplitModel(build(family, names[family])).trunk.may_be_cut == cut, family


@pytest.mark.parametrize(
    "rank",
    [
        lambda x: torch.topk(x, 2, 1),
        lambda x: x.topk(2, dim=1),
        lambda x: torch.sort(x, 1, True),
        lambda x: x.sort(dim=1, descending=True),
        lambda x: torch.argsort(x.mT),
        lambda x: x.kthvalue(2, 1),
    ],
)
def test_every_way_of_ranking_is_seen(rank):
    with Rankings() as rankings:
        rank(torch.rand(2, 7, 3))
    assert rankings.sizes == {7}


def test_autocast_is_refused():
    model = SplitModel(LlamaForCausalLM(LlamaConfig(**SMALL)))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TiltmeterError, match="autocast is on"):
        model.start(TOKENS, model.site("resid_pre:1"))


@pytest.mark.parametrize("made", [SplitModel, ExactModel])
def test_weights_changed_between_runs_are_seen(made):
    """Through `.data`, which no counter sees, and in the head, of which a copy is used."""
    torch.manual_seed(0)
    hf = LlamaForCausalLM(LlamaConfig(**SMALL))
    model = made(hf)

    def kl(one):
        clean = one.start(TOKENS, one.site("resid_pre:1"))
        late = one.changes(clean, 3 * torch.ones_like(clean.activation)[None].cumsum(-1).cos())
        return compute_readouts(one, clean, late, [Readout("kl")], range(6))["kl"]

    before = kl(model.measured_in("raw"))
    for parameter in hf.parameters():
        parameter.data.mul_(1.5)
    after = kl(model.measured_in("raw"))
    torch.testing.assert_close(after, kl(made(hf)))
    assert not torch.allclose(after, before, rtol=0.01)
