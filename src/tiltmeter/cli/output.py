"""How much a command prints, and in which form."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs import extras

AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON lines on stdout: the run, then the rows of its table, as tiltmeter show RUN --json does.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Results go to stdout; progress, remarks and warnings to stderr."""

    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only: no progress, no warnings.")
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print with each message when it was said, and how long steps took.")
    ] = False
    as_json: AsJson = False

    def begin(self) -> None:
        """Set up messages, before anything is loaded.

        Raises:
            TiltmeterError: both `--quiet` and `--verbose` were given.
        """
        if self.quiet and self.verbose:
            raise TiltmeterError("Both --quiet and --verbose were given; choose one.")
        log = logging.getLogger("tiltmeter")
        log.setLevel(logging.ERROR if self.quiet else logging.INFO if self.verbose else logging.NOTSET)
        if self.quiet:
            os.environ["TQDM_DISABLE"] = "1"  # transformers' own progress
        if self.verbose:
            logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)

    def say(self, text: str) -> None:
        """Print a remark to stderr."""
        if self.verbose:
            logging.getLogger("tiltmeter.cli").info("%s (%.1f s since the start)", text, time.perf_counter() - STARTED)
        elif not self.quiet:
            typer.echo(text, err=True)

    def give(self, folder: Path, text: Callable[[], str]) -> None:
        """Print the results of a finished run: as JSON lines, or as this text."""
        from tiltmeter.cli.show import json_lines_of

        typer.echo(json_lines_of(folder) if self.as_json else text())


def publish_if_possible(out: Path) -> str:
    """Draw the figures and the report of a finished run, unless matplotlib is missing, and say where they are."""
    if not extras.is_installed("matplotlib"):
        return "figures and report: none, as matplotlib is not installed: pip install 'tiltmeter[report]'"
    from tiltmeter.reports.sweep import publish

    page = publish(out)
    return f"figures: {out / 'figures'}\nreport:  {page}"


STARTED = time.perf_counter()
"""When the command began."""
