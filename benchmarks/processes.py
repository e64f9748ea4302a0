"""A pool of worker processes, one per contender, of which one at a time does work."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from tiltmeter.errors import TiltmeterError

MEMORY_PER_WORKER = 3.5 * 2**30
"""Bytes that a worker holds at most between requests: its weights, and freed memory that its allocator keeps."""


def _total_memory() -> float:
    """Physical memory of this machine, bytes; infinity if the system does not say."""
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else math.inf


class WorkerPool:
    """Worker processes (`benchmarks.worker`) that stay alive from repetition to repetition."""

    def __init__(self, names: list[str], size: str, device: str, scale: int = 1) -> None:
        self.size, self.device, self.scale = size, device, str(scale)
        # On a GPU, or if the workers together could exceed the memory, each returns freed memory after each request.
        self.crowded = device != "cpu" or MEMORY_PER_WORKER * len(names) > _total_memory()
        self.processes = {name: self._start(name) for name in names}

    def _start(self, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", name, self.size, self.device, self.scale]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, name: str, **question: Any) -> dict[str, Any]:
        """Send a request to one worker, and wait for its answer.

        Raises:
            TiltmeterError: the worker has ended.
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
            process.communicate()  # also closes its pipes
