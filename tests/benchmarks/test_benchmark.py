"""The benchmark: all contenders do the same work, and times and errors are summarised correctly."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from benchmarks import processes, roofline, run, worker
from benchmarks.__main__ import app
from benchmarks.contenders import CONTENDERS, float64_oracle
from benchmarks.kl_errors import errors_by_decade
from benchmarks.processes import WorkerPool
from benchmarks.roofline import necessary_flops
from benchmarks.run import Record
from benchmarks.tables import text
from benchmarks.workloads import SIZES, make_workloads, random_gpt2
from tiltmeter.errors import TiltmeterError

WORKS = make_workloads("tiny")


def shortened(work):
    """Two of the sequences, and every fourth length from the longest down."""
    return replace(
        work, tokens=work.tokens[:2], directions=work.directions[:, :2], lengths=tuple(reversed(work.lengths[::-4]))
    )


FEW = {name: shortened(WORKS[name]) for name in "ABCD"}


@pytest.fixture(scope="module")
def exact():
    run = float64_oracle(random_gpt2("tiny"))
    return {name: run(work) for name, work in FEW.items()}


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_gives_the_same_answers(name, exact):
    contender = CONTENDERS[name]
    if not contender.installed:
        pytest.skip(f"{contender.package} is not installed")
    run = contender.build(random_gpt2("tiny"))
    tolerance = 3e-2 if "bf16" in name else 1e-3
    for work in "ABCD":
        found = run(FEW[work])
        large = exact[work]["kl"] > 1e-2
        assert large.sum() >= 10
        assert found.keys() == exact[work].keys()
        assert found["kl"].shape == exact[work]["kl"].shape
        torch.testing.assert_close(
            found["kl"][large].double(), exact[work]["kl"][large], rtol=tolerance, atol=tolerance / 100
        )
        if work == "D":
            followed = slice(0, -1)  # the last token has no next token
            torch.testing.assert_close(
                found["loss"][..., followed].double(), exact[work]["loss"][..., followed], rtol=tolerance, atol=1e-3
            )


def test_only_the_stated_positions_are_perturbed():
    for work in WORKS.values():
        perturbed = work.directions.norm(dim=-1) > 0
        assert bool((perturbed.any(0).any(0).nonzero()[:, 0] >= work.read.start).all())
        torch.testing.assert_close(work.directions.norm(dim=-1)[perturbed], torch.ones(int(perturbed.sum())))
    assert int((WORKS["C"].directions[0, 0].norm(dim=-1) > 0).sum()) == 1


def test_necessary_work_is_what_a_naive_count_gives():
    config = SIZES["gpt2"]
    for work in make_workloads("gpt2").values():
        count, clean = 0.0, 0.0
        for _ in range(len(work.tokens)):
            for position in range(work.read.stop):
                clean += config.n_layer * (24 * 768**2 + 4 * 768 * (position + 1))
            clean += len(work.read) * 2 * 768 * 50257
            for layer in work.layers:
                for _ in work.lengths:
                    for position in work.read:
                        count += (config.n_layer - layer) * (24 * 768**2 + 4 * 768 * (position + 1)) + 2 * 768 * 50257
        found = necessary_flops(work, config)
        assert math.isclose(found.clean, clean) and math.isclose(found.perturbed, count)


def test_errors_by_size_of_kl():
    exact = torch.logspace(-10, 1, 1101, dtype=torch.float64)
    found = exact * (1 + 0.01 * (exact > 1e-5))
    by_decade = {error.decade: error for error in errors_by_decade(found, exact)}
    assert by_decade[-8].median == 0 and math.isclose(by_decade[0].median, 0.01, rel_tol=1e-6)
    assert by_decade[0].values in (100, 101) and set(by_decade) == set(range(-10, 2))


def test_ratios_are_paired_by_repetition_with_the_best_of_a_group():
    record = Record("tiny", "cpu", {"cpu": "x", "threads": "2", "instructions": "y"}, {}, {"A": "title"})
    record.seconds["A"] = {
        "hf-hooks": [4.0, 6.0, 5.0],
        "nnsight": [9.0, 9.0, 9.0],
        "tiltmeter float32": [2.0, 2.0, 1.0],
    }
    record.peak_mib["A"] = dict.fromkeys(record.seconds["A"], 1.0)
    record.rates.update(float32=1e9, bfloat16=2e9)
    record.flops["A"] = {"clean": 1e9, "perturbed": 0.5e9}
    assert record.best("A", "plain") == "hf-hooks" and record.best("A", "expert") is None
    assert record.ratios("A", "tiltmeter float32", "plain") == [2.0, 3.0, 5.0]
    assert record.floor("A", "tiltmeter float32") == 1.5 and record.floor("A", "tiltmeter bf16-difference") == 1.25
    printed = text(record)
    assert "3.00 (2.00–5.00), hf-hooks" in printed and "1.50 s, 75%" in printed


class ForkedWorker:
    """What `subprocess.Popen` gives for a command of `WorkerPool`, in a fork, where all that it imports is there."""

    def __init__(self, command, **_):
        assert command[:5] == [sys.executable, "-W", "ignore", "-m", "benchmarks.worker"]
        asked, self.stdin = open_pipe()
        self.stdout, answers = open_pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                sys.argv, sys.stdin, sys.stdout = command[4:], asked, answers
                worker.main()
            finally:
                os._exit(1)
        asked.close()
        answers.close()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self):
        os.waitpid(self.pid, 0)
        self.stdin.close()
        self.stdout.close()


def open_pipe():
    read, write = os.pipe()
    return os.fdopen(read), os.fdopen(write, "w")


def test_the_command_prints_tables_and_writes_the_record(tmp_path, monkeypatch):
    forked = SimpleNamespace(Popen=ForkedWorker, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(processes, "subprocess", forked)
    monkeypatch.setattr(roofline, "REPETITIONS", 1)
    out = tmp_path / "bench.json"
    chosen = ["--contender", "hf-hooks", "--contender", "tiltmeter float32-difference"]
    ran = CliRunner().invoke(app, ["--size", "tiny", "--works", "A", "--repetitions", "2", *chosen, "--out", out])
    assert ran.exit_code == 0, ran.output
    assert "against the best plain contender" in ran.output and "Relative error of KL" in ran.output
    record = json.loads(out.read_text())
    assert len(record["seconds"]["A"]["hf-hooks"]) == 2 and record["machine"]["cpu"] and record["versions"]["torch"]
    ours_errors = record["errors"]["tiltmeter float32-difference"]
    assert all(error["median"] < 1e-5 and error["p99"] < 1e-4 for error in ours_errors)
    peer = {error["decade"]: error for error in record["errors"]["hf-hooks"]}
    assert peer[-6]["median"] > 1e-2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "huge"], "'huge' is not a size of the benchmark's model; choose from gpt2, tiny"),
        (["--works", "AX"], "'X' is not a workload; choose from A, B, C, D"),
        (["--contender", "me"], "'me' is not a contender; choose from hf-hooks"),
    ],
)
def test_wrong_input(options, sentence):
    ran = CliRunner().invoke(app, options)
    assert sentence in str(ran.exception)


def test_a_contender_with_wrong_kls_is_refused(tmp_path):
    class Answers(WorkerPool):
        def ask(self, name, work, save):
            kl = torch.tensor([0.5, 1.0]) * (1.1 if name == "hf-hooks" else 1.0)
            safetensors.torch.save_file({"kl": kl.double()}, save)

    record = Record("tiny", "cpu", {}, {}, {})
    with pytest.raises(TiltmeterError, match=r"hf-hooks differs from the float64 KLs by up to 10\.0%"):
        run._compare(Answers([], "tiny", "cpu"), ["tiltmeter float32", "hf-hooks"], tmp_path, record)
