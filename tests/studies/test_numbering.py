"""Figures of Lee & Heimersheim 2024 are named by both of their numbers."""

import re
from pathlib import Path

import pytest

from sweep_cases import command
from tiltmeter.studies.lee2024 import STUDY
from tiltmeter.studies.lee2024.numbering import ON_ARXIV, figure

SECTIONS = {"3.1": {"1a", "1b"}, "3.2": {"2", "6"}, "4.1": {"3a", "3b"}, "4.2": {"4", "5"}}
"""In which section of arXiv 2410.12555 each of its figures is discussed."""

ARXIV = re.compile(r"LessWrong, (\d[ab]?(?: and \d[ab]?)*) on arXiv")


def test_a_figure_of_both_versions_has_both_numbers():
    assert figure("5") == "Figure 5 on LessWrong, 3a on arXiv"
    assert figure("1", "2") == "Figures 1 and 2 on LessWrong, 1a and 1b on arXiv"
    assert figure("L2-5", "L2-6") == "L2 Figures 5 and 6 on LessWrong"
    assert figure("S3") == "Supplementary Figure 3 on LessWrong"


def test_every_figure_of_arxiv_is_one_of_lesswrong():
    assert sorted(ON_ARXIV.values()) == sorted(set().union(*SECTIONS.values()))


@pytest.mark.parametrize("number", sorted(STUDY.figures.keys() - {"larger", "shapes", "constant-norm"}))
def test_titles_have_the_numbers_of_their_own_figure(number):
    assert f", {figure(number)}: " in STUDY.figures[number].title


def test_claims_cite_figures_of_the_section_that_they_cite():
    cited = 0
    for claim in STUDY.claims:
        if section := re.search(r"section (\d\.\d).*?; ", claim.source):
            (numbers,) = ARXIV.findall(claim.source)
            assert set(numbers.split(" and ")) <= SECTIONS[section[1]], claim.source
            cited += 1
    assert cited > 20


def test_no_number_is_left_without_its_version():
    words = [claim.source for claim in STUDY.claims]
    words += [part for one in STUDY.figures.values() for part in (one.title, one.caption, one.claimed)]
    for text in words:
        assert len(re.findall("Figure", text)) == len(re.findall(r"Figures? [^.:;]*? on (?:LessWrong|arXiv)", text)), (
            text
        )


def test_a_list_of_figures_shows_both():
    shown = command("list", "figures", "lee2024").out
    assert "Figure 5 on LessWrong, 3a on arXiv" in shown and "Figure 7 on arXiv" in shown


def test_the_documentation_has_the_same_numbers(docs_table):
    assert docs_table == ON_ARXIV | {"larger": "7"}


@pytest.fixture
def docs_table():
    """`--figure` and the number on arXiv, in docs/studies.md."""
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text("utf-8")
    ours, arxiv = (
        [cell.strip(" `") for cell in re.search(rf"^\| {start}(.*)\|$", text, re.M)[1].strip("|").split("|")][1:]
        for start in ("LessWrong", "arXiv 2410.12555")
    )
    return {one: other for one, other in zip(ours, arxiv, strict=True) if other != "–"}
