"""A run that stores nothing: what would be written is weighed and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tiltmeter.runs.run_directory import Run, to_safetensors


@dataclass(frozen=True)
class WeighedRun(Run):
    """Takes what is written to a run, and keeps the sizes of its files."""

    path: Path = Path()
    sizes: dict[str, int] = field(default_factory=dict)
    """The size of each file in bytes, by the name under which it would be stored."""

    def load(self, name: str) -> None:
        """Nothing is stored."""

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Weigh arrays.

        Raises:
            TiltmeterError: an array's type is not allowed.
        """
        self.sizes[name] = len(to_safetensors(name, arrays))

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Weigh a file."""
        self.sizes[name] = len(data)
        return self.path / name
