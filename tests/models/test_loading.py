"""Loading models: what is accepted, what is refused and in which words, and that nothing of a stranger's is run."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tiltmeter.errors import TiltmeterError
from tiltmeter.models import loading, model_files
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.differences.shifted import RULES
from tiltmeter.models.loading import load_model
from tiltmeter.models.model_files import EMBEDDED
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.hashes import weights_sha256
from tiny_models import LAYERS, VOCABULARY, WIDTH, random_tokens, tiny

WEIGHTS = "model.safetensors"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small GPT-2 as a Hugging Face directory without a tokenizer."""
    tiny("gpt2", "eager", torch.float32).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


class Evil:
    """Something that leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.trace,)


def configure(directory: Path, **settings: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def refusal(name: Path | str, **options: Any) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(TiltmeterError) as refused:
        load_model(str(name), **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_the_embedded_model_is_complete():
    loaded = load_model("nano")
    assert loaded.facts | {"sha256": ""} == {
        "name": "nano",
        "class": "GPT2LMHeadModel",
        "revision": "local",
        "precision": "float32-difference",
        "device": "cpu",
        "sha256": "",
    }
    text = "def f(x):\n    return x + 1\n"
    ids = loaded.tokenizer(text)["input_ids"]
    assert loaded.tokenizer.decode(ids) == text and max(ids) < loaded.model.vocabulary
    clean = loaded.model.start(torch.tensor([ids]), loaded.model.site("resid_pre:3"))
    assert bool(torch.isfinite(clean.late.final).all())
    assert not loaded.model.hf.training and not any(p.requires_grad for p in loaded.model.hf.parameters())


def test_a_directory_gives_its_weights_and_its_shape(directory):
    loaded = load_model(str(directory))
    model = loaded.model
    assert (model.n_layers, model.width, model.vocabulary, model.name) == (LAYERS, WIDTH, VOCABULARY, str(directory))
    assert loaded.tokenizer is None
    weights = tiny("gpt2", "eager", torch.float32).state_dict()
    assert {name: tensor.dtype for name, tensor in model.hf.state_dict().items()} == dict.fromkeys(
        weights, torch.float32
    )
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.hf.state_dict().items())


def test_the_way_to_the_weights_does_not_change_their_hash(directory, tmp_path, monkeypatch):
    expected = load_model(str(directory)).facts["sha256"]
    tiny("gpt2", "eager", torch.float32).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert not (tmp_path / "shards" / WEIGHTS).exists() and len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert {load_model(name).facts["sha256"] for name in ("model", "~/model", "shards")} == {expected}


def test_one_bit_changes_the_hash(directory):
    before = load_model(str(directory)).facts["sha256"]
    content = bytearray((directory / WEIGHTS).read_bytes())
    content[-4] ^= 1
    (directory / WEIGHTS).write_bytes(content)
    assert load_model(str(directory)).facts["sha256"] != before


def test_names_types_and_shapes_are_part_of_the_hash():
    def digest(**weights: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in weights.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module.state_dict().items())

    zeros, counting = torch.zeros(4), torch.arange(6.0).reshape(2, 3)
    variants = [
        digest(a=zeros),
        digest(b=zeros),
        digest(a=zeros.reshape(2, 2)),
        digest(a=zeros.int()),
        digest(a=zeros[:2], b=zeros[2:]),
    ]
    assert len(set(variants)) == len(variants)
    assert digest(a=zeros, b=zeros[:2]) == digest(b=zeros[:2], a=zeros.clone())
    assert digest(a=counting.T) == digest(a=counting.T.contiguous()) != digest(a=counting.reshape(3, 2))


def test_a_model_with_an_operation_without_a_rule_is_measured_as_it_is(directory, monkeypatch):
    monkeypatch.delitem(RULES, torch.nn.functional.layer_norm)
    assert load_model(str(directory)).facts["precision"] == "float32"
    message = refusal(directory, precision="bf16-difference")
    assert "no difference rule for layer_norm" in message and "--precision float32" in message


def test_precision_is_that_of_the_arithmetic_and_keeps_the_stored_values(directory):
    stored = {name: tensor.half() for name, tensor in load_file(directory / WEIGHTS).items()}
    save_file(stored, directory / WEIGHTS, metadata={"format": "pt"})
    for precision, dtype in {"float32": torch.float32, "float64": torch.float64}.items():
        loaded = load_model(str(directory), precision=precision)
        assert loaded.facts["precision"] == precision
        weights = loaded.model.hf.state_dict()
        assert all(tensor.dtype == dtype for tensor in weights.values())
        assert all(torch.equal(weights[name], tensor.to(dtype)) for name, tensor in stored.items())
        assert loaded.model.start(random_tokens(), Site(1, "z")).late.final.dtype == dtype
    assert "auto, float32, float64" in refusal(directory, precision="float16")


@pytest.mark.parametrize(
    "device",
    ["nonsense", pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"))],
)
def test_a_device_that_is_not_here_is_refused(directory, device):
    assert f"device '{device}' cannot be used here" in refusal(directory, device=device)


def test_only_the_hub_has_revisions(directory):
    for name in (directory, "nano"):
        assert "'v1'" in refusal(name, revision="v1")


def test_what_is_no_model_is_refused(directory, tmp_path):
    assert "is a file" in refusal(directory / "config.json")
    assert "has no config.json" in refusal(tmp_path)
    unknown = refusal("nobody/nothing")
    assert "'nobody/nothing'" in unknown and "nano" in unknown and "hub" in unknown
    assert "'nowhere/at/all'" in refusal("nowhere/at/all")
    (directory / "config.json").write_text("{")
    assert "could not be loaded" in refusal(directory)


def test_a_model_without_weights_is_refused(directory):
    (directory / WEIGHTS).unlink()
    assert "has no weights" in refusal(directory)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.pth", "last.ckpt"])
def test_pickles_are_refused_unread(directory, tmp_path, file):
    (directory / WEIGHTS).unlink()
    (directory / file).write_bytes(pickle.dumps({"weight": Evil(tmp_path / "ran")}))
    message = refusal(directory)
    assert file in message and "pickle" in message and "safetensors" in message
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_other_safetensors_is_not_read(directory):
    """Not even a harmless one that would fill the model."""
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).rename(directory / "adapter.safetensors")
    assert "could not be loaded" in refusal(directory)


def test_an_index_of_safetensors_may_not_name_a_pickle(directory):
    weights = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).rename(directory / "other.safetensors")
    torch.save(weights, directory / "shard.bin")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, "shard.bin")}))
    message = refusal(directory)
    assert "shard.bin" in message and "pickle" in message
    for content in ("{", "[]", '{"weight_map": 3}', "{}"):
        index.write_text(content)
        assert "is not an index of weights" in refusal(directory)


def test_damaged_weights_are_refused(directory, tmp_path):
    tiny("gpt2", "eager", torch.float32).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    min((tmp_path / "shards").glob("*.safetensors")).unlink()
    assert "could not be loaded" in refusal(tmp_path / "shards")
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[:-100])
    assert "could not be loaded" in refusal(directory)


def test_weights_that_do_not_fill_the_model_are_refused(directory):
    """What is missing would be random."""
    weights = load_file(directory / WEIGHTS)
    missing = "transformer.h.1.mlp.c_fc.weight"
    save_file({k: v for k, v in weights.items() if k != missing}, directory / WEIGHTS, metadata={"format": "pt"})
    message = refusal(directory)
    assert "missing" in message and missing in message
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    configure(directory, n_layer=LAYERS + 1)
    assert "missing" in refusal(directory)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"vocab_size": VOCABULARY + 1}, "wte"),
        ({"n_positions": 8}, "wpe"),
        ({"n_inner": WIDTH}, "mlp"),
    ],
)
def test_weights_of_other_shapes_are_refused(directory, settings, first):
    configure(directory, **settings)
    message = refusal(directory)
    assert "mismatched" in message and first in message


@pytest.mark.parametrize(
    "file",
    ["adapter_config.json", "adapter_model.safetensors", "adapters.safetensors", "pytorch_lora_weights.safetensors"],
)
@pytest.mark.parametrize("base", [True, False])
def test_an_adapter_is_not_left_out_in_silence(directory, tmp_path, file, base):
    """Beside the weights of a model, or alone."""
    folder = directory if base else tmp_path / "alone"
    folder.mkdir(exist_ok=True)
    if file.endswith("json"):
        (folder / file).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(directory)}))
    else:
        save_file({"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": torch.ones(2, WIDTH)}, folder / file)
    message = refusal(folder)
    assert file in message and "merge_and_unload" in message
    if base:
        (folder / file).unlink()
        load_model(str(folder))


def test_an_adapter_of_a_model_on_the_hub_is_found(monkeypatch):
    monkeypatch.setattr(loading, "find_adapter_config_file", lambda where, revision: f"{where}/{revision}")
    assert "owner/model has an adapter (adapter_config.json)" in refusal("owner/model", revision="v1")


@pytest.mark.parametrize("key", ["attn.c_attn.lora_A.default.weight", "mlp.ia3_l", "mlp.adapter.down.weight"])
def test_adapter_weights_among_those_of_a_model_are_refused(directory, key):
    weights = load_file(directory / WEIGHTS)
    save_file(weights | {f"transformer.h.0.{key}": torch.ones(2)}, directory / WEIGHTS, metadata={"format": "pt"})
    assert key in refusal(directory)


def test_scales_that_nothing_multiplies_with_are_refused(directory):
    weights = load_file(directory / WEIGHTS)
    scale = {"transformer.h.0.mlp.c_fc.weight_scale": torch.ones(())}
    save_file(weights | scale, directory / WEIGHTS, metadata={"format": "pt"})
    assert "are quantised in a way that transformers did not undo" in refusal(directory)


def test_weights_that_the_model_does_not_have_are_warned_of(directory, caplog):
    weights = load_file(directory / WEIGHTS)
    load_model(str(directory))
    assert "not in the model" not in caplog.text
    other = {"transformer.h.0.attn.unused": torch.ones(2)}
    save_file(weights | other, directory / WEIGHTS, metadata={"format": "pt"})
    load_model(str(directory))
    assert "1 weights of" in caplog.text and "(first transformer.h.0.attn.unused)" in caplog.text


# Models in memory


def with_one(hf, place, dtype):
    """The model with one parameter or buffer in another type."""
    tensor = dict([*hf.named_parameters(), *hf.named_buffers()])[place]
    tensor.data = tensor.data.to(dtype)
    return hf


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("place", [None, "model.layers.2.mlp.up_proj.weight", "model.rotary_emb.inv_freq"])
def test_a_model_in_half_precision_is_refused_and_left_as_it_is(dtype, place):
    hf = deepcopy(tiny("llama"))
    hf = hf.to(dtype) if place is None else with_one(hf, place, dtype)
    before = {name: tensor.dtype for name, tensor in hf.state_dict().items()}
    with pytest.raises(TiltmeterError) as refused:
        SplitModel(hf, "mine")
    message = str(refused.value)
    assert "\n" not in message and str(dtype).removeprefix("torch.") in message and "hf.float()" in message
    assert place is None or place in message
    assert {name: tensor.dtype for name, tensor in hf.state_dict().items()} == before
    SplitModel(hf.float())


def test_weights_of_two_types_are_refused():
    hf = with_one(deepcopy(tiny("llama")), "model.layers.2.mlp.up_proj.weight", torch.float32)
    with pytest.raises(TiltmeterError, match="float32 and in float64"):
        SplitModel(hf, "mine")
    hf = with_one(deepcopy(tiny("llama")), "model.rotary_emb.inv_freq", torch.float32)
    SplitModel(hf)  # as transformers loads a model in float64


def test_an_adapter_in_memory_is_refused():
    layer = type("Linear", (torch.nn.Linear,), {"__module__": "peft.tuners.lora.layer"})
    wrapper = type("PeftModel", (torch.nn.Module,), {"__module__": "peft.peft_model"})()
    wrapper.base_model = deepcopy(tiny("llama"))
    inside = deepcopy(tiny("llama"))
    inside.model.layers[1].mlp.up_proj = layer(WIDTH, 2 * WIDTH).double()
    for hf in (wrapper, inside):
        with pytest.raises(TiltmeterError, match=r"^mine has an adapter of PEFT .*merge_and_unload"):
            refuse_unmeasurable(hf, "mine")
    with pytest.raises(TiltmeterError, match=r"\(Linear at model\.layers\.1\.mlp\.up_proj\)"):
        SplitModel(inside, "mine")


@pytest.mark.parametrize("model_type", ["made-up", "gpt2"])
def test_code_that_comes_with_a_model_is_not_run(directory, tmp_path, model_type):
    trace = tmp_path / "ran"
    (directory / "custom.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    auto_map = {"AutoConfig": "custom.C", "AutoModelForCausalLM": "custom.M", "AutoTokenizer": ["custom.T", None]}
    configure(directory, model_type=model_type, auto_map=auto_map)
    (directory / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map, "tokenizer_class": "T"}))
    if model_type == "gpt2":
        load_model(str(directory))  # a class that transformers has: its own code is used
    else:
        assert "could not be loaded" in refusal(directory)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Bert", {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "hidden_size": 8}),
        ("T5", {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}),
    ],
)
def test_what_is_no_decoder_is_refused(tmp_path, name, settings):
    config = getattr(transformers, f"{name}Config")(vocab_size=VOCABULARY, **settings)
    head = {"Bert": "BertLMHeadModel", "T5": "T5ForConditionalGeneration"}[name]
    getattr(transformers, head)(config).save_pretrained(tmp_path)
    assert name in refusal(tmp_path)


def test_weights_that_are_not_numbers_are_refused_when_they_show(directory):
    weights = load_file(directory / WEIGHTS)
    weights["transformer.h.0.mlp.c_fc.weight"][0, 0] = torch.nan
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    model = load_model(str(directory)).model
    with pytest.raises(TiltmeterError, match=r"activations at blocks\.1\.hook_resid_pre are not finite"):
        model.start(random_tokens(), Site(1, "resid_pre"))


def test_a_copy_of_the_embedded_directory_is_the_same_model(tmp_path):
    shutil.copytree(EMBEDDED["nano"], tmp_path / "copy")
    copy, original = load_model(str(tmp_path / "copy")), load_model("nano")
    assert copy.facts | {"name": "nano"} == original.facts


def test_a_gguf_file_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    file = tmp_path / "model.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TiltmeterError, match=r"the 'gguf' package is needed: pip install 'tiltmeter\[gguf\]'"):
        load_model(str(file))


def test_a_damaged_gguf_file_is_refused_in_a_sentence(tmp_path, monkeypatch):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and nothing else")
    monkeypatch.setattr(model_files, "_refuse_without_gguf", lambda name: None)
    with pytest.raises(TiltmeterError) as found:
        load_model(str(file))
    assert "model.gguf could not be loaded" in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "unread"),
    [
        (["rope_freqs.weight"], {}, "rope_freqs.weight"),
        (["blk.0.attn_v.bias"], {}, "blk.0.attn_v.bias"),
        ([], {"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.type"),
        (["blk.0.attn_v.weight"], {"llama.rope.scaling.type": "none"}, None),
    ],
)
def test_what_transformers_leaves_out_of_a_gguf_file_is_refused(tmp_path, tensors, metadata, unread):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(file := tmp_path / "model.gguf", "llama")
    for name in tensors:
        writer.add_tensor(name, np.ones(32, dtype=np.float32))
    for key, value in metadata.items():
        writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if unread is None:
        model_files.refuse_unread_gguf(str(file), tiny("llama"))
        return
    with pytest.raises(TiltmeterError, match=f"has {unread}, which transformers does not read"):
        model_files.refuse_unread_gguf(str(file), tiny("llama"))


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn, torch.complex64], ids=str)
def test_weights_that_nothing_says_how_to_scale_are_refused(directory, dtype):
    """As they stand, they would be converted number by number."""
    weights = load_file(directory / "model.safetensors")
    key = "transformer.h.1.mlp.c_fc.weight"
    save_file({**weights, key: (20 * weights[key]).to(dtype)}, directory / "model.safetensors", {"format": "pt"})
    message = refusal(directory)
    assert key in message and "quantization_config" in message


def test_masks_that_are_no_weights_may_be_of_any_type(directory):
    """GPT-2's files hold one in every block, which is not a weight."""
    weights = load_file(directory / "model.safetensors")
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    save_file({**weights, "h.0.attn.bias": mask}, directory / "model.safetensors", {"format": "pt"})
    load_model(str(directory))


def test_a_class_of_another_family_than_the_configuration_is_not_taken(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["GPTNeoForCausalLM"]}))
    assert type(load_model(str(directory)).model.hf).__name__ == "GPT2LMHeadModel"


def test_the_reason_of_a_wrong_configuration_is_told(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": "many"}))
    assert "vocab_size" in (message := refusal(directory)) and "int" in message
