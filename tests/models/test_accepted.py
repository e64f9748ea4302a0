"""Models in memory that are no plain model of transformers, or in a state that would change their numbers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import tiltmeter as tm
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiny_models import random_tokens, tiny

SITE = Site(1, "resid_pre")


def changes(model: SplitModel) -> torch.Tensor:
    clean = model.start(random_tokens(2, 8), SITE)
    return model.changes(clean, 0.1 * clean.activation[None]).final


@pytest.mark.parametrize(
    ("wrap", "sentence"),
    [
        (nn.DataParallel, r"wrapped in DataParallel, .* give model\.module"),
        (lambda hf: torch.compile(hf, backend="eager"), r"wrapped in OptimizedModule, .* give model\._orig_mod"),
        (lambda _: nn.Linear(3, 3), "is a Linear; expected a causal language model"),
    ],
    ids=["DataParallel", "compile", "Linear"],
)
def test_wrapped_models_are_refused(wrap, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        refuse_unmeasurable(wrap(tiny("gpt2")), "mine")


def test_a_model_that_returns_tuples_is_refused():
    hf = deepcopy(tiny("gpt2"))
    hf.config.return_dict = False
    with pytest.raises(TiltmeterError, match=r"model\.config\.return_dict = True"):
        SplitModel(hf)


def test_dropout_is_off_though_it_was_turned_on_after_wrapping():
    model = ExactModel(deepcopy(tiny("gpt2")))
    model.hf.train()
    assert torch.equal(changes(model.measured_in("centred")), changes(ExactModel(tiny("gpt2"))))


@torch.inference_mode()
def test_inference_mode_changes_nothing():
    expected = changes(ExactModel(tiny("gpt2")))
    made_here = deepcopy(tiny("gpt2"))
    assert torch.equal(changes(ExactModel(made_here)), expected)


@pytest.mark.parametrize("wrong", [-1, 61])
def test_ids_that_the_model_does_not_have_are_refused(wrong):
    tokens = random_tokens(2, 8)
    tokens[1, 3] = wrong
    with pytest.raises(TiltmeterError, match="give ids of its own tokenizer"):
        SplitModel(tiny("gpt2")).start(tokens, SITE)


def mean_kl(loaded, out):
    tokens = tm.TokenSet(random_tokens(4, 8), "mine", None, {})
    path = tm.Straight(lengths=(0, 0.01))
    asked = tm.Sweep(site="resid_pre:1", directions=("isotropic",), path=path, sequences=4, statistics_sequences=4)
    return float(tm.run_sweep(asked, loaded, tokens, out).kl[:, -1].mean())


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, "float32-difference"), (torch.float64, "float64")])
def test_a_model_in_memory_is_measured_in_the_best_precision_of_its_type(dtype, precision, tmp_path):
    hf = deepcopy(tiny("llama")).to(dtype)
    loaded = tm.load_model(hf, name="mine")
    assert loaded.model.hf is hf
    assert loaded.facts["precision"] == precision
    found = mean_kl(loaded, tmp_path / "mine")
    expected = mean_kl(tm.load_model(deepcopy(hf).double()), tmp_path / "double")
    assert found == pytest.approx(expected, rel=1e-3)


def test_precisions_of_another_type_are_refused():
    with pytest.raises(TiltmeterError, match=r"mine is in float32, .*--precision float64: convert it with"):
        tm.load_model(deepcopy(tiny("llama")).float(), name="mine", precision="float64")
    with pytest.raises(TiltmeterError, match="'half' is not a precision"):
        tm.load_model(tiny("llama"), precision="half")
    with pytest.raises(TiltmeterError, match="rounding is larger than what is measured"):
        tm.load_model(deepcopy(tiny("llama")).bfloat16())
