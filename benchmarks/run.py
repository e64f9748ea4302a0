"""The sweep benchmark: all contenders do the same work in turn; their KLs are compared with float64."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch

from benchmarks.contenders import CONTENDERS, Group
from benchmarks.kl_errors import DecadeError, errors_by_decade
from benchmarks.processes import WorkerPool
from benchmarks.roofline import matrix_rate, necessary_flops
from benchmarks.worker import ORACLE
from benchmarks.workloads import SIZES, make_workloads
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs import run_directory
from tiltmeter.runs.progress import progress

PACKAGES = (*run_directory.CHANGES_NUMBERS, "transformer_lens", "nnsight")
"""Packages whose versions are recorded."""

LARGE_KL = 0.1
"""Nats. Above this even a float32 KL is accurate, so that a large relative error means different work."""


@dataclass(frozen=True)
class Record:
    """The measurements, as they are written to JSON."""

    size: str
    device: str
    machine: dict[str, str]
    versions: dict[str, str]
    titles: dict[str, str]
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By workload and contender, one value per repetition."""
    peak_mib: dict[str, dict[str, float]] = field(default_factory=dict)
    """Peak memory by workload and contender, MiB."""
    rates: dict[str, float] = field(default_factory=dict)
    """Rate of matrix products, flop/s, by dtype."""
    flops: dict[str, dict[str, float]] = field(default_factory=dict)
    """Necessary operations of each workload, `clean` and `perturbed`."""
    errors: dict[str, list[DecadeError]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Contenders that are not installed."""
    scale: int = 1
    """Factor on the number of sequences of the four workloads."""

    def median(self, work: str, name: str) -> float:
        """The median of a contender's seconds."""
        return statistics.median(self.seconds[work][name])

    def best(self, work: str, group: Group) -> str | None:
        """The contender of a group with the shortest median."""
        names = [name for name in self.seconds[work] if CONTENDERS[name].group == group]
        return min(names, key=lambda name: self.median(work, name), default=None)

    def ratios(self, work: str, name: str, group: Group) -> list[float]:
        """Time of the group's best contender over that of `name`, per repetition: above 1, `name` is faster."""
        best = self.best(work, group)
        if best is None:
            return []
        pairs = zip(self.seconds[work][best], self.seconds[work][name], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    def floor(self, work: str, name: str) -> float:
        """Floor: the least seconds that the workload's matrix products take in the contender's arithmetic."""
        clean, perturbed = self.flops[work]["clean"], self.flops[work]["perturbed"]
        rate = self.rates["bfloat16" if "bf16" in name else "float32"]
        return clean / self.rates["float32"] + perturbed / rate


def run_bench(
    size: str,
    device: str,
    repetitions: int,
    works: Sequence[str],
    names: Sequence[str],
    out: Path,
    scale: int = 1,
) -> Record:
    """Measure, and write the record to `out` after each repetition.

    Raises:
        TiltmeterError: unknown size, workload or contender; a contender fails or its KLs are wrong.
    """
    wanted = [name for name in _check(size, works, names) if CONTENDERS[name].runs_on(device)]
    present = [name for name in wanted if CONTENDERS[name].installed]
    titles = {key: work.title for key, work in make_workloads(size, scale=scale).items() if key in works}
    record = Record(size, device, _machine(device), run_directory.versions(PACKAGES), titles, scale=scale)
    record.missing.extend(name for name in wanted if name not in present)
    with WorkerPool([*present, ORACLE], size, device, scale) as pool, TemporaryDirectory() as folder:
        _compare(pool, present, Path(folder), record)
        _rates(record)
        for repetition in progress(range(-1, repetitions), "repetitions, the first as warm-up"):
            for work in works:
                order = present if repetition % 2 else present[::-1]
                for name in order:
                    answer = pool.ask(name, work=work)
                    if repetition >= 0:
                        record.seconds.setdefault(work, {}).setdefault(name, []).append(answer["seconds"])
                        peaks = record.peak_mib.setdefault(work, {})
                        peaks[name] = max(answer["peak_mib"], peaks.get(name, 0.0))
            if repetition >= 0:
                out.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    return record


def _check(size: str, works: Sequence[str], names: Sequence[str]) -> list[str]:
    if size not in SIZES:
        raise TiltmeterError(f"{size!r} is not a size of the benchmark's model; choose from {', '.join(SIZES)}.")
    for chosen, known, what in ((works, "ABCD", "workload"), (names, CONTENDERS, "contender")):
        if strange := [one for one in chosen if one not in known]:
            raise TiltmeterError(f"{strange[0]!r} is not a {what}; choose from {', '.join(known)}.")
    return [name for name in CONTENDERS if not names or name in names]


def _compare(pool: WorkerPool, names: Sequence[str], folder: Path, record: Record) -> None:
    """Record each contender's errors by size of KL, and refuse one whose large KLs are wrong."""

    def kl(name: str) -> torch.Tensor:
        file = folder / "kl.safetensors"
        pool.ask(name, work="precision", save=str(file))
        return safetensors.torch.load_file(file)["kl"]

    exact = kl(ORACLE)
    for name in progress(names, "answers compared"):
        found = kl(name)
        worst = float(((found - exact) / exact)[exact > LARGE_KL].abs().max())
        if not worst < CONTENDERS[name].agreement:
            raise TiltmeterError(
                f"{name} differs from the float64 KLs by up to {worst:.1%}, so its times cannot be compared."
            )
        record.errors[name] = errors_by_decade(found, exact)


def _rates(record: Record) -> None:
    config, device = SIZES[record.size], torch.device(record.device)
    for dtype in (torch.float32, torch.bfloat16):
        record.rates[str(dtype).removeprefix("torch.")] = matrix_rate(config, device, dtype)
    for key, work in make_workloads(record.size, scale=record.scale).items():
        if key in record.titles:
            record.flops[key] = asdict(necessary_flops(work, config))


def _machine(device: str) -> dict[str, str]:
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    capability = torch.backends.cpu.get_cpu_capability()
    return {**run_directory.machine(), **gpu, "threads": str(torch.get_num_threads()), "instructions": capability}
