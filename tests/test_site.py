"""The documentation site: it builds, every public name has its place in it, and it needs no other host."""

import importlib.util
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiltmeter

ROOT = Path(__file__).parents[1]
API = sorted((ROOT / "docs" / "api").glob("*.md"))

needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter")),
    reason="the site is built where the extra docs is installed",
)


def test_every_public_name_is_on_one_page_of_the_reference():
    shown = [name for page in API for name in re.findall(r"^::: tiltmeter\.(\w+)$", page.read_text(), re.MULTILINE)]
    assert sorted(shown) == sorted(tiltmeter.__all__)


def test_the_index_of_the_reference_names_what_each_page_shows():
    rows = re.findall(r"^\| \[[^]]+\]\((\w+\.md)\) \|(.*)\|$", (ROOT / "docs/api/index.md").read_text(), re.MULTILINE)
    named = {page: set(re.findall(r"`(\w+)`", words)) for page, words in rows}
    for page in API:
        if page.name != "index.md":
            shown = set(re.findall(r"^::: tiltmeter\.(\w+)$", page.read_text(), re.MULTILINE))
            assert shown - {"run_crossings", "CrossingTarget"} == named[page.name] & set(tiltmeter.__all__), page.name


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"^ +- (?:\w+: )?([\w/-]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {
        str(path.relative_to(ROOT / "docs")) for end in ("md", "ipynb") for path in (ROOT / "docs").rglob(f"*.{end}")
    }
    assert len(set(listed)) == len(listed)
    assert pages <= set(listed)


@needs_mkdocs
def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        if page.name == "404.html":  # its links begin at the root of the host
            continue
        html = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]*)"|<link[^>]* href="([^"]*)"', html)
        links = [link for pair in loaded for link in pair if link] + re.findall(r'<a [^>]*href="([^"#:]+)["#]', html)
        for link in links:
            if not link.startswith("data:"):
                assert "//" not in link, f"{page.name}: {link}"
                target = posixpath.normpath(posixpath.join(page.parent.as_posix(), link.partition("#")[0]))
                assert Path(target).exists(), f"{page.name}: {link}"
