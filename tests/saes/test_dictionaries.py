"""Decoder rows of files that are no SAEs, laid out as their libraries write them, at the site that they write to."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from small_saes import as_it_is, centre
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import DictionaryAtSite
from tiltmeter.saes.compatibility import check_compatible
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.loading import load_any, load_dictionary, load_sae
from tiltmeter.saes.sae import About
from tiny_models import WIDTH, tiny

D, L, LAYERS = 8, 20, 3
MLP = "blocks.{}.hook_mlp_out"


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


ROWS = random(L, D)
CROSSED = random(L, LAYERS, D, seed=1)
"""Decoder rows of a crosscoder: latent, layer, d."""


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write(file, tensors):
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return str(file)


def circuit_tracer(**changes):
    """A transcoder's file, with both matrices [latent, d]."""
    return {"W_enc": random(L, D, seed=2), "W_dec": ROWS, "b_enc": random(L), "b_dec": random(D)} | changes


def assert_is(found, rows, hook_name=None, architecture="transcoder"):
    assert isinstance(found, Dictionary)
    assert torch.equal(found.decoder, rows)
    assert (found.about.hook_name, found.about.architecture) == (hook_name, architecture)


def test_a_transcoder_of_sparsify(tmp_path):
    folder = tmp_path / "layers.3.mlp"
    write_json(folder / "cfg.json", {"d_in": D, "num_latents": L, "k": 4, "transcode": True})
    weights = {"encoder.weight": random(L, D, seed=2), "encoder.bias": random(L), "W_dec": ROWS, "b_dec": random(D)}
    write(folder / "sae.safetensors", weights | {"W_skip": random(D, D)})
    assert_is(load_dictionary(folder), ROWS, MLP.format(3))
    with pytest.raises(
        TiltmeterError, match=r"is a transcoder, which reads the input of layers.3.mlp and writes blocks.3"
    ):
        load_sae(folder)


@pytest.mark.parametrize("place", ["gemma-scope-2b-pt-transcoders/layer_5/width_16k", "transcoder/layer_5_width_16k"])
def test_a_transcoder_of_gemma_scope_is_known_by_its_folder(place, tmp_path):
    weights = {"W_enc": random(D, L), "W_dec": ROWS, "b_enc": random(L), "b_dec": random(D), "threshold": random(L)}
    file = write(tmp_path / place / "params.safetensors", weights)
    assert_is(load_dictionary(file), ROWS, MLP.format(5))
    elsewhere = write(tmp_path / "layer_5" / "params.safetensors", weights)
    assert not isinstance(load_any(elsewhere), Dictionary)  # nothing says that it is a transcoder


def test_a_transcoder_of_gemma_scope_2_is_known_by_its_configuration(tmp_path):
    hooks = {"hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output", "hf_hook_point_out": "after"}
    write_json(tmp_path / "layer_5" / "config.json", {"architecture": "jump_relu"} | hooks)
    names = {"w_enc": random(D, L), "w_dec": ROWS, "b_enc": random(L), "b_dec": random(D), "threshold": random(L)}
    assert_is(load_dictionary(write(tmp_path / "layer_5" / "params.safetensors", names)), ROWS, MLP.format(5))


def test_a_transcoder_of_llamascopium(tmp_path):
    config = {"hook_point_in": "blocks.1.ln2.hook_normalized", "hook_point_out": MLP.format(1), "d_model": D}
    write_json(tmp_path / "config.json", config)
    weights = {"W_E": random(D, L), "b_E": random(L), "W_D": ROWS, "b_D": random(D)}
    write(tmp_path / "sae_weights.safetensors", weights | {"dataset_average_activation_norm.x": torch.ones(())})
    assert_is(load_dictionary(tmp_path), ROWS, MLP.format(1))


@pytest.mark.parametrize("extra", [{"W_skip": random(D, D)}, {"b_dec_out": random(D)}, {"b_dec": random(D + 1)}])
def test_weights_alone_that_only_a_transcoder_has(extra, tmp_path):
    enc = random(D, L, seed=2)
    weights = circuit_tracer(W_enc=enc) | extra
    weights["W_dec"] = rows = random(L, len(weights["b_dec"])) if "b_dec" in extra else ROWS
    assert_is(load_dictionary(write(tmp_path / "a.safetensors", weights)), rows)


def test_weights_alone_that_the_user_says_are_a_transcoders(tmp_path):
    file = write(tmp_path / "a.safetensors", circuit_tracer())
    assert_is(load_dictionary(f"{file}?hook_name_out={MLP.format(2)}"), ROWS, MLP.format(2))
    with pytest.raises(TiltmeterError, match=r"are \[latents, d\], as circuit-tracer stores transcoders; say"):
        load_any(f"{file}?activation=relu&apply_b_dec_to_input=false")
    said = "activation=relu&apply_b_dec_to_input=false&hook_name=blocks.2.hook_resid_pre"
    assert not isinstance(load_any(f"{file}?{said}"), Dictionary)


@pytest.mark.parametrize("square", [True, False])
def test_a_square_decoder_lies_as_its_format_says(square, tmp_path):
    d = L if square else D
    weights = {"encoder.weight": random(L, d), "encoder.bias": random(L), "decoder.weight": random(d, L, seed=3)}
    file = write(tmp_path / "a.safetensors", weights | {"bias": random(d), "W_skip": random(d, d)})
    assert_is(load_dictionary(file), weights["decoder.weight"].T)  # nn.Linear: [outputs, inputs]


def test_a_tensor_that_might_change_the_rows_is_refused(tmp_path):
    file = write(tmp_path / "a.safetensors", circuit_tracer(W_skip=random(D, D), activation_std=random(D)))
    with pytest.raises(TiltmeterError, match="has activation_std, and what it does to the decoder rows is not known"):
        load_dictionary(file)


def test_a_set_of_transcoders_of_circuit_tracer(tmp_path):
    config = {"model_kind": "transcoder_set", "model_name": "Qwen/Qwen3-0.6B"}
    config |= {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
    (tmp_path / "config.yaml").write_text(yaml.dump(config))
    rows = [random(L, D, seed=10 + layer) for layer in range(LAYERS)]
    for layer in range(LAYERS):
        write(tmp_path / f"layer_{layer}.safetensors", circuit_tracer(W_dec=rows[layer]))
    found = load_dictionary(tmp_path, MLP.format(1))
    assert_is(found, rows[1], MLP.format(1))
    assert (found.about.model, found.what.split(", ")[1]) == (
        "Qwen/Qwen3-0.6B",
        "which reads mlp.hook_in of the block and writes blocks.1.hook_mlp_out",
    )
    for name in (f"{tmp_path}#2", f"{tmp_path}#{MLP.format(2)}", f"{tmp_path}/layer_2.safetensors"):
        assert_is(load_dictionary(name, MLP.format(0)), rows[2], MLP.format(2))
    for name, site in ((f"{tmp_path}", ""), (f"{tmp_path}", "blocks.1.hook_resid_pre"), (f"{tmp_path}#7", "")):
        with pytest.raises(TiltmeterError, match=r"writes to blocks.0.hook_mlp_out, .*as in .*#blocks.0.hook_mlp_out"):
            load_dictionary(name, site)


def test_the_rows_of_a_cross_layer_transcoder_at_a_layer_are_those_of_all_layers_up_to_it(tmp_path):
    written = [random(L, LAYERS - source, D, seed=20 + source) for source in range(LAYERS)]
    for source in range(LAYERS):
        write(tmp_path / f"W_enc_{source}.safetensors", {f"W_enc_{source}": random(L, D)})
        write(tmp_path / f"W_dec_{source}.safetensors", {f"W_dec_{source}": written[source]})
    (tmp_path / "config.yaml").write_text(yaml.dump({"model_kind": "cross_layer_transcoder"}))
    for layer in range(LAYERS):
        expected = torch.cat([written[source][:, layer - source] for source in range(layer + 1)])
        found = load_dictionary(tmp_path, MLP.format(layer))
        assert_is(found, expected, MLP.format(layer), "cross_layer_transcoder")
    (tmp_path / "W_dec_1.safetensors").unlink()
    with pytest.raises(TiltmeterError, match=r"has W_dec of the layers \[0, 2\]; expected all from 0 on"):
        load_dictionary(tmp_path, MLP.format(2))


def test_a_crosscoder_of_dictionary_learning_needs_the_number_of_a_layer_or_model(tmp_path):
    weights = {"encoder.weight": random(LAYERS, D, L), "encoder.bias": random(L), "decoder.bias": random(LAYERS, D)}
    weights |= {"decoder.weight": CROSSED.transpose(0, 1).contiguous(), "code_normalization_id": torch.tensor(1)}
    torch.save(weights, tmp_path / "ae.pt")
    write_json(tmp_path / "config.json", {"trainer": {"dict_class": "CrossCoder", "layer": 1, "lm_name": "gpt2"}})
    for name in (tmp_path, f"{tmp_path}/ae.pt"):
        found = load_dictionary(f"{name}#2")
        assert_is(found, CROSSED[:, 2], "blocks.1.hook_resid_post", "crosscoder")
        for wrong in ("", "#3", "#blocks.1.hook_resid_post"):
            with pytest.raises(TiltmeterError, match=r"crosscoder of 3 layers or models, and does not say.*0 to 2"):
                load_dictionary(f"{name}{wrong}", "blocks.1.hook_resid_post")


def test_a_crosscoder_of_weights_alone(tmp_path):
    weights = {"W_enc": random(LAYERS, D, L), "b_enc": random(L), "W_dec": CROSSED, "b_dec": random(LAYERS, D)}
    file = write(tmp_path / "a.safetensors", weights)
    said = "?hook_name=blocks.1.hook_resid_pre"
    assert_is(load_dictionary(f"{file}#1{said}"), CROSSED[:, 1], "blocks.1.hook_resid_pre", "crosscoder")
    with pytest.raises(TiltmeterError, match=r"as in .*a.safetensors#0\?hook_name=blocks.1.hook_resid_pre"):
        load_dictionary(f"{file}{said}")


def test_a_crosscoder_of_llamascopium_names_its_sites(tmp_path):
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(LAYERS)]
    write_json(tmp_path / "config.json", {"sae_type": "crosscoder", "hook_points": hooks, "d_model": D})
    weights = {"W_E": random(LAYERS, D, L), "b_E": random(LAYERS, L), "b_D": random(LAYERS, D)}
    write(tmp_path / "sae_weights.safetensors", weights | {"W_D": CROSSED.transpose(0, 1)})
    assert_is(load_dictionary(tmp_path, hooks[1]), CROSSED[:, 1], hooks[1], "crosscoder")
    assert_is(load_dictionary(f"{tmp_path}#2"), CROSSED[:, 2], hooks[2], "crosscoder")


def test_a_cross_layer_transcoder_of_llamascopium(tmp_path):
    hooks = [MLP.format(layer) for layer in range(LAYERS)]
    write_json(tmp_path / "config.json", {"sae_type": "clt", "hook_points_in": [], "hook_points_out": hooks})
    written = [random(to + 1, L, D, seed=to) for to in range(LAYERS)]
    write(tmp_path / "sae_weights.safetensors", {f"W_D.{to}": written[to] for to in range(LAYERS)})
    expected = torch.cat([written[1][source] for source in range(2)])
    assert_is(load_dictionary(tmp_path, hooks[1]), expected, hooks[1], "cross_layer_transcoder")


def test_a_dictionary_is_used_where_it_writes_in_either_stream():
    model, raw = SplitModel(tiny("gpt2")), About("T", "transcoder", "0" * 64, hook_name=MLP.format(1), processing="raw")
    dictionary = Dictionary(raw, random(L, WIDTH), "a transcoder")
    check_compatible(dictionary, model, Site(1, "mlp_out"))
    with pytest.raises(TiltmeterError, match=r"T belongs to blocks.1.hook_mlp_out, not to blocks.1.hook_resid_pre"):
        check_compatible(dictionary, model, Site(1, "resid_pre"))


def test_rows_that_the_model_is_blind_to_count_as_zero():
    rows = random(L, D)
    rows[3], rows[5], rows[7] = 0.0, 2.5, rows[7] * 1e-20
    dictionary = Dictionary(About("T", "transcoder", "0" * 64), rows, "a transcoder")
    expected = {blind: [i for i in range(L) if i != 3 and not (blind and i == 5)] for blind in (True, False)}
    for blind, kept in expected.items():
        at = DictionaryAtSite(dictionary, Site(0, "mlp_out"), centre if blind else as_it_is)
        assert at.not_zero.tolist() == kept


def test_an_sae_is_no_dictionary():
    with pytest.raises(TiltmeterError, match=r"is an SAE; use tiltmeter.load_sae"):
        load_dictionary("nano:local-3-l0-12")
