"""The table of claims as a frame, a file, LaTeX and text."""

import io

import pandas as pd
import pytest

from chart_cases import EVIL
from tiltmeter.reports.tables import claim_text, claims
from tiltmeter.reports.tables.claim_text import ClaimRow, Part

FIRST = ClaimRow(
    study="lee2024",
    name="difference-above-mixture",
    claim="Differences of real activations move the output more than mixtures do.",
    source="Figure 1a",
    verdict="supported in part",
    qualification="KL: as claimed at lengths 21 to 101, reversed at 1 (0.67 [0.6, 0.75] at 1).",
    effect="2.04",
    interval="[1.97, 2.11]",
    published="1.8",
    initialised="supported",
    shuffled="contradicted",
    shuffled_qualification="KL: not as claimed at lengths 1 to 101 (0.98 [0.9, 1.1] at 11).",
    shuffled_effect="0.99 [0.97, 1.10]",
    note="Also holds on: initialised. Does not hold on: shuffled.",
    deciding="[1.8, 2.3]",
    topic="Differences and mixtures",
    figures=("figure-1", "figure-L2-1"),
    parts=(
        Part("", "KL: real", "2.04 [1.97, 2.11]", "above 1.25", "as claimed", "[1.8, 2.3]", "24 sequences"),
        Part("shuffled, seed 1", "KL: real", ""),
    ),
)
SECOND = FIRST._replace(
    name=EVIL, claim=EVIL, verdict="not tested", effect="", interval="", initialised="", shuffled="", published=""
)
SECOND = SECOND._replace(qualification="", shuffled_qualification="")


def test_the_frame_has_a_row_per_claim_and_a_column_per_field():
    frame = claims.to_frame([FIRST, SECOND])
    assert list(frame.columns) == list(ClaimRow._fields)
    assert frame.iloc[0].tolist() == [*FIRST[:-2], "\n".join(FIRST.figures), "\n".join(map(str, FIRST.parts))]
    assert claims.to_frame([]).shape == (0, len(ClaimRow._fields))


def test_csv_comes_back():
    data = claims.to_csv([FIRST, SECOND])
    frame = pd.read_csv(io.BytesIO(data), keep_default_na=False, dtype=str)
    pd.testing.assert_frame_equal(frame, claims.to_frame([FIRST, SECOND]), check_dtype=False)


def test_latex_goes_on_over_pages():
    r"""A longtable, whose head is repeated, has a caption, and of which every row has as many cells as columns."""
    text = claims.to_latex([FIRST, SECOND] * 40, "Claims").decode()
    assert text.startswith(r"% needs \usepackage{booktabs,longtable}") and r"\begin{tabular}" not in text
    before, rows = text.split(r"\endfoot")
    assert before.count("claim & verdict") == 2 and r"\caption{Claims} \\" in before
    rows = rows.split(r"\end{longtable}")[0].strip().splitlines()
    assert len(rows) == 80
    assert {row.replace(r"\&", "").count(" & ") for row in rows} == {before.splitlines()[4].count(" & ")}


def test_latex_has_all_columns_and_escapes():
    text = claims.to_latex([FIRST, SECOND], "50 % of A & B").decode()
    assert r"\caption{50 \% of A \& B}" in text
    rows = [line for line in text.split(r"\endfoot")[1].splitlines() if line.endswith(r"\\")]
    assert rows[0] == (
        r"Differences of real activations move the output more than mixtures do. (Figure 1a) KL: as claimed at "
        r"lengths 21 to 101, reversed at 1 (0.67 {[}0.6, 0.75{]} at 1). On shuffled: KL: not as claimed at lengths "
        r"1 to 101 (0.98 {[}0.9, 1.1{]} at 11). & supported in part & "
        r"2.04 {[}1.97, 2.11{]} & 1.8 & supported & contradicted \\"
    )
    assert r"\textless{}/script\textgreater{}" in rows[1]


@pytest.mark.parametrize("width", [40, 60, 90, 100, 140, 200])
def test_text_fits_the_terminal_and_loses_nothing(width):
    rows = [FIRST, FIRST._replace(verdict="inconclusive", claim="A short one.")]
    text = claim_text.to_text(rows, width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for shown in ("supported in part", "inconclusive", "2.04 [1.97, 2.11]", "1.8", "contradicted", "A short one."):
        assert shown in words
    found = set(words.split())
    assert set(FIRST.claim.split()) <= found
    assert set(" ".join(FIRST.qualifications).split()) <= found


def test_text_leaves_out_columns_that_say_nothing():
    text = claim_text.to_text([SECOND], 120)
    assert "initialised" not in text and "shuffled" not in text
    assert "published" not in text
