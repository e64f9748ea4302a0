"""`tiltmeter list`: show every name that options accept."""

from __future__ import annotations

import typer


def list_names() -> None:
    """List every name that options accept."""
    from tiltmeter.cli.catalogue import sections

    for title, rows in sections().items():
        typer.echo(title)
        for name, meaning in rows.items():
            typer.echo(f"  {name:34} {meaning}")
