"""The benchmark's record as Markdown tables."""

from __future__ import annotations

import statistics

from benchmarks.contenders import CONTENDERS
from benchmarks.run import Record


def text(record: Record) -> str:
    """All tables of a record: setting, seconds, ratios, floor, errors."""
    parts = [_where(record), _seconds(record), _ratios(record), _floors(record), _errors(record)]
    return "\n\n".join(part for part in parts if part)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column is left-aligned, the others right-aligned."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _where(record: Record) -> str:
    machine = record.machine
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads, {machine['instructions']}"
    packages = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    lines = [f"{record.size}, random weights, on {place}; {packages}."]
    lines += [f"- {work}: {title}" for work, title in record.titles.items()]
    if record.missing:
        lines.append(f"Not installed, so not measured: {', '.join(record.missing)}; pip install 'tiltmeter[bench]'.")
    return "\n".join(lines)


def _seconds(record: Record) -> str:
    names = list(next(iter(record.seconds.values())))
    rows = [[name, *(_time(record, work, name) for work in record.seconds)] for name in names]
    return "Seconds, median (min–max), and peak memory:\n\n" + table(["", *record.seconds], rows)


def _time(record: Record, work: str, name: str) -> str:
    took = record.seconds[work][name]
    return f"{statistics.median(took):.2f} ({min(took):.2f}–{max(took):.2f}), {record.peak_mib[work][name]:.0f} MiB"


def _ratios(record: Record) -> str:
    ours = [name for name in next(iter(record.seconds.values())) if CONTENDERS[name].group == "tiltmeter"]
    rows = []
    for name in ours:
        for group in ("plain", "expert"):
            cells = []
            for work in record.seconds:
                ratios = record.ratios(work, name, group)
                best = record.best(work, group)
                cells.append(
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}), {best}" if ratios else "—"
                )
            rows.append([f"{name}, against the best {group} contender", *cells])
    return "Speed-up, paired by repetition, median (min–max):\n\n" + table(["", *record.seconds], rows)


def _floors(record: Record) -> str:
    rates = " and ".join(f"{rate / 1e9:,.0f} Gflop/s in {dtype}" for dtype, rate in record.rates.items())
    works = list(record.seconds)
    flops = [f"{sum(record.flops[work].values()) / 1e9:,.0f}" for work in works]
    rows = [["necessary Gflop", *flops]]
    for name in (one for one in record.seconds[works[0]] if CONTENDERS[one].group == "tiltmeter"):
        cells = []
        for work in works:
            least = record.floor(work, name)
            cells.append(f"{least:.2f} s, {least / record.median(work, name):.0%}")
        rows.append([name, *cells])
    head = f"The floor, at {rates}, and the fraction of it that was reached:\n\n"
    return head + table(["", *works], rows)


def _errors(record: Record) -> str:
    decades = sorted({error.decade for found in record.errors.values() for error in found})
    rows = []
    for name, found in record.errors.items():
        by_decade = {error.decade: f"{error.median:.0e} / {error.p99:.0e}" for error in found}
        rows.append([name, *(by_decade.get(decade, "") for decade in decades)])
    head = "Relative error of KL against float64, median / 99th percentile, by size of KL:\n\n"
    return head + table(["", *(f"1e{decade}" for decade in decades)], rows)
