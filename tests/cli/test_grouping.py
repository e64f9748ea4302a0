"""Groups of options: Typer sees single options, the command sees the groups."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from tiltmeter.cli.grouping import takes_groups


@dataclass(frozen=True, kw_only=True)
class Place:
    city: Annotated[str, typer.Option(help="Where it is.")]
    floor: Annotated[int, typer.Option("--storey")] = 0


@dataclass(frozen=True, kw_only=True)
class Tower(Place):
    floor: Annotated[int, typer.Option(help="How high.")] = 12


def invoke(command, *arguments):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(takes_groups(command))
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def command(seen):
    def command(*, who: Annotated[str, typer.Argument()], place: Place, loud: bool = False):
        """Say where someone is."""
        seen.append((who, place, loud))

    return command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["Ada", "--city", "Turin"], ("Ada", Place(city="Turin"), False)),
        (["Ada", "--storey", "3", "--loud", "--city", "Turin"], ("Ada", Place(city="Turin", floor=3), True)),
    ],
)
def test_a_command_receives_its_groups(command, seen, arguments, expected):
    assert invoke(command, *arguments).exit_code == 0
    assert seen == [expected]


def test_help_shows_every_option_with_its_default(command):
    text = invoke(command, "--help").output
    shown = (
        "Say where someone is.",
        "WHO",
        "--city",
        "Where it is.",
        "[required]",
        "--storey",
        "[default: 0]",
        "--loud",
    )
    assert [word for word in shown if word.lower() not in text.lower()] == []
    assert "place" not in text.lower().replace("where", "")


@pytest.mark.parametrize("arguments", [["Ada"], ["Ada", "--city", "Turin", "--storey", "high"]])
def test_wrong_options_are_refused_before_the_command_runs(command, seen, arguments):
    assert invoke(command, *arguments).exit_code == 2
    assert seen == []


def test_a_group_may_replace_an_option_of_its_parent(seen):
    def command(tower: Tower):
        seen.append(tower)

    text = invoke(command, "--help").output
    assert "How high." in text and "--storey" not in text
    assert invoke(command, "--city", "Turin").exit_code == 0
    assert seen == [Tower(city="Turin", floor=12)]
