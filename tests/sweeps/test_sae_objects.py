"""Sweeps and crossings along SAE objects: nano's own gives what its name gives, and a run is resumed with no other."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tiltmeter as tm
from small_saes import save_sae
from sweep_cases import token_set
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.run_directory import read_manifest
from tiny_models import tiny

NAME = "local-3-l0-31"


@pytest.fixture(scope="module")
def nano():
    return tm.load_model("nano")


@pytest.fixture(scope="module")
def tokens(nano):
    ids = nano.tokenizer.encode(Path(__file__).read_text()[:2000])
    return TokenSet(torch.tensor(ids[:96]).reshape(4, 24), "this file", None, {})


def run(nano, tokens, out, saes, lengths=(5, 20), **changes):
    wanted = {"directions": ("sae-error", "sae-feature", "isotropic"), "sequences": 2, "positions": "last"}
    sweep = tm.Sweep(site="resid_pre:3", saes=saes, path=tm.Straight(lengths=lengths), **wanted | changes)
    return tm.run_sweep(sweep, nano, tokens, out=out)


def test_an_sae_of_nano_gives_the_same_by_its_name_and_as_an_object(nano, tokens, tmp_path):
    sae = tm.load_sae(f"nano:{NAME}")
    by_name = run(nano, tokens, tmp_path / "name", (f"nano:{NAME}",))
    as_object = run(nano, tokens, tmp_path / "object", {NAME: sae})
    assert np.array_equal(by_name.kl, as_object.kl) and by_name.kl.max() > 0.01
    one, other = (read_manifest(tmp_path / name) for name in ("name", "object"))
    assert one["identity"] == other["identity"]
    assert one["record"]["saes"] == other["record"]["saes"]
    assert json_of(tmp_path / "name") == json_of(tmp_path / "object")
    resumed = run(nano, tokens, tmp_path / "name", {NAME: sae})  # it is the same run
    assert np.array_equal(by_name.kl, resumed.kl)
    with pytest.raises(TiltmeterError, match=r"is a run of another configuration \(saes.local-3-l0-31 is"):
        run(nano, tokens, tmp_path / "name", {NAME: replace(sae, b_dec=sae.b_dec * 2)})


def json_of(folder):
    return (folder / "summary.csv").read_bytes()


class Own:
    """An SAE of nano behind functions alone."""

    def __init__(self, sae):
        self.weights, self.bias = torch.cat([sae.W_enc.T, sae.W_dec], 1), sae.b_enc
        self.b_dec, self.subtracted = sae.b_dec, sae.input_bias

    def encode(self, x):
        return ((x - self.subtracted) @ self.weights[:, :128].T + self.bias).relu()

    def decode(self, latents):
        return latents @ self.weights[:, 128:] + self.b_dec


def test_its_own_functions_give_the_same_curves(nano, tokens, tmp_path):
    sae = tm.load_sae(f"nano:{NAME}")
    saes = {"own": Own(sae), "theirs": f"nano:{NAME}"}
    found = run(nano, tokens, tmp_path / "run", saes, directions=("sae-error", "latent-doubling:own"), lengths=(20,))
    kl = found.kl.sel(direction=["sae-error:own", "sae-error:theirs"]).values
    np.testing.assert_allclose(kl[0], kl[1], rtol=1e-3)
    record = read_manifest(tmp_path / "run")["record"]["saes"]
    assert record["own"]["architecture"] == "own functions of Own"
    metrics = [record[label]["load_check"]["metrics"] for label in saes]
    assert metrics[0]["l0"] == metrics[1]["l0"]


def test_the_example_of_the_documentation_runs(tokens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "saes.md"
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "wrap_sae" in block
    )
    for many, few in (
        ('tokens = loaded.load_tokens("nano", at_most=64)', ""),
        ("sequences=16", "sequences=2, positions='last'"),
        ("Mine(128, 512)", "Mine(128, 64)"),
    ):
        assert code.count(many) == 1
        code = code.replace(many, few)
    names = {"tokens": tokens}
    exec(compile(code, "saes.md", "exec"), names)
    directions = [f"{kind}:{label}" for kind in ("sae-error", "sae-feature") for label in ("mine", "theirs")]
    assert names["curves"].direction.values.tolist() == [*directions, "real-mixture"]
    record = read_manifest(tmp_path / "runs" / "mine")["record"]["saes"]
    assert (record["mine"]["architecture"], record["mine"]["load_check"]["metrics"]["l0"]) == ("topk", 8)


def test_crossings_along_an_object(tmp_path):
    loaded = tm.load_model(tiny("gpt2"), name="tiny")
    tokens = token_set(sequences=8)
    folder = save_sae(tmp_path / "small-l0-5")
    tables = []
    for index, saes in enumerate([(str(folder),), {"small-l0-5": tm.load_sae(folder)}]):
        sweep = tm.Sweep(
            site="resid_pre:1",
            saes=saes,
            directions=("sae-error",),
            path=tm.Straight(lengths=(0, 5, 10, 20)),
            sequences=2,
        )
        wanted = tm.Crossings(sweep=sweep, goal=tm.CrossingTarget(threshold=0.01))
        tables.append(tm.run_crossings(wanted, loaded, tokens, tmp_path / str(index)))
    pd.testing.assert_frame_equal(*tables)
    assert np.isfinite(tables[0].crossing_at).any()
