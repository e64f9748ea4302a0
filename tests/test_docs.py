"""What README, CONTRIBUTING and docs/ name exists: links, files, modules, functions, commands and options."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiltmeter
from tiltmeter.cli.main import app
from tiltmeter.models.model_files import EMBEDDED
from tiltmeter.runs.plugins import GROUPS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CARDS = sorted((ROOT / "src").rglob("README.md"))
FILES = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for folder in ("src", "tests", "scripts", "benchmarks")
    for path in (ROOT / folder).rglob("*")
]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def named(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    """The page's code blocks of a language; `""` are those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [code for given, code in found if given == language]


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def exists(dotted):
    """Whether a dotted name is a module of the package, or something in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=named)
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text())
    for link in links:
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=named)
def test_files_that_are_named_exist(page):
    for path in re.findall(r"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.py)\b", page.read_text()):
        assert any(file.endswith(f"/{path}") for file in FILES), path


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=named)
def test_dotted_names_exist(page):
    for name in re.findall(r"\btiltmeter(?:\.[A-Za-z_]\w*)+", page.read_text()):
        assert name in GROUPS or exists(name), name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_imports_and_public_names_exist(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("tiltmeter"):
                assert all(exists(f"{node.module}.{alias.name}") for alias in node.names), node.module
    for name in re.findall(r"\btm\.(\w+)", page.read_text()):
        assert hasattr(tiltmeter, name), name


def options_of(command):
    usage = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    return set(re.findall(r"--[a-z][a-z-]*", usage))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_have_the_options_they_are_shown_with(page):
    lines = [line for code in blocks(page, "") for line in code.replace("\\\n", "").splitlines()]
    lines += re.findall(r"`(tiltmeter [a-z][^`]*)`", page.read_text())
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["tiltmeter"]:
            options = {word for word in words[2:] if word.startswith("--")}
            assert options <= options_of(words[1]), line


def test_each_step_of_the_walk_is_a_function_of_the_file_beside_it():
    rows = re.findall(r"^\|.*\| `([\w.]+)` \| `([\w/]+)\.py` \|$", ARCHITECTURE.read_text(), flags=re.MULTILINE)
    assert len(rows) >= 10
    for name, path in rows:
        assert exists(f"tiltmeter.{path.replace('/', '.')}.{name}"), f"{path}: {name}"


def test_the_example_of_models_and_tokens_in_memory_runs(capsys):
    (code,) = blocks(ROOT / "docs" / "data.md", "python")
    names = {}
    exec(compile(code.replace("path/to/model", str(EMBEDDED["nano"])), "data.md", "exec"), names)
    assert names["tokens"].ids.shape == (2, 3) and names["curves"].sizes["sequence"] == 2
    assert "real-mixture" in capsys.readouterr().out


def test_plain_hooks_on_the_page_of_other_tools_give_what_tiltmeter_does():
    setup, ours, hooks = blocks(ROOT / "docs" / "from-other-tools.md", "python")[:3]
    code = setup.replace('"nano", at_most=8', "[SOURCE], 2, 16") + ours.replace("sequences=8", "sequences=2") + hooks
    names = {"SOURCE": Path(ast.__file__).read_text("utf-8")}
    exec(compile(code, "from-other-tools.md", "exec"), names)
    mine = names["curves"].kl.sel(direction="mine").mean("sequence").values
    assert mine[-1] > 0.5
    assert mine == pytest.approx(names["kls"], rel=1e-3)


def test_a_name_that_does_not_exist_is_noticed():
    assert not exists("tiltmeter.models.no_such_module")
    assert not exists("tiltmeter.models.split_model.SplitModel.no_such_method")
