"""SAEs in repositories: what is downloaded, what is refused before, and what works without a connection."""

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fake_hub import serve
from small_saes import save_sae
from tiltmeter.errors import TiltmeterError
from tiltmeter.saes import releases
from tiltmeter.saes.hub import Place, place_of
from tiltmeter.saes.loading import load_dictionary, load_sae, refuse_unknown
from tiltmeter.saes.transcoder import Transcoder

D, L = 12, 30


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub; and no list of releases, so that the files alone say how an SAE is used."""
    monkeypatch.setattr(releases, "list_file", lambda: None)
    with serve(tmp_path) as found:
        yield found


def weights():
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, L), "b_enc": (L,), "W_dec": (L, D), "b_dec": (D,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


LINEAR = {"encoder.weight": weights()["W_enc"].T.contiguous(), "encoder.bias": weights()["b_enc"]}
DECODER = {"decoder.weight": weights()["W_dec"].T.contiguous()}


def write(file, content):
    """Write tensors, arrays or JSON, as the name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save = {
        ".json": lambda: file.write_text(json.dumps(content)),
        ".safetensors": lambda: save_file(content, file),
        ".npz": lambda: np.savez(file, **content),
    }
    save.get(file.suffix, lambda: torch.save(content, file))()


def sparsify(root):
    write(root / "config.json", {"model": "gpt2"})
    write(root / "layers.3.mlp/cfg.json", {"d_in": D, "num_latents": L, "k": 4})
    tensors = LINEAR | {key: weights()[key] for key in ("W_dec", "b_dec")}
    write(root / "layers.3.mlp/sae.safetensors", tensors)
    write(root / "layers.4.mlp/sae.safetensors", tensors)


def dictionary_learning(root):
    write(root / "trainer_0/config.json", {"trainer": {"dict_class": "AutoEncoder", "layer": 3, "lm_name": "gpt2"}})
    write(root / "trainer_0/ae.pt", LINEAR | DECODER | {"bias": weights()["b_dec"]})
    write(root / "trainer_0/checkpoints/ae_100.pt", {})
    write(root / "trainer_0/eval_results.json", {})


def gemma_scope(root):
    write(root / "layer_5/width_16k/average_l0_7/params.npz", weights() | {"threshold": torch.ones(L)})


def llama_scope(root):
    hook = "blocks.3.hook_resid_post"
    config = {"d_model": D, "hook_point_in": hook, "act_fn": "jumprelu", "jump_relu_threshold": 0.5}
    write(root / "L3/hyperparams.json", config)
    write(root / "L3/checkpoints/final.safetensors", LINEAR | DECODER | {"decoder.bias": weights()["b_dec"]})
    write(root / "L3/lm_config.json", {})


def kissane(root):
    for layer in (1, 2):
        config = {"act_size": D, "dict_size": L, "act_name": f"blocks.{layer}.attn.hook_z"}
        write(root / f"L{layer}_cfg.json", config)
        write(root / f"L{layer}.pt", weights())


def qwen(root):
    write(root / "layer7.sae.pt", weights())
    write(root / "layer8.sae.pt", {})


def braun(root):
    tensors = {"encoder.0.weight": LINEAR["encoder.weight"], "encoder.0.bias": weights()["b_enc"]}
    tensors |= DECODER | {"decoder.bias": weights()["b_dec"]}
    for samples in (900, 10000):
        write(
            root / f"run/samples_{samples}.pt", {f"blocks-6-hook_resid_pre.{key}": one for key, one in tensors.items()}
        )
    (root / "run/final_config.yaml").write_text("tlens_model_name: gpt2-small\nloss: {sparsity: {coeff: 1.0}}\n")


def goodfire(root):
    tensors = {key.replace("coder.", "coder_linear."): one for key, one in (LINEAR | DECODER).items()}
    write(root / "Llama-3.1-8B-Instruct-SAE-l19.pth", tensors | {"decoder_linear.bias": weights()["b_dec"]})


def run(root):
    save_sae(root / "runs/mine/sae", width=D)
    write(root / "runs/mine/manifest.json", {})


SAES = [
    (sparsify, "o/r:layers.3.mlp", "blocks.3.hook_mlp_out", "gpt2", ["cfg.json", "config.json", "sae.safetensors"]),
    (dictionary_learning, "o/r:trainer_0", "blocks.3.hook_resid_post", "gpt2", ["config.json", "ae.pt"]),
    (dictionary_learning, "o/r:trainer_0/ae.pt", "blocks.3.hook_resid_post", "gpt2", ["config.json", "ae.pt"]),
    (
        gemma_scope,
        "google/gemma-scope-2b-pt-mlp:layer_5/width_16k/average_l0_7",
        "blocks.5.hook_mlp_out",
        "gemma-2-2b",
        ["params.npz"],
    ),
    (llama_scope, "o/r:L3", "blocks.3.hook_resid_post", None, ["hyperparams.json", "final.safetensors"]),
    (kissane, "o/r:L2.pt", "blocks.2.attn.hook_z", None, ["L2_cfg.json", "L2.pt"]),
    (qwen, "Qwen/SAE-Res-A-W32K-L0_4:layer7.sae.pt", "blocks.7.hook_resid_post", None, ["layer7.sae.pt"]),
    (braun, "o/r:run", "blocks.6.hook_resid_pre", "gpt2-small", ["final_config.yaml", "samples_10000.pt"]),
    (goodfire, "o/r:.", "blocks.19.hook_resid_post", None, ["Llama-3.1-8B-Instruct-SAE-l19.pth"]),
    (run, "o/r:runs/mine", "blocks.1.hook_resid_pre", None, ["cfg.json", "sae_weights.safetensors"]),
]


@pytest.mark.parametrize(("publish", "name", "hook", "model", "files"), SAES, ids=[case[1] for case in SAES])
def test_what_an_sae_needs_is_downloaded_and_read_as_from_a_folder(publish, name, hook, model, files, hub):
    place = place_of(name)
    root = hub.folder(place.repository)
    publish(root)
    sae = load_sae(name)
    assert sorted(hub.asked) == sorted(files)
    assert (sae.about.name, sae.about.hook_name, sae.about.model) == (name, hook, model)
    x = torch.randn(3, 5, D)
    if publish is not qwen:  # the number of latents it keeps is in the repository's name
        torch.testing.assert_close(load_sae(root / place.path).encode(x), sae.encode(x), atol=0, rtol=0)
    else:
        assert int((sae.encode(x) > 0).sum(-1).max()) <= 4


def test_weights_alone_need_the_options_of_a_file(hub):
    write(hub.folder("o/r") / "a/b.safetensors", weights())
    with pytest.raises(TiltmeterError, match=r"o/r:a does not say apply_b_dec_to_input and activation"):
        load_sae("o/r:a")
    assert int((load_sae("o/r:a?k=3&apply_b_dec_to_input=true").encode(torch.randn(9, D)) > 0).sum(-1).max()) <= 3


def test_a_hook_point_of_a_file_with_several(hub):
    braun(hub.folder("o/r"))
    assert load_sae("o/r:run/samples_900.pt#blocks.6.hook_resid_pre").about.hook_name == "blocks.6.hook_resid_pre"
    with pytest.raises(TiltmeterError, match=r"none at blocks.1"):
        load_sae("o/r:run#blocks.1")


def test_another_revision(hub):
    save_sae(hub.folder("o/r") / "a", width=D, seed=0)
    save_sae(hub.folder("o/r", "v2") / "a", width=D, seed=1)
    assert load_sae("o/r@v2:a").about.sha256 != load_sae("o/r:a").about.sha256
    assert load_sae("o/r@v2:a").about.sha256 == load_sae(hub.folder("o/r", "v2") / "a").about.sha256
    with pytest.raises(TiltmeterError, match=r"o/r at v3: there is no such revision"):
        load_sae("o/r@v3:a")


def many(root):
    for layer in range(30):
        write(root / f"saes/layer_{layer:02}/width_16k/params.npz", {})


def files(root):
    for layer in range(28):
        write(root / f"layer{layer:02}.sae.pt", {})


def nothing(root):
    write(root / "a/README.md", {})


def folder(root):
    save_sae(root / "saes/a", width=D)


@pytest.mark.parametrize(
    ("publish", "name", "sentence"),
    [
        (
            many,
            "o/r:saes",
            r"is not one SAE: it has saes/layer_00/width_16k, .*, and 27 more; .* o/r:saes/layer_00/width",
        ),
        (files, "o/r:.", r"it has layer00.sae.pt, layer01.sae.pt, layer02.sae.pt, and 25 more; .* o/r:layer00.sae.pt"),
        (nothing, "o/r:a", r"is not one SAE: no file of weights is in it"),
        (nothing, "o/r:a/README.md", r"is no file of weights; expected .*\.safetensors"),
        (folder, "o/r:saes/b", r"o/r has no 'saes/b' .*; it has saes/a"),
        (folder, "o/r:nowhere/at/all", r"o/r: there is no such file or folder"),
        (folder, "o/none:a", r"o/none: there is no such repository; .*log in"),
    ],
)
def test_what_is_not_one_sae_is_refused_before_anything_is_downloaded(publish, name, sentence, hub):
    publish(hub.folder("o/r"))
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(name)
    assert hub.asked == []


def test_an_sae_of_one_head_and_a_language_model_are_refused_before_their_weights_are_downloaded(hub):
    root = hub.folder("o/r")
    save_sae(root / "h", width=D)
    config = json.loads((root / "h/cfg.json").read_text())
    write(root / "h/cfg.json", config | {"metadata": config["metadata"] | {"hook_head_index": 3}})
    with pytest.raises(TiltmeterError, match="o/r:h reads only head 3"):
        load_sae("o/r:h")
    write(root / "m/config.json", {"model_type": "gpt2"})
    write(root / "m/model.safetensors", {"wte": torch.ones(2, 2)})
    with pytest.raises(TiltmeterError, match="o/r:m has the weights of a language model"):
        load_sae("o/r:m")
    assert hub.asked == ["cfg.json", "config.json"]


MLP = "blocks.{}.hook_mlp_out"


def rows(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saelens_transcoder(root):
    facts = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": MLP.format(1)}
    config = {"architecture": "transcoder", "d_in": D, "d_out": D, "d_sae": L, "metadata": facts}
    write(root / "a/cfg.json", config)
    write(root / "a/sae_weights.safetensors", weights())


def transcoders(root):
    root.mkdir(parents=True)
    (root / "config.yaml").write_text("model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\n")
    for layer in range(3):
        matrices = {"W_enc": rows(1, L, D), "W_dec": rows(10 + layer, L, D)}
        write(root / f"layer_{layer}.safetensors", weights() | matrices)


def cross_layer(root):
    root.mkdir(parents=True)
    (root / "config.yaml").write_text("model_kind: cross_layer_transcoder\n")
    for layer in range(3):
        write(root / f"W_enc_{layer}.safetensors", {f"W_enc_{layer}": rows(1, L, D)})
        write(root / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": rows(10 + layer, L, 3 - layer, D)})


def openmoss_crosscoder(root):
    write(root / "c/config.json", {"hook_points": [MLP.format(layer) for layer in range(3)], "d_model": D})
    write(root / "c/model.safetensors", {"W_D": rows(10, 3, L, D)})


def crosscoder(root):
    matrices = {"W_enc": rows(1, 3, D, L), "W_dec": rows(10, L, 3, D), "b_enc": rows(2, L), "b_dec": rows(3, 3, D)}
    write(root / "a/cross.safetensors", matrices)


CROSSED = torch.cat([rows(10, L, 3, D)[:, 1], rows(11, L, 2, D)[:, 0]])
"""What the latents of layers 0 and 1 write to layer 1."""

ONE, SITE = "layer_1.safetensors", MLP.format(1)
DICTIONARIES = [
    (saelens_transcoder, "o/r:a", "", weights()["W_dec"], ["cfg.json", "sae_weights.safetensors"]),
    (transcoders, "o/r:.#1", "", rows(11, L, D), ["config.yaml", ONE]),
    (transcoders, "o/r:", SITE, rows(11, L, D), ["config.yaml", ONE]),
    (transcoders, "o/r:layer_1.safetensors", "", rows(11, L, D), ["config.yaml", ONE]),
    (cross_layer, "o/r:", SITE, CROSSED, ["W_dec_0.safetensors", "W_dec_1.safetensors", "config.yaml"]),
    (openmoss_crosscoder, "o/r:c#1", "", rows(10, 3, L, D)[1], ["config.json", "model.safetensors"]),
    (crosscoder, f"o/r:a#1?hook_name={SITE}", "", rows(10, L, 3, D)[:, 1], ["cross.safetensors"]),
]


@pytest.mark.parametrize(
    ("publish", "name", "site", "expected", "files"),
    DICTIONARIES,
    ids=[f"{case[1]} {case[2]}" for case in DICTIONARIES],
)
def test_of_other_dictionaries_the_rows_of_one_layer_are_downloaded(publish, name, site, expected, files, hub):
    publish(hub.folder("o/r"))
    found = load_dictionary(name, site)
    assert sorted(hub.asked) == files
    torch.testing.assert_close(found.decoder, expected, atol=0, rtol=0)
    assert found.about.hook_name == SITE
    assert isinstance(found, Transcoder) == (publish in (saelens_transcoder, transcoders))


def test_which_layer_of_several_must_be_known(hub):
    transcoders(hub.folder("o/r"))
    for name, site in (("o/r:", ""), ("o/r:.#3", ""), ("o/r:", "blocks.1.hook_resid_pre")):
        with pytest.raises(TiltmeterError, match=r"writes to blocks.0.hook_mlp_out, .*as in o/r:.*#blocks.0.hook_mlp"):
            load_dictionary(name, site)
    transcoders(other := hub.folder("o/r", "v2"))
    (other / "config.yaml").write_text("model_name: gpt2\n")
    with pytest.raises(TiltmeterError, match=r"3 files of layers, and its config.yaml does not say that they are tr"):
        load_dictionary("o/r@v2:#1")


def test_what_does_not_fit_on_the_disk_is_not_downloaded(hub, monkeypatch):
    save_sae(hub.folder("o/r") / "a", width=D)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1))
    with pytest.raises(TiltmeterError, match=r"cfg.json of o/r has 0.0 GB, .* only 0.0 GB of space; .*HF_HOME"):
        load_sae("o/r:a")
    assert hub.asked == []


@pytest.fixture(params=["offline", "refused"])
def disconnect(request, monkeypatch):
    """Makes the hub unreachable, in either way."""
    gone = {"HF_HUB_OFFLINE": True} if request.param == "offline" else {"ENDPOINT": "http://127.0.0.1:9"}

    def go():
        for key, value in gone.items():
            monkeypatch.setattr(constants, key, value)

    return go


def test_without_a_connection_what_was_downloaded_is_read(hub, disconnect, tmp_path):
    folder(hub.folder("o/r"))
    before = load_sae("o/r:saes/a")
    disconnect()
    hub.asked.clear()
    assert load_sae("o/r:saes/a").about == before.about
    with pytest.raises(TiltmeterError, match=r"has no 'saes/b' .*it has saes/a; without a connection .* only what was"):
        load_sae("o/r:saes/b")
    with pytest.raises(TiltmeterError, match=r"could not be read from o/other: .*check the network; what was not"):
        load_sae("o/other:a")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("o/r:a/b", Place("o/r", "a/b", "main")),
        ("o/r@refs/pr/1:a", Place("o/r", "a", "refs/pr/1")),
        ("o/r:", Place("o/r", "", "main")),
        ("o/r:./a/", Place("o/r", "a", "main")),
        ("o/r:group:v1", Place("o/r", "group:v1", "main")),
        ("release:a/b", None),
        ("a/b/c:d", None),
        ("o/r", None),
    ],
)
def test_names_of_places(name, place):
    assert place_of(name) == place
    if place is not None:
        refuse_unknown(name)
