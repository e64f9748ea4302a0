"""Whether an SAE belongs to a model, a site and a stream, as far as its files say."""

from __future__ import annotations

import dataclasses

import pytest

from small_saes import SITE, identity
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.compatibility import check_compatible
from tiny_models import WIDTH, tiny

Z = Site(1, "z")


def place(model_name="tiny", stream="centred", family="gpt2", width=WIDTH, site=SITE, **facts):
    model = SplitModel(tiny(family), model_name).measured_in(stream)
    sae = identity(width)
    check_compatible(dataclasses.replace(sae, about=dataclasses.replace(sae.about, **facts)), model, site)


@pytest.mark.parametrize(
    ("hook_name", "site"),
    [
        ("blocks.1.hook_resid_pre", SITE),
        ("blocks.0.hook_resid_post", SITE),
        ("blocks.1.hook_resid_mid", Site(1, "resid_mid")),
        ("blocks.1.hook_in", SITE),
        ("blocks.0.hook_out", SITE),
        ("resid_pre:1", SITE),
        ("blocks.1.hook_resid_pre", Site(0, "resid_post")),
        ("blocks.1.attn.hook_z", Z),
        ("blocks.1.hook_z", Z),
        (None, SITE),
    ],
)
def test_names_of_one_place(hook_name, site):
    place(hook_name=hook_name, site=site)


@pytest.mark.parametrize(
    ("hook_name", "sentence"),
    [
        ("blocks.2.hook_resid_pre", "not to blocks.1.hook_resid_pre"),
        ("blocks.1.hook_resid_post", "not to blocks.1.hook_resid_pre"),
        ("blocks.1.hook_mlp_out", "not to blocks.1.hook_resid_pre"),
        ("blocks.1.hook_rot_q", "which is not a site of tiny; it has blocks.L.hook_resid_pre"),
        ("blocks.7.hook_resid_pre", "with L from 0 to 2"),
        ("hook_pos_embed", "which is not a site of tiny"),
        ("hook_embed", "not to blocks.1.hook_resid_pre"),
    ],
)
def test_other_places_are_refused(hook_name, sentence):
    with pytest.raises(TiltmeterError) as caught:
        place(hook_name=hook_name)
    assert str(caught.value).startswith(f"The SAE I belongs to {hook_name}, ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gpt2", "gpt2-small"),
        ("openai-community/gpt2", "gpt2-small"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("google/gemma-2-2b-it", "gemma-2-2b"),
        ("runs/my/model", "gpt2-small"),
        ("/models/pythia-70m", "gpt2-small"),
        ("gpt2", None),
        ("gpt2", "someone/tuned"),
        ("nano", "nano"),
    ],
)
def test_models_that_may_be_the_same(ours, theirs):
    place(ours, model=theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gpt2", "gpt2-medium"),
        ("nano", "gpt2-small"),
        ("google/gemma-2b", "gemma-2-2b"),
        ("EleutherAI/pythia-70m", "nano"),
    ],
)
def test_models_that_are_others_are_refused(ours, theirs):
    with pytest.raises(TiltmeterError, match=f"is of {theirs}, not of {ours}"):
        place(ours, model=theirs)


def test_a_directory_is_no_certain_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    place("gpt2", model="pythia-70m")


def test_a_width_is_refused_whatever_the_files_say():
    with pytest.raises(TiltmeterError, match="has width 8, but"):
        place(width=8)
    with pytest.raises(TiltmeterError, match=r"has width 32, but activations at .* have width 48"):
        place(family="qwen3", site=Z)


def test_streams():
    for stream, other in (("raw", "centred"), ("centred", "raw")):
        place(stream=stream, processing=stream)
        with pytest.raises(TiltmeterError, match=f"expects the {other} residual stream, but .* --stream {other}"):
            place(stream=stream, processing=other)
        place(stream=stream, processing=other, site=Z)  # z is not centred
        place(stream=stream, processing=other, family="llama")  # nor is what RMSNorm reads
        place(stream=stream, processing=None)
        place(stream=stream, processing="folded", site=Z)
