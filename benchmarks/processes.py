"""The contenders' processes, asked one at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from tiltmeter.errors import TiltmeterError

NEEDED = 3.5 * 2**30
"""What a contender keeps of freed memory, at most, with its weights."""


def _memory() -> float:
    """Of this machine, bytes."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else math.inf


class WorkerPool:
    """Processes that stay, so that everyone is asked again and again in turn."""

    def __init__(self, names: list[str], size: str, device: str, scale: int = 1) -> None:
        self.size, self.device, self.scale = size, device, str(scale)
        # All contenders together need more than a small machine has; then everyone gives back what is free.
        self.crowded = device != "cpu" or NEEDED * len(names) > _memory()
        self.processes = {name: self._start(name) for name in names}

    def _start(self, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", name, self.size, self.device, self.scale]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, name: str, **question: Any) -> dict[str, Any]:
        """Let one do something, and wait for its answer.

        Raises:
            TiltmeterError: it has died.
        """
        process = self.processes[name]
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({**question, "give_back": self.crowded}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise TiltmeterError(
                f"{name} ended while it worked on {question['work']}; to see why: echo '{json.dumps(question)}' | "
                f"python -m benchmarks.worker '{name}' {self.size} {self.device} {self.scale}"
            )
        return json.loads(line)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()  # closes its pipes
