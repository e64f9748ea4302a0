"""Releases: the real list of SAELens's, its real loaders, and files that stand in for the hub's."""

import json

import pytest
import torch
from safetensors.torch import save_file

from fake_hub import download_from
from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.loading import load_dictionary, load_sae

sae_lens = pytest.importorskip("sae_lens")
loaders = sae_lens.loading.pretrained_sae_loaders
directory = sae_lens.loading.pretrained_saes_directory.get_pretrained_saes_directory()

D_IN, D_SAE = 16, 40
OLD = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "model_name": "gpt2-small", "apply_b_dec_to_input": False}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder for each repository, in the place of the hub; None where the hub cannot be reached."""
    monkeypatch.setattr(loaders, "hf_hub_download", download_from(tmp_path))
    return tmp_path


def weights():
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def publish(hub, release, sae_id, **config):
    """Put an SAE where the release has it."""
    place(hub / directory[release].repo_id / directory[release].saes_map[sae_id], **config)


def place(folder, **config):
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(OLD | config))
    save_file(weights(), folder / "sae_weights.safetensors")


def expected(x, factor=1.0):
    """What these weights give, of x scaled by a factor: latents, and the reconstruction of x."""
    w = weights()
    latents = (factor * x @ w["W_enc"] + w["b_enc"]).relu()
    return latents, (latents @ w["W_dec"] + w["b_dec"]) / factor


def assert_is(sae, x, factor=1.0):
    latents, decoded = expected(x, factor)
    torch.testing.assert_close(sae.encode(x), latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(latents, like=x), decoded, atol=1e-4, rtol=1e-5)


JB = ("gpt2-small-res-jb", "blocks.6.hook_resid_pre")


V6 = {"architecture": "standard", "metadata": {"sae_lens_version": "6.20.0", "hook_name": JB[1], "prepend_bos": True}}


@pytest.mark.parametrize("config", [{"hook_point": JB[1]}, V6])
def test_a_release(config, hub):
    publish(hub, *JB, **config)
    sae = load_sae(":".join(JB))
    assert_is(sae, torch.randn(5, D_IN))
    about, entry = sae.about, directory[JB[0]]
    assert (about.name, about.hook_name, about.model) == (":".join(JB), JB[1], "gpt2-small")
    assert about.processing == "centred"  # the list's override
    assert about.l0 == (entry.expected_l0[JB[1]] or None)
    assert about.prepend_bos is True


def test_a_repository_that_a_release_lists_is_read_as_the_list_says(hub):
    publish(hub, *JB, hook_point=JB[1])
    entry = directory[JB[0]]
    sae = load_sae(f"{entry.repo_id}:{entry.saes_map[JB[1]]}")
    assert sae.about.processing == "centred"


def test_a_repository_of_ones_own(hub):
    place(hub / "someone/saes" / "a/b", hook_point="blocks.0.hook_resid_pre")
    sae = load_sae("someone/saes:a/b")
    assert_is(sae, torch.randn(5, D_IN))
    assert (sae.about.processing, sae.about.l0, sae.about.explained_variance) == (None, None, None)


@pytest.mark.parametrize("release", ["gpt2-small-res_scl-ajt", "gpt2-small-res_slefr-ajt"])
def test_brauns_releases_are_centred_and_without_a_boundary_token(release, hub):
    publish(hub, release, "blocks.2.hook_resid_pre", hook_point="blocks.2.hook_resid_pre")
    about = load_sae(f"{release}:blocks.2.hook_resid_pre").about
    assert (about.processing, about.prepend_bos, about.l0) == ("centred", False, None)


def test_kissanes_attention_saes_are_folded(hub):
    entry = directory["gpt2-small-hook-z-kk"]
    file = hub / entry.repo_id / entry.saes_map["blocks.7.hook_z"]
    file.parent.mkdir(parents=True)
    torch.save(weights(), file)
    config = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.7.attn.hook_z"}
    file.with_name(file.name.replace(".pt", "_cfg.json")).write_text(json.dumps(config))
    sae = load_sae("gpt2-small-hook-z-kk:blocks.7.hook_z")
    assert (sae.about.processing, sae.about.hook_name) == ("folded", "blocks.7.attn.hook_z")
    assert entry.expected_var_explained["blocks.7.hook_z"] < 0
    assert sae.about.explained_variance is None  # such a figure is of the SAE in a wrong place
    assert sae.about.l0 == entry.expected_l0["blocks.7.hook_z"]
    x, w = torch.randn(2, 3, D_IN), weights()
    torch.testing.assert_close(sae.encode(x), ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu())


def test_a_listed_scale_is_folded_in_and_one_that_is_not_listed_is_missed(hub, monkeypatch):
    publish(hub, *JB, hook_point=JB[1], normalize_activations="expected_average_only_in")
    with pytest.raises(TiltmeterError, match=r"scaled by expected_average_only_in.*do not state the factor"):
        load_sae(":".join(JB))
    monkeypatch.setitem(directory[JB[0]].norm_scaling_factor, JB[1], 0.25)
    assert_is(load_sae(":".join(JB)), torch.randn(5, D_IN), factor=0.25)


def test_an_sae_of_one_head_is_refused_before_its_weights_are_fetched(hub):
    entry = directory["gpt2-small-res-jb"]
    folder = hub / entry.repo_id / entry.saes_map[JB[1]]
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(OLD | {"hook_head_index": 3}))
    with pytest.raises(TiltmeterError, match="reads only head 3"):
        load_sae(":".join(JB))


def test_of_a_transcoder_the_decoder_rows_are_loaded(hub):
    facts = {"hook_name": "blocks.6.ln2.hook_normalized", "hook_name_out": "blocks.6.hook_mlp_out"}
    place(hub / "someone/saes" / "a", architecture="transcoder", d_out=D_IN, **facts)
    found = load_dictionary("someone/saes:a")
    assert torch.equal(found.decoder, weights()["W_dec"])
    assert found.about.hook_name == "blocks.6.hook_mlp_out"
    with pytest.raises(TiltmeterError, match=r"is a transcoder, which reads blocks.6.ln2.hook_normalized"):
        load_sae("someone/saes:a")


def test_cross_layer_transcoders_whose_decoders_are_added_up_are_refused(hub):
    with pytest.raises(TiltmeterError, match=r"adds up over layers.*directions at no site"):
        load_dictionary("mntss-gemma-2-2b-2.5m-clt-as-per-layer:layer_0")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "gpt2-small-res-jp:blocks.6.hook_resid_pre",
            r"lists no release 'gpt2-small-res-jp'; it has gpt2-small-res-jb",
        ),
        ("gpt2-small-res-jb:blocks.66", r"the release gpt2-small-res-jb has no SAE 'blocks.66'; it has blocks"),
        ("someone/saes:nowhere", r"SAELens could not load someone/saes:nowhere: .*404.*network"),
    ],
)
def test_what_is_not_there(name, sentence, hub):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(name)


def test_every_listed_figure_is_read_as_a_number_or_nothing():
    for release, entry in directory.items():
        for figures in (entry.expected_l0, entry.expected_var_explained):
            assert all(isinstance(figure, int | float) for figure in figures.values()), release
