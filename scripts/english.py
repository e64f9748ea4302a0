"""English prose that every Python has: the topics of its help system, and the docstrings of its standard library.

python scripts/english.py english.txt

About 1.6 million letters, 400,000 tokens. The topics come first, so that short measurements read prose alone.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

from tiltmeter.data.stdlib import TEST_FOLDERS, library_root

SHORTEST = 200
"""Letters below which a docstring is left out: a line alone is hardly prose."""


def paragraphs() -> Iterator[str]:
    """The topics, then every docstring once."""
    yield from (topics.topics[name] for name in sorted(topics.topics))
    seen = set()
    for file in sorted(library_root().rglob("*.py")):
        if not TEST_FOLDERS & set(file.parts) and "site-packages" not in file.parts:
            for text in docstrings(file):
                if len(text) >= SHORTEST and text not in seen:
                    seen.add(text)
                    yield text


def docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and its functions; none if it does not parse."""
    try:
        with tokenize.open(file) as source:
            tree = ast.parse(source.read())
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def write(file: Path) -> Path:
    """Write the text."""
    file.write_text("\n\n".join(paragraphs()), encoding="utf-8")
    return file


if __name__ == "__main__":
    write(Path(sys.argv[1]))
