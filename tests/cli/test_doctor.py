"""What `tiltmeter doctor` finds, and what it advises."""

import json
from importlib import metadata

import pytest

from sweep_cases import command
from tiltmeter.cli import doctor


def test_everything_that_is_installed_is_named():
    done = command("doctor", "--json")
    assert done.status == 0, done
    found = {one["what"]: one for one in map(json.loads, done.out.splitlines())}
    assert found["torch"]["found"] == metadata.version("torch") and not found["torch"]["advice"]
    assert found["device cpu"]["found"].endswith("cores")
    assert {"python", "C++ compiler", "extra gguf", "disk"} <= found.keys()
    assert "torch" in command("doctor").out


@pytest.mark.parametrize(
    ("requirement", "advice"),
    [
        ("numpy>=1.0", ""),
        ("numpy>=99.1", "is too old: pip install --upgrade 'numpy>=99.1'"),
        ("no-such-package>=1", "is missing: pip install 'no-such-package>=1'"),
    ],
)
def test_packages(requirement, advice):
    assert advice in doctor._package(requirement).advice
    assert bool(advice) == bool(doctor._package(requirement).advice)


def test_versions_are_compared_as_numbers():
    assert doctor._numbers("2.13.0+cpu") > doctor._numbers("2.9")
    assert doctor._numbers("2.9") == (2, 9)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert "install g++" in doctor._compiler().advice
    advice = {one.what: one.advice for one in doctor._extras()}
    assert "pip install 'tiltmeter[gguf]'" in advice["extra gguf"]
