"""A hook of mkdocs: files outside docs/ become pages of the site, and links between all pages are made to fit.

Every page stays readable where it lies in the repository: its links lead to files. On the site, a link to one of the
files in `PAGES` leads to its page.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "src/tiltmeter/models/nano/README.md": "nano.md",
    "src/tiltmeter/models/nano/saes/README.md": "nano-saes.md",
}
"""Files of the repository, and their places on the site. That of the README has text of its own."""

LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ as pages."""
    root = posixpath.dirname(config.config_file_path)
    for source, page in PAGES.items():
        if not files.get_file_from_path(page):
            files.append(File.generated(config, page, abs_src_path=posixpath.join(root, source)))
    return files


def on_post_build(config: Any) -> None:
    """Write the index of the search as a script, too: a page that is opened from the disk can read no other file."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text("utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", "utf-8")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make the links of a page relative to the site."""
    at = page.file.src_uri
    source = next((source for source, place in PAGES.items() if place == at and at != "index.md"), f"docs/{at}")
    return LINK.sub(lambda found: found[1] + site_link(found[2], source, at), markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Make the links of a notebook lead to pages, as mkdocs does for those of Markdown."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'(href="(?!https?:)[^"#:]+)\.(?:md|ipynb)(?=["#])', r"\1.html", html)


def site_link(link: str, source: str, at: str) -> str:
    """Where a link from the file `source` leads on the site, as seen from the page `at`."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    page = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    return link if page is None else posixpath.relpath(page, posixpath.dirname(at) or ".")
