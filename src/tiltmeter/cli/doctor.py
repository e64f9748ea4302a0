"""`tiltmeter doctor`: what is installed here, what it can do, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

import typer

from tiltmeter import __version__
from tiltmeter.cli.json_lines import json_line

EXTRAS = {
    "report": ("matplotlib", "figures and reports, and so for studies"),
    "parquet": ("pyarrow", "tables and token sequences in Parquet"),
    "plotly": ("plotly", "figures of tm.plot in plotly"),
    "datasets": ("datasets", "token sequences from data sets of the Hugging Face hub"),
    "gguf": ("gguf", "models and control vectors in GGUF files"),
    "sae-lens": ("sae_lens", "the list of releases of SAEs"),
}
"""By extra: the module that it installs, and what that is for."""


@dataclass(frozen=True)
class Finding:
    """Something that was looked at."""

    what: str
    found: str
    advice: str = ""
    """What to do, if something is missing."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: what, found, advice.")] = False,
) -> None:
    """Show what is installed, and what is missing.

    Versions, extras, compiler, devices and disk. It imports torch, which takes a few seconds.
    """
    findings = [*_versions(), *_extras(), _compiler(), *_devices(), *_machine()]
    if as_json:
        typer.echo("\n".join(json_line(vars(one)) for one in findings))
        return
    width = max(len(one.what) for one in findings)
    for one in findings:
        typer.echo(f"{one.what:{width}}  {one.found}")
    advice = [one.advice for one in findings if one.advice]
    typer.echo("\n".join(["", *(f"- {line}" for line in advice)]) if advice else "\nNothing is missing.")


def _versions() -> list[Finding]:
    """Python's version, and those of the packages that tiltmeter requires."""
    return [
        Finding("python", f"{sys.version.split()[0]} ({sys.executable})"),
        Finding("tiltmeter", __version__),
        *map(_package, _required()),
    ]


def _required() -> list[str]:
    """What tiltmeter requires, as `torch>=2.9`; nothing if it runs from a folder without being installed."""
    try:
        requirements = metadata.requires("tiltmeter") or []
    except metadata.PackageNotFoundError:
        return []
    return [text for text in requirements if "extra ==" not in text]


def _package(requirement: str) -> Finding:
    name, _, least = requirement.partition(">=")
    version = _version(name)
    if version is None:
        return Finding(name, "not installed", f"{name} is missing: pip install '{requirement}'")
    if least and _numbers(version) < _numbers(least):
        return Finding(name, version, f"{name} {version} is too old: pip install --upgrade '{requirement}'")
    return Finding(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    """The parts of a version that order it: (2, 13, 0) of 2.13.0+cpu."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> list[Finding]:
    return [
        Finding(f"extra {extra}", "installed")
        if importlib.util.find_spec(module)
        else Finding(f"extra {extra}", "not installed", f"For {purpose}: pip install 'tiltmeter[{extra}]'")
        for extra, (module, purpose) in EXTRAS.items()
    ]


def _compiler() -> Finding:
    """The C++ compiler that fuses operations: with one, large models run faster."""
    found = next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))), None)
    if found:
        return Finding("C++ compiler", found)
    return Finding("C++ compiler", "none", "Sweeps run slower without a C++ compiler: install g++ or clang++")


def _devices() -> list[Finding]:
    """Where a model can run, and the threads of the CPU."""
    import torch

    cpu = Finding("device cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(Finding(f"device cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if gpus:
        return [cpu, *gpus]
    reason = "none" if torch.version.cuda or torch.version.hip else "none: this torch was built without CUDA"
    advice = "There is an NVIDIA driver, but torch cannot use it: install a torch with CUDA (pytorch.org)"
    return [cpu, Finding("device cuda", reason, advice if shutil.which("nvidia-smi") else "")]


def _machine() -> list[Finding]:
    """The room on the disk of this folder, and where downloads go."""
    free = shutil.disk_usage(".").free / 2**30
    hub = os.environ.get("HF_HOME", "~/.cache/huggingface")
    little = f"Only {free:.1f} GiB are free here; name another disk with --out" if free < 2 else ""
    return [Finding("disk", f"{free:.0f} GiB free in this folder", little), Finding("downloads", hub)]
