"""Bases, against full forward passes with x0 put in by a hook; activations made with an SAE, against its formula."""

import dataclasses
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from contexts import context_at
from small_saes import as_it_is, at, centre, random_sae
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.bases import BASES, SAE_BASES, build_base, check_base_name
from tiltmeter.perturb.names import BaseName, DirectionName
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.registry import build_directions
from tiltmeter.perturb.sae_sources import CleanActivation, Reconstruction, SyntheticBaseline, SyntheticStructured
from tiltmeter.perturb.site_statistics import fit_statistics
from tiltmeter.runs.rng import Address, uniform
from tiltmeter.saes import at_site
from tiltmeter.saes.latent_statistics import SAEWithStatistics, fit_latents
from tiltmeter.saes.synthetic import BaselineOptions, StructuredOptions, Synthesis, baseline, structured
from tiltmeter.sweeps.measure import measure_shard
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import VOCABULARY, WIDTH, full_pass, tiny

BOUNDARY, LENGTH, SEQUENCES, LATENTS = 0, 7, 3, 60
LATE = (2, "resid_post")
READOUTS = ("kl", "js", "loss", "l2@resid_post:2", "cos@resid_post:2")
L2, COS = "l2@blocks.2.hook_resid_post", "cos@blocks.2.hook_resid_post"
LENGTHS = (0.0, 0.7, 6.0)
NAMES = tuple(f"{name}:A" if name in SAE_BASES else name for name in (*BASES, *SAE_BASES) if name != "clean")
SAE = random_sae(WIDTH, LATENTS, bias=-1.0, scale=2.0)


def some_tokens(sequences=24):
    ids = torch.randint(1, VOCABULARY, (sequences, LENGTH), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = BOUNDARY
    return TokenSet(ids, "tokens", BOUNDARY, {})


TOKENS = some_tokens()


class Origin:
    """A direction that depends on where it starts: from x to a point of each token's."""

    ends = 3 * torch.randn(24, LENGTH, WIDTH, generator=torch.Generator().manual_seed(4)).double()

    def vector(self, context):
        return self.ends[context.address.sequences][:, context.address.positions] - context.x


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its activations and an SAE there."""

    family: str
    site: str
    statistics: object
    sae: SAEWithStatistics

    def plan(self, **changes):
        sweep = Sweep(site=self.site, path=Straight(lengths=LENGTHS), readouts=READOUTS, sequences=SEQUENCES, **changes)
        return make_plan(sweep, SplitModel(tiny(self.family)), TOKENS)

    def base(self, name):
        return build_base(BaseName.parse(name), self.statistics, {"A": self.sae})

    def measured(self, name, sequences=range(SEQUENCES), directions=None, **changes):
        plan = self.plan(**changes)
        base = None if name == "clean" else self.base(name)
        return measure_shard(plan, directions or {DirectionName("to"): Origin()}, plan.sweep.path, sequences, base)

    def centre(self, x):
        return centre(x) if self.family == "gpt2" else as_it_is(x)


@cache
def make_case(family="gpt2", site="resid_pre:1"):
    model = SplitModel(tiny(family))
    place, bos = model.site(site), BosPolicy()
    statistics = fit_statistics(model, TOKENS, place, bos, 100, 0)
    here = at(SAE, centre if family == "gpt2" else as_it_is, place)
    return Case(
        family, site, statistics, SAEWithStatistics(here, fit_latents(model, TOKENS, place, bos, {"A": here})["A"])
    )


CASE = make_case()


def test_the_sae_of_these_tests_fires_as_saes_do():
    assert 3 < CASE.sae.latents.l0 < 20
    assert CASE.sae.latents.alive.sum() > 20


def clean_activations(case):
    place = make_place(case)
    return case.centre(full_pass(case.family, tiny(case.family), TOKENS.ids[:SEQUENCES], [place]).seen[place])


def make_place(case):
    kind, layer = case.site.split(":")
    return int(layer), kind


def start(case, name, moved):
    """X0 of each token: what the base's source gives at the tokens that move, the clean activation at others."""
    x = clean_activations(case)
    address = Address(0, f"base {name}", torch.arange(SEQUENCES), torch.arange(LENGTH))
    drawn = case.centre(case.base(name).source.sample(context_at(address, x), 1)[0].to(x))
    mask = torch.zeros(SEQUENCES, LENGTH, 1, dtype=torch.bool)
    mask[:, moved] = True
    return torch.where(mask, drawn, x)


def run(case, x):
    """The logits and the late activation with x at the site, from a full pass."""
    place = make_place(case)
    seen = full_pass(case.family, tiny(case.family), TOKENS.ids[:SEQUENCES], [LATE], {place: lambda _: x})
    return seen.logits.log_softmax(-1), case.centre(seen.seen[LATE])


def naive(case, name, moved, read):
    """Each readout's mean over `read`, [step, sequence], from full passes with x0 and with x0 pushed in the place."""
    x0 = start(case, name, moved)
    p, before = run(case, x0)
    found = {readout: [] for readout in ("kl", "js", "loss", L2, COS, "length")}
    for length in LENGTHS:
        vector = case.centre(Origin.ends[:SEQUENCES] - x0)
        push = torch.zeros_like(x0)
        push[:, moved] = (length * vector / vector.norm(dim=-1, keepdim=True))[:, moved]
        q, after = run(case, x0 + push)
        middle = ((p.exp() + q.exp()) / 2).log()
        found["kl"].append((p.exp() * (p - q)).sum(-1))
        found["js"].append(((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2)
        found["loss"].append(-q.gather(-1, TOKENS.ids[:SEQUENCES].roll(-1, 1)[..., None])[..., 0])
        found["loss"][-1][:, -1] = torch.nan
        found[L2].append((after - before).norm(dim=-1))
        found[COS].append((after * before).sum(-1) / (after.norm(dim=-1) * before.norm(dim=-1)))
        found["length"].append(push.norm(dim=-1))
    means = {key: torch.stack(values)[..., read].nanmean(-1) for key, values in found.items()}
    return means | {"length": torch.stack(found["length"])[..., moved].mean(-1)}


@pytest.mark.parametrize("name", NAMES)
def test_a_base_equals_full_passes_with_it_in_place(name):
    arrays, expected = CASE.measured(name), naive(CASE, name, list(range(LENGTH)), list(range(LENGTH)))
    for readout, values in expected.items():
        np.testing.assert_allclose(arrays[readout][0], values, rtol=1e-9, atol=1e-10, err_msg=readout)


@pytest.mark.parametrize(
    ("family", "site", "positions", "moved", "read"),
    [
        ("gpt2", "resid_pre:1", "2+3", [2], [2, 3, 4, 5]),
        ("gpt2", "resid_pre:1", "1,3,6", [1, 3, 6], [1, 3, 6]),
        ("gpt2", "mlp_out:1", "last", [6], [6]),
        ("gpt2", "resid_mid:1", "2+3", [2], [2, 3, 4, 5]),
        ("llama", "resid_pre:1", "2+3", [2], [2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("name", ["real", "synthetic-structured:A"])
def test_a_base_at_some_positions_and_other_sites(family, site, positions, moved, read, name):
    case = make_case(family, site)
    arrays, expected = case.measured(name, positions=positions), naive(case, name, moved, read)
    for readout, values in expected.items():
        if not values.isnan().all():
            np.testing.assert_allclose(arrays[readout][0], values, rtol=1e-9, atol=1e-10, err_msg=readout)


def test_boundary_tokens_that_do_not_move_keep_their_activation():
    bos = BosPolicy(perturbation="out", average="out")
    arrays, rest = CASE.measured("real", bos=bos), list(range(1, LENGTH))
    for readout, values in naive(CASE, "real", rest, rest).items():
        np.testing.assert_allclose(arrays[readout][0], values, rtol=1e-9, atol=1e-10, err_msg=readout)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_has_changed_at_length_zero_and_all_has_against_the_clean_run(name):
    arrays, clean = CASE.measured(name), CASE.measured("clean")
    assert np.abs(arrays["kl"][:, 0]).max() < 1e-14
    assert arrays[L2][:, 0].max() < 1e-12
    assert not arrays["length"][:, 0].any()
    p, q = run(CASE, clean_activations(CASE))[0], run(CASE, start(CASE, name, list(range(LENGTH))))[0]
    assert (p.exp() * (p - q)).sum(-1).mean() > 1e-3  # compared with the clean run it would be this
    assert np.abs(arrays["kl"][:, 1:] / clean["kl"][:, 1:] - 1).min() > 1e-6
    assert np.abs(arrays["loss"][:, 0] - clean["loss"][:, 0]).min() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_shards_do_not_change_the_numbers(name, monkeypatch):
    whole = CASE.measured(name)
    monkeypatch.setattr(at_site, "CHUNK_ELEMENTS", 2 * LATENTS)
    pieces, one = CASE.measured(name, batch_tokens=1), CASE.measured(name, range(1, 2))
    for readout, values in whole.items():
        np.testing.assert_allclose(pieces[readout], values, rtol=1e-9, atol=1e-12, err_msg=readout)
        np.testing.assert_allclose(one[readout], values[..., 1:2], rtol=1e-9, atol=1e-12, err_msg=readout)


@pytest.mark.parametrize("name", ["real", "isotropic"])
def test_the_sequence_that_directions_see_has_the_base_in_it(name):
    """As measured: centred, which the outputs of a model that ignores the mean cannot show."""
    seen = []

    class Looks:
        def vector(self, context):
            seen.append(context)
            return torch.ones_like(context.x).cumsum(-1)

    CASE.measured(name, directions={DirectionName("looks"): Looks()}, positions="2+3")
    whole = start(CASE, name, [2])
    torch.testing.assert_close(seen[0].whole(), whole)
    torch.testing.assert_close(seen[0].x, whole[:, 2:6])


def test_a_base_draws_otherwise_than_a_direction_of_the_same_name():
    """Else the isotropic direction at the isotropic base would point straight away from zero."""
    names = {"isotropic": "isotropic", "real": "real-difference", "synthetic-baseline:A": "synthetic-baseline:A"}
    assert not {CASE.base(name).rng_key for name in names} & set(names.values())
    x0 = start(CASE, "isotropic", list(range(LENGTH)))
    address = Address(0, "isotropic", torch.arange(SEQUENCES), torch.arange(LENGTH))
    name = DirectionName("isotropic")
    direction = build_directions([name], CASE.statistics, {})[name].vector(context_at(address, x0))
    assert torch.cosine_similarity(direction, x0, dim=-1).abs().mean() < 0.4


def test_the_clean_base_is_none():
    assert CASE.base("clean") is None


def test_a_base_that_the_model_cannot_stand_is_refused():
    plan = CASE.plan()
    bad = dataclasses.replace(CASE.base("real"), source=Infinite())
    with pytest.raises(TiltmeterError, match=r"not finite with the base in place at blocks\.1\.hook_resid_pre; use"):
        measure_shard(plan, {DirectionName("to"): Origin()}, plan.sweep.path, range(1), bad)


class Infinite:
    def sample(self, context, count):
        return torch.full_like(context.x, torch.inf)[None]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sae-reconstruction", r"'sae-reconstruction' needs an SAE, as sae-reconstruction:NAME; the SAEs .* are A\.$"),
        ("synthetic-baseline:B", r"'B' in 'synthetic-baseline:B' is not an SAE of this run; the SAEs .* are A\.$"),
        ("reall", r"'reall' is not a base \(did you mean real\?\)"),
        ("real:A", "'real:A' is not a base"),
    ],
)
def test_names_that_are_no_bases_are_refused(name, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        check_base_name(BaseName.parse(name), ("A",))


def test_a_run_without_saes_is_told_so():
    with pytest.raises(
        TiltmeterError, match=r"'sae-reconstruction' needs an SAE, .*this run has none: give one with --sae\.$"
    ):
        check_base_name(BaseName.parse("sae-reconstruction"))


def test_names_that_are_bases_are_accepted():
    for name in ("clean", *NAMES):
        check_base_name(BaseName.parse(name), ("A",))
    check_base_name(BaseName.parse("synthetic-baseline:a:b"), ("a:b",))


def test_an_sae_of_another_width_is_refused():
    wide = SAEWithStatistics(at(random_sae(WIDTH + 1, LATENTS)), CASE.sae.latents)
    for name in SAE_BASES:
        with pytest.raises(TiltmeterError, match=f"has width {WIDTH + 1}, but activations"):
            build_base(BaseName(name, "A"), CASE.statistics, {"A": wide})


ADDRESS = Address(5, "any", torch.tensor([4, 0]), torch.tensor([3, 5, 1]))
X = 2 * torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(8)).double()


def encoded(x):
    return ((x - SAE.input_bias) @ SAE.W_enc + SAE.b_enc).clamp(min=0)


def decoded(latents):
    return centre(latents @ SAE.W_dec + SAE.b_dec)


def test_reconstructions_of_a_source():
    context = context_at(ADDRESS, X)
    real = CASE.statistics.real
    found = Reconstruction(CASE.sae.at, real).sample(context, 2)
    torch.testing.assert_close(found, decoded(encoded(real.sample(context, 2).double())))
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(
        Reconstruction(CASE.sae.at, CleanActivation()).sample(context, 1)[0], decoded(encoded(X))
    )


@pytest.mark.parametrize("options", [BaselineOptions(), BaselineOptions(top_k=2, sparsity_scale="log10")])
def test_synthetic_baselines_of_x(options):
    f, frequency = encoded(X), CASE.sae.latents.frequency
    found = SyntheticBaseline(replace(CASE.sae, synthesis=Synthesis(baseline=options))).sample(
        context_at(ADDRESS, X), 2
    )
    for draw in range(2):
        chance = uniform(ADDRESS, f"sample{draw}", LATENTS)
        expected = torch.stack([baseline(f[b], frequency, chance[b], options) for b in range(2)])
        torch.testing.assert_close(found[draw], decoded(expected))
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("options", [StructuredOptions(), StructuredOptions(pool=2, similarity=0.0)], ids=str)
def test_structured_syntheses_of_x(options):
    found = SyntheticStructured(replace(CASE.sae, synthesis=Synthesis(structured=options))).sample(
        context_at(ADDRESS, X), 1
    )
    f, frequency = encoded(X), CASE.sae.latents.frequency
    expected = torch.stack([structured(f[b], frequency, SAE.W_dec, options) for b in range(2)])
    torch.testing.assert_close(found[0], decoded(expected))


def naive_structured(f, frequency, rows, similarity=0.42):
    """The synthesis of one token, all latents being in the pool, by the rows whose cosines count."""
    unit = rows / rows.norm(dim=-1, keepdim=True)
    cosine = (unit @ unit.T).tolist()
    active, made = f.nonzero()[:, 0].tolist(), torch.zeros_like(f)
    top = int(f.argmax())
    nearest = sorted((j for j in range(len(f)) if j != top), key=lambda j: abs(float(frequency[j] - frequency[top])))
    head = min(nearest, key=lambda j: abs(cosine[top][j] - similarity))
    taken = {head}
    made[head] = f[top]
    for old in (i for i in active if i != top):
        new = min(set(range(len(f))) - taken, key=lambda j: abs(cosine[head][j] - cosine[top][old]))
        taken.add(new)
        made[new] = f[old]
    return made


@pytest.mark.parametrize("rows", ["raw", "measured"])
def test_cosines_are_of_raw_rows_as_published_or_of_rows_as_measured(rows):
    leaning = replace(SAE, W_dec=SAE.W_dec + 0.5 * torch.randn(LATENTS, 1, generator=torch.Generator().manual_seed(1)))
    case = replace(CASE.sae, at=replace(CASE.sae.at, sae=leaning), synthesis=of_rows(rows))
    found = SyntheticStructured(case).sample(context_at(ADDRESS, X), 1)[0]
    own, other = leaning.W_dec, centre(leaning.W_dec)
    if rows == "measured":
        own, other = other, own
    f, frequency = encoded(X).flatten(0, 1), CASE.sae.latents.frequency

    def naive(rows):
        return centre(
            torch.stack([naive_structured(one, frequency, rows) for one in f]) @ leaning.W_dec + leaning.b_dec
        )

    torch.testing.assert_close(found.flatten(0, 1), naive(own))
    differ = ((found.flatten(0, 1) - naive(other)).abs() > 1e-6).any(-1)
    assert differ.double().mean() > 0.8, "else the test tells nothing apart"


def of_rows(rows):
    return Synthesis(structured=StructuredOptions(rows=rows))


def test_raw_rows_are_the_default_as_published():
    assert StructuredOptions().rows == "raw"


@pytest.mark.parametrize("source", [CleanActivation(), SyntheticStructured(CASE.sae)])
def test_what_is_one_vector_is_drawn_once(source):
    with pytest.raises(TiltmeterError, match="is a single vector, but 2 different samples were requested"):
        source.sample(context_at(ADDRESS, X), 2)


def test_directions_toward_what_an_sae_makes():
    context = context_at(ADDRESS, X)
    sources = {
        "synthetic-baseline-difference": SyntheticBaseline(CASE.sae),
        "synthetic-structured-difference": SyntheticStructured(CASE.sae),
        "sae-reconstruction-difference": Reconstruction(CASE.sae.at, CASE.statistics.real),
    }
    for kind, source in sources.items():
        name = DirectionName(kind, "A")
        found = build_directions([name], CASE.statistics, {}, {"A": CASE.sae})[name]
        torch.testing.assert_close(found.vector(context), source.sample(context, 1)[0] - X)
        assert found.vector(context).norm(dim=-1).min() > 0.1
