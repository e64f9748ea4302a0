"""The README does what it says."""

import re
from pathlib import Path

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


def test_its_make_targets_exist():
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert set(targets) >= {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)


def test_its_extras_exist():
    extras = re.findall(r"pip install '\.\[([\w-]+)\]'", README)
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert extras
    assert all(f"\n{extra} = [" in pyproject for extra in extras)
