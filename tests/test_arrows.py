"""Imports between rooms go one way: pyproject.toml says which, import-linter checks it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tiltmeter.studies import STUDIES

ROOT = Path(__file__).parents[1]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint(root):
    """Exit status and output of `lint-imports` on the sources in `root`."""
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", LINT], cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def sources_alone(folder, names):
    return [name for name in names if not (Path(folder) / name).is_dir() and not name.endswith(".py")]


@pytest.fixture
def copy(tmp_path):
    """A copy of the sources and of the contracts, to damage."""
    for name in ("src/tiltmeter", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=sources_alone)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_the_contracts(copy):
    status, text = lint(copy)
    assert status == 0, text
    assert " 0 broken" in text


@pytest.mark.parametrize(
    ("file", "imported", "contract"),
    [
        ("runs/hashes.py", "tiltmeter.models.sites", "A room imports only rooms below it"),
        ("data/hub.py", "tiltmeter.analysis.curves", "A room imports only rooms below it"),
        ("saes/sae.py", "tiltmeter", "A room imports only rooms below it"),  # by way of the public names
        ("attic/__init__.py", "json", "A room imports only rooms below it"),  # a room without a place
        ("studies/lee2024/plots.py", "tiltmeter.studies.gurnee2024", "A study knows no other study"),
        ("studies/comparisons.py", "tiltmeter.studies.lee2024.estimands", "What studies share knows no paper"),
        ("reports/page.py", "benchmarks.tables", "The package does not know its benchmarks"),
    ],
)
def test_an_import_that_breaks_a_contract_is_seen(copy, file, imported, contract):
    path = copy / "src/tiltmeter" / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as source:
        source.write(f"\n\ndef late() -> None:\n    import {imported}\n")  # imports inside functions count, too
    status, text = lint(copy)
    assert status == 1, text
    assert f"{contract} BROKEN" in text


def test_the_contracts_name_every_study():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    by_id = {contract.get("id"): contract for contract in contracts}
    papers = {f"tiltmeter.studies.{name}" for name in STUDIES}
    assert set(by_id["shared-studies"]["forbidden_modules"]) == papers
    (independence,) = (contract for contract in contracts if contract["type"] == "independence")
    assert set(independence["modules"]) == papers
