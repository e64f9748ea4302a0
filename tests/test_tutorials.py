"""The code of the tutorials runs, on less data, and their notebooks hold what it printed and drew."""

import importlib
import json
import logging
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import tiltmeter as tm
from unrendered import overlapping, unrendered  # noqa: F401

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
TEXT = {'"nano", at_most=256': "[SOURCE], 12, 16"}
LESS = {
    "your-vector": TEXT
    | {
        "sequences=32, budgets=(0.1,)": 'sequences=3, budgets=(), draws=9, baselines=("isotropic",)',
        "sequences=32,\n": "sequences=3,\n",
    },
    "your-sae": TEXT | {"sequences=16": "sequences=3", '"sequences": 4': '"sequences": 1'},
    "reproduce-a-paper": {'control="none"': 'control="none", model="nano", tokens=TOKENS, length=16'},
}
SOURCE = Path(json.__file__).with_name("decoder.py").read_text("utf-8")


def cells_of(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(name, **given):
    """Run a notebook's code in one process, reduced; return its names."""
    code = "\n".join("".join(cell["source"]) for cell in cells_of(name))
    for many, few in LESS[name].items():
        assert code.count(many) == 1, many
        code = code.replace(many, few)
    names = {"SOURCE": SOURCE, **given}
    exec(compile(code, name, "exec"), names)
    return names


def test_every_tutorial_is_run_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(LESS)


@pytest.mark.parametrize("name", LESS)
def test_outputs_are_stored_in_order_and_none_is_an_error(name):
    cells = cells_of(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("name", LESS)
def test_links_lead_to_headings(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for path, _, heading in (link.partition("#") for link in links):
        headings = re.findall(r"^#+ (.*)$", (FOLDER / path).read_text("utf-8"), re.MULTILINE)
        assert not heading or heading in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


def test_your_vector():
    names = run("your-vector")
    assert names["vector"].shape == (128,)
    assert {verdict.vector for verdict in names["found"].verdicts} == {"self", "minus-self"}
    assert (names["curves"].kl.sel(step=0) == 0).all()


def test_your_sae(caplog):
    with caplog.at_level(logging.WARNING):
        names = run("your-sae")
    at = [record.getMessage() for record in caplog.records if "blocks.3.hook_resid_pre" in record.getMessage()]
    assert len(at) == 1  # of the SAE at the wrong layer, and not at its own
    assert names["curves"].kl.sel(direction="sae-error:mine", step=20).mean() > 0.5


def test_reproduce_a_paper(monkeypatch, tmp_path):
    display = SimpleNamespace(Image=lambda path, width: Path(path).read_bytes())
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # a notebook has it
    monkeypatch.setattr(tempfile, "mkdtemp", lambda: str(tmp_path))
    experiments = importlib.import_module("tiltmeter.studies.lee2024.experiments")
    monkeypatch.setitem(experiments.SCALES, "quick", experiments.Scale(2, 2, 2, 2, 1, 8))
    names = run("reproduce-a-paper", TOKENS=tm.load_model("nano").load_tokens([SOURCE], 12, 16).ids)
    assert set(names["claims"].verdict) >= {"not tested"}
    assert names["found"].page.is_file()
