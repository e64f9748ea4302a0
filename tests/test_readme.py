"""The README does what it says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for many, few in (("at_most=64", "at_most=16"), ("    sequences=16", "    sequences=4")):
        assert code.count(many) == 1
        code = code.replace(many, few)
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


def test_it_says_of_families_what_the_table_says():
    page = (ROOT / "docs" / "models.md").read_text()
    table = [line.split("|")[2:7] for line in page.partition("## Refused")[0].splitlines() if line.startswith("| ")][1:]
    cells = [{cell.strip() for cell in row} for row in table]
    right, float32 = sum(row == {"right"} for row in cells), sum(row == {"float32"} for row in cells)
    refused = page.count("| refused: ")
    words = " ".join(README.split())
    assert f"tiny random models of {len(table)} families" in words
    assert f"{right} are right at all five kinds of site in the default precision, {float32} in float32" in words
    assert f"and {len(table) - right - float32} at some of the sites" in words
    assert f"{refused} families are refused altogether" in words
    assert "WRONG" not in page and "TRACEBACK" not in page
