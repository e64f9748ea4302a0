"""Massive activations: counted, left out by default, and told of, against the same statistics without such tokens."""

import json
import logging
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiltmeter as tm
from sweep_cases import BOUNDARY, token_set
from tiltmeter.analysis.massive import MassiveCount, count_massive, norms_of, ordinary
from tiltmeter.analysis.moments import spectrum_of
from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.positions import BosPolicy, MassivePolicy
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.paths import Sphere, Straight
from tiltmeter.perturb.site_statistics import SiteStatistics, concentrated, fit_statistics
from tiltmeter.sweeps.plan import Sweep
from tiltmeter.sweeps.run import run_sweep
from tiny_models import WIDTH, tiny

SITE = Site(1, "resid_pre")
SINK = 7
"""The token that is given a massive activation."""
OUT = MassivePolicy()
NAMES = ("cov-random-mixture", "cov-trimmed-mixture", "real-mixture", "isotropic")


def with_sink(size, dtype=torch.float64):
    """A small GPT-2 in which one token's embedding has one large number."""
    hf = deepcopy(tiny("gpt2", dtype=dtype))  # other tests use it, too
    with torch.no_grad():
        hf.transformer.wte.weight[SINK] = 0.0
        hf.transformer.wte.weight[SINK, 5] = size
    return LoadedModel(SplitModel(hf, "sink"), None, {"name": "sink"})


def tokens_with(places, sequences=24, length=10):
    """Random sequences in which the sink stands at these places, and nowhere else."""
    tokens = token_set(sequences, length)
    tokens.ids[tokens.ids == SINK] = SINK + 1
    for sequence, position in places:
        tokens.ids[sequence, position] = SINK
    return tokens


PLACES = ((3, 4), (11, 7), (17, 2))


def fitted(loaded, tokens, policy=OUT, batch=32):
    model = loaded.model.measured_in("raw")
    return fit_statistics(model, tokens, SITE, BosPolicy(), 10_000, 0, batch=batch, massive=policy)


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("size", [300.0, 3_000.0, 100_000.0])
def test_statistics_are_those_of_the_other_tokens(size, batch):
    loaded, tokens = with_sink(size), tokens_with(PLACES)
    found = fitted(loaded, tokens, batch=batch)
    x = loaded.model.measured_in("raw").activation(tokens.ids, SITE)
    others = tokens.ids != SINK
    others[:, 0] = False
    naive = x[others].numpy()
    np.testing.assert_allclose(found.mean, naive.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(naive.T), rtol=1e-8, atol=1e-12)
    assert found.count == len(found.pool) == 24 * 9 - len(PLACES)
    assert found.norm == pytest.approx(np.linalg.norm(naive, axis=1).mean(), rel=1e-9)
    assert found.massive.later == len(PLACES) and found.massive.of_later == 24 * 9
    assert found.massive.largest == pytest.approx(float(x.norm(dim=-1).max()))
    assert found.massive.median == pytest.approx(float(np.median(x[:, 1:].norm(dim=-1))), rel=0.05)
    assert concentrated(found, MassivePolicy()) is None
    again = SiteStatistics.from_arrays(found.to_arrays())
    assert again.massive == found.massive and torch.equal(again.covariance, found.covariance)


def test_counted_in_they_hold_the_covariance_and_it_is_said():
    """The negative control, which is what was measured before there was a policy."""
    found = fitted(with_sink(3_000.0), tokens_with(PLACES), MassivePolicy(statistics="in"))
    assert found.spectrum.largest > 0.9 and found.spectrum.effective_rank < 2
    assert found.count == 24 * 9
    sentence = concentrated(found, MassivePolicy(statistics="in"))
    assert "holds 9" in sentence and "3 of 216 tokens" in sentence and "--massive-statistics out" in sentence
    trimmed = found.trimmed.factor @ found.trimmed.factor.T
    assert spectrum_of(trimmed).largest < 0.5


@pytest.mark.parametrize("batch", [4, 32])
def test_sequences_without_a_token_that_counts_may_come_first(batch):
    places = [(20, 4), (22, 6)]
    tokens = tokens_with(places)
    tokens.ids[:12] = BOUNDARY
    found = fitted(with_sink(3_000.0), tokens, batch=batch)
    assert found.count == len(found.pool) == 12 * 9 - len(places)
    assert found.spectrum.largest < 0.5


def planted(outliers: int, outside: float = 3_000.0) -> SiteStatistics:
    """Statistics of 400 activations, some of which lie far out along one direction."""
    x = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:outliers, 0] += outside
    counted = MassiveCount(1.0, 10.0, 3_000.0, 0, 40, outliers, 360)
    sequences = torch.arange(400) // 10
    return SiteStatistics(400, x.mean(0), torch.cov(x.T), x, sequences, 1.0, 1.0, counted)


@pytest.mark.parametrize(
    ("outliers", "policy", "remedy"),
    [
        (3, MassivePolicy(statistics="in"), "--massive-statistics out"),
        (3, MassivePolicy(), "use cov-trimmed directions"),
        (40, MassivePolicy(), "not the work of a few tokens"),
    ],
)
def test_the_remedy_is_one_that_helps(outliers, policy, remedy):
    assert remedy in concentrated(planted(outliers), policy)


@pytest.mark.parametrize(("size", "kept"), [(2, 2), (99, 99), (100, 99), (101, 99), (400, 396)])
def test_one_percent_is_trimmed_and_no_more(size, kept):
    found = planted(0)
    x = found.pool[:size]
    some = replace(found, pool=x, pool_sequences=found.pool_sequences[:size])
    far = (x - x.median(0).values).norm(dim=-1)
    inner = x[far.argsort()[:kept]]
    covariance = some.trimmed.factor @ some.trimmed.factor.T
    torch.testing.assert_close(covariance, torch.cov(inner.T))


def test_equal_activations_have_a_covariance_of_zero():
    found = spectrum_of(torch.zeros(5, 5, dtype=torch.float64))
    assert found.largest == found.effective_rank == 0 and not found.is_concentrated
    assert "all are equal" in found.sentence


def test_at_position_zero_they_are_counted_apart():
    places = [(row, 0) for row in range(24)]
    found = fitted(with_sink(3_000.0), tokens_with(places))
    assert (found.massive.first, found.massive.of_first, found.massive.later) == (24, 24, 0)
    assert "24 of 24 tokens at position 0" in found.massive.sentence


def test_where_none_is_massive_nothing_changes():
    loaded, tokens = with_sink(1.0), tokens_with(())
    one, other = fitted(loaded, tokens), fitted(loaded, tokens, MassivePolicy(statistics="in"))
    for name, value in one.to_arrays().items():
        np.testing.assert_array_equal(value, other.to_arrays()[name])
    assert "No activation is massive" in one.massive.sentence


def test_a_first_batch_that_is_longer_than_the_rest_is_refused():
    table = torch.cat([torch.full((4, 3), 100.0), torch.full((40, 3), 1.0)]) + torch.randn(44, 3) / 10
    ids = torch.arange(44).reshape(11, 4)

    class Canned(SplitModel):
        def __init__(self):
            self.name = "canned"

        def activation(self, tokens, site):
            return table[tokens]

    with pytest.raises(tm.TiltmeterError, match="median norm of 173, those of all 1"):
        fit_statistics(Canned(), TokenSet(ids, "t", None, {}), SITE, BosPolicy(), 100, 0, batch=1)


def test_beside_activations_that_are_mostly_zero_none_is_massive():
    norms = torch.zeros(4, 3, dtype=torch.float64)
    norms[1, 2] = 7.0
    found = count_massive(norms, torch.ones(4, 3, dtype=torch.bool), 10.0)
    assert (found.first, found.later) == (0, 0) and "the median norm is 0, the largest 7" in found.sentence


def test_counts_against_a_loop():
    norms = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norms[2, 0], norms[4, 3], norms[5, 4] = 60.0, 70.0, 4.0
    counted = torch.ones(6, 5, dtype=torch.bool)
    counted[:, 0] = False
    found = count_massive(norms, counted, 10.0)
    median = sorted(float(norms[i, j]) for i in range(6) for j in range(1, 5))[11]
    assert found.median == median and found.limit == 10 * median
    assert (found.first, found.later) == (1, 1 + (10 * median < 4.0))
    x = norms[..., None]
    assert torch.equal(ordinary(x, found.limit), norms <= found.limit)
    assert torch.equal(norms_of(x), norms)


@pytest.mark.parametrize(
    ("eigenvalues", "largest", "rank"), [([1.0] * 8, 1 / 8, 8.0), ([1.0] + [0.0] * 7, 1.0, 1.0), ([1, 1, 0, 0], 0.5, 2)]
)
def test_the_spectrum_of_a_covariance(eigenvalues, largest, rank):
    turn, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    found = spectrum_of(turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T)
    assert found.largest == pytest.approx(largest) and found.effective_rank == pytest.approx(rank)


SWEEP = Sweep(
    site="resid_pre:1",
    directions=NAMES,
    path=Straight(lengths=(0.0, 2.0)),
    stream="raw",
    sequences=20,
    keep_positions=True,
)


def swept(folder, **policy):
    sweep = SWEEP.model_copy(update={"massive": MassivePolicy(**policy)})
    return run_sweep(sweep, with_sink(3_000.0), tokens_with(PLACES), folder)


def test_a_sweep_s_cov_random_baseline_is_that_of_ordinary_tokens(tmp_path):
    """It equals the sweep on statistics of sequences without such tokens, up to the draw; with them it does not."""
    out, within = swept(tmp_path / "out"), swept(tmp_path / "in", statistics="in")
    clean = tokens_with(())
    base = run_sweep(SWEEP, with_sink(3_000.0), clean, tmp_path / "clean")
    rows = [row for row in range(20) if row not in {sequence for sequence, _ in PLACES}]

    def mean(found, name="cov-random-mixture"):
        return float(found.kl.sel(direction=name, step=2.0, sequence=rows).mean())

    assert mean(out) == pytest.approx(mean(base), rel=0.05)
    assert abs(mean(within) / mean(base) - 1) > 0.25
    assert mean(within, "cov-trimmed-mixture") == pytest.approx(mean(base, "cov-trimmed-mixture"), rel=0.1)
    assert mean(out, "isotropic") == mean(within, "isotropic")
    assert json.loads(out.attrs["massive"])["later"] == 3
    assert json.loads(within.attrs["covariance"])["largest"] > 0.9


def test_perturbation_and_average_leave_them_out_if_asked_to(tmp_path):
    both = swept(tmp_path / "in")
    assert (both.tokens == 10).all()
    average = swept(tmp_path / "average", average="out")
    assert [int(n) for n in average.tokens.sel(direction="isotropic")] == [
        9 if row in {sequence for sequence, _ in PLACES} else 10 for row in range(20)
    ]
    for sequence, position in PLACES:
        assert np.isnan(average.kl.sel(sequence=sequence, position=position)).all()
    kept = swept(tmp_path / "perturbation", perturbation="out")
    for sequence, position in PLACES:
        assert np.isnan(kept.length.sel(sequence=sequence, position=position)).all()
    later, before = ({"sequence": 3, "step": 2.0, "position": at, "direction": "isotropic"} for at in (5, 3))
    assert float(kept.kl.sel(later)) != float(both.kl.sel(later)), "what comes after sees it unperturbed"
    assert float(kept.kl.sel(before)) == float(both.kl.sel(before))


def test_a_warning_where_one_direction_holds_most_of_the_covariance(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        swept(tmp_path / "out")
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        swept(tmp_path / "in", statistics="in")
    assert "Samples with this covariance vary mostly along one direction" in caplog.text


@pytest.mark.parametrize(
    ("changes", "cautioned"),
    [
        ({}, False),
        ({"path": Straight(lengths=(0.1,), unit="pair-distance")}, False),
        ({"path": Straight(lengths=(0.1,), unit="norm")}, True),
        ({"path": Straight(lengths=(0.1,), unit="target"), "directions": ("real-difference",)}, True),
        ({"path": Sphere(degrees=(30.0,))}, True),
        ({"path": Sphere(degrees=(30.0,)), "massive": MassivePolicy(perturbation="out")}, False),
        ({"path": Sphere(degrees=(30.0,)), "positions": "0"}, False),
        ({"base": "real"}, True),
    ],
)
def test_a_caution_where_massive_activations_are_perturbed_in_proportion(tmp_path, caplog, changes, cautioned):
    """The sinks of these tokens lie at later positions."""
    sweep = SWEEP.model_copy(update={"directions": ("isotropic",), "sequences": 4} | changes)
    with caplog.at_level(logging.WARNING):
        found = run_sweep(sweep, with_sink(3_000.0), tokens_with(PLACES), tmp_path / "run")
    assert ("massive activations at later positions (3 of 216). Where they are perturbed" in caplog.text) == cautioned
    assert len(json.loads(found.attrs["cautions"])) == cautioned


@pytest.mark.parametrize("keep_positions", [True, False])
def test_lengths_are_those_of_the_tokens_that_are_averaged(tmp_path, keep_positions):
    changes = {"path": Straight(lengths=(0.1,), unit="norm"), "directions": ("isotropic",), "sequences": 4}
    policy = MassivePolicy(average="out")
    sweep = SWEEP.model_copy(update={**changes, "massive": policy, "keep_positions": keep_positions})
    loaded, tokens = with_sink(3_000.0), tokens_with(PLACES)
    found = run_sweep(sweep, loaded, tokens, tmp_path / "run").length.sel(direction="isotropic")
    x = loaded.model.measured_in("raw").activation(tokens.ids[:4], SITE)
    wanted = 0.1 * x.norm(dim=-1)
    kept = [float(wanted[row][tokens.ids[row] != SINK].mean()) for row in range(4)]
    means = found.isel(step=-1).mean({"position"} & set(found.dims))
    np.testing.assert_allclose(means, kept, rtol=1e-5)


def test_a_run_of_another_policy_is_not_continued(tmp_path):
    swept(tmp_path / "run")
    with pytest.raises(tm.TiltmeterError, match=r'sweep\.massive\.statistics is "out" there, "in" here'):
        swept(tmp_path / "run", statistics="in")


def test_the_ratio_must_be_above_one():
    with pytest.raises(tm.TiltmeterError, match="ratio"):
        MassivePolicy(ratio=1.0)
    assert replace(with_sink(1.0)).model.width == WIDTH
