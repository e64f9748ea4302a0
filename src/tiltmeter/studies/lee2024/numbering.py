"""Where a figure is in the two versions of Lee & Heimersheim 2024, which number their figures differently.

`--figure` and the names of files have the numbers of LessWrong, the only version with all figures but one.
"""

from __future__ import annotations

ON_ARXIV = {"1": "1a", "2": "1b", "3": "2", "4": "6", "5": "3a", "6": "3b", "7": "4", "8": "5"}
"""By its number on LessWrong, the number of a figure in arXiv 2410.12555."""

ON_ARXIV_ALONE = "Figure 7 on arXiv"
"""The one figure that LessWrong has not."""

_SERIES = {"L2-": "L2 ", "S": "Supplementary "}
"""What LessWrong writes before the number, by the prefix here."""


def figure(*numbers: str) -> str:
    """Where figures are: 'Figure 5 on LessWrong, 3a on arXiv'; 'L2 Figures 5 and 6 on LessWrong'.

    `numbers` are those of `--figure`, of one series.
    """
    series = next((prefix for prefix in _SERIES if numbers[0].startswith(prefix)), "")
    on_forum = " and ".join(number.removeprefix(series) for number in numbers)
    words = f"{_SERIES.get(series, '')}Figure{'s' if len(numbers) > 1 else ''} {on_forum} on LessWrong"
    return words if series else f"{words}, {' and '.join(ON_ARXIV[number] for number in numbers)} on arXiv"
