"""Tables for papers: LaTeX with booktabs, every text escaped."""

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
    """Text that LaTeX prints as it is. Letters of other scripts stay; they need a font that has them."""
    plain = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text)
    # A bracket at the beginning of a row would be the argument of the line break before it.
    return "".join(_COMMANDS.get(letter, letter) for letter in plain).replace("[", "{[}").replace("]", "{]}")


def table(caption: str, cells: pd.DataFrame, columns: str = "") -> str:
    r"""A `table` environment: the index of `cells` is the first column, its name the corner.

    Args:
        caption: above the table, escaped here like all cells.
        cells: text.
        columns: LaTeX's column types; by default the first to the left, the others to the right.
    """
    columns = columns or "l" + "r" * cells.shape[1]
    lines = [_row([str(cells.index.name or ""), *map(str, cells.columns)]), r"\midrule"]
    lines += [_row([str(name), *map(str, row)]) for name, row in zip(cells.index, cells.to_numpy(), strict=True)]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join([*head, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def document(tables: Sequence[str]) -> bytes:
    r"""Tables to be taken in with `\input`."""
    return "\n".join(["% needs \\usepackage{booktabs}", *tables]).encode()


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
