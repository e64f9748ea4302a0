"""The README does what it says."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiltmeter.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["curves"].kl.dims == ("direction", "step", "sequence")
    assert (names["curves"].kl.sel(step=0) < 1e-9).all()
    assert "real-mixture" in capsys.readouterr().out
    assert (tmp_path / "runs" / "example" / "manifest.json").is_file()


def options_of(command):
    usage = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    return set(re.findall(r"--[a-z][a-z-]*", usage))


@pytest.mark.parametrize("command", ["reproduce", "sweep", "crossings"])
def test_the_options_it_shows_exist(command):
    shown = re.findall(rf"tiltmeter {command} (.*?)\n(?!    )", README.replace("\\\n", ""), flags=re.DOTALL)
    asked = {word for line in shown for word in shlex.split(line) if word.startswith("--")}
    assert asked and asked <= options_of(command)


def test_the_files_it_links_to_exist():
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert len(linked) >= 5
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_its_make_targets_exist():
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert set(targets) >= {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)
