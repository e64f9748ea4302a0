"""Models given as objects: the same numbers as from the disk, and what is in objects of other libraries."""

from __future__ import annotations

import warnings
from copy import deepcopy
from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoTokenizer, GPT2LMHeadModel

import tiltmeter as tm
from sweep_cases import save_model, token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.fingerprint import fingerprint
from tiltmeter.models.loading import load_model
from tiltmeter.models.model_files import EMBEDDED
from tiny_models import tiny
from token_cases import make_tokenizer

SWEEP = tm.Sweep(
    site="resid_pre:1",
    directions=("isotropic",),
    path=tm.Straight(lengths=(0, 0.5)),
    readouts=("kl", "l2@resid_post:2"),
    sequences=2,
    statistics_sequences=4,
)


def single(family="gpt2"):
    return deepcopy(tiny(family, dtype=torch.float32))


def test_a_model_in_memory_gives_the_curves_of_its_directory_bit_for_bit(tmp_path):
    folder = save_model(tmp_path / "model", dtype=torch.float32)
    named = tm.run_sweep(SWEEP, str(folder), token_set())
    given = tm.run_sweep(SWEEP, GPT2LMHeadModel.from_pretrained(folder), token_set())
    for readout in ("kl", "l2@blocks.2.hook_resid_post", "length"):
        assert np.array_equal(named[readout], given[readout])
    assert named.kl.values[:, 1:].min() > 1e-4
    assert tm.load_model(folder).facts["sha256"] == tm.load_model(single()).facts["sha256"]


def test_a_loaded_model_is_returned_as_it_is():
    loaded, tokenizer = tm.load_model(single()), make_tokenizer()
    assert tm.load_model(loaded) is loaded
    other = tm.load_model(loaded, tokenizer)
    assert other.tokenizer is tokenizer and other.model is loaded.model
    with pytest.raises(TiltmeterError, match="which has its precision and name"):
        tm.load_model(loaded, precision="float64")


def test_a_name_and_a_tokenizer_can_be_given_with_a_path(tmp_path):
    folder, tokenizer = save_model(tmp_path / "model", dtype=torch.float32), make_tokenizer()
    loaded = tm.load_model(folder, tokenizer, name="mine")
    assert loaded.tokenizer is tokenizer and loaded.model.name == loaded.facts["name"] == "mine"


@pytest.mark.parametrize("options", [{"revision": "main"}, {"device": "cpu"}])
def test_arguments_for_names_are_refused_for_objects(options):
    with pytest.raises(TiltmeterError, match=r"was asked for, but the model is in memory already"):
        tm.load_model(single(), **options)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (7, r"model is a builtins\.int; expected the name of a model, a PreTrainedModel"),
        (GPT2LMHeadModel, r"class transformers\.models\.gpt2\.modeling_gpt2\.GPT2LMHeadModel; expected"),
        ({"wte": torch.ones(2, 2)}, r"is a builtins\.dict"),
        (nn.Linear(3, 3), "is a Linear; expected a causal language model of transformers"),
    ],
    ids=["int", "class", "state dict", "module"],
)
def test_other_objects_are_refused_by_their_type(given, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        tm.load_model(given)


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(TiltmeterError, match="The tokenizer is a str; expected one of transformers"):
        unwrap(load_model)(single(), "gpt2")  # its types are checked in tests alone


# TransformerLens's bridge


def bridge(hf):
    from transformer_lens.model_bridge import TransformerBridge

    nano = str(EMBEDDED["nano"])  # for its tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TransformerBridge.boot_transformers(
            nano, hf_model=hf, tokenizer=AutoTokenizer.from_pretrained(nano), device="cpu"
        )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bridge_is_measured_as_the_model_that_it_was_built_around(family):
    hf = single(family)
    bridged = bridge(deepcopy(hf))
    loaded = tm.load_model(bridged)
    assert not any("transformer_lens" in type(one).__module__ for one in loaded.model.hf.modules())
    assert loaded.facts["precision"] == "float32-difference" and loaded.tokenizer is bridged.tokenizer
    found, expected = (tm.run_sweep(SWEEP, one, token_set()).kl for one in (loaded, hf))
    assert np.array_equal(found, expected)
    wrapped = [type(one).__name__ for one in bridged.original_model.modules()]
    assert "BlockBridge" in wrapped, "the bridge itself was changed"


def test_a_bridge_that_computes_something_else_is_refused():
    bridged = bridge(single())
    bridged.add_hook("blocks.1.hook_resid_post", lambda x, hook: 2 * x)
    with pytest.raises(TiltmeterError, match="is a TransformerBridge that computes something else"):
        tm.load_model(bridged)
    bridged.reset_hooks()
    tm.load_model(bridged)
    bridged.enable_compatibility_mode()  # folds norms of GPT-2 into its weights
    with pytest.raises(TiltmeterError, match="enable_compatibility_mode"):
        tm.load_model(bridged)


# nnsight and nnterp


def stand_in(package, name, **held):
    """An object of a class of another library, with these attributes."""
    return type(name, (), {"__module__": f"{package}.modeling", "__init__": lambda self: vars(self).update(held)})()


@pytest.mark.parametrize(("package", "name"), [("nnsight", "LanguageModel"), ("nnterp", "StandardizedTransformer")])
@pytest.mark.parametrize("attribute", ["_module", "_model"])
def test_the_model_inside_is_found(package, name, attribute):
    hf, tokenizer = single(), make_tokenizer()
    loaded = tm.load_model(stand_in(package, name, tokenizer=tokenizer, **{attribute: hf}))
    assert loaded.model.hf is hf and loaded.tokenizer is tokenizer


def test_nnsights_edits_and_models_without_weights_are_refused():
    with pytest.raises(TiltmeterError, match=r"has edits of nnsight, .*clear_edits\(\)"):
        tm.load_model(stand_in("nnsight", "NNsight", _module=single(), _edits=[1]))
    config = single().config
    with torch.device("meta"):
        empty = GPT2LMHeadModel(config)
    with pytest.raises(TiltmeterError, match="load it with dispatch=True"):
        tm.load_model(stand_in("nnsight", "LanguageModel", _module=empty))
    with pytest.raises(TiltmeterError, match="in which no model was found"):
        tm.load_model(stand_in("nnsight", "LanguageModel"))


def test_a_model_that_nnsight_wraps_is_the_same_model():
    nnsight = pytest.importorskip("nnsight")
    plain, hf = single(), single()
    wrapped = nnsight.NNsight(hf)
    with wrapped.trace(token_set().ids):
        wrapped.transformer.h[1].output.save()
    loaded = tm.load_model(wrapped)
    assert loaded.model.hf is hf
    assert fingerprint(loaded.model) == fingerprint(tm.load_model(plain).model)
    found, expected = (tm.run_sweep(SWEEP, one, token_set()).kl for one in (wrapped, plain))
    assert np.array_equal(found, expected)
    with wrapped.edit(inplace=True):
        wrapped.transformer.h[1].output[:] = 0
    with pytest.raises(TiltmeterError, match="has edits of nnsight"):
        tm.load_model(wrapped)
