"""The claims table: each claim of a paper, the run's verdict, and the verdicts on its controls."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tiltmeter.reports.tables import latex
from tiltmeter.reports.tables.claim_text import HEADS, ClaimRow


def to_frame(rows: Sequence[ClaimRow]) -> pd.DataFrame:
    """Return one row per claim and one column per field. Figures and parts of a test share a cell, one per line."""
    cells = [row._replace(parts=(), figures=()) for row in rows]
    frame = pd.DataFrame(cells, columns=list(ClaimRow._fields), dtype=object)
    listed = {name: ["\n".join(map(str, getattr(row, name))) for row in rows] for name in ("figures", "parts")}
    return frame.assign(**listed)


def to_csv(rows: Sequence[ClaimRow]) -> bytes:
    """Write the frame as CSV in UTF-8."""
    return to_frame(rows).to_csv(index=False, lineterminator="\n").encode()


def to_latex(rows: Sequence[ClaimRow], title: str) -> bytes:
    """Write a table of claims with their sources, verdicts and numbers, which may be longer than a page."""
    cells = {head: [getattr(row, name) for row in rows] for name, head in HEADS.items()}
    index = pd.Index([" ".join([_sourced(row), *row.qualifications]) for row in rows], name="claim")
    columns = r"p{0.4\textwidth}lp{0.16\textwidth}lll"
    return latex.document([latex.long_table(title, pd.DataFrame(cells, index), columns)], "booktabs,longtable")


def _sourced(row: ClaimRow) -> str:
    return f"{row.claim} ({row.source})" if row.source else row.claim
