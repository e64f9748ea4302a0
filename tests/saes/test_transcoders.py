"""Transcoders of an MLP: what their files say that they compute, and the load check, against naive lines."""

import copy
import json
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import save_file

from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.mlp_input import find_mlp_reader
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import TranscoderAtSite
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.formats.decoders import transcoder
from tiltmeter.saes.formats.encoders import Encoder, with_encoder
from tiltmeter.saes.formats.linear import Facts
from tiltmeter.saes.loading import load_dictionary
from tiltmeter.saes.names import load_rows_at_site
from tiltmeter.saes.objects import read_object
from tiltmeter.saes.transcoder import Transcoder
from tiltmeter.saes.transcoder_check import check_transcoder
from tiny_models import WIDTH, tiny

D, L, K = 8, 20, 4
IN, OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


ENC, DEC, B_ENC, B_DEC, SKIP = random(D, L), random(L, D, seed=1), random(L), random(D), random(D, D, seed=2)
THRESHOLD = random(L, seed=3).abs()
U = random(5, 7, D, seed=4)
PRE = U @ ENC + B_ENC
RELU, JUMPED = PRE.relu(), torch.where(PRE > THRESHOLD, PRE, 0.0).relu()
TOP = torch.zeros_like(PRE).scatter(-1, PRE.relu().topk(K).indices, PRE.relu().topk(K).values)


def write(file, tensors):
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return str(file)


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def assert_gives(name, latents, skip=0.0, reads="ln2.hook_normalized"):
    found = load_dictionary(name)
    assert isinstance(found, Transcoder) and found.reads == reads
    torch.testing.assert_close(found.encode(U), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decode(found.encode(U), U), latents @ DEC + B_DEC + skip, rtol=1e-5, atol=1e-4)
    return found


def saelens(folder, architecture="transcoder", hook=IN, out=OUT, **weights):
    write_json(
        folder / "cfg.json",
        {"architecture": architecture, "d_in": D, "d_out": D, "d_sae": L}
        | {"apply_b_dec_to_input": False}
        | {"metadata": {"hook_name": hook, "hook_name_out": out}},
    )
    write(folder / "sae_weights.safetensors", {"W_enc": ENC, "b_enc": B_ENC, "W_dec": DEC, "b_dec": B_DEC} | weights)
    return folder


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("jumps", [True, False])
def test_transcoders_of_saelens_give_what_its_classes_give(jumps, skips, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    kind = ("jumprelu_" if jumps else "") + ("skip_" if skips else "") + "transcoder"
    extra = ({"threshold": THRESHOLD} if jumps else {}) | ({"W_skip": SKIP} if skips else {})
    folder = saelens(tmp_path, kind, **extra)
    assert_gives(folder, JUMPED if jumps else RELU, U @ SKIP.T if skips else 0.0)
    theirs = sae_lens.SAE.load_from_disk(str(folder), dtype="float32")
    ours = load_dictionary(folder)
    torch.testing.assert_close(ours.decode(ours.encode(U), U), theirs(U), rtol=1e-5, atol=1e-5)


def test_a_transcoder_of_sparsify(tmp_path):
    folder = tmp_path / "layers.1.mlp"
    write_json(folder / "cfg.json", {"d_in": D, "num_latents": L, "k": K, "transcode": True, "skip_connection": True})
    weights = {"encoder.weight": ENC.T, "encoder.bias": B_ENC, "W_dec": DEC, "b_dec": B_DEC, "W_skip": SKIP}
    write(folder / "sae.safetensors", weights)
    assert_gives(folder, TOP, U @ SKIP.T, "mlp.hook_in")


@pytest.mark.parametrize("skips", [True, False])
def test_sparsifys_first_transcoders_subtract_b_dec_from_their_input(skips, tmp_path):
    folder = tmp_path / "layers.1.mlp"
    write_json(folder / "cfg.json", {"d_in": D, "num_latents": L, "k": K, "skip_connection": skips})
    write_json(tmp_path / "config.json", {"transcode": not skips})  # either says that it is a transcoder
    weights = {"encoder.weight": ENC.T, "encoder.bias": B_ENC, "W_dec": DEC, "b_dec": B_DEC}
    write(folder / "sae.safetensors", weights | ({"W_skip": SKIP} if skips else {}))
    kept = ((U - B_DEC) @ ENC + B_ENC).relu().topk(K, dim=-1)
    latents = torch.zeros_like(PRE).scatter(-1, kept.indices, kept.values)
    assert_gives(folder, latents, U @ SKIP.T if skips else 0.0, "mlp.hook_in")


def test_transcoders_of_gemma_scope(tmp_path):
    weights = {"b_enc": B_ENC, "b_dec": B_DEC, "threshold": THRESHOLD}
    first = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_1" / "params.safetensors"
    assert_gives(write(first, weights | {"W_enc": ENC, "W_dec": DEC}), JUMPED)
    hooks = {f"hf_hook_point_{end}": f"model.layers.1.{end}_feedforward_layernorm.output" for end in ("in", "out")}
    hooks["hf_hook_point_in"] = "model.layers.1.pre_feedforward_layernorm.output"
    second = tmp_path / "transcoder" / "layer_1_affine"
    write_json(second / "config.json", hooks)
    file = write(second / "params.safetensors", weights | {"w_enc": ENC, "w_dec": DEC, "affine_skip_connection": SKIP})
    assert_gives(file, JUMPED, U @ SKIP, "mlp.hook_in")  # its skip connection is [d_in, d_out]


@pytest.mark.parametrize("reads", ["mlp.hook_in", "ln2.hook_normalized", "hook_resid_mid"])
def test_a_transcoder_of_circuit_tracer(reads, tmp_path):
    config = {"model_kind": "transcoder_set", "feature_input_hook": reads, "feature_output_hook": "hook_mlp_out"}
    (tmp_path / "config.yaml").write_text(yaml.dump(config))
    weights = {"W_enc": ENC.T, "b_enc": B_ENC, "W_dec": DEC, "b_dec": B_DEC, "W_skip": SKIP}
    write(tmp_path / "layer_1.safetensors", weights)
    assert_gives(f"{tmp_path}#1", RELU, U @ SKIP.T, reads)


@pytest.mark.parametrize(
    ("hook", "out"),
    [
        ("blocks.1.hook_mlp_in", OUT),  # two activations have this name
        ("blocks.0.ln2.hook_normalized", OUT),  # another block's
        ("blocks.1.hook_resid_mid", OUT),  # nothing says whether that stream was centred
        (IN, None),
    ],
)
def test_of_a_transcoder_whose_input_is_not_known_there_are_only_rows(hook, out, tmp_path):
    found = load_dictionary(saelens(tmp_path, hook=hook, out=out))
    assert isinstance(found, Dictionary) and not isinstance(found, Transcoder)
    assert ("its files do not say whether centred or raw" in found.what) == (hook == "blocks.1.hook_resid_mid")


@pytest.mark.parametrize("out", [OUT, None])
def test_a_transcoder_as_an_object_is_refused(out, tmp_path):
    with pytest.raises(
        TiltmeterError, match=r"mine is a transcoder, .*, and such dictionaries are not taken as objects"
    ):
        read_object("mine", load_dictionary(saelens(tmp_path, out=out)))


@pytest.mark.parametrize(
    ("hook", "metadata", "reads"),
    [
        ("hook_mlp_in", {"hf_hook_name": "model.layers.1.pre_feedforward_layernorm.output"}, "mlp.hook_in"),
        ("mlp.hook_in", {"model_from_pretrained_kwargs": {"fold_ln": False}}, "mlp.hook_in"),
        ("mlp.hook_in", {"model_from_pretrained_kwargs": {"fold_ln": True}}, "ln2.hook_normalized"),
    ],
)
def test_what_else_the_metadata_say_of_the_input(hook, metadata, reads, tmp_path):
    folder = saelens(tmp_path, hook=f"blocks.1.{hook}")
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= metadata
    write_json(folder / "cfg.json", config)
    assert_gives(folder, RELU, reads=reads)


@pytest.mark.parametrize("architecture", ["jumprelu_transcoder", "skip_transcoder"])
def test_a_transcoder_without_the_weights_of_its_kind_has_only_rows(architecture, tmp_path):
    assert not isinstance(load_dictionary(saelens(tmp_path, architecture)), Transcoder)


def test_weights_that_do_not_fit_and_a_threshold_that_changes_the_hash(tmp_path):
    with pytest.raises(TiltmeterError, match=r"do not fit together: b_enc \[19\], with a decoder \[20, 8\]"):
        load_dictionary(saelens(tmp_path / "a", b_enc=B_ENC[1:]))
    one, other = (
        load_dictionary(
            saelens(tmp_path / str(factor), "jumprelu_transcoder", threshold=factor * THRESHOLD)
        ).about.sha256
        for factor in (1, 2)
    )
    assert one != other


TOKENS = token_set(sequences=24)
SITE = Site(1, "mlp_out")


@pytest.fixture(scope="module")
def model():
    """A small GPT-2 whose norm before the MLP has large weights, so that it matters on which side of them one reads."""
    hf = copy.deepcopy(tiny("gpt2"))
    hf.transformer.h[1].ln_2.weight.data *= torch.linspace(0.5, 6, WIDTH)
    return SplitModel(hf)


def fitted(model, reads, says=None):
    """A transcoder that is the best linear map from one input of the MLP to its output, and its share of the error."""
    u = find_mlp_reader(model, 1).inputs(model, TOKENS.ids)[reads][:, 1:].flatten(0, 1)
    y = model.activation(TOKENS.ids, SITE)[:, 1:].flatten(0, 1)
    ones = torch.cat([u, torch.ones(len(u), 1)], -1)
    solution = torch.linalg.lstsq(ones, y).solution
    share = (y - ones @ solution).square().sum() / (y - y.mean(0)).square().sum()
    rows = transcoder("T", torch.ones(3, WIDTH), reads, Facts(hook_name=SITE.name, processing="raw"))
    zero = torch.zeros(WIDTH, 3)
    found = with_encoder(rows, Encoder(says or reads, zero, torch.zeros(3), solution[-1], W_skip=solution[:-1]))
    reader = find_mlp_reader(model, 1)
    at = TranscoderAtSite(
        found.to(torch.device("cpu"), torch.float64),
        SITE,
        partial(model.centre, site=SITE),
        partial(reader.inputs, model),
    )
    return at, float(share)


def test_the_load_check_measures_the_errors_share_of_the_variance(model):
    at, share = fitted(model, "mlp.hook_in")
    found = check_transcoder(model, at, TOKENS)
    assert 1 - found.explained_variance == pytest.approx(share, rel=1e-3)
    assert (found.l0, found.tokens, found.warnings) == (0, 24 * 7, ())
    assert found.to_json()["reads"] == "mlp.hook_in"


def test_an_input_that_was_named_wrongly_is_found(model):
    at, share = fitted(model, "ln2.hook_normalized", says="mlp.hook_in")
    (warning,) = check_transcoder(model, at, TOKENS).warnings
    assert "The error of the transcoder T, which reads mlp.hook_in, has" in warning
    assert f"with ln2.hook_normalized as its input it would be {share:.3g}, so its files probably name" in warning


def test_a_transcoder_of_another_layer_is_warned_of(model):
    at, _ = fitted(model, "mlp.hook_in")
    elsewhere = find_mlp_reader(model, 0)
    other = TranscoderAtSite(at.sae, at.site, at.centre, partial(elsewhere.inputs, model))
    (warning,) = check_transcoder(model, other, TOKENS).warnings
    assert "check that it is of this model and layer" in warning


def test_a_transcoder_of_another_width_is_refused(model):
    at, _ = fitted(model, "mlp.hook_in")
    narrow = TranscoderAtSite(at.sae, at.site, at.centre, lambda _: {"mlp.hook_in": torch.zeros(1, 2, WIDTH - 1)})
    with pytest.raises(
        TiltmeterError, match=r"reads mlp.hook_in of width 32, but the MLP of block 1 has mlp.hook_in of w"
    ):
        narrow.read(TOKENS.ids[:1])


def test_a_transcoder_is_bound_to_its_mlp_where_it_writes(model, tmp_path):
    rows = {"W_enc": random(WIDTH, L), "b_enc": B_ENC, "W_dec": random(L, WIDTH), "b_dec": random(WIDTH)}
    folder = saelens(tmp_path, **rows)
    config = json.loads((folder / "cfg.json").read_text())
    write_json(folder / "cfg.json", config | {"d_in": WIDTH, "d_out": WIDTH})
    at = load_rows_at_site(str(folder), model, SITE)
    assert isinstance(at, TranscoderAtSite)
    expected = find_mlp_reader(model, 1).inputs(model, TOKENS.ids[:2])["ln2.hook_normalized"]
    assert torch.equal(at.read(TOKENS.ids[:2]), expected)


@pytest.mark.parametrize(("family", "centres"), [("gpt2", True), ("llama", False)])
def test_the_stream_before_the_norm_is_centred_where_the_transcoder_and_the_model_have_it_so(family, centres, tmp_path):
    """TransformerLens leaves a model without LayerNorm as it is, whatever `center_writing_weights` says."""
    weights = {"W_enc": random(WIDTH, L), "b_enc": B_ENC, "W_dec": random(L, WIDTH), "b_dec": random(WIDTH)}
    folder = saelens(tmp_path, hook="blocks.1.hook_resid_mid", **weights)
    config = json.loads((folder / "cfg.json").read_text()) | {"d_in": WIDTH, "d_out": WIDTH}
    config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    write_json(folder / "cfg.json", config)
    model, ids = SplitModel(tiny(family)), TOKENS.ids[:2]
    at = load_rows_at_site(str(folder), model, SITE)
    assert isinstance(at, TranscoderAtSite)
    stream = find_mlp_reader(model, 1).inputs(model, ids)["hook_resid_mid"]
    mean = stream.mean(-1, keepdim=True)
    assert mean.abs().mean() > 0.01
    torch.testing.assert_close(at.read(ids), stream - mean if centres else stream)
