"""A package that adds a direction, a readout and a format of SAEs: installed, it is as if it were tiltmeter's own."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import tiltmeter as tm
import tiltmeter.models.readouts
import tiltmeter.perturb.registry
from sweep_cases import command, refusal, save_model, save_tokens, token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs import plugins
from tiltmeter.runs.run_directory import read_manifest
from tiny_models import WIDTH, tiny

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def test_without_the_package_nothing_is_there():
    assert plugins.versions() == {} and "half-mean" not in tm.perturb.registry.DIRECTIONS


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example, installed where only these tests see it."""
    folder = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path_factory.mktemp("source") / "plugin"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    subprocess.run([*pip, "--disable-pip-version-check", "--target", folder, source], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        forget()
        yield folder
    forget()
    for registry, name in (
        (tm.perturb.registry.DIRECTIONS, "half-mean"),
        (tm.models.readouts.OUTPUT_READOUTS, "surprise"),
    ):
        registry.pop(name, None)


def forget():
    plugins.find.cache_clear()
    plugins.load.cache_clear()


def test_its_direction_and_readout_are_measured_and_recorded(installed, tmp_path):
    sweep = tm.Sweep(
        site="resid_pre:1",
        directions=("half-mean", "mean"),
        readouts=("kl", "loss", "surprise"),
        path=tm.Straight(lengths=(0.5, 1.0), unit="target"),
        sequences=4,
        positions="3+2",
    )
    found = tm.run_sweep(sweep, tiny("gpt2"), token_set(), tmp_path / "run")
    np.testing.assert_allclose(found.surprise, found.loss - found.kl, atol=1e-6)
    assert not np.allclose(found.kl.sel(direction="half-mean"), found.kl.sel(direction="mean"))
    assert read_manifest(tmp_path / "run")["identity"]["versions"]["tiltmeter-example"] == "1.0"


def test_its_format_is_read(installed, tmp_path):
    decoder = torch.randn(20, WIDTH)
    np.save(tmp_path / "decoder.npy", decoder.numpy())
    np.save(tmp_path / "encoder.npy", decoder.T.contiguous().numpy())
    sae, x = tm.load_sae(str(tmp_path)), torch.randn(5, WIDTH)
    torch.testing.assert_close(sae.encode(x), (x @ decoder.T).relu())


def test_the_command_line_knows_its_names(installed, tmp_path):
    assert "half-mean" in command("list", "directions").out and "tiltmeter-example" in command("list", "readouts").out
    model, tokens = save_model(tmp_path / "model"), save_tokens(tmp_path / "tokens.npy")
    run = ("sweep", "--model", model, "--tokens", tokens, "--site", "resid_pre:1", "--lengths", "1", "--sequences", 4)
    done = command(*run, "--direction", "half-mean", "--readout", "surprise", "--out", tmp_path / "run")
    assert done.status == 0
    assert "did you mean half-mean?" in refusal(*run, "--direction", "halfmean")


class Point(metadata.EntryPoint):
    """An entry point of no package."""


@pytest.fixture
def given(monkeypatch):
    def give(*points):
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)
        forget()

    yield give
    monkeypatch.undo()
    forget()


def test_names_that_are_taken_and_packages_that_fail_are_refused(given):
    own = {"kl": 1}
    given(Point("kl", "math:pi", "g"))
    with pytest.raises(TiltmeterError, match="math:pi gives something the name 'kl', which tiltmeter has itself"):
        len(plugins.Registry("g", own))
    given(Point("a", "math:pi", "g"), Point("a", "math:tau", "g"))
    with pytest.raises(TiltmeterError, match="math:pi and math:tau both give something the name 'a'"):
        plugins.find("g")
    given(Point("a", "no_such_module:x", "g"))
    with pytest.raises(TiltmeterError, match="a of no_such_module:x could not be imported: ModuleNotFoundError"):
        plugins.load("g")
