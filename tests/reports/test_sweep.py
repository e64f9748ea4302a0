"""Figure, tables and report of a finished sweep, made from what it stored: nothing is measured again."""

import base64
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from sweep_cases import command, token_set
from tiltmeter.analysis import curves
from tiltmeter.errors import TiltmeterError
from tiltmeter.models import loading
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb import site_statistics
from tiltmeter.perturb.paths import Straight
from tiltmeter.reports.sweep import publish, short_table
from tiltmeter.studies import reproduce
from tiltmeter.sweeps import measure as sweep_measure
from tiltmeter.sweeps import run as sweep_run
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import tiny

PLAIN = Sweep(
    site="resid_pre:1",
    directions=("isotropic", "real-mixture"),
    path=Straight(lengths=(0.0, 1.0, 5.0)),
    readouts=("kl", "l2@resid_post:2"),
    sequences=12,
)


def measured(folder, asked, purpose):
    loaded = LoadedModel(SplitModel(tiny("gpt2"), "tiny"), None, {"name": "tiny"})
    run_sweep(asked, loaded, token_set(), folder, purpose)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished sweeps, without figures: one of its own, one that belongs to a study, one with a single step."""
    folder = tmp_path_factory.mktemp("runs")
    one_step = PLAIN.model_copy(update={"path": Straight(lengths=(5.0,))})
    return {
        "sweep": measured(folder / "sweep", PLAIN, "sweep"),
        "of a study": measured(folder / "study", PLAIN, "lee2024/figure-1"),
        "one step": measured(folder / "step", one_step, "sweep"),
    }


@pytest.fixture(params=["sweep", "of a study", "one step"])
def run(request, runs, tmp_path):
    return shutil.copytree(runs[request.param], tmp_path / "run")


@pytest.fixture
def nothing_measures(monkeypatch):
    def measure(*arguments, **options):
        raise AssertionError("something was measured")

    for module, name in [
        (loading, "load_model"),
        (reproduce, "load_model"),
        (SplitModel, "start"),
        (sweep_measure, "measure_shard"),
        (sweep_run, "measure_shard"),
        (sweep_run, "run_sweep"),
        (site_statistics, "fit_statistics"),
    ]:
        monkeypatch.setattr(module, name, measure)


def drawn(run):
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_finished_run_is_drawn_from_what_it_stored(run, nothing_measures):
    stored = drawn(run)
    page = publish(run)
    assert page == run / "report.html"
    made = {name: data for name, data in drawn(run).items() if name not in stored}
    pictures = {f"figures/sweep.{kind}" for kind in ("png", "svg", "pdf")}
    tables = {"tables/sweep.csv", "tables/sweep.tex"}
    assert made.keys() == {"report.html", *pictures, *tables}
    assert {name: drawn(run)[name] for name in stored} == stored
    assert made["figures/sweep.png"].startswith(b"\x89PNG")
    picture = "data:image/svg+xml;base64," + base64.b64encode(made["figures/sweep.svg"]).decode()
    assert picture in page.read_text("utf-8")


def test_the_tables_are_the_summary(runs, tmp_path):
    run = shutil.copytree(runs["sweep"], tmp_path / "run")
    publish(run)
    table = curves.summary(curves.load(run / "curves.nc")).query("readout != 'length'")
    frame = pd.read_csv(run / "tables" / "sweep.csv")
    assert len(frame) == len(table)
    for readout, label in (("kl", "KL(clean"), ("l2@blocks.2.hook_resid_post", "distance at")):
        rows = frame[frame.panel.str.contains(label, regex=False)]
        wanted = table[table.readout == readout]
        np.testing.assert_array_equal(rows[["x", "y", "low", "high"]], wanted[["step", "mean", "low", "high"]])
        assert rows.series.tolist() == wanted.direction.tolist()
    assert (run / "tables" / "sweep.tex").read_text("utf-8").count(r"\begin{table}") == 2


@pytest.mark.parametrize("run", ["of a study"], indirect=True)
def test_the_command_draws_again_what_was_lost_byte_by_byte(run, nothing_measures):
    publish(run)
    before = drawn(run)
    shutil.rmtree(run / "figures")
    (run / "report.html").unlink()
    done = command("report", run)
    assert done.status == 0, done
    assert drawn(run) == before
    assert done.out.endswith(f"report: {run}/report.html\n")
    assert short_table(run) in done.out
    assert done.err == ""


def test_the_report_says_what_was_run(run):
    page = publish(run).read_text("utf-8")
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "Sweep at blocks.1.hook_resid_pre, on tiny" in text
    assert "tiny on 12 sequences of 8 tokens of tokens. Perturbed at blocks.1.hook_resid_pre (positions: " in text
    assert "along isotropic, real-mixture. " in text
    steps = ("perturbation length (L2): 3 steps from 0 to 5.", "One step: perturbation length (L2) 5.")
    assert sum(one in text for one in steps) == 1
    assert "95 % intervals of the mean over sequences." in text  # 12 are enough for that
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []


def test_the_short_table_shows_the_first_readout(runs):
    data = curves.load(runs["sweep"] / "curves.nc")
    title, steps, *_, last = short_table(runs["sweep"]).splitlines()
    assert title == "KL(clean ‖ perturbed), nats, mean [95 % interval] by perturbation length (L2)"
    assert steps.split() == ["step", "1", "5"]
    name, *cells = last.split()
    assert name == "real-mixture"
    means = [float(cell) for cell in cells[::3]]
    assert means == pytest.approx(data.kl.sel(direction=name).mean("sequence").values[1:], rel=6e-3)


def test_a_sweeps_finding_gives_the_last_step(runs, tmp_path):
    run = shutil.copytree(runs["sweep"], tmp_path / "run")
    table = curves.summary(curves.load(run / "curves.nc"))
    row = table[(table.direction == "real-mixture") & (table.step == 5.0) & (table.readout == "kl")].iloc[0]
    page = publish(run).read_text("utf-8")
    assert "kl at the last perturbation length, 5: isotropic " in page
    assert f"real-mixture {row['mean']:.3g} [{row.low:.3g}, {row.high:.3g}]" in page


def refused(run, message):
    with pytest.raises(TiltmeterError, match=message) as found:
        publish(run)
    assert "\n" not in str(found.value)


def test_what_cannot_be_drawn(runs, tmp_path):
    refused(tmp_path, "is not a run")
    run = shutil.copytree(runs["sweep"], tmp_path / "run")
    (run / "figures").write_text("in the way")
    refused(run, "cannot write figures")
    (run / "figures").unlink()
    (run / "tables").write_text("in the way")
    refused(run, "cannot write figures into .*tables")
    (run / "tables").unlink()
    (run / "report.html").mkdir()
    refused(run, "cannot write the report")
    (run / "curves.nc").unlink()
    refused(run, "is a run that has not finished; repeat its command")
