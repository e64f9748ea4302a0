"""LaTeX tables with booktabs, with all text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "‖": r"$\Vert$",
    "ε": r"$\varepsilon$",
    "θ": r"$\theta$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
    "÷": r"$\div$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "²": r"$^2$",
    "°": r"$^\circ$",
    "…": r"\ldots{}",
}


def escape(text: str) -> str:
    """Escape text so that LaTeX prints it literally. Non-Latin letters are kept, and need a font that has them."""
    plain = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text)
    # A bracket at the start of a row would be read as the optional argument of the preceding line break.
    return "".join(_COMMANDS.get(letter, letter) for letter in plain).replace("[", "{[}").replace("]", "{]}")


def table(caption: str, cells: pd.DataFrame, columns: str = "") -> str:
    r"""Write a `table` environment. The index of `cells` is the first column, and its name the corner.

    Args:
        caption: text above the table, escaped here like all cells.
        cells: the text of each cell.
        columns: LaTeX column types. By default the first is left-aligned and the others right-aligned.
    """
    columns = columns or "l" + "r" * cells.shape[1]
    lines = [_head(cells), r"\midrule", *_body(cells)]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join([*head, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def long_table(caption: str, cells: pd.DataFrame, columns: str) -> str:
    r"""Write a `longtable` environment, which goes on over pages and repeats its head. The rest is as in `table`."""
    head = [r"\toprule", _head(cells), r"\midrule"]
    begin = [rf"\begin{{longtable}}{{{columns}}}", rf"\caption{{{escape(caption)}}} \\"]
    lines = [*begin, *head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot", *_body(cells)]
    return "\n".join([*lines, r"\end{longtable}", ""])


def document(tables: Sequence[str], packages: str = "booktabs") -> bytes:
    r"""Join tables into a file to include with `\input`; its first line says what packages it needs."""
    return "\n".join([f"% needs \\usepackage{{{packages}}}", *tables]).encode()


def _head(cells: pd.DataFrame) -> str:
    return _row([str(cells.index.name or ""), *map(str, cells.columns)])


def _body(cells: pd.DataFrame) -> list[str]:
    return [_row([str(name), *map(str, row)]) for name, row in zip(cells.index, cells.to_numpy(), strict=True)]


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
