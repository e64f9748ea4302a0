"""Substitutes for x: their lengths, norms and angles, in space and in a sweep."""

import dataclasses

import numpy as np
import pytest
import torch

from contexts import context_at
from small_saes import SITE, as_it_is, at, centre, random_sae
from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.directions import normalise
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Straight, Substitute
from tiltmeter.perturb.registry import build_directions, rng_key
from tiltmeter.perturb.site_statistics import fit_statistics
from tiltmeter.runs.rng import Address
from tiltmeter.saes.latent_statistics import SAEWithStatistics, fit_latents
from tiltmeter.sweeps.measure import measure_shard
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import VOCABULARY, WIDTH, full_pass, tiny

BOUNDARY, LENGTH = 0, 7
EPSILONS = ("epsilon-random:A", "epsilon-cov-random-mixture:A", "epsilon-real-mixture:A")
THETAS = ("theta-random-sae-norm:A", "theta-random-true-norm:A")
NAMES = ("sae-error:A", "sae-norm-corrected:A", "sae-cos-corrected:A", *EPSILONS, *THETAS, "zero", "mean")


def some_tokens(sequences=24):
    ids = torch.randint(1, VOCABULARY, (sequences, LENGTH), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = BOUNDARY
    return TokenSet(ids, "tokens", BOUNDARY, {})


TOKENS = some_tokens()
SAE = random_sae(WIDTH, 40, bias=-0.3, scale=2.0)


def parsed(names):
    return [DirectionName.parse(name) for name in names]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model's real activations, their statistics, and an SAE there."""

    family: str
    plan: object
    statistics: object
    sae: SAEWithStatistics

    def centre(self, x):
        return centre(x) if self.family == "gpt2" else as_it_is(x)

    def directions(self, *names):
        return build_directions(parsed(names or NAMES), self.statistics, {}, {"A": self.sae})

    def direction(self, name):
        return self.directions(name)[DirectionName.parse(name)]

    def ends(self, name, x):
        """The substitute for x, by the path."""
        address = Address(0, name, torch.arange(x.shape[0]), torch.arange(x.shape[1]))
        perturbation = normalise(self.direction(name), context_at(address, x), self.centre)
        return (x + Substitute().changes(x, perturbation, slice(None)))[0].double()

    def x(self, dtype=torch.float64):
        stream = full_pass(self.family, tiny(self.family), TOKENS.ids, [(1, "resid_pre")]).seen[1, "resid_pre"]
        return self.centre(stream.to(dtype))

    def s(self, x):
        f = ((x - SAE.input_bias) @ SAE.W_enc + SAE.b_enc).clamp(min=0)
        return self.centre(f @ SAE.W_dec + SAE.b_dec)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def case(request):
    model = SplitModel(tiny(request.param))
    sweep = Sweep(site=SITE.name, path=Substitute(), sequences=6, keep_positions=True, batch_tokens=20)
    bound = at(SAE, lambda x: model.centre(x, SITE))
    statistics = fit_statistics(model, TOKENS, SITE, BosPolicy(), 100, 0)
    latents = fit_latents(model, TOKENS, SITE, BosPolicy(), {"A": bound})["A"]
    return Case(request.param, make_plan(sweep, model, TOKENS), statistics, SAEWithStatistics(bound, latents))


def cosine(a, b):
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_norms_and_angles(case, dtype, digits):
    """Acceptance of Gurnee's interventions: each keeps exactly what its name says of s or x."""
    x = case.x(dtype)
    ends = {name: case.ends(name, x) for name in NAMES}
    x = x.double()
    s = case.s(x)
    epsilon = (s - x).norm(dim=-1)
    assert cosine(x, s).min() < 0.5  # the angles are worth preserving

    def same(found, expected):
        torch.testing.assert_close(found, expected, rtol=digits, atol=digits)

    same(ends["sae-error:A"], s)
    for name in EPSILONS:
        same((ends[name] - x).norm(dim=-1), epsilon)
    for name in THETAS:
        same(cosine(ends[name], x), cosine(s, x))
        assert (ends[name] - s).norm(dim=-1).min() > 0.1  # and yet somewhere else
    same(ends["theta-random-sae-norm:A"].norm(dim=-1), s.norm(dim=-1))
    same(ends["theta-random-true-norm:A"].norm(dim=-1), x.norm(dim=-1))
    same(cosine(ends["sae-norm-corrected:A"], x), cosine(s, x))
    same(cosine(ends["sae-norm-corrected:A"], s), torch.ones_like(epsilon))
    same(ends["sae-norm-corrected:A"].norm(dim=-1), x.norm(dim=-1))
    same(cosine(ends["sae-cos-corrected:A"], x), torch.ones_like(epsilon))
    same(ends["sae-cos-corrected:A"].norm(dim=-1), s.norm(dim=-1))
    assert not (ends["zero"] if case.family == "llama" else ends["zero"].abs() > 1e-6).any()
    same(ends["mean"], case.statistics.mean.expand_as(x))
    if case.family == "gpt2":
        assert all(end.mean(-1).abs().max() < 1e-6 for end in ends.values())


@pytest.mark.parametrize("kind", ["cov-random-mixture", "real-mixture"])
def test_a_mixture_of_length_epsilon_is_a_point_on_the_mixtures_own_line(case, kind):
    """Lee & Heimersheim 2024 substitute x + ε d̂ along the directions of their curves, so a token has one d̂ in both."""
    x, rows, columns = case.x(), torch.arange(24), torch.arange(LENGTH)
    found = {}
    for name in (kind, f"epsilon-{kind}:A", f"{kind}@1"):
        parsed_name = DirectionName.parse(name)
        direction = case.directions(name)[parsed_name]
        address = Address(0, rng_key(parsed_name), rows, columns, parsed_name.draw)
        found[name] = normalise(direction, context_at(address, x), case.centre)
    epsilon = (case.s(x) - x).norm(dim=-1)
    ends = Straight(lengths=(1.0,)).at(x, found[kind], epsilon[None])[0]
    torch.testing.assert_close(found[f"epsilon-{kind}:A"].vector, ends)
    another = Straight(lengths=(1.0,)).at(x, found[f"{kind}@1"], epsilon[None])[0]
    assert (another - ends).norm(dim=-1).min() > 0.1


@pytest.mark.parametrize("name", THETAS)
def test_the_random_part_of_theta_is_orthogonal_to_x_and_even(case, name):
    x = case.x()[:1, 2:3].expand(1, 4000, WIDTH)
    ends = case.ends(name, x)[0]
    unit = x[0, 0] / x[0, 0].norm()
    across = ends - (ends @ unit)[:, None] * unit
    across = across / across.norm(dim=-1, keepdim=True)
    assert (across @ unit).abs().max() < 1e-12
    free = WIDTH - 1 - (case.family == "gpt2")
    expected = torch.eye(WIDTH).double() - unit[:, None] * unit
    expected = expected - torch.full_like(expected, 1 / WIDTH) if case.family == "gpt2" else expected
    assert (across.T @ across / 4000 - expected / free).abs().max() < 6 * (2 / 4000) ** 0.5 / free
    assert across.mean(0).abs().max() < 5 / (4000 * free) ** 0.5


def test_mixtures_at_the_saes_distance_have_the_mixtures_directions(case):
    x = case.x()
    for kind in ("cov-random-mixture", "real-mixture"):
        address = Address(0, "d", torch.arange(len(x)), torch.arange(LENGTH))
        context = context_at(address, x)
        ours, plain = (
            normalise(case.direction(name), context, case.centre).unit for name in (f"epsilon-{kind}:A", kind)
        )
        torch.testing.assert_close(ours, plain)


def test_realised_lengths_in_a_sweep(case):
    """Through the model, of every token: ε for the substitutes at the SAE's distance; and the output moves."""
    arrays = measure_shard(case.plan, case.directions(), case.plan.sweep.path, range(6))
    x = case.x()[:6]
    s, norm = case.s(x), x.norm(dim=-1)
    lengths = dict(zip(NAMES, arrays["length"][:, 0], strict=True))
    for name in ("sae-error:A", *EPSILONS):
        np.testing.assert_allclose(lengths[name], (s - x).norm(dim=-1), rtol=1e-10)
    np.testing.assert_allclose(lengths["zero"], norm, rtol=1e-10)
    np.testing.assert_allclose(lengths["mean"], (x - case.statistics.mean).norm(dim=-1), rtol=1e-10)
    np.testing.assert_allclose(lengths["sae-cos-corrected:A"], (s.norm(dim=-1) - norm).abs(), rtol=1e-9)
    np.testing.assert_allclose(lengths["theta-random-true-norm:A"], norm * (2 - 2 * cosine(x, s)).sqrt(), rtol=1e-9)
    assert arrays["tokens"].tolist() == [[LENGTH] * 6] * len(NAMES)
    assert (arrays["kl"] > 1e-4).mean() > 0.9


def test_shards_and_other_saes_change_nothing(case):
    whole = measure_shard(case.plan, case.directions(), case.plan.sweep.path, range(6))
    other = dataclasses.replace(case.sae, at=at(random_sae(WIDTH, 10, seed=9, name="B"), case.sae.at.centre))
    names = ("sae-error:B", "epsilon-random:B", *NAMES[::-1])
    among = build_directions(parsed(names), case.statistics, {}, {"B": other, "A": case.sae})
    part = measure_shard(case.plan, among, case.plan.sweep.path, range(2, 5))
    for readout in ("kl", "length"):
        np.testing.assert_allclose(part[readout][2:][::-1], whole[readout][:, :, 2:5], rtol=1e-9, atol=1e-13)
    own, others = (part["kl"][names.index(f"epsilon-random:{label}")] for label in "AB")
    assert (own != others).all()


def test_the_features_of_a_sweep_leave_out_the_boundary(case):
    """What fires at position 0 alone is inactive, unless the statistics count it; it is the only choice here."""
    first = case.x()[:, 0].mean(0)
    W_enc, b_enc = torch.zeros(WIDTH, 40).double(), torch.full((40,), -1.0).double()
    W_enc[:, 5], b_enc[5] = first / first.norm() ** 2, -0.72  # fires at the boundary token, and elsewhere in some
    sae = dataclasses.replace(SAE, W_enc=W_enc, b_enc=b_enc, input_bias=torch.zeros(WIDTH).double())
    fires = (sae.encode(case.x()) > 0).any(-1)
    assert fires[:, 0].all()
    assert fires[:6, 1:].any(1).sum() == 2
    firing = (torch.arange(40) == 5).long()
    bound = SAEWithStatistics(
        at(sae, case.sae.at.centre), dataclasses.replace(case.sae.latents, firing=firing, fewest=0)
    )
    for policy in ("in", "out"):
        changes = {"bos": BosPolicy(statistics=policy), "keep_positions": False, "batch_tokens": 10_000}
        sweep = case.plan.sweep.model_copy(update=changes)
        plan = make_plan(sweep, case.plan.model, TOKENS)
        directions = build_directions(
            parsed(["sae-feature:A", "sae-feature-active:A"]), case.statistics, {}, {"A": bound}
        )
        tokens = measure_shard(plan, directions, Straight(lengths=(1.0,)), range(6))["tokens"]
        active = (fires if policy == "in" else fires[:, 1:]).any(1)[:6]
        assert tokens[0].tolist() == [0 if one else LENGTH for one in active]
        assert tokens[1].tolist() == [LENGTH if one else 0 for one in active]


def test_no_substitute_where_the_formula_has_none(case):
    """S or x is zero, so that there is no angle: the token is left out."""
    nothing = random_sae(WIDTH, 4, W_dec=torch.zeros(4, WIDTH).double(), b_dec=torch.zeros(WIDTH).double())
    zero = dataclasses.replace(case, sae=SAEWithStatistics(at(nothing, case.sae.at.centre), case.sae.latents))
    x = case.x()
    for name in ("sae-norm-corrected:A", *THETAS):
        assert torch.equal(zero.ends(name, x), x)
    for name in ("sae-cos-corrected:A", *THETAS):
        assert torch.equal(case.ends(name, 0 * x), 0 * x)
