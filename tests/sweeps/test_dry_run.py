"""What a dry run says is what the run that follows does; and it leaves nothing behind."""

import tempfile

import numpy as np
import pytest
import torch

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb import site_statistics
from tiltmeter.runs import run_directory
from tiltmeter.sweeps import dry_run, measure, trials, tried
from tiltmeter.sweeps import run as sweep_run
from tiltmeter.sweeps.compare import make_comparison, run_comparison
from tiny_models import WIDTH, tiny

TOKENS = token_set(sequences=40)
NAMES = ("isotropic", "cov-random-mixture", "real-difference")


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Nothing is timed twice."""
    monkeypatch.setattr(trials, "REPEATS", 1)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def sweep(**changes):
    given = {"site": "resid_pre:1", "directions": NAMES, "path": tm.Straight(lengths=(0, 0.5, 5)), "sequences": 10}
    return tm.Sweep(**given | {"shard": 4, "pool": 50} | changes)


def crossings(**changes):
    return tm.Crossings(sweep=sweep(**changes), goal=tm.CrossingTarget(threshold=1e-3))


def comparison(loaded):
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    return make_comparison(loaded, TOKENS, "resid_pre:1", {"v": vector}, draws=9, sequences=6, budgets=(1e-3, 1e-2))[0]


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class Counted:
    """Counts what a run does: passes, and the tokens that are moved in them."""

    def __init__(self, monkeypatch):
        self.clean, self.perturbed, self.statistics, self.tokens = 0, 0, 0, 0
        readouts, start, update = measure._readouts, measure.start_batch, site_statistics.Sums.update

        def read(batch, change):
            self.perturbed += 1
            self.tokens += int((change != 0).any(-1).sum())
            return readouts(batch, change)

        def begin(*arguments):
            self.clean += 1
            return start(*arguments)

        def add(*arguments):
            self.statistics += 1
            return update(*arguments)

        monkeypatch.setattr(measure, "_readouts", read)
        monkeypatch.setattr(measure, "start_batch", begin)
        monkeypatch.setattr(site_statistics.Sums, "update", add)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_tokens": 80},  # batches of 3 and 1, directions alone
        {"batch_tokens": 10},  # a step at a time
        {"positions": "last", "batch_tokens": 24},  # two directions together, then one
        {"positions": "2+3", "statistics_sequences": 33},
    ],
)
def test_counts_are_those_of_the_run(loaded, changes, monkeypatch):
    wanted = sweep(path=tm.Straight(lengths=(0.1, 0.5, 5)), **changes)
    found = tm.dry_run(wanted, loaded, TOKENS)
    counted = Counted(monkeypatch)
    tm.run_sweep(wanted, loaded, TOKENS)
    assert (found.clean_passes, found.perturbed_passes) == (counted.clean, counted.perturbed)
    assert found.statistics_passes == counted.statistics == 2
    assert found.perturbed_tokens == counted.tokens == 10 * found.perturbed_positions * 3 * 3
    assert found.shards == 3


def test_a_search_is_counted_from_the_curves_that_were_tried(loaded, monkeypatch):
    wanted = crossings(sequences=4, path=tm.Straight(lengths=tuple(np.linspace(0, 5, 33))))
    found = tm.dry_run(wanted, loaded, TOKENS)
    table = tm.run_crossings(wanted, loaded, TOKENS)
    assert found.points == table.points.mean()  # all four were tried
    assert found.perturbed_tokens == 8 * table.points.sum()
    assert found.perturbed_passes >= table.points.max()


@pytest.mark.parametrize(
    ("kind", "patience"),
    [("sweep", 0.0), ("positions", trials.PATIENCE), ("crossings", 0.0), ("comparison", trials.PATIENCE)],
)
def test_the_disk_space_is_that_of_the_folder(loaded, kind, patience, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "PATIENCE", patience)  # with none, single sequences are tried
    if kind == "comparison":
        wanted = comparison(loaded)
        run_comparison(wanted, loaded, TOKENS, tmp_path / "run")
    elif kind == "crossings":
        tm.run_crossings(wanted := crossings(sequences=40), loaded, TOKENS, tmp_path / "run")
    else:
        wanted = sweep(sequences=40, keep_positions=kind == "positions", pool=9999, readouts=("kl", "loss"))
        tm.run_sweep(wanted, loaded, TOKENS, tmp_path / "run")
    found = tm.dry_run(wanted, loaded, TOKENS)
    few_rows = 30_000 if kind == "comparison" else 0  # standings and verdicts are not counted
    assert found.disk == pytest.approx(size(tmp_path / "run"), rel=0.05, abs=few_rows)
    assert found.tried_sequences == (1 if patience == 0 else 6 if kind == "comparison" else 4)


def test_nothing_is_written(loaded, tmp_path, monkeypatch):
    def write(*arguments):
        raise AssertionError(f"{arguments[0]} was written")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run_directory, "_write", write)
    with pytest.raises(AssertionError):
        tm.run_sweep(sweep(), loaded, TOKENS)
    for wanted in (sweep(), crossings(), comparison(loaded)):
        tm.dry_run(wanted, loaded, TOKENS, tmp_path / "run")
    assert not [*tmp_path.iterdir()]


def killed(loaded, out, monkeypatch, shards=1):
    """A run that ended after so many shards."""
    left = [1] * shards

    def some(*arguments):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return measure.measure_shard(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(sweep_run, "measure_shard", some)
        with pytest.raises(KeyboardInterrupt):
            tm.run_sweep(sweep(), loaded, TOKENS, out)


def test_a_part_of_the_run_that_is_there_counts_as_done(loaded, tmp_path, monkeypatch):
    killed(loaded, tmp_path / "run", monkeypatch, 2)
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    found = tm.dry_run(sweep(), loaded, TOKENS, tmp_path / "run")
    assert (found.shards_done, found.shards) == (2, 3)
    assert found.seconds_left == pytest.approx(found.measuring_seconds / 3 + found.other_seconds)
    assert "2 of 3 shards are done" in str(found)
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    with pytest.raises(TiltmeterError, match="another configuration"):
        tm.dry_run(sweep(seed=1), loaded, TOKENS, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(TiltmeterError, match="not a run"):
        tm.dry_run(sweep(), loaded, TOKENS, tmp_path / "other")


def test_times_grow_with_what_is_measured(loaded, monkeypatch):
    measuring, statistics = tried.try_sweep, tried.try_statistics
    monkeypatch.setattr(tried, "try_sweep", lambda ready: measuring(ready)._replace(per_sequence=2.0, once=100.0))
    monkeypatch.setattr(tried, "try_statistics", lambda *_: statistics(*_)._replace(per_sequence=3.0, once=5.0))
    one = tm.dry_run(sweep(), loaded, TOKENS)
    assert one.measuring_seconds == 10 * 2
    assert one.statistics_seconds == 40 * 3 + 5
    assert one.other_seconds == pytest.approx(100, abs=5)
    assert one.seconds == one.seconds_left == one.measuring_seconds + one.statistics_seconds + one.other_seconds
    assert "Statistics take 51% of the time" in str(one) and "--statistics-sequences" in str(one)
    few = tm.dry_run(sweep(statistics_sequences=10), loaded, TOKENS)
    assert few.statistics_seconds == 10 * 3 + 5
    assert "--statistics-sequences" not in str(few)


def test_of_several_sites_counts_and_times_are_sums(loaded, monkeypatch):
    monkeypatch.setattr(dry_run, "TRIED_SITES", 2)
    measuring = tried.try_sweep
    monkeypatch.setattr(
        tried, "try_sweep", lambda ready: measuring(ready)._replace(per_sequence=1.0 + ready.plan.site.layer, once=0.0)
    )
    found = tm.dry_run(sweep(site="resid_pre:*"), loaded, TOKENS)
    assert len(found.sites) == 3 and found.tried_sites == 2
    assert found.measuring_seconds == 10 * (1 + 2 + 3)  # the site in the middle takes the mean of the others
    assert found.perturbed_tokens == 3 * tm.dry_run(sweep(), loaded, TOKENS).perturbed_tokens
    with pytest.raises(TiltmeterError, match="differs from site to site"):
        tm.dry_run(sweep(site="resid_pre:*", until_ci=0.1, sequences=40), loaded, TOKENS)


def test_what_a_run_refuses_is_refused(loaded):
    with pytest.raises(TiltmeterError, match="100 sequences were requested"):
        tm.dry_run(sweep(sequences=100), loaded, TOKENS)
    with pytest.raises(TiltmeterError, match="is not a site"):
        tm.dry_run(sweep(site="nowhere"), loaded, TOKENS)


def test_a_run_that_may_stop_earlier_takes_at_most_this(loaded):
    found = tm.dry_run(sweep(until_ci=0.1, sequences=130), loaded, token_set(sequences=130))
    assert found.until_ci and "at most 130 sequences" in str(found)


def test_directions_that_are_tried_are_spread_over_all():
    names = tuple(range(10))
    assert trials.spread(names, 4) == (0, 3, 6, 9)
    assert trials.spread(names, 10) == trials.spread(names, 99) == names
