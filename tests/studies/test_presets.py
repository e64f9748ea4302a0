"""The papers' own settings, `--preset gpt2`: a small GPT-2 and folders of files stand in for the hub.

What is tested is that everything named is where it should be and fits together; the numbers are of random weights.
"""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from sweep_cases import command
from tiltmeter.analysis import estimates
from tiltmeter.data import token_set
from tiltmeter.data.packing import Documents, TokenRows
from tiltmeter.models import loading
from tiltmeter.reports.charts import mpl
from tiltmeter.runs.run_directory import read_manifest
from tiltmeter.saes import loading as sae_loading
from tiltmeter.saes.load_check import check_on_load
from tiltmeter.saes.releases import list_file, listed
from tiltmeter.studies import STUDIES, gpt2_presets
from tiltmeter.studies.reproduce import QUICK_LENGTH
from tiltmeter.sweeps import records
from token_cases import VOCABULARY, ascii_tokenizer

pytestmark = pytest.mark.skipif(list_file() is None, reason="the list of releases is in the package sae_lens")

ROOT = Path(__file__).parents[2]
WIDTH, LATENTS, LENGTH = 16, 40, 128
NAMES = (*gpt2_presets.RESIDUAL_SAES, *gpt2_presets.ATTENTION_SAES, *gpt2_presets.END_TO_END_SAES)


def entry(name):
    """The repository and the path there of an SAE of a release."""
    release, _, sae = name.partition(":")
    return listed(release, sae, name).place


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH, generator=generator), dim=-1)
    bias = torch.full((LATENTS,), -0.05)
    return {"W_enc": rows.T.contiguous(), "b_enc": bias, "W_dec": rows.contiguous(), "b_dec": torch.zeros(WIDTH)}


def place(hub, name, seed):
    repository, path, _ = entry(name)
    release, _, hook = name.partition(":")
    if "hook-z" in release:
        file = hub / repository / path
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights(seed), file)
        config = {"act_size": WIDTH, "dict_size": LATENTS, "act_name": hook.replace("hook_z", "attn.hook_z")}
        file.with_name(file.name.replace(".pt", "_cfg.json")).write_text(json.dumps(config))
        return
    folder = hub / repository / path
    folder.mkdir(parents=True)
    config = {"d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32", "model_name": "gpt2-small", "hook_point": hook}
    (folder / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": False}))
    save_file(weights(seed), folder / "sae_weights.safetensors")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    for seed, name in enumerate(NAMES):
        place(folder, name, seed)
    torch.manual_seed(0)
    shape = {"n_layer": 12, "n_embd": WIDTH, "n_head": 2, "n_positions": LENGTH, "vocab_size": VOCABULARY}
    config = transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    ascii_tokenizer().save_pretrained(folder / "gpt2")
    return folder


def text(rng):
    return "".join(map(chr, rng.integers(97, 123, 400)))


def data_set(name, column, revision):
    """A data set of the hub's: OpenWebText as text, or as rows of tokens without boundary tokens."""
    rng = np.random.default_rng(0)
    if name == gpt2_presets.DOCUMENTS:
        return Documents(name, (text(rng) for _ in range(1000)), {})
    assert name == gpt2_presets.PROMPTS
    return TokenRows(name, (rng.integers(97, 123, 1024) for _ in range(3000)), {})


def reduced(scale):
    """Three sequences, or whatever else is counted in tens."""
    return scale._replace(**{k: 3 for k, n in scale._asdict().items() if isinstance(n, int) and n >= 10})


@pytest.fixture
def offline(hub, monkeypatch):
    """The same names, looked up in folders."""
    monkeypatch.setattr(sae_loading, "_fetch", lambda place, name, choice: hub / place.repository / place.path)
    monkeypatch.setattr(loading, "locate", lambda name: str(hub / name))
    monkeypatch.setattr(token_set, "hub_source", data_set)
    for study in STUDIES:
        scales = importlib.import_module(f"tiltmeter.studies.{study}.experiments").SCALES
        monkeypatch.setitem(scales, "quick", reduced(scales["quick"]))
    # What the check says of random weights, and how sure the numbers are, is not looked at.
    monkeypatch.setattr(records, "check_on_load", check_once())
    monkeypatch.setattr(estimates, "RESAMPLES", 9)
    monkeypatch.setattr(mpl, "to_svg", lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"/>')


def check_once():
    """A load check that measures one SAE of each kind, on one sequence: there are 24 SAEs."""
    found = {}

    def check(model, at, tokens):
        kind = type(at.sae), at.site.kind
        if kind not in found:
            found[kind] = check_on_load(model, at, tokens, budget=1)
        return found[kind]

    return check


@pytest.mark.parametrize("name", NAMES)
def test_every_sae_of_the_papers_is_where_saelens_lists_it(name, offline):
    assert entry(name)
    sae = sae_loading.load_sae(name)
    assert sae.about.hook_name.replace("attn.", "") == name.partition(":")[2]
    torch.testing.assert_close(sae.decoder, weights(NAMES.index(name))["W_dec"])


RUNS = {
    "heimersheim2024": (("2-straight",), 1, 10, False, 1),
    "gurnee2024": (("6",), 6, QUICK_LENGTH, True, 24),
    "lee2024": (("5",), 6, QUICK_LENGTH, True, 18),
    "giglemiani2024": (("2",), 1, 10, False, 1),
}
"""Figures, the paper's layer, tokens of a sequence, whether each begins with the boundary token, and how many SAEs."""


def test_the_training_runs_of_brauns_saes_are_listed():
    runs = gpt2_presets.BRAUN_RUNS
    assert {kind: len(of) for kind, of in runs.items()} == {"local": 9, "e2e": 6, "e2e+ds": 7}
    assert len({name for of in runs.values() for name in of}) == 22
    documented = (ROOT / "docs" / "studies.md").read_text()
    for of in runs.values():
        assert list(of.values()) == sorted(of.values())
        assert ", ".join(f"`{name}` {l0:g}" for name, l0 in of.items()) in documented.replace("\n", " ")


def test_every_study_has_its_settings_tested():
    assert RUNS.keys() == STUDIES.keys()


@pytest.mark.parametrize("study", STUDIES)
def test_the_papers_own_settings(study, offline, tmp_path):
    figures, layer, length, begins, saes = RUNS[study]
    chosen = [part for number in figures for part in ("--figure", number)]
    given = ["--preset", "gpt2", "--quick", "--control", "none", "--precision", "float32", *chosen]
    done = command("reproduce", study, *given, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    manifest = read_manifest(tmp_path / "run")
    assert manifest["identity"]["layer"] == layer
    assert len(manifest["identity"]["saes"]) == saes
    assert manifest["record"]["tokens"]["shape"][1] == length
    preset = STUDIES[study].presets["gpt2"]
    assert (preset.bos_before == "both") == begins
    number = manifest["record"]["tokens"]["shape"][0]
    asked = {"at_most": number, "length": length, "bos_before": preset.bos_before}
    loaded = loading.load_model("gpt2").load_tokens(preset.tokens, **asked)
    assert manifest["identity"]["tokens"]["sha256"] == loaded.sha256()
    assert bool((loaded.ids[:, 0] == 0).all()) == begins
    for number in figures:
        assert (tmp_path / "run" / "figures" / f"figure-{number}.svg").is_file()
