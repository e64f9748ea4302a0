"""SAEs by name: which file is read and how, and a sentence for whatever is none."""

import json
import os
import sys
from importlib import import_module

import pytest
import torch
from safetensors.torch import save_file

from forked import Forked, forget_imports
from tiltmeter.errors import TiltmeterError
from tiltmeter.saes import loading
from tiltmeter.saes.loading import list_embedded, load_sae
from tiltmeter.saes.sae import LinearSAE

D_IN, D_SAE = 16, 40
V6 = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": False}
V6 |= {"normalize_activations": "none", "metadata": {"hook_name": "blocks.3.hook_resid_pre", "l0": 12.5}}


def weights(**changed):
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | changed


def pre_activations(x, subtract):
    w = weights()
    return (x - subtract * w["b_dec"]) @ w["W_enc"] + w["b_enc"]


def write(path, metadata=None, **changed):
    said = {"apply_b_dec_to_input": "true"} | (metadata or {})
    if not {"k", "activation"} & said.keys() and "threshold" not in changed:
        said["activation"] = "relu"
    return write_alone(path, said, **changed)


def write_alone(path, metadata=None, **changed):
    save_file({key: value for key, value in weights(**changed).items() if value is not None}, path, metadata)
    return str(path)


def write_folder(folder, config=None, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(V6 | (config or {})))
    write(folder / "sae_weights.safetensors", **changed)
    return str(folder)


@pytest.fixture
def x():
    return torch.randn(3, 5, D_IN)


@pytest.mark.parametrize(("said", "subtract"), [("true", True), ("false", False)])
def test_a_file_of_weights_that_says_how_they_are_used(said, subtract, tmp_path, x):
    metadata = {"hook_name": "blocks.3.hook_resid_pre", "model_name": "nano"}
    sae = load_sae(write(tmp_path / "a.safetensors", metadata | {"apply_b_dec_to_input": said}))
    torch.testing.assert_close(sae.encode(x), pre_activations(x, subtract).relu())
    latents = torch.rand(2, D_SAE)
    torch.testing.assert_close(sae.decode(latents), latents @ weights()["W_dec"] + weights()["b_dec"])
    assert (sae.about.architecture, sae.about.hook_name, sae.about.model) == ("standard", metadata["hook_name"], "nano")
    assert sae.about.processing is None


def test_a_k_makes_it_a_top_k(tmp_path, x):
    sae = load_sae(write(tmp_path / "a.safetensors", {"k": "3"}))
    pre, latents = pre_activations(x, True), sae.encode(x)
    assert sae.about.architecture == "topk"
    assert ((latents > 0).sum(-1) == 3).all()
    torch.testing.assert_close(latents.sort(-1).values[..., -3:], pre.sort(-1).values[..., -3:])


@pytest.mark.parametrize("threshold", [torch.rand(D_SAE) * 4, torch.tensor(2.0), torch.tensor([2.0])])
def test_a_threshold_makes_it_a_jumprelu(threshold, tmp_path, x):
    sae = load_sae(write(tmp_path / "a.safetensors", threshold=threshold))
    pre = pre_activations(x, True)
    assert sae.about.architecture == "jumprelu"
    torch.testing.assert_close(sae.encode(x), torch.where(pre > threshold, pre, 0.0))


@pytest.mark.parametrize(
    ("said", "unknown"),
    [
        ("", "apply_b_dec_to_input and activation"),
        ("?activation=relu", "apply_b_dec_to_input"),
        ("?apply_b_dec_to_input=false", "activation"),
        ("?activation=topk&apply_b_dec_to_input=false", "k"),
    ],
)
def test_what_weights_alone_do_not_tell_is_asked_for(said, unknown, tmp_path):
    file = write_alone(tmp_path / "a.safetensors")
    with pytest.raises(TiltmeterError, match=rf"does not say {unknown}, which .* as in .*\?"):
        load_sae(f"{file}{said}")


@pytest.mark.parametrize("subtract", [True, False])
def test_and_may_be_said_in_the_name(subtract, tmp_path, x):
    file = write_alone(tmp_path / "a.safetensors")
    sae = load_sae(f"{file}?k=3&apply_b_dec_to_input={str(subtract).lower()}&hook_name=blocks.1.hook_resid_pre")
    pre, latents = pre_activations(x, subtract), sae.encode(x)
    assert ((latents > 0).sum(-1) == 3).all()
    torch.testing.assert_close(latents.sort(-1).values[..., -3:], pre.sort(-1).values[..., -3:])
    assert sae.about.hook_name == "blocks.1.hook_resid_pre"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("?k=many", "k in .* is 'many'"),
        ("?k=0&apply_b_dec_to_input=true", "give a k from 1 to 40"),
        ("?top_k=3", "'top_k' in .* is not an option .* choose from apply_b_dec_to_input"),
        ("?activation=gelu", "is 'gelu'; choose relu, topk or jumprelu"),
        ("?normalize_activations=batch", "choose from none, layer_norm"),
    ],
)
def test_options_that_make_no_sense(said, sentence, tmp_path):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(write_alone(tmp_path / "a.safetensors") + said)


def test_options_beside_a_configuration_are_refused(tmp_path):
    with pytest.raises(TiltmeterError, match="say how it is used; leave out what follows the"):
        load_sae(write_folder(tmp_path / "b") + "?k=3")


def test_a_tensor_that_is_not_known_is_refused_by_name(tmp_path):
    for name in (
        write(tmp_path / "a.safetensors", extra=torch.ones(3)),
        write_folder(tmp_path / "b", extra=torch.ones(3)),
    ):
        with pytest.raises(TiltmeterError, match="has extra, "):
            load_sae(name)


def test_the_hash_is_of_weights_and_of_how_they_are_used(tmp_path):
    def sha(name, **changes):
        return load_sae(write(tmp_path / f"{name}.safetensors", **changes)).about.sha256

    assert sha("a") == sha("b") == sha("c", metadata={"hook_name": "blocks.0.hook_resid_pre"})
    different = [sha("a"), sha("d", b_enc=torch.zeros(D_SAE)), sha("e", metadata={"apply_b_dec_to_input": "false"})]
    different += [sha("f", metadata={"k": "3"}), sha("g", metadata={"k": "4"}), sha("h", threshold=torch.zeros(D_SAE))]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"W_enc": None}, "is not an SAE"),
        ({"W_enc": torch.ones(D_SAE, 17)}, r"do not fit together: W_enc \[40, 17\]|W_enc .* is \[40, 17\], but"),
        ({"b_enc": torch.ones(D_SAE - 1)}, r"do not fit together.*b_enc \[39\]"),
        ({"b_dec": torch.ones(D_IN, 1)}, r"do not fit together.*b_dec \[16, 1\]"),
        ({"W_dec": torch.ones(D_SAE, 24), "b_dec": torch.ones(24)}, "transcoder"),
        ({"W_dec": torch.ones(D_SAE, D_IN, dtype=torch.int32)}, "W_dec of .* is of type torch.int32"),
        ({"b_enc": torch.full((D_SAE,), float("nan"))}, "NaN or an infinity in b_enc"),
        ({"W_enc": torch.full((D_IN, D_SAE), float("inf"))}, "NaN or an infinity in W_enc"),
    ],
)
def test_weights_that_are_no_sae(changed, sentence, tmp_path):
    for name in (write(tmp_path / "a.safetensors", **changed), write_folder(tmp_path / "b", **changed)):
        with pytest.raises(TiltmeterError, match=sentence):
            load_sae(name)


def test_a_threshold_of_another_width(tmp_path):
    folder = write_folder(tmp_path / "b", {"architecture": "jumprelu"}, threshold=torch.ones(D_IN))
    for name in (write(tmp_path / "a.safetensors", threshold=torch.ones(D_IN)), folder):
        with pytest.raises(TiltmeterError, match=r"do not fit together.*threshold \[16\]"):
            load_sae(name)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"k": "0"}, "give a k from 1 to 40"),
        ({"k": "41"}, "has k = 41, but 40 latents"),
        ({"k": "many"}, "k in .* is 'many'"),
        ({"apply_b_dec_to_input": "perhaps"}, "apply_b_dec_to_input in .* is 'perhaps'"),
    ],
)
def test_metadata_that_make_no_sense(metadata, sentence, tmp_path):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(write(tmp_path / "a.safetensors", metadata))


def test_a_threshold_and_a_k(tmp_path):
    with pytest.raises(TiltmeterError, match="has both a threshold and a k; say which is used"):
        load_sae(write(tmp_path / "a.safetensors", {"k": "3"}, threshold=torch.ones(D_SAE)))


def write_model(path):
    save_file({"transformer.wte.weight": torch.ones(2, 3), "transformer.wpe.weight": torch.ones(2, 3)}, path)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("a.txt", "hello", "The file .*a.txt is not an SAE: expected a folder or file of SAELens"),
        ("a.safetensors", "hello", "could not be read as safetensors"),
        ("a.bin", "hello", "could not be read as weights only"),
        ("a.npz", "hello", "could not be read as plain arrays"),
    ],
)
def test_a_file_that_is_no_sae(file, content, sentence, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(str(tmp_path / file))


def test_a_models_weights_are_no_sae(tmp_path):
    write_model(tmp_path / "model.safetensors")
    with pytest.raises(TiltmeterError, match=r"is not an SAE of a known format: it has transformer.wpe.weight, "):
        load_sae(str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TiltmeterError, match=r"is not an SAE of a known format: it has transformer.wpe.weight"):
        load_sae(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"n_layer": 6, "n_embd": 128}', "is not of an SAE: it has no d_in and d_sae"),
        ("[1, 2]", "is not of an SAE"),
        ("{", "could not be read as JSON"),
    ],
)
def test_a_cfg_json_of_something_else(config, sentence, tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cfg.json").write_text(config)
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"d_sae": 80}, r"W_enc of .* is \[16, 40\], but its cfg.json says \[16, 80\]"),
        ({"architecture": "jumprelu"}, "is a jumprelu SAE without a threshold"),
        ({"architecture": "topk"}, "is a topk SAE, but its cfg.json says k = None"),
        ({"architecture": "topk", "k": float("nan")}, "says k = nan; expected a whole number"),
        ({"architecture": "topk", "k": 41}, "has k = 41, but 40 latents"),
    ],
)
def test_a_folder_whose_files_do_not_fit(config, sentence, tmp_path):
    with pytest.raises(TiltmeterError, match=sentence):
        load_sae(write_folder(tmp_path, config))


def test_a_folder_without_weights(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(TiltmeterError, match=r"has a cfg.json but no sae_weights.safetensors"):
        load_sae(str(tmp_path))


def test_weights_with_a_configuration_beside_them_are_read_as_it_says(tmp_path, x):
    folder = write_folder(tmp_path, {"apply_b_dec_to_input": False})
    sae = load_sae(f"{folder}/sae_weights.safetensors")
    torch.testing.assert_close(sae.encode(x), pre_activations(x, False).relu())  # alone, b_dec would be subtracted


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/at/all", "/nowhere/a.pt", "nowhere.safetensors", "nano", ""])
def test_what_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TiltmeterError, match=r"There is no SAE|The folder .* is not an SAE") as raised:
        load_sae(name)
    assert "RELEASE:SAE_ID" in str(raised.value)


def test_a_hook_point_where_there_is_no_choice(tmp_path):
    for name in (write(tmp_path / "a.safetensors"), write_folder(tmp_path / "b")):
        with pytest.raises(TiltmeterError, match=r"has one SAE, but 'blocks.3' was asked for"):
            load_sae(f"{name}#blocks.3")


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    monkeypatch.setitem(loading.EMBEDDED_SAES, "nano", tmp_path / "saes")
    for name in ("l3-local", "l3-e2e"):
        write_folder(tmp_path / "saes" / name, W_enc=weights()["W_enc"].half())
    (tmp_path / "saes" / "README.md").write_text("a card")
    return tmp_path / "saes"


def test_embedded_saes(embedded, x):
    assert list_embedded() == {"nano:l3-e2e": V6["metadata"], "nano:l3-local": V6["metadata"]}
    sae = load_sae("nano:l3-e2e")
    assert isinstance(sae, LinearSAE)
    assert (sae.about.name, sae.about.l0, sae.about.hook_name) == ("nano:l3-e2e", 12.5, "blocks.3.hook_resid_pre")
    torch.testing.assert_close(sae.encode(x), pre_activations(x, False).relu(), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["nano:l9", "nano:", "nano:README.md", "nano:../saes/l3-e2e"])
def test_an_embedded_sae_that_is_not_there(name, embedded):
    with pytest.raises(TiltmeterError, match=r"There is no embedded SAE .*; embedded are nano:l3-e2e, nano:l3-local\."):
        load_sae(name)


def test_no_embedded_saes(tmp_path, monkeypatch):
    monkeypatch.setitem(loading.EMBEDDED_SAES, "nano", tmp_path / "nowhere")
    assert list_embedded() == {}
    with pytest.raises(TiltmeterError, match="embedded are none"):
        load_sae("nano:a")


def test_the_embedded_saes_that_ship_load():
    for name in list_embedded():
        assert isinstance(load_sae(name), LinearSAE)


LIBRARIES = "sae_lens", "transformer_lens"


def load_all(*names):
    """Load these SAEs with a tiltmeter that is imported anew."""
    load, error_type = import_module("tiltmeter.saes.loading"), import_module("tiltmeter.errors").TiltmeterError
    for name in names:
        try:
            load.load_sae(name)
        except error_type as error:
            print(str(error).rpartition(":")[2])


def imported_by(folder, function, *arguments):
    """Lines that a function prints in a fork, and the libraries that it imports."""

    def run():
        os.environ["HF_HOME"] = str(folder)
        sys.path.insert(0, str(folder))
        forget_imports("tiltmeter", *LIBRARIES)
        function(*arguments)
        print([name for name in LIBRARIES if name in sys.modules])

    with Forked(run) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return out.splitlines()


def test_what_needs_no_library_never_imports_it(tmp_path):
    names = [
        write_folder(tmp_path / "standard"),
        write_folder(tmp_path / "topk", {"architecture": "topk", "k": 3}),
        write_folder(tmp_path / "jumprelu", {"architecture": "jumprelu"}, threshold=torch.ones(D_SAE)),
        write(tmp_path / "a.safetensors"),
        "gpt2-small-res-jb:blocks.6.hook_resid_pre",  # is looked up, and then not found without a connection
    ]
    error, found = imported_by(tmp_path, load_all, *names)
    # Where the list of releases is, asked for the first time or not; and where it is not.
    assert any(one in error for one in ("HF_HUB_OFFLINE is set", "check the network", "does not need it")), error
    assert found == "[]"


def test_that_check_can_fail(tmp_path):
    (tmp_path / "sae_lens.py").write_text("")
    assert imported_by(tmp_path, import_module, "sae_lens") == ["['sae_lens']"]
