"""Sweeps and crossings with readouts that are functions, and with readouts that name tokens."""

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError
from tiltmeter.reports.sweep import publish, short_table
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.sweeps.plan import make_plan
from tiny_models import tiny

TOKENS = token_set(sequences=4)
LENGTHS = (0.0, 1.0, 4.0)
SITE = "l2@blocks.2.hook_resid_post"


def divergence(clean, perturbed):
    return (clean.exp() * (clean - perturbed)).sum(-1)


def surprise(clean, perturbed, targets):
    return -perturbed.gather(1, targets[:, None])[:, 0]


def distance(clean, perturbed):
    return (perturbed - clean).norm(dim=-1)


OWN = {
    "kl": ...,
    "mine": tm.versioned(divergence, "1"),
    "loss": ...,
    "my loss": tm.versioned(surprise, "1"),
    "moved": tm.at_site("resid_post:2", tm.versioned(distance, "1")),
    "l2@resid_post:2": ...,
    "logit-diff:#3,#4": ...,
    "top1": ...,
}


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def asked(readouts, **changes):
    given = {"site": "resid_pre:1", "directions": ("isotropic",), "path": tm.Straight(lengths=LENGTHS), "sequences": 4}
    return tm.Sweep(readouts=readouts, **given | changes)


@pytest.fixture(scope="module")
def finished(loaded, tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    return out, tm.run_sweep(asked(OWN), loaded, TOKENS, out)


def test_they_stand_beside_tiltmeters_own_and_have_their_values(finished):
    _, found = finished
    names = ["kl", "mine", "loss", "my loss", "moved", SITE, "logit-diff:#3,#4", "top1", "length"]
    assert curves.readout_names(found) == names
    for mine, own in (("mine", "kl"), ("my loss", "loss"), ("moved", SITE)):
        np.testing.assert_allclose(found[mine], found[own], rtol=1e-8, atol=1e-12)
    assert float(found.mine.sel(step=4).min()) > 1e-3
    table = tm.summary(found)
    assert set(table.readout) == set(names)
    assert (table[(table.readout == "top1") & (table.step == 0)]["mean"] == 1).all()


def test_at_length_0_a_logit_difference_is_the_clean_one(finished, loaded):
    logits = loaded.model.hf(TOKENS.ids).logits
    clean = (logits[..., 3] - logits[..., 4]).mean(-1).detach().numpy()
    found = finished[1]["logit-diff:#3,#4"].sel(direction="isotropic")
    np.testing.assert_allclose(found.sel(step=0), clean, rtol=1e-9)
    assert (np.abs(found.sel(step=4) - clean) > 1e-3).all()


def test_manifest_and_report_name_them(finished, loaded):
    out, found = finished
    identity = read_manifest(out)["identity"]
    assert identity["sweep"]["readouts"] == curves.readout_names(found)[:-1]
    version = "a function, version 1"
    at = f"{version}, at blocks.2.hook_resid_post"
    assert identity["readout_functions"] == {"mine": version, "my loss": version, "moved": at}
    page = publish(out).read_text("utf-8")
    assert "my loss" in page
    assert "logit of #3 minus logit of #4, nats" in page
    assert "KL(clean" in short_table(out)
    assert found["mine"].attrs == {"long_name": "mine", "units": "1"}


def test_a_run_is_resumed_with_the_same_version_only(finished, loaded):
    out, found = finished
    again = tm.run_sweep(asked(OWN), loaded, TOKENS, out)
    assert again.identical(found)
    other = OWN | {"mine": tm.versioned(divergence, "2")}
    with pytest.raises(TiltmeterError, match=r"another configuration \(readout_functions.mine is"):
        tm.run_sweep(asked(other), loaded, TOKENS, out)
    elsewhere = OWN | {"moved": tm.at_site("resid_post:1", tm.versioned(distance, "1"))}
    with pytest.raises(TiltmeterError, match=r"another configuration \(readout_functions.moved is"):
        tm.run_sweep(asked(elsewhere), loaded, TOKENS, out)


def test_a_run_directory_takes_no_function_without_a_version(loaded, tmp_path):
    with pytest.raises(TiltmeterError, match="The readout mine is a function, which cannot be compared"):
        tm.run_sweep(asked({"mine": divergence}), loaded, TOKENS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = tm.run_sweep(asked({"mine": divergence, "kl": ...}), loaded, TOKENS)
    np.testing.assert_allclose(found["mine"], found["kl"], rtol=1e-8, atol=1e-12)


def test_a_configuration_with_functions_is_shown_as_json():
    shown = json.loads(asked(OWN).model_dump_json())["readouts"]
    assert (shown["kl"], shown["mine"]) == (None, "a function, version 1")
    assert shown["moved"] == "a function, version 1, at resid_post:2"
    assert json.loads(asked({"mine": divergence}).model_dump_json())["readouts"] == {"mine": "a function"}


def test_what_a_function_raises_loses_nothing_that_is_stored(loaded, tmp_path):
    calls = []

    def fails_later(clean, perturbed):
        calls.append(1)
        if sum(calls) > 5:
            raise ValueError("no more\nof this")
        return divergence(clean, perturbed)

    sweep = asked({"mine": tm.versioned(fails_later, "1")}, path=tm.Straight(lengths=(1.0,)), shard=1)
    with pytest.raises(TiltmeterError, match=r"The readout mine failed on .*: ValueError: no more\.$"):
        tm.run_sweep(sweep, loaded, TOKENS, tmp_path / "run")
    shards = {one.name for one in (tmp_path / "run" / "shards").glob("shard-*")}
    assert len(shards) == 2  # three calls check the function
    calls.clear()
    calls.append(-100)
    later = tm.run_sweep(sweep, loaded, TOKENS, tmp_path / "run")
    assert later.sizes["sequence"] == 4
    assert shards < {one.name for one in (tmp_path / "run" / "shards").glob("shard-*")}


def test_infinite_values_are_refused_and_nan_is_left_out(loaded, tmp_path):
    def infinite(clean, perturbed):
        return divergence(clean, perturbed).where(divergence(clean, perturbed) < 1e-10, torch.inf)

    with pytest.raises(TiltmeterError, match="mine along isotropic is not finite at step 1; use shorter steps"):
        tm.run_sweep(asked({"mine": tm.versioned(infinite, "1")}), loaded, TOKENS, tmp_path / "infinite")

    def certain(clean, perturbed):
        return divergence(clean, perturbed).where(clean.argmax(-1) % 2 == 0, torch.nan)

    sweep = asked({"mine": tm.versioned(certain, "1"), "kl": ...}, keep_positions=True)
    found = tm.run_sweep(sweep, loaded, TOKENS, tmp_path / "nan")
    some = found.mine.isnull().values
    assert some.any() and not some.all()
    np.testing.assert_allclose(found.mine.values[~some], found.kl.values[~some], rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kl": divergence}, "The label 'kl' of a readout of your own is, or may be read as, a name of tiltmeter's"),
        ({"l2@resid_post:2": divergence}, "may be read as, a name of tiltmeter's"),
        ({"prob:#3": divergence}, "may be read as, a name of tiltmeter's"),
        ({"length": divergence}, "may be read as, a name"),
        ({"a/b": divergence}, "of letters, digits, spaces, - and _"),
        ({"": divergence}, "has the label ''; expected a text"),
        ({"mine": "kl"}, r"was given as the text 'kl'; use the name as the label, \{'kl': ...\}"),
        ({"mine": 3}, "is of type int; give a function"),
        ({}, "readouts= was empty: give names"),
        (3, "readouts= was of type int: give names"),
        ("kl", r"readouts= was the text 'kl'; give a tuple of names: readouts=\('kl',\)"),
    ],
)
def test_what_is_no_readout_is_refused_in_a_sentence(given, message):
    with pytest.raises(TiltmeterError, match=message) as refused:
        asked(given)
    assert "\n" not in str(refused.value)


def test_a_mapping_of_names_is_the_tuple_of_them(loaded):
    given, names = {"kl": ..., "l2@resid_post:2": ...}, ("kl", "l2@resid_post:2")
    one, other = (make_plan(asked(some), loaded.model, TOKENS).readouts for some in (given, names))
    assert one == other
    unknown = {"mine": ...}
    with pytest.raises(TiltmeterError, match="'mine' is not a readout; choose from kl"):
        make_plan(asked(unknown), loaded.model, TOKENS)


def test_tokens_are_looked_up_in_the_models_tokenizer(loaded):
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("tiltmeter") / "models" / "nano"))
    (one,), (other,) = (tokenizer.encode(text) for text in ("!", ","))
    sweep = asked(('logit-diff:!,","', f"logit-diff:#{one}, #{other}"))
    (readout,) = make_plan(sweep, loaded.model, TOKENS, tokenizer).readouts
    assert readout.name == f"logit-diff:#{one},#{other}"
    assert readout.label == 'logit of "!" minus logit of ","'
    with pytest.raises(TiltmeterError, match="the model has no tokenizer"):
        make_plan(sweep, loaded.model, TOKENS)


def crossed(loaded, out, readouts, **goal):
    sweep = asked(readouts, path=tm.Straight(lengths=(0.0, 1.0, 4.0)), positions="last", sequences=2)
    wanted = tm.Crossings(sweep=sweep, goal=tm.CrossingTarget(**goal))
    return tm.run_crossings(wanted, loaded, TOKENS, out)


def test_a_function_that_grows_has_crossings(loaded, tmp_path):
    own = crossed(loaded, tmp_path / "own", {"mine": tm.versioned(divergence, "1")}, threshold=0.005)
    kl = crossed(loaded, tmp_path / "kl", ("kl",), threshold=0.005)
    np.testing.assert_allclose(own.crossing_at, kl.crossing_at, rtol=1e-6)
    assert np.isfinite(own.crossing_at).any()
    assert "mine crosses 0.005" in short_table(tmp_path / "own")
    assert tm.Crossings(sweep=asked(("rank",)), goal=tm.CrossingTarget(threshold=1.5))


@pytest.mark.parametrize("name", ["top1", "entropy", "prob:#3", "logit-diff:#3,#4", "loss", "cos@resid_post:2"])
def test_what_does_not_grow_from_zero_has_no_crossings(loaded, tmp_path, name):
    with pytest.raises(TiltmeterError, match="does not grow from zero along a path; give kl, js or l2@SITE, rank"):
        crossed(loaded, tmp_path / "run", (name,), threshold=0.5)


@pytest.mark.parametrize("readouts", [{"mine": divergence}, ("rank",)])
def test_fractions_are_of_what_begins_at_zero(loaded, tmp_path, readouts):
    with pytest.raises(TiltmeterError, match="may not be zero where nothing is perturbed, so a fraction"):
        crossed(loaded, tmp_path / "run", readouts, fraction=0.5)


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "at_site" in block)
    for many, few in (('tokens = loaded.load_tokens("nano", at_most=64)', ""), ("sequences=16", "sequences=2")):
        assert code.count(many) == 1
        code = code.replace(many, few)
    ids = torch.randint(1, 4096, (2, 8), generator=torch.Generator().manual_seed(0))
    names = {"tokens": replace(TOKENS, ids=ids)}
    exec(compile(code, "definitions.md", "exec"), names)
    found = names["curves"].sel(direction="real-mixture", step=32)
    assert (found["l1 at the end"] > found["kl"]).all()
    assert 0 <= float(found["errors"].mean()) <= 1
