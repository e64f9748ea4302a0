"""Releases: the real list of SAELens's, its own loaders, and a server that stands in for the hub."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fake_hub import serve
from tiltmeter.errors import TiltmeterError
from tiltmeter.saes import releases
from tiltmeter.saes.loading import load_any, load_dictionary, load_sae, read_early
from tiltmeter.saes.releases import READERS, REFUSED, listed, refusal
from tiltmeter.saes.sae import reconstruct
from tiltmeter.saes.transcoder import Transcoder

pytestmark = pytest.mark.skipif(releases.list_file() is None, reason="the list is in the package sae_lens")

D_IN, D_SAE = 16, 80
OLD = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "model_name": "gpt2-small", "apply_b_dec_to_input": False}
JB = "gpt2-small-res-jb:blocks.6.hook_resid_pre"


@pytest.fixture(scope="module")
def loaders():
    """SAELens's own, which take seconds to import."""
    import sae_lens

    return sae_lens.SAE, sae_lens.loading.pretrained_sae_loaders.NAMED_PRETRAINED_SAE_LOADERS


@pytest.fixture
def hub(tmp_path):
    with serve(tmp_path) as found:
        yield found


def entry_of(name):
    release, _, sae = name.partition(":")
    return listed(release, sae, name)


def place_of(hub, name):
    place = entry_of(name).place
    path = hub.folder(place.repository) / place.path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def weights():
    """Those of an SAE, with decoder rows of length 1."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return found | {"W_dec": torch.nn.functional.normalize(found["W_dec"], dim=-1)}


W = weights()
THRESHOLD = torch.rand(D_SAE, generator=torch.Generator().manual_seed(1)) * 2
LINEAR = {
    "encoder.weight": W["W_enc"].T.contiguous(),
    "encoder.bias": W["b_enc"],
    "decoder.weight": W["W_dec"].T.contiguous(),
}
NORM = 4.0
"""A mean norm of √d is a scale of 1."""


def saelens(folder, **config):
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(OLD | {"hook_point": "blocks.6.hook_resid_pre"} | config))
    save_file(W, folder / "sae_weights.safetensors")


def kissane(file):
    config = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.7.attn.hook_z"}
    file.with_name(file.name.replace(".pt", "_cfg.json")).write_text(json.dumps(config))
    torch.save(W, file)


def gemma_scope(folder):
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", threshold=THRESHOLD, **W)


def gemma_scope_2(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt"}))
    save_file({key.lower(): one for key, one in W.items()} | {"threshold": THRESHOLD}, folder / "params.safetensors")


OPENMOSS = {"d_model": D_IN, "d_sae": D_SAE, "expansion_factor": 1, "act_fn": "jumprelu"}
OPENMOSS |= {"hook_point_in": "blocks.3.hook_resid_post", "norm_activation": "dataset-wise"}


def llama_scope(folder, norm):
    """Its threshold is 0: SAELens multiplies others by the scale once more than OpenMOSS's library does."""
    (folder / "checkpoints").mkdir(parents=True)
    config = OPENMOSS | {"jump_relu_threshold": 0.0, "dataset_average_activation_norm": {"in": norm}}
    (folder / "hyperparams.json").write_text(json.dumps(config))
    save_file(LINEAR | {"decoder.bias": W["b_dec"]}, folder / "checkpoints/final.safetensors")


def llama_scope_r1(folder, norm):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(OPENMOSS))
    tensors = {"decoder.bias": W["b_dec"], "log_jumprelu_threshold": THRESHOLD.log()}
    tensors[f"dataset_average_activation_norm.{OPENMOSS['hook_point_in']}"] = torch.tensor(norm)
    save_file(LINEAR | tensors, folder / "sae_weights.safetensors")


def dictionary(kind, tensors, **trainer):
    def publish(folder):
        folder.mkdir(parents=True)
        config = {"dict_class": kind, "layer": 12, "lm_name": "google/gemma-2-2b", "activation_dim": D_IN, **trainer}
        content = {"trainer": {"dict_size": D_SAE, **config}, "buffer": {"ctx_len": 128}}
        (folder / "config.json").write_text(json.dumps(content))
        torch.save(tensors, folder / "ae.pt")

    return publish


def goodfire(file):
    tensors = {key.replace("coder.", "coder_linear."): one for key, one in LINEAR.items()}
    torch.save(tensors | {"decoder_linear.bias": W["b_dec"]}, file)


def deepseek(file):
    torch.save(LINEAR | {"decoder.bias": W["b_dec"]}, file)


def qwen(file):
    torch.save({key: one.mT.contiguous() if one.ndim == 2 else one for key, one in W.items()}, file)


GATES = {"gate_bias": W["b_enc"], "mag_bias": W["b_enc"] + 0.3, "r_mag": W["b_enc"] / 4}
GATED = {key: LINEAR[key] for key in ("encoder.weight", "decoder.weight")} | GATES | {"decoder_bias": W["b_dec"]}
BATCH = LINEAR | {"b_dec": W["b_dec"], "k": torch.tensor(4), "threshold": torch.tensor(1.5)}
SAEBENCH = "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109:blocks.12.hook_resid_post__trainer_0"

PUBLISHED = [
    (JB, lambda path: saelens(path, apply_b_dec_to_input=True)),
    ("mistral-7b-res-wg:blocks.8.hook_resid_pre", saelens),  # the list says that activations are normalised
    ("gpt2-small-hook-z-kk:blocks.7.hook_z", kissane),
    ("gemma-scope-2b-pt-att:layer_0/width_16k/average_l0_104", gemma_scope),
    ("gemma-scope-2-1b-pt-mlp:layer_13_width_16k_l0_big", gemma_scope_2),
    ("llama_scope_lxr_8x:l0r_8x", lambda path: llama_scope(path, NORM / 58.935251798561154)),
    ("llama_scope_r1_distill:l0r_800m_slimpajama", lambda path: llama_scope_r1(path, NORM / 53.52995401997436)),
    (SAEBENCH, dictionary("AutoEncoderTopK", BATCH, k=4)),
    (SAEBENCH, dictionary("AutoEncoder", LINEAR | {"bias": W["b_dec"]})),
    (SAEBENCH, dictionary("BatchTopKSAE", BATCH)),
    (SAEBENCH, dictionary("GatedAutoEncoder", GATED)),
    (SAEBENCH, dictionary("JumpReluAutoEncoder", W | {"threshold": THRESHOLD})),
    ("goodfire-llama-3.1-8b-instruct:layer_19", goodfire),
    ("deepseek-r1-distill-llama-8b-qresearch:blocks.19.hook_resid_post", deepseek),
    ("qwen-scope-3-8b-base-w64k-l50:layer7", qwen),
]


def gemma_scope_2_transcoder(folder):
    gemma_scope_2(folder)
    hooks = {"hf_hook_point_in": "model.layers.13.pre_feedforward_layernorm.output", "hf_hook_point_out": "after"}
    config = json.loads((folder / "config.json").read_text()) | hooks | {"affine_connection": True}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {key.lower(): one for key, one in W.items()} | {"threshold": THRESHOLD, "affine_skip_connection": SKIP}
    save_file(tensors, folder / "params.safetensors")


def gemma_scope_2_without_configuration(folder):
    gemma_scope_2(folder)
    (folder / "config.json").unlink()


def mwhanna(file):
    save_file(W | {"W_enc": W["W_enc"].T.contiguous()}, file)
    sizes = {"d_model": D_IN, "d_feature": D_SAE, "batch_size": 1}
    said = "".join(f"{key}: {{value: {one}}}\n" for key, one in sizes.items())
    (file.parent / "wandb-config.yaml").write_text(said)


def mwhanna_with_configuration(file):
    mwhanna(file)
    text = "model_kind: transcoder_set\nmodel_name: Qwen/Qwen3-4B\nfeature_input_hook: mlp.hook_in\n"
    (file.parent / "config.yaml").write_text(text)


SKIP = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(3))
GEMMA_3 = "gemma-scope-2-1b-pt-transcoders:transcoder/layer_13_width_16k_l0_big"
TRANSCODERS = [
    ("gemma-scope-2b-pt-transcoders:layer_0/width_16k/average_l0_76", gemma_scope, "blocks.0", "gemma-2-2b"),
    (GEMMA_3, gemma_scope_2_transcoder, "blocks.13", "gemma-3-1b-pt"),
    (GEMMA_3, gemma_scope_2_without_configuration, "blocks.13", "google/gemma-3-1b-pt"),
    ("mwhanna-qwen3-4b-transcoders:layer_3", mwhanna_with_configuration, "blocks.3", "Qwen/Qwen3-4B"),
    ("mwhanna-qwen3-14b-transcoders:layer_3", mwhanna, "blocks.3", "qwen3-14b"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "publish", "block", "model"), TRANSCODERS, ids=[case[1].__name__ for case in TRANSCODERS]
)
def test_a_transcoder_of_a_release_gives_what_saelens_gives(name, publish, block, model, hub, loaders):
    publish(place_of(hub, name))
    ours, theirs = load_dictionary(name), theirs_of(loaders, name)
    assert isinstance(ours, Transcoder)
    assert ours.reads == ("ln2.hook_normalized" if publish is gemma_scope else "mlp.hook_in")
    assert (ours.about.name, ours.about.hook_name, ours.about.model) == (name, f"{block}.hook_mlp_out", model)
    u = 2 * torch.randn(7, D_IN, generator=torch.Generator().manual_seed(2)) + 0.3
    latents = theirs.encode(u)
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(ours.encode(u), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(latents, u), theirs(u), atol=1e-5, rtol=1e-5)
    with pytest.raises(TiltmeterError, match="is a transcoder, which reads"):
        load_sae(name)
    place = entry_of(name).place
    assert load_any(f"{place.repository}:{place.path}").about.sha256 == ours.about.sha256


def test_of_a_temporal_sae_the_decoder_rows_are_read(hub, loaders):
    folder = place_of(hub, name := "temporal-sae-gemma-2-2b:blocks.12.hook_resid_post")
    folder.mkdir(parents=True)
    sizes = {
        "exp_factor": D_SAE / D_IN,
        "n_heads": 4,
        "n_attn_layers": 1,
        "bottleneck_factor": 4,
        "scaling_factor": 0.01,
    }
    settings = sizes | {"sae_diff_type": "topk", "kval_topk": 8, "tied_weights": False}
    config = {"llm": {"dimin": D_IN}, "sae": settings, "data": {"dtype": "float32"}}
    (folder / "conf.yaml").write_text(json.dumps(config))  # JSON is YAML
    tensors = {"D": W["W_dec"], "E": W["W_enc"], "b": W["b_dec"], "attn_layers.0.q.weight": SKIP}
    save_file(tensors, folder / "latest_ckpt.safetensors")
    ours, place = load_dictionary(name), entry_of(name).place
    _, theirs, _ = loaders[1]["temporal"](place.repository, place.path)
    assert torch.equal(ours.decoder, theirs["W_dec"])
    assert (ours.about.hook_name, ours.about.model) == ("blocks.12.hook_resid_post", "gemma-2-2b")
    with pytest.raises(TiltmeterError, match="is an SAE whose latents depend on the tokens before"):
        load_sae(name)
    save_file(tensors | {"b": W["b_enc"]}, folder / "latest_ckpt.safetensors")
    with pytest.raises(TiltmeterError, match=r"has D \[80, 16\] and b \[80\]"):
        load_dictionary(folder)


def theirs_of(loaders, name):
    """The SAE as SAELens loads it, with the sizes of the files here in the place of the published ones."""
    sae, named = loaders
    entry = entry_of(name)

    def convert(**asked):
        config, tensors, sparsity = named[entry.loader](**asked)
        sizes = {"d_in": D_IN, "d_sae": D_SAE} | ({"d_out": D_IN} if "d_out" in config else {})
        return config | sizes, tensors, sparsity

    release, _, sae_id = name.partition(":")
    return sae.from_pretrained(release, sae_id, converter=convert)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "publish"), PUBLISHED, ids=[name for name, _ in PUBLISHED])
def test_a_release_gives_what_saelens_gives(name, publish, hub, loaders):
    publish(place_of(hub, name))
    ours, theirs = load_sae(name), theirs_of(loaders, name)
    x = 2 * torch.randn(7, D_IN, generator=torch.Generator().manual_seed(2)) + 0.3
    shaped = x.unflatten(-1, (4, 4)) if theirs.cfg.reshape_activations == "hook_z" else x
    latents = theirs.encode(shaped)
    scale = entry_of(name).scale or 1.0  # a constant in which latents are counted
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(ours.encode(x), latents / scale, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(ours, x), theirs.decode(latents).reshape(x.shape), atol=1e-5, rtol=1e-5)
    assert ours.about.prepend_bos is True


ATTENTION, TUNED = (
    f"gemma-scope-{of}"
    for of in ("2b-pt-att:layer_0/width_16k/average_l0_104", "9b-it-res:layer_9/width_16k/average_l0_88")
)


@pytest.mark.parametrize(
    ("name", "publish", "hook", "model"),
    [
        (ATTENTION, gemma_scope, "blocks.0.attn.hook_z", "gemma-2-2b"),
        (TUNED, gemma_scope, "blocks.9.hook_resid_post", "gemma-2-9b-it"),
        ("gemma-scope-2-1b-pt-mlp:layer_13_width_16k_l0_big", gemma_scope_2, "blocks.13.hook_mlp_out", "gemma-3-1b-pt"),
        (SAEBENCH, dictionary("BatchTopKSAE", BATCH), "blocks.12.hook_resid_post", "google/gemma-2-2b"),
        (
            "goodfire-llama-3.3-70b-instruct:layer_50",
            goodfire,
            "blocks.50.hook_resid_post",
            "meta-llama/Llama-3.3-70B-Instruct",
        ),
    ],
)
def test_the_site_and_the_model_are_known(name, publish, hook, model, hub):
    publish(place_of(hub, name))
    about = load_sae(name).about
    assert (about.name, about.hook_name, about.model) == (name, hook, model)


V6 = {"architecture": "standard", "metadata": {"sae_lens_version": "6.20.0", "hook_name": "blocks.6.hook_resid_pre"}}


@pytest.mark.parametrize("config", [{}, V6])
def test_what_the_list_says_of_an_sae(config, hub):
    saelens(place_of(hub, JB), **config)
    about = load_sae(JB).about
    assert (about.hook_name, about.model) == ("blocks.6.hook_resid_pre", "gpt2-small")
    assert about.processing == "centred"  # the list's override
    assert (about.l0, about.explained_variance, about.prepend_bos) == (51.0, 0.9, True)
    assert entry_of(JB).neuronpedia == "gpt2-small/6-res-jb"


def test_a_repository_that_a_release_lists_is_read_as_the_list_says(hub):
    saelens(place_of(hub, JB))
    place = entry_of(JB).place
    assert load_sae(f"{place.repository}:{place.path}").about.processing == "centred"
    saelens(hub.folder("someone/saes") / place.path)
    about = load_sae(f"someone/saes:{place.path}").about
    assert (about.processing, about.l0, about.explained_variance) == (None, None, None)


@pytest.mark.parametrize("release", ["gpt2-small-res_scl-ajt", "gpt2-small-res_slefr-ajt"])
def test_brauns_releases_are_centred_and_without_a_boundary_token(release, hub):
    name = f"{release}:blocks.2.hook_resid_pre"
    saelens(place_of(hub, name))
    about = load_sae(name).about
    assert (about.kind, about.processing, about.prepend_bos, about.l0) == (
        "local" if release == "gpt2-small-res_scl-ajt" else "e2e+ds",
        "centred",
        False,
        None,
    )


def test_kissanes_attention_saes_are_folded(hub):
    kissane(place_of(hub, name := "gpt2-small-hook-z-kk:blocks.7.hook_z"))
    about = load_sae(name).about
    assert (about.processing, about.hook_name, about.l0) == ("folded", "blocks.7.attn.hook_z", 19.0)
    assert about.explained_variance is None  # the list has -0.04, which is of the SAE in a wrong place


def test_a_listed_scale_is_folded_in_and_one_that_is_not_listed_is_missed(hub):
    normalised = {"normalize_activations": "expected_average_only_in"}
    saelens(place_of(hub, JB), **normalised)
    with pytest.raises(TiltmeterError, match=r"scaled by expected_average_only_in.*do not state the factor"):
        load_sae(JB)
    name = "gpt2-small-mlp-tm:blocks.0.hook_mlp_out"
    saelens(place_of(hub, name), **normalised)
    x, factor = torch.randn(5, D_IN), 1.049317316132615
    latents = (factor * x @ W["W_enc"] + W["b_enc"]).relu()
    torch.testing.assert_close(load_sae(name).encode(x), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruct(load_sae(name), x), (latents @ W["W_dec"] + W["b_dec"]) / factor)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpt2-small-res-jp:blocks.6", r"lists no release 'gpt2-small-res-jp'; it has gpt2-small-res-jb, .*OWNER/REPO"),
        ("gpt2-small-res-jb:blocks.66", r"the release gpt2-small-res-jb has no SAE 'blocks.66'; it has blocks"),
        (
            "mntss-gemma-2-2b-2.5m-clt-as-per-layer:layer_0",
            r"adds up over layers .*; give mntss/clt-gemma-2-2b-2.5M:.#5, the rows at layer 5",
        ),
        ("gemma-scope-2b-pt-res:embedding/width_4k/average_l0_6", r"before the model scales it"),
        ("google/gemma-scope-2b-pt-res:embedding/width_4k/average_l0_6", r"before the model scales it"),
    ],
)
def test_what_is_refused_by_the_list_alone(name, sentence, hub):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(name)
    if "/" not in name.partition(":")[0]:
        with pytest.raises(TiltmeterError, match=sentence):
            read_early(name, "")  # so, before a model is loaded
    assert hub.asked == []


def test_gemma_scopes_transcoders_are_known_without_a_list_too(tmp_path):
    for folder in (tmp_path / "gemma-scope-2b-pt-transcoders/layer_0/width_16k", tmp_path / "embedding/width_4k/l0_6"):
        gemma_scope(folder)
    gemma_scope_2(tmp_path / "transcoder/layer_3")
    gemma_scope_2(tmp_path / "moved")
    said = {"architecture": "jump_relu", "hf_hook_point_in": "a", "hf_hook_point_out": "b"}
    (tmp_path / "moved/config.json").write_text(json.dumps(said))
    for inner in ("gemma-scope-2b-pt-transcoders/layer_0/width_16k", "transcoder/layer_3", "moved"):
        with pytest.raises(TiltmeterError, match="is a transcoder"):
            load_sae(tmp_path / inner)
        assert isinstance(load_dictionary(tmp_path / inner), Transcoder) == (inner != "moved")  # what it reads is known
    gemma_scope_2(tmp_path / "clt/layer_3")
    with pytest.raises(TiltmeterError, match="is of a cross-layer transcoder"):
        load_dictionary(tmp_path / "clt/layer_3")
    with pytest.raises(TiltmeterError, match="before the model scales it"):
        load_sae(tmp_path / "embedding/width_4k/l0_6")


def test_without_the_list_a_sentence_says_that_only_the_list_is_missed(hub, monkeypatch):
    saelens(place_of(hub, JB))
    place = entry_of(JB).place
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(TiltmeterError, match=r"list of the 'sae_lens' package: pip install.*OWNER/REPO:FOLDER"):
        load_sae(JB)
    assert load_sae(f"{place.repository}:{place.path}").about.hook_name == "blocks.6.hook_resid_pre"


def test_a_list_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "pretrained_saes.yaml").write_text("a:\n  saes:\n  - id: [\nb:\n  model: gpt2\n")
    monkeypatch.setattr(releases, "list_file", lambda: tmp_path / "pretrained_saes.yaml")
    for release in ("a", "b"):
        with pytest.raises(
            TiltmeterError, match=rf"The release {release} in pretrained_saes.yaml of sae_lens could not"
        ):
            listed(release, "x", f"{release}:x")


def test_every_loader_of_saelens_is_read_or_refused(loaders):
    assert {*READERS, *REFUSED} == {*loaders[1]}
    assert "is not known here" in refusal("a new one", "a")


def test_all_releases_of_the_list_are_found():
    file = releases.list_file()
    text = file.read_text()
    assert len(releases._releases(file)) == text.count("\n  repo_id: ")
    some = "gemma-2-2b-res-matryoshka-dc"
    assert len(releases._entries(some, releases._releases(file)[some])) == 25
