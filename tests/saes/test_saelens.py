"""SAEs that SAELens saved or lists give here what they give there, and keep nothing from one call to the next."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.formats.saelens_config import check_kind, is_transcoder, read_facts
from tiltmeter.saes.loading import load_dictionary, load_sae
from tiltmeter.saes.sae import SAE, reconstruct

sae_lens = pytest.importorskip("sae_lens")

D_IN, D_SAE, HEADS = 16, 40, 4
SETTINGS = {
    "abstopk": {"k": 5},
    "temporal": {"n_heads": 2, "bottleneck_factor": 4},
    "topk": {"k": 5},
    "batchtopk": {"k": 5.0},
    "matryoshka_batchtopk": {"k": 5.0, "matryoshka_widths": [10, 40]},
}
DIRECT = ["standard", "topk", "jumprelu"]
TRAINED = ["batchtopk", "matryoshka_batchtopk"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(architecture, **settings):
    """A SAELens object with random weights, none of them left at what training begins with."""
    trained = architecture in TRAINED
    find = sae_lens.registry.get_sae_training_class if trained else sae_lens.registry.get_sae_class
    cls, config = find(architecture)
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=settings.pop("hook_name", "blocks.3.hook_resid_pre"))
    sae = cls(config(d_in=D_IN, d_sae=D_SAE, metadata=metadata, **SETTINGS.get(architecture, {}) | settings))
    for name, weight in sae.named_parameters():
        weight.data = torch.rand_like(weight) if name == "threshold" else torch.randn_like(weight) / 2
    if trained:
        sae.topk_threshold.fill_(0.7)
    return sae


def save(sae, folder):
    (sae.save_inference_model if hasattr(sae, "save_inference_model") else sae.save_model)(folder)
    return str(folder)


def own(folder):
    return sae_lens.SAE.load_from_disk(folder, dtype="float32")


def activations(*shape):
    return torch.randn(*(shape or (3, 7)), D_IN) * 2 + 0.5


def assert_same(ours, theirs, x, theirs_x=None):
    """Encoding and decoding, theirs in the order its state needs."""
    latents = theirs.encode(x if theirs_x is None else theirs_x)
    decoded = theirs.decode(latents).reshape(x.shape)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(ours.encode(x), latents, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(ours.decode(latents, like=x), decoded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(ours, x), decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", [*DIRECT, "gated", *TRAINED])
def test_a_folder_gives_what_saelens_gives(architecture, subtract, tmp_path):
    folder = save(build(architecture, apply_b_dec_to_input=subtract), tmp_path)
    ours, x = load_sae(folder), activations()
    assert_same(ours, own(folder), x)
    assert isinstance(ours, SAE)
    assert torch.equal(ours.decoder, own(folder).W_dec)
    assert ours.about.hook_name == "blocks.3.hook_resid_pre"
    assert ours.about.architecture == ("jumprelu" if architecture in TRAINED else architecture)


@pytest.mark.parametrize("architecture", DIRECT)
def test_b_dec_is_subtracted_where_the_folder_says_so(architecture, tmp_path):
    folder = save(build(architecture, apply_b_dec_to_input=True), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    before = load_sae(folder)
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": False}))
    after, x = load_sae(folder), activations()
    assert not torch.allclose(before.encode(x), after.encode(x), atol=0.1)
    assert before.about.sha256 != after.about.sha256


@pytest.mark.parametrize("architecture", [*DIRECT, "gated"])
@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_each_tokens_mean_and_scale_come_back(architecture, normalisation, tmp_path):
    folder = save(build(architecture, normalize_activations=normalisation), tmp_path)
    assert_same(load_sae(folder), own(folder), activations())


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_decoding_does_not_depend_on_what_was_encoded_before(normalisation, tmp_path):
    folder = save(build("standard", normalize_activations=normalisation), tmp_path)
    ours, theirs, x = load_sae(folder), own(folder), activations()
    latents = ours.encode(x)
    decoded = ours.decode(latents, like=x)
    ours.encode(10 * activations())
    assert torch.equal(ours.decode(latents, like=x), decoded)
    with pytest.raises(AttributeError):  # SAELens's own has nothing to undo the normalisation by
        theirs.decode(latents)
    theirs.encode(10 * activations())
    assert not torch.allclose(theirs.decode(latents), decoded, atol=1)  # and here, that of other activations


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_without_the_activation_a_normalised_reconstruction_has_no_length(normalisation, tmp_path):
    ours = load_sae(save(build("standard", normalize_activations=normalisation), tmp_path))
    with pytest.raises(TiltmeterError, match=r"normalises each activation.*like="):
        ours.decode(ours.encode(activations()))


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@pytest.mark.parametrize("architecture", [*DIRECT, "gated"])
def test_heads_are_flattened_by_the_caller(architecture, normalisation, tmp_path):
    settings = {"reshape_activations": "hook_z", "hook_name": "blocks.3.attn.hook_z"}
    settings |= {"normalize_activations": normalisation}
    folder = save(build(architecture, **settings), tmp_path)
    ours, theirs, x = load_sae(folder), own(folder), activations()
    with pytest.raises((AttributeError, TypeError)):  # SAELens's own needs to have seen heads first
        own(folder).decode(ours.encode(x))
    assert_same(ours, theirs, x, x.unflatten(-1, (HEADS, -1)))
    assert reconstruct(ours, x).shape == x.shape


def test_latents_that_count_in_decoder_norms_add_unit_rows(tmp_path):
    folder = save(build("topk", rescale_acts_by_decoder_norm=True), tmp_path)
    ours, theirs, x = load_sae(folder), own(folder), activations()
    assert_same(ours, theirs, x)
    torch.testing.assert_close(ours.decoder.norm(dim=-1), torch.ones(D_SAE))
    assert not torch.allclose(theirs.W_dec.norm(dim=-1), torch.ones(D_SAE), atol=0.1)
    latents = ours.encode(x)
    torch.testing.assert_close(ours.decode(latents), latents @ ours.decoder + theirs.b_dec, atol=1e-5, rtol=1e-5)


def test_decoder_norms_count_in_top_k_saes_alone(tmp_path):
    folder = save(build("jumprelu"), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text()) | {"rescale_acts_by_decoder_norm": True}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    assert_same(load_sae(folder), own(folder), activations())


def test_a_latent_whose_row_is_zero_never_fires(tmp_path):
    folder = save(build("topk", rescale_acts_by_decoder_norm=True), tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_dec"][3] = 0
    save_file(weights, tmp_path / "sae_weights.safetensors")
    assert load_sae(folder).encode(activations())[..., 3].max() < 1e-6


def test_a_checkpoints_scale_of_activations_is_folded_in(tmp_path):
    folder = save(build("standard", normalize_activations="expected_average_only_in"), tmp_path)
    with pytest.raises(TiltmeterError, match=r"scaled by expected_average_only_in.*do not state the factor"):
        load_sae(folder)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    ours, theirs, x = load_sae(folder), own(folder), activations()
    latents = theirs.encode(0.25 * x)
    # W_enc alone is scaled, by SAELens too, so that b_dec, subtracted first, is divided.
    torch.testing.assert_close(ours.encode(x), latents, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents) / 0.25, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("said", [{}, {"scaling_factor": None}, {"scaling_factor": 0.0}])
def test_a_scale_without_a_factor_is_not_taken_for_none(said, tmp_path):
    folder = save(build("standard", normalize_activations="expected_average_only_in"), tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps(said))
    with pytest.raises(TiltmeterError, match=r"scaled by expected_average_only_in.*do not state the factor"):
        load_sae(folder)


@pytest.mark.parametrize("lost", ["W_enc", "W_dec", "b_enc"])
def test_weights_that_are_lost_are_told_before_they_are_rescaled(lost, tmp_path):
    folder = save(build("topk", rescale_acts_by_decoder_norm=True), tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file({key: weights[key] for key in weights if key != lost}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(TiltmeterError, match=f"it has no {lost}"):
        load_sae(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("architecture", [*DIRECT, "gated"])
def test_half_precision_weights_are_used_in_float32(architecture, dtype, tmp_path):
    build(architecture).to(sae_lens.util.str_to_dtype(dtype)).save_model(tmp_path)
    ours = load_sae(str(tmp_path))
    assert load_file(tmp_path / "sae_weights.safetensors")["W_enc"].itemsize == 2
    assert ours.decoder.dtype == torch.float32
    assert_same(ours, own(tmp_path), activations())
    assert reconstruct(ours, activations().half()).dtype == torch.float16


@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_gradients_reach_activations_and_not_weights(architecture, tmp_path):
    ours, x = load_sae(save(build(architecture), tmp_path)), activations().requires_grad_()
    reconstruct(ours, x).square().sum().backward()
    assert bool(x.grad.any())
    assert not ours.decoder.requires_grad


def test_a_folder_from_before_version_6(tmp_path):
    sae = build("standard", apply_b_dec_to_input=True)
    sae.save_model(tmp_path)
    old = {"hook_point": "blocks.5.hook_resid_pre", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    old |= {"model_name": "gpt2-small", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    ours = load_sae(str(tmp_path))
    assert (ours.encode(activations()) > 0).sum(-1).max() == 3  # a top-k SAE read as ReLU would have more
    assert (ours.about.architecture, ours.about.hook_name) == ("topk", "blocks.5.hook_resid_pre")


OTHERS = {
    "transcoder": "a transcoder, which reads blocks.3.ln2.hook_normalized and writes blocks.3.hook_mlp_out",
    "skip_transcoder": "a transcoder",
    "jumprelu_transcoder": "a transcoder",
    "jumprelu_skip_transcoder": "a transcoder",
    "matching_pursuit": "an SAE whose encoder is an iterative search",
    "abstopk": "an SAE whose latents can be negative",
    "temporal": "an SAE whose latents depend on the tokens before",
}


@pytest.mark.parametrize("architecture", OTHERS)
def test_of_other_dictionaries_the_decoder_rows_are_read(architecture, tmp_path):
    is_transcoder = "transcoder" in architecture
    extra = {"d_out": 24, "apply_b_dec_to_input": False} if is_transcoder else {}
    extra |= {"hook_name": "blocks.3.ln2.hook_normalized"} if is_transcoder else {}
    sae = build(architecture, **extra)
    if is_transcoder:
        sae.cfg.metadata.hook_name_out = "blocks.3.hook_mlp_out"
    folder = save(sae, tmp_path)
    found, written = load_dictionary(folder), own(folder).W_dec
    assert torch.equal(found.decoder, written) and written.shape == (D_SAE, 24 if is_transcoder else D_IN)
    assert found.what.startswith(OTHERS[architecture])
    assert found.about.hook_name == ("blocks.3.hook_mlp_out" if is_transcoder else "blocks.3.hook_resid_pre")
    with pytest.raises(TiltmeterError, match=rf"is {OTHERS[architecture]}.*only its decoder rows are used"):
        load_sae(folder)


def test_a_transcoder_belongs_where_it_writes_and_never_where_it_reads(tmp_path):
    sae = build("transcoder", d_out=24, apply_b_dec_to_input=False, hook_name="blocks.3.hook_resid_pre")
    assert load_dictionary(save(sae, tmp_path)).about.hook_name is None


def test_a_decoder_of_another_shape_than_the_configuration_says(tmp_path):
    folder = save(build("abstopk"), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"d_sae": D_SAE + 1}))
    with pytest.raises(TiltmeterError, match=r"W_dec of .* is \[40, 16\], but its cfg.json says \[41, 16\]"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"architecture": "novel"}, "is a novel.*does not support.*decoder rows, of transcoder"),
        ({"metadata": {"hook_name": "blocks.0.attn.hook_q", "hook_head_index": 3}}, "reads only head 3.*all heads"),
    ],
)
def test_configurations_that_are_refused(changed, sentence):
    fine = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "metadata": {"hook_name": "a", "hook_name_out": "a"},
    }
    check_kind("x", fine)
    with pytest.raises(TiltmeterError, match=sentence):
        check_kind("x", fine | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"d_out": 24},
        {"architecture": "skip_transcoder"},
        {"metadata": {"hook_name": "blocks.0.hook_mlp_in", "hook_name_out": "blocks.0.hook_mlp_out"}},
        {"metadata": None, "hook_name": "a", "hook_name_out": "b"},
    ],
)
def test_configurations_of_transcoders(changed):
    plain = {"architecture": "standard", "d_in": D_IN, "metadata": {"hook_name": "a", "hook_name_out": "a"}}
    assert is_transcoder(plain | changed) and not is_transcoder(plain)


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("architecture", TRAINED)
def test_a_checkpoint_is_what_it_is_saved_as_when_finished(architecture, rescaled, tmp_path):
    sae = build(architecture, rescale_acts_by_decoder_norm=rescaled)
    sae.save_model(tmp_path / "checkpoint")
    finished, x = load_sae(save(sae, tmp_path / "finished")), activations()
    ours = load_sae(str(tmp_path / "checkpoint"))
    torch.testing.assert_close(ours.encode(x), finished.encode(x), atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(reconstruct(ours, x), reconstruct(finished, x), atol=1e-5, rtol=1e-5)
    assert ours.about.architecture == "jumprelu"


def test_a_checkpoint_without_a_threshold_is_refused(tmp_path):
    sae = build("batchtopk")
    sae.topk_threshold.fill_(0.0)
    sae.save_model(tmp_path)
    with pytest.raises(TiltmeterError, match="checkpoint of a batchtopk SAE whose topk_threshold was not yet set"):
        load_sae(str(tmp_path))


@pytest.mark.parametrize("activation", ["tanh-relu", "gelu"])
def test_an_activation_that_is_gone_is_refused(activation, tmp_path):
    build("standard").save_model(tmp_path)
    old = {"hook_point": "blocks.5.hook_resid_pre", "d_in": D_IN, "d_sae": D_SAE, "activation_fn_str": activation}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    with pytest.raises(TiltmeterError, match=f"has the activation {activation}"):
        load_sae(str(tmp_path))


@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_nan_in_a_folder(architecture, tmp_path):
    sae = build(architecture)
    sae.W_dec.data[3, 4] = float("nan")
    with pytest.raises(TiltmeterError, match="NaN or an infinity in W_dec"):
        load_sae(save(sae, tmp_path))


def test_weights_that_are_not_of_the_folders_configuration(tmp_path):
    folder = save(build("gated"), tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    save_file({key: weights[key] for key in weights if key != "b_gate"}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(TiltmeterError, match="is a gated SAE without a b_gate"):
        load_sae(folder)


CENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
UNCENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": False}}
AT_Z = {"hook_name": "blocks.1.attn.hook_z"}


@pytest.mark.parametrize(
    ("metadata", "processing"),
    [
        ({}, None),
        ({"model_from_pretrained_kwargs": {}}, None),
        ({"model_from_pretrained_kwargs": {}, "model_class_name": "AutoModelForCausalLM"}, "raw"),
        (CENTRED, "centred"),
        (UNCENTRED, "raw"),
        (CENTRED | AT_Z, "raw"),
        ({"model_from_pretrained_kwargs": {"fold_value_biases": True}} | AT_Z, "folded"),
    ],
)
def test_what_the_metadata_say_of_the_models_processing(metadata, processing):
    assert read_facts(metadata).get("processing") == processing


def test_saelens_trainer_says_that_its_model_is_raw():
    config = sae_lens.LanguageModelSAERunnerConfig(sae=sae_lens.StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE))
    sae = sae_lens.StandardTrainingSAEConfig.from_sae_runner_config(config)
    assert config.model_class_name == "HookedTransformer"  # which SAELens loads without processing
    assert read_facts(sae.metadata.to_dict()).get("processing") == "raw"


def test_facts_are_tolerant():
    odd = {"prepend_bos": "yes", "l0": "many", "explained_variance": True, "model_name": None}
    assert set(read_facts(odd).values()) == {None}
    facts = read_facts({"prepend_bos": False, "l0": 12, "explained_variance": 0.8, "model_name": "nano"})
    assert (facts["prepend_bos"], facts["l0"], facts["explained_variance"], facts["model"]) == (
        False,
        12.0,
        0.8,
        "nano",
    )


def test_without_the_library_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    folder = save(build("gated", normalize_activations="layer_norm"), tmp_path)
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    load_sae(folder)  # folders of all its architectures are read without it
    with pytest.raises(TiltmeterError, match=r"pip install 'tiltmeter\[sae-lens\]'"):
        load_sae("gpt2-small-res-jb:blocks.6.hook_resid_pre")
