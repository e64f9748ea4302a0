"""Importing tiltmeter is quick, and asking the command line for help too."""

import ast
import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiltmeter
from tiltmeter.studies import STUDIES

LIMIT = 0.5
"""Seconds."""

IMPORT = """
import json, sys, time
began = time.process_time()
import tiltmeter
print(json.dumps([time.process_time() - began, sorted(sys.modules)]))
"""

COMMAND = """
import json, sys
from tiltmeter.cli.main import main
try:
    main()
except SystemExit as end:
    status = end.code
print()
print(json.dumps([status or 0, sorted(sys.modules)]))
"""

REFUSED = """
import json, sys, time
from tiltmeter.cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules), time.process_time()]))
"""

HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "xarray", "matplotlib", "pyarrow", "jinja2"}


def fresh(code, *arguments):
    """What a fresh interpreter printed last, and which heavy packages it imported."""
    environment = os.environ | {"COLUMNS": "200"}  # so that no word is broken
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    value, modules = json.loads(done.stdout.splitlines()[-1])
    return value, HEAVY & set(modules), done.stdout


def test_import_is_quick_and_light():
    seconds, heavy, _ = fresh(IMPORT)
    assert seconds < LIMIT
    assert not heavy


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("reproduce", "sweep", "crossings", "train-sae", "report"))],
)
def test_help_is_light_and_worth_reading(arguments):
    status, heavy, text = fresh(COMMAND, *arguments)
    assert status == 0
    assert not heavy
    words = {
        "--help": ["reproduce", "claims", "sweep", "list", "report"],
        "reproduce": [
            "--figure",
            "--model",
            "--layer",
            "--tokens",
            "--quick",
            "--preset",
            "--control",
            "--out",
            "resumes",
            *STUDIES,
        ],
        "crossings": ["--threshold", "--site", "--angles"],
        "train-sae": ["--kind", "--sparsity", "--n-tokens"],
        "sweep": ["--site", "--direction", "--lengths", "--angles", "--readout", "--positions", "along:FILE"],
        "report": ["Run directory", "again"],
    }[arguments[0]]
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--direction=along:{folder}/steer.npy", "have width 128; give vectors of that width"),
        (
            "--direction=sae-error --sae={folder}/model.safetensors",
            "is not an SAE of a known format: it has lm_head.weight",
        ),
    ],
)
def test_wrong_input_is_refused_before_torch_is_imported(tmp_path, option, message):
    np.save(tmp_path / "steer.npy", np.ones(64))
    save_file({"lm_head.weight": np.ones((3, 4))}, tmp_path / "model.safetensors")
    given = ["sweep", "--site", "resid_pre:3", "--lengths", "0,1", *option.format(folder=tmp_path).split()]
    done = subprocess.run([sys.executable, "-c", REFUSED, *given], capture_output=True, text=True, check=True)
    status, modules, seconds = json.loads(done.stdout.splitlines()[-1])
    assert status == 2 and message in done.stderr
    assert not (HEAVY - {"numpy"}) & set(modules)
    assert seconds < 2 * LIMIT


def test_what_help_checks_can_fail():
    _, heavy, _ = fresh("import json, sys, tiltmeter; tiltmeter.load_tokens; print(json.dumps([0, list(sys.modules)]))")
    assert "torch" in heavy


@pytest.mark.parametrize("name", tiltmeter.__all__)
def test_every_public_name_is_there(name):
    value = getattr(tiltmeter, name)
    home, _, attribute = tiltmeter._HOMES[name].partition(":")
    assert value is getattr(importlib.import_module(f"tiltmeter.{home}"), attribute or name)


def test_public_names_are_offered_for_completion():
    assert set(tiltmeter.__all__) <= set(dir(tiltmeter))


def test_a_name_that_is_not_there_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'load_modle'"):
        tiltmeter.load_modle  # noqa: B018


def test_the_names_are_the_same_for_type_checkers_at_run_time_and_for_stars():
    tree = ast.parse(Path(tiltmeter.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    checked = {
        alias.asname or alias.name: node.module.removeprefix("tiltmeter.") + (f":{alias.name}" if alias.asname else "")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == tiltmeter._HOMES
    assert sorted(tiltmeter.__all__) == sorted(tiltmeter._HOMES)


def test_tqdms_complaint_of_a_notebook_without_widgets_is_not_shown(monkeypatch):
    def importing(name):
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", UserWarning, stacklevel=2)
        return SimpleNamespace(Sweep=name)

    monkeypatch.setattr(importlib, "import_module", importing)
    assert tiltmeter.__getattr__("Sweep") == "tiltmeter.sweeps.plan"  # warnings are errors in tests
