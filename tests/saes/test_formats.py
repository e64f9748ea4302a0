"""SAEs as each library stores them give what a few naive lines give, written from that library's own code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.hook_names import transformer_lens_name
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.sae import reconstruct

D, L = 12, 30


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


ENC, DEC = random(D, L), random(L, D, seed=1) / 3
B_ENC, B_DEC = random(L, seed=2) / 2, random(D, seed=3)
THRESHOLDS = torch.rand(L, generator=torch.Generator().manual_seed(4)) * 2
X = 2 * random(5, 7, D, seed=5) + 0.5


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def assert_gives(name, latents, reconstruction, scale=None):
    """Latents may be counted in other units, if each has its own constant factor."""
    sae = load_sae(str(name))
    found = sae.encode(X)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(found if scale is None else found * scale, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(sae, X), reconstruction, atol=1e-5, rtol=1e-5)
    return sae


def top(pre, k):
    kept = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)


LINEAR = {"encoder.weight": ENC.T.contiguous(), "encoder.bias": B_ENC, "decoder.weight": DEC.T.contiguous()}
PRE, CENTRED = X @ ENC + B_ENC, (X - B_DEC) @ ENC + B_ENC


def sparsify(folder, **config):
    write_json(folder / "cfg.json", {"d_in": D, "num_latents": L, "k": 4, "activation": "topk"} | config)
    weights = {key: value for key, value in LINEAR.items() if key != "decoder.weight"}
    save_file(weights | {"W_dec": DEC, "b_dec": B_DEC}, folder / "sae.safetensors")
    return folder


def test_sparsify(tmp_path):
    folder = sparsify(tmp_path / "run" / "layers.3.mlp")
    write_json(tmp_path / "run" / "config.json", {"model": "EleutherAI/pythia-70m"})
    latents = top(CENTRED, 4)
    about = assert_gives(folder, latents, latents @ DEC + B_DEC).about
    assert (about.hook_name, about.model) == ("blocks.3.hook_mlp_out", "EleutherAI/pythia-70m")
    assert_gives(folder / "sae.safetensors", latents, latents @ DEC + B_DEC)
    assert_gives(f"{tmp_path / 'run'}#layers.3.mlp", latents, latents @ DEC + B_DEC)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"transcode": True}, "is a transcoder"),
        ({"activation": "groupmax"}, "by groupmax"),
        ({"signed": True}, "by signed top-k"),
        ({"k": None}, "has no k"),
    ],
)
def test_what_sparsify_also_trains_is_refused(config, sentence, tmp_path):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(str(sparsify(tmp_path / "layers.3", **config)))


GATES = {"gate_bias": random(L, seed=6), "mag_bias": random(L, seed=7), "r_mag": random(L, seed=8) / 4}


def gated():
    pre = (X - B_DEC) @ ENC
    return (pre + GATES["gate_bias"] > 0) * (GATES["r_mag"].exp() * pre + GATES["mag_bias"]).relu()


OURS = {"W_enc": ENC, "b_enc": B_ENC, "W_dec": DEC, "b_dec": B_DEC}
BUFFERS = {"k": torch.tensor(4, dtype=torch.int), "threshold": torch.tensor(1.5)}
GROUPS = {"group_sizes": torch.tensor([10, 20])}
BATCH = CENTRED.relu() * (CENTRED.relu() > 1.5)
DICTIONARIES = {
    "AutoEncoder": (LINEAR | {"bias": B_DEC}, CENTRED.relu()),
    "AutoEncoderNew": (LINEAR | {"decoder.bias": B_DEC}, PRE.relu()),
    "GatedAutoEncoder": (
        {key: LINEAR[key] for key in ("encoder.weight", "decoder.weight")} | GATES | {"decoder_bias": B_DEC},
        gated(),
    ),
    "JumpReluAutoEncoder": (OURS | {"threshold": THRESHOLDS}, (PRE * (PRE > THRESHOLDS)).relu()),
    "AutoEncoderTopK": (LINEAR | {"b_dec": B_DEC} | BUFFERS, top(CENTRED, 4)),
    "BatchTopKSAE": (LINEAR | {"b_dec": B_DEC} | BUFFERS, BATCH),
    "MatryoshkaBatchTopKSAE": (OURS | BUFFERS | GROUPS, BATCH),
}


def dictionary(folder, kind, weights=None, **trainer):
    write_json(folder / "config.json", {"trainer": {"dict_class": kind, "layer": 3, "lm_name": "gpt2", **trainer}})
    torch.save(DICTIONARIES[kind][0] if weights is None else weights, folder / "ae.pt")
    return folder


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionary_learning(kind, tmp_path):
    latents = DICTIONARIES[kind][1]
    about = assert_gives(dictionary(tmp_path, kind), latents, latents @ DEC + B_DEC).about
    assert (about.hook_name, about.model) == ("blocks.3.hook_resid_post", "gpt2")
    assert_gives(tmp_path / "ae.pt", latents, latents @ DEC + B_DEC)


def test_a_batch_top_k_sae_before_its_threshold_is_refused(tmp_path):
    weights = LINEAR | {"b_dec": B_DEC} | BUFFERS | {"threshold": torch.tensor(-1.0)}
    with pytest.raises(TiltmeterError, match="has no threshold, which batch-top-k SAEs get late"):
        load_sae(str(dictionary(tmp_path, "BatchTopKSAE", weights)))


def test_an_unknown_class_of_dictionary_learning_is_refused(tmp_path):
    dictionary(tmp_path, "AutoEncoder")
    write_json(tmp_path / "config.json", {"trainer": {"dict_class": "CrossCoder"}})
    with pytest.raises(TiltmeterError, match=r"gives the class 'CrossCoder'; tiltmeter reads AutoEncoder, "):
        load_sae(str(tmp_path))


def openai(file, **more):
    weights = {"encoder.weight": LINEAR["encoder.weight"], "decoder.weight": LINEAR["decoder.weight"]}
    torch.save(weights | {"latent_bias": B_ENC, "pre_bias": B_DEC, "stats_last_nonzero": torch.zeros(L)} | more, file)
    return file


def test_openai_version_1(tmp_path):
    latents = CENTRED.relu()
    assert_gives(openai(tmp_path / "6.pt", activation="ReLU"), latents, latents @ DEC + B_DEC)


def test_openai_version_5_normalises_each_token(tmp_path):
    mean, std = X.mean(-1, keepdim=True), X.std(-1, keepdim=True)
    latents = top(((X - mean) / (std + 1e-5) - B_DEC) @ ENC + B_ENC, 4)
    file = openai(tmp_path / "6.pt", activation="TopK", activation_state_dict={"k": 4, "postact_fn": "ReLU"})
    assert_gives(file, latents, (latents @ DEC + B_DEC) * std + mean)


def test_openais_library_saves_statistics_of_training_too(tmp_path):
    statistics = {"latents_activation_frequency": torch.ones(L), "latents_mean_square": torch.zeros(L)}
    latents = CENTRED.relu()
    assert_gives(openai(tmp_path / "6.pt", activation="ReLU", **statistics), latents, latents @ DEC + B_DEC)


def test_a_top_k_sae_of_openais_with_negative_latents_is_refused(tmp_path):
    state = {"k": 4, "postact_fn": "Identity"}
    with pytest.raises(TiltmeterError, match="applies Identity to the kept latents, which can be negative"):
        load_sae(str(openai(tmp_path / "6.pt", activation="TopK", activation_state_dict=state)))


def test_a_jumprelu_sae_of_dictionary_learning_may_have_negative_thresholds(tmp_path):
    thresholds = THRESHOLDS - 1
    latents = torch.where(thresholds < PRE, PRE, 0.0).relu()
    folder = dictionary(tmp_path, "JumpReluAutoEncoder", OURS | {"threshold": thresholds})
    assert_gives(folder, latents, latents @ DEC + B_DEC)


def test_options_do_not_contradict_what_a_file_says(tmp_path):
    file = openai(tmp_path / "6.pt", activation="ReLU")
    with pytest.raises(TiltmeterError, match="say how it is used; leave out what follows the"):
        load_sae(f"{file}?k=3")


JUMPED = torch.where(PRE > THRESHOLDS, PRE, 0.0).relu()


def test_gemma_scope(tmp_path):
    folder = tmp_path / "layer_20" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", threshold=THRESHOLDS, **OURS)
    for name in (folder, folder / "params.npz"):
        assert_gives(name, JUMPED, JUMPED @ DEC + B_DEC)


def test_gemma_scope_2(tmp_path):
    folder = tmp_path / "resid_post" / "layer_9_width_16k"
    write_json(folder / "config.json", {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt"})
    weights = {key.lower(): value for key, value in OURS.items()} | {"threshold": THRESHOLDS}
    save_file(weights, folder / "params.safetensors")
    assert assert_gives(folder, JUMPED, JUMPED @ DEC + B_DEC).about.hook_name == "blocks.9.hook_resid_post"


NORM = 5.0
SCALE = math.sqrt(D) / NORM
ROWS = DEC.norm(dim=-1)


def lm_saes(folder, config, weights, file="checkpoints/final.safetensors", name="hyperparams.json"):
    hook = "blocks.3.hook_resid_post"
    said = {"d_model": D, "d_sae": L, "hook_point_in": hook, "hook_point_out": hook, "norm_activation": "dataset-wise"}
    write_json(folder / name, said | config)
    (folder / file).parent.mkdir(exist_ok=True)
    save_file(weights, folder / file)
    return folder


def active(kind, threshold=None, k=None, rows=ROWS):
    """Latents in their own units: multiplied with the norms of decoder rows, chosen, and divided again."""
    pre = ((SCALE * X) @ ENC + B_ENC) * rows
    chosen = top(pre, k) if kind == "topk" else torch.where(pre > threshold, pre, 0.0).relu()
    return chosen / rows


@pytest.mark.parametrize("with_rows", [True, False])
def test_llama_scope(with_rows, tmp_path):
    config = {"act_fn": "jumprelu", "jump_relu_threshold": 0.5, "top_k": 4}
    config |= {"dataset_average_activation_norm": {"in": NORM, "out": NORM}}
    config |= {"apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": with_rows}
    rows = ROWS if with_rows else torch.ones(L)
    latents = active("jumprelu", 0.5, rows=rows)
    folder = lm_saes(tmp_path, config, LINEAR | {"decoder.bias": B_DEC})
    assert_gives(folder, latents, (latents @ DEC + B_DEC) / SCALE, scale=SCALE / rows)


@pytest.mark.parametrize(
    ("config", "latents", "more"),
    [
        ({"act_fn": "topk", "top_k": 4}, active("topk", k=4), {}),
        (
            {"act_fn": "jumprelu"},
            active("jumprelu", THRESHOLDS),
            {"log_jumprelu_threshold": THRESHOLDS.log()},
        ),
        (
            {"act_fn": "jumprelu"},
            active("jumprelu", THRESHOLDS),
            {"activation_function.log_jumprelu_threshold": THRESHOLDS.log()},
        ),
    ],
    ids=["topk", "log threshold", "log threshold of a module"],
)
def test_what_openmoss_writes_since(config, latents, more, tmp_path):
    names = {"W_enc": "W_E", "b_enc": "b_E", "W_dec": "W_D", "b_dec": "b_D"}
    weights = {names[key]: value for key, value in OURS.items()} | more
    weights["dataset_average_activation_norm.blocks.3.hook_resid_post"] = torch.tensor(NORM)
    folder = lm_saes(tmp_path, config, weights, "sae_weights.safetensors", "config.json")
    assert_gives(folder, latents, (latents @ DEC + B_DEC) / SCALE, scale=SCALE / ROWS)


def test_a_log_threshold_without_its_configuration_is_refused(tmp_path):
    weights = LINEAR | {"decoder.bias": B_DEC, "log_jumprelu_threshold": THRESHOLDS.log()}
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(TiltmeterError, match="has log_jumprelu_threshold, which its configuration explains"):
        load_sae(f"{tmp_path / 'a.safetensors'}?activation=relu&apply_b_dec_to_input=false")


def test_a_scale_that_is_not_stored_is_refused(tmp_path):
    folder = lm_saes(tmp_path, {"act_fn": "relu"}, LINEAR | {"decoder.bias": B_DEC})
    with pytest.raises(TiltmeterError, match="scales activations 'dataset-wise', with the mean norm None"):
        load_sae(str(folder))


def test_kissane_and_nanda(tmp_path):
    write_json(tmp_path / "run_cfg.json", {"act_size": D, "dict_size": L, "act_name": "blocks.5.attn.hook_z"})
    torch.save(OURS, tmp_path / "run.pt")
    latents = CENTRED.relu()
    assert assert_gives(tmp_path / "run.pt", latents, latents @ DEC + B_DEC).about.hook_name == "blocks.5.attn.hook_z"


def test_bussmann_top_k_does_not_use_its_encoder_bias(tmp_path):
    config = {"act_size": D, "dict_size": L, "sae_type": "topk", "top_k": 4, "input_unit_norm": True}
    write_json(tmp_path / "config.json", config | {"hook_point": "blocks.8.hook_resid_pre"})
    torch.save(OURS | {"num_batches_not_active": torch.zeros(L)}, tmp_path / "sae.pt")
    mean, std = X.mean(-1, keepdim=True), X.std(-1, keepdim=True)
    latents = top(((X - mean) / (std + 1e-5) - B_DEC) @ ENC, 4)
    assert_gives(tmp_path, latents, (latents @ DEC + B_DEC) * std + mean)
    write_json(tmp_path / "config.json", config | {"sae_type": "batchtopk"})
    with pytest.raises(TiltmeterError, match=r"is a batchtopk SAE.*depend on the batch"):
        load_sae(str(tmp_path))


def test_goodfire(tmp_path):
    weights = {key.replace("coder.", "coder_linear."): value for key, value in LINEAR.items()}
    torch.save(weights | {"decoder_linear.bias": B_DEC}, tmp_path / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    assert_gives(tmp_path, PRE.relu(), PRE.relu() @ DEC + B_DEC)


def test_deepseek_r1(tmp_path):
    file = tmp_path / "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"
    torch.save(LINEAR | {"decoder.bias": B_DEC}, file)
    assert assert_gives(file, PRE.relu(), PRE.relu() @ DEC + B_DEC).about.hook_name == "blocks.19.hook_resid_post"


def test_qwen_scope(tmp_path):
    file = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4" / "layer7.sae.pt"
    file.parent.mkdir()
    weights = {"W_enc": ENC.T.contiguous(), "W_dec": DEC.T.contiguous(), "b_enc": B_ENC, "b_dec": B_DEC}
    torch.save(weights, file)
    latents = top(PRE, 4)
    assert_gives(file, latents, latents @ DEC + B_DEC)
    moved = tmp_path / "layer7.sae.pt"
    torch.save(weights, moved)
    with pytest.raises(TiltmeterError, match=r"does not say k, .*\?k=32"):
        load_sae(str(moved))
    assert_gives(f"{moved}?k=4", latents, latents @ DEC + B_DEC)


@pytest.mark.parametrize("suffix", ["pt", "npz", "safetensors"])
@pytest.mark.parametrize("names", [("W_enc", "b_enc", "W_dec", "b_dec"), ("W_e", "b_e", "W_d", "b_d")])
def test_weights_alone_in_any_kind_of_file(names, suffix, tmp_path):
    weights = dict(zip(names, OURS.values(), strict=True))
    file = tmp_path / f"sae.{suffix}"
    save = {"pt": torch.save, "safetensors": save_file, "npz": lambda found, path: np.savez(path, **found)}[suffix]
    save(weights, file)
    latents = CENTRED.relu()
    assert_gives(f"{file}?activation=relu&apply_b_dec_to_input=true", latents, latents @ DEC + B_DEC)


@pytest.mark.parametrize("extra", ["W_skip", "affine_skip_connection"])
def test_transcoders_are_no_saes(extra, tmp_path):
    save_file(OURS | {extra: torch.ones(D, D)}, tmp_path / "a.safetensors")
    with pytest.raises(TiltmeterError, match=r"is a transcoder, .* no reconstruction here; only its decoder rows"):
        load_sae(f"{tmp_path / 'a.safetensors'}?activation=relu&apply_b_dec_to_input=true")


def test_a_folder_of_layers_says_which_there_are(tmp_path):
    for layer in (2, 3):
        sparsify(tmp_path / f"layers.{layer}")
    with pytest.raises(
        TiltmeterError, match=r"it has folders \(layers.2, layers.3\); give one of them, as .*#layers.2"
    ):
        load_sae(str(tmp_path))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("layers.5", "blocks.5.hook_resid_post"),
        ("model.layers.5", "blocks.5.hook_resid_post"),
        ("transformer.h.5", "blocks.5.hook_resid_post"),
        ("model.language_model.layers.12.mlp", "blocks.12.hook_mlp_out"),
        ("gpt_neox.layers.0.attention", "blocks.0.hook_attn_out"),
        ("model.layers.3.self_attn", "blocks.3.hook_attn_out"),
        ("resid_post_layer_8", "blocks.8.hook_resid_post"),
        ("embed_tokens", "hook_embed"),
        ("gpt_neox.embed_in", "hook_embed"),
        ("blocks.6.hook_resid_pre", "blocks.6.hook_resid_pre"),
        ("something.else", "something.else"),
    ],
)
def test_names_of_sites(theirs, ours):
    assert transformer_lens_name(theirs) == ours
