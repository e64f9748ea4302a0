"""The process of one contender, which reads requests and writes answers, one line of JSON each.

One process per contender, so that the peak memory of each can be measured.

    python -m benchmarks.worker NAME SIZE DEVICE SCALE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from benchmarks.contenders import CONTENDERS, Results, float64_oracle
from benchmarks.workloads import Workload, make_workloads, random_gpt2
from tiltmeter.runs.malloc import give_back_freed_memory, keep_freed_memory

MIB = 2**20
ORACLE = "float64"


def main() -> None:
    """Build the contender; for each request run a workload, and answer with its seconds and its peak memory."""
    name, size, device, scale = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print to stdout, which would mix with the answers
    keep_freed_memory()  # for every contender alike, so that the allocator does not favour one
    run = (float64_oracle if name == ORACLE else CONTENDERS[name].build)(random_gpt2(size).to(device))
    works = {key: work.to(device) for key, work in make_workloads(size, scale=int(scale)).items()}
    needed: dict[str, float] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        _warm(needed.get(asked["work"], 0.0), torch.device(device))
        answer = _timed(run, works[asked["work"]], torch.device(device), asked.get("save"))
        needed[asked["work"]] = answer["peak_mib"]
        if asked.get("give_back"):
            give_back_freed_memory()
            torch.cuda.empty_cache()
        print(json.dumps(answer), file=answers, flush=True)


def _warm(mib: float, device: torch.device) -> None:
    """Allocate as much memory as the work needed before: a long run, which the timing represents, has it already."""
    spare = mib - (_resident() if device.type == "cpu" else torch.cuda.memory_allocated() / MIB)
    if spare > 0:
        torch.empty(int(spare * MIB), dtype=torch.uint8, device=device).fill_(1)


def _timed(run: Any, work: Workload, device: torch.device, save: str | None) -> dict[str, float]:
    _forget_peak(device)
    begin = time.perf_counter()
    found: Results = run(work)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    if save:
        safetensors.torch.save_file({key: value.double().cpu().contiguous() for key, value in found.items()}, save)
    return {"seconds": seconds, "peak_mib": _peak(device)}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (file := Path("/proc/self/clear_refs")).exists():
        file.write_text("5")


def _peak(device: torch.device) -> float:
    """Peak memory since `_forget_peak`, MiB: of the process, or of the GPU's tensors. NaN without /proc."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    return _of_process("VmHWM")


def _resident() -> float:
    return _of_process("VmRSS")


def _of_process(what: str) -> float:
    file = Path("/proc/self/status")
    if not file.exists():
        return float("nan")
    line = next(line for line in file.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
