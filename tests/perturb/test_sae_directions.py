"""Directions of an SAE: the sets of latents against set arithmetic, the parts of the error, signs, refusals."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from scipy import stats

from contexts import NONE_MASSIVE, context_at
from small_saes import SITE, as_it_is, at, centre, random_sae
from tiltmeter.errors import TiltmeterError
from tiltmeter.perturb.bases import SAE_BASES
from tiltmeter.perturb.directions import normalise
from tiltmeter.perturb.names import BaseName, DirectionName
from tiltmeter.perturb.registry import build_directions, check_direction_name, check_suits, rng_key
from tiltmeter.perturb.sae_directions import SAE_DIRECTIONS
from tiltmeter.perturb.site_statistics import SiteStatistics
from tiltmeter.perturb.sources import Context
from tiltmeter.runs.rng import Address
from tiltmeter.saes import at_site
from tiltmeter.saes.at_site import DictionaryAtSite
from tiltmeter.saes.dictionary import Dictionary
from tiltmeter.saes.latent_statistics import LatentStatistics, SAEWithStatistics
from tiltmeter.saes.sae import About

WIDTH, LATENTS, SEQUENCES, LENGTH = 12, 30, 4, 6
DEAD = {4, 11, 29}
SAE = random_sae(WIDTH, LATENTS)
SAE.b_enc[list(DEAD)] = -1e6
MANY = 3000
"""Tokens of each sequence that latents are drawn for, to see how often each is drawn."""


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_statistics():
    x = centre(draw(200, WIDTH, seed=5) + torch.linspace(-1, 1, WIDTH))
    return SiteStatistics(200, x.mean(0), torch.cov(x.T), x, torch.arange(200) // 4, 1.0, 1.0, NONE_MASSIVE)


def latent_statistics(**changes):
    alive = torch.tensor([i not in DEAD for i in range(LATENTS)])
    linear, offset = centre(draw(WIDTH, WIDTH, seed=6)), centre(draw(WIDTH, seed=7))
    found = LatentStatistics(1000, 5 * alive.long(), 9, 0.5, 1.0, linear, offset)
    return dataclasses.replace(found, **changes)


STATISTICS = make_statistics()
WHOLE = centre(draw(SEQUENCES, LENGTH, WIDTH, seed=1))
COUNTED = torch.ones(SEQUENCES, LENGTH, dtype=torch.bool)
COUNTED[:, 0] = COUNTED[2, 3] = False


def bound(sae=SAE, centre=centre, **changes):
    return SAEWithStatistics(at(sae, centre), latent_statistics(**changes))


def build(*names, **saes):
    found = build_directions([*map(DirectionName.parse, names)], STATISTICS, {}, saes or {"A": bound()})
    return {str(name): direction for name, direction in found.items()}


def context(name, rows=range(SEQUENCES), positions=range(LENGTH), whole=WHOLE):
    rows, positions = torch.tensor(list(rows)), torch.tensor(list(positions))
    x = whole[rows][:, positions % LENGTH]
    return Context(
        x, Address(0, rng_key(DirectionName.parse(name)), rows, positions), lambda: whole[rows], lambda: COUNTED[rows]
    )


def vectors(name, **where):
    return build(name)[name].vector(context(name, **where))


def firing(sequence, position, sae=SAE):
    pre = (WHOLE[sequence, position] - sae.input_bias) @ sae.W_enc + sae.b_enc
    return {i for i in range(LATENTS) if pre[i] > 0}


def expected_sets(kind):
    """By sequence, the latents of a kind."""
    alive = set(range(LATENTS)) - DEAD
    active = [set().union(*(firing(s, p) for p in range(LENGTH) if COUNTED[s, p])) for s in range(SEQUENCES)]
    return {
        "sae-feature": [alive - fires for fires in active],
        "sae-feature-active": active,
        "sae-feature-dead": [DEAD] * SEQUENCES,
    }[kind]


def which_latent(vector, rows):
    """Which of the rows each vector is, to the digit."""
    apart = (vector[..., None, :] - rows).norm(dim=-1)
    assert apart.min(-1).values.max() < 1e-12
    return apart.argmin(-1)


@pytest.mark.parametrize("kind", ["sae-feature", "sae-feature-active", "sae-feature-dead"])
@pytest.mark.parametrize("sign", ["", "minus-"])
def test_each_latent_of_the_set_is_equally_likely_and_no_other_is_drawn(kind, sign):
    name = f"{sign}{kind}:A"
    factor = -1 if sign else 1
    latents = which_latent(factor * vectors(name, positions=range(MANY)), centre(SAE.W_dec))
    for sequence, eligible in enumerate(expected_sets(kind)):
        counts = latents[sequence].bincount(minlength=LATENTS)
        assert {int(i) for i in counts.nonzero()[:, 0]} == eligible
        assert stats.chisquare(counts[sorted(eligible)]).pvalue > 1e-3


def test_the_sets_of_the_sequences_are_worth_telling_apart():
    inactive, active = expected_sets("sae-feature"), expected_sets("sae-feature-active")
    assert len({frozenset(one) for one in inactive}) == SEQUENCES
    for sequence in range(SEQUENCES):
        assert 3 < len(inactive[sequence]) < LATENTS - 3
        assert active[sequence] - firing(sequence, 1)  # the set of a sequence is more than a token's
    elsewhere = [firing(s, p) for s in range(SEQUENCES) for p in range(LENGTH) if not COUNTED[s, p]]
    assert set().union(*elsewhere) & set().union(*inactive)  # what fires only where nothing is counted is not active


def test_vectors_are_the_same_in_any_batch(monkeypatch):
    names = [f"{kind}:A" for kind in SAE_DIRECTIONS]
    whole = {name: vectors(name) for name in names}
    monkeypatch.setattr(at_site, "CHUNK_ELEMENTS", 2 * LATENTS)
    for name in names:
        some = vectors(name, rows=[3, 1], positions=[5, 0, 2])
        torch.testing.assert_close(some, whole[name][[3, 1]][:, [5, 0, 2]], msg=name)


@pytest.mark.parametrize("kind", SAE_DIRECTIONS)
def test_draws_depend_on_sequence_and_position_alone(kind):
    """Not on the other directions and SAEs of the run; another seed gives other draws."""
    name = f"{kind}:A"
    other = bound(random_sae(WIDTH, 20, seed=3))
    among = build("sae-error:B", name, B=other, A=bound())
    assert torch.equal(among[name].vector(context(name)), vectors(name))
    here = context(name)
    again = dataclasses.replace(here, address=here.address._replace(seed=1))
    assert torch.equal(build(name)[name].vector(again), vectors(name)) is not SAE_DIRECTIONS[kind].is_random


@pytest.mark.parametrize("kind", SAE_DIRECTIONS)
def test_statistics_of_latents_are_needed_where_the_registry_says(kind):
    uncounted = SAEWithStatistics(at(SAE), None)
    name = f"{kind}:A"
    needs = pytest.raises(AssertionError, match="latents were not counted")
    with needs if SAE_DIRECTIONS[kind].counts_latents else nullcontext():
        build(name, A=uncounted)[name].vector(context(name))


OPPOSITES = {name: entry.opposite_of for name, entry in SAE_DIRECTIONS.items() if entry.opposite_of}


def test_every_sign_has_its_opposite():
    both = {kind: kind.removeprefix("minus-") for kind in SAE_DIRECTIONS if kind.startswith("minus-")}
    assert both | {"latent-ablation": "latent-doubling"} == OPPOSITES


@pytest.mark.parametrize(("opposite", "kind"), OPPOSITES.items())
def test_the_other_sign_is_the_same_vector_turned_around(opposite, kind):
    assert torch.equal(vectors(f"{opposite}:A"), -vectors(f"{kind}:A"))
    assert rng_key(DirectionName.parse(f"{opposite}:a:b")) == f"{kind}:a:b"


def test_names_that_are_not_opposites_are_their_own_rng_key():
    for name in ("isotropic", "along:minus-sae-error:A", "minus-isotropic", "sae-error:minus-sae-error"):
        assert rng_key(DirectionName.parse(name)) == name


def test_error_and_its_parts():
    error, linear, rest = (vectors(f"sae-error{part}:A") for part in ("", "-linear", "-nonlinear"))
    f = ((WHOLE - SAE.input_bias) @ SAE.W_enc + SAE.b_enc).clamp(min=0)
    torch.testing.assert_close(error, centre(f @ SAE.W_dec + SAE.b_dec) - WHOLE)
    fitted = latent_statistics()
    torch.testing.assert_close(linear, WHOLE @ fitted.linear + fitted.offset)
    torch.testing.assert_close(linear + rest, error)
    assert (linear.norm(dim=-1) > 0.1).all()
    assert (rest.norm(dim=-1) > 0.1).all()


def test_doubling_adds_what_a_latent_that_fires_at_the_token_adds():
    positions = [2 + LENGTH * i for i in range(MANY)]
    found = vectors("latent-doubling:A", positions=positions)
    for sequence in range(SEQUENCES):
        pre = (WHOLE[sequence, 2] - SAE.input_bias) @ SAE.W_enc + SAE.b_enc
        fires = sorted(firing(sequence, 2))
        which = which_latent(found[sequence], centre(pre[:, None] * SAE.W_dec)[fires])
        assert stats.chisquare(which.bincount(minlength=len(fires))).pvalue > 1e-3


def test_ablation_and_doubling_have_one_length():
    name = "latent-ablation:A"
    ablation, doubling = vectors(name), vectors("latent-doubling:A")
    assert torch.equal(ablation.norm(dim=-1), doubling.norm(dim=-1))
    assert (doubling.norm(dim=-1) > 1e-3).any()


class Scaled:
    """An SAE that gives each token's own scale back, as one that normalises its input does."""

    about, decoder, encode = SAE.about, SAE.W_dec, SAE.encode

    def to(self, device, dtype):
        return self

    def decode(self, latents, like=None):
        return SAE.decode(latents) * like.norm(dim=-1, keepdim=True)


def test_doubling_knows_the_scale_of_an_sae_that_normalises():
    name = "latent-doubling:A"
    found = build(name, A=bound(Scaled()))[name].vector(context(name))
    torch.testing.assert_close(found, vectors(name) * WHOLE.norm(dim=-1, keepdim=True))


def test_a_token_whose_set_is_empty_has_no_direction():
    silent = random_sae(WIDTH, LATENTS, bias=-50.0)
    for kind in ("sae-feature-active", "latent-doubling", "latent-ablation"):
        name = f"{kind}:A"
        found = normalise(build(name, A=bound(silent))[name], context(name), centre)
        assert not found.unit.any()
        assert not found.distance.any()
    loud = random_sae(WIDTH, LATENTS, bias=50.0)
    loud.b_enc[7] = -1e6
    name = "sae-feature:A"
    dead = torch.arange(LATENTS) != 7
    found = build(name, A=bound(loud, firing=dead.long()))[name].vector(context(name))
    assert not found.any()


def test_a_raw_stream_keeps_the_mean_of_rows_and_errors():
    for kind in ("sae-feature-dead", "sae-error", "latent-doubling"):
        name = f"{kind}:A"
        raw = build(name, A=bound(centre=as_it_is))[name].vector(context(name))
        assert raw.mean(-1).abs().max() > 0.01
        torch.testing.assert_close(centre(raw), vectors(name))


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("sae-feature", {"fewest": 27}, "All 27 alive latents of the SAE A fire somewhere in every sequence"),
        ("minus-sae-feature", {"fewest": 27}, "use a sparser or wider SAE"),
        ("sae-feature", {"firing": torch.zeros(LATENTS).long()}, "No latent of the SAE A fired on the 1000 tokens"),
        ("sae-feature-active", {"firing": torch.zeros(LATENTS).long()}, "check that it belongs to this model"),
        ("sae-feature-dead", {"firing": torch.ones(LATENTS).long()}, "All 30 latents of the SAE A fired .* leave"),
        ("sae-error-linear", {"count": 24}, "cannot be estimated from 24 tokens in 12 dimensions"),
        ("minus-sae-error-nonlinear", {"count": 24}, "compute the statistics on more sequences"),
    ],
)
def test_what_can_be_drawn_from_for_no_token_is_refused(kind, changes, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        build(f"{kind}:A", A=bound(**changes))
    build(f"{kind}:A", A=bound())


def test_wrong_widths_and_names_are_refused():
    wide = bound(random_sae(WIDTH + 1, LATENTS, name="wide"))
    with pytest.raises(TiltmeterError, match=r"SAE wide has width 13, but activations at .* have width 12; give an"):
        build("sae-error:B", B=wide)
    with pytest.raises(TiltmeterError, match=r"'B' in 'sae-error:B' is not an SAE of this run; the SAEs .* are A\.$"):
        check_direction_name(DirectionName.parse("sae-error:B"), ("A",))
    with pytest.raises(TiltmeterError, match=r"'sae-error' needs an SAE, as sae-error:NAME; .* are A, C\.$"):
        check_direction_name(DirectionName.parse("sae-error"), ("A", "C"))
    with pytest.raises(TiltmeterError, match=r"'A' in 'sae-error:A' is not an SAE of this run; this run has none"):
        check_direction_name(DirectionName.parse("sae-error:A"))
    with pytest.raises(TiltmeterError, match=r"'sae-eror:A' is not a direction \(did you mean sae-error:A\?\)"):
        check_direction_name(DirectionName.parse("sae-eror:A"), ("A",))
    check_direction_name(DirectionName.parse("sae-error:a:b"), ("a:b",))


EMPTY = {2, 7}


def dictionary():
    """The decoder rows of the SAE, two of them zero, as a transcoder's."""
    rows = SAE.decoder.clone()
    rows[list(EMPTY)] = 0.0
    return DictionaryAtSite(Dictionary(About("T", "transcoder", "0" * 64), rows, "a transcoder"), SITE, centre)


def test_of_a_dictionary_every_row_with_a_length_is_drawn_equally_often():
    names = ["sae-feature:T", "minus-sae-feature:T", "sae-feature@1:T"]
    feature, opposite, again = build(*names, T=dictionary()).values()
    address = Address(0, "sae-feature:T", torch.arange(SEQUENCES), torch.arange(MANY))
    context = dataclasses.replace(context_at(address), x=torch.zeros(SEQUENCES, MANY, WIDTH, dtype=torch.float64))
    found = feature.vector(context)
    rows = centre(dictionary().sae.decoder)
    which = torch.cdist(found.flatten(0, 1), rows).argmin(-1)
    torch.testing.assert_close(found.flatten(0, 1), rows[which])
    counts = which.bincount(minlength=LATENTS)
    assert {*counts.nonzero()[:, 0].tolist()} == {*range(LATENTS)} - EMPTY
    assert stats.chisquare([n for i, n in enumerate(counts.tolist()) if i not in EMPTY]).pvalue > 1e-3
    assert torch.equal(opposite.vector(context), -found)
    other = again.vector(dataclasses.replace(context, address=address._replace(draw=1)))
    assert not torch.equal(other, found)


def test_a_dictionary_whose_rows_are_all_zero_is_refused():
    nothing = dataclasses.replace(dictionary(), sae=Dictionary(About("T", "crosscoder", "0"), 0 * SAE.decoder, "one"))
    with pytest.raises(TiltmeterError, match=r"All decoder rows of T at blocks.1.hook_resid_pre are zero"):
        build("sae-feature:T", T=nothing)


@pytest.mark.parametrize("kind", [*SAE_DIRECTIONS, *SAE_BASES])
def test_what_needs_more_than_decoder_rows_is_refused_by_name(kind):
    name = (BaseName if kind in SAE_BASES else DirectionName).parse(f"{kind}:T")
    if kind in ("sae-feature", "minus-sae-feature"):
        check_suits(name, dictionary())
        return
    sentence = f"^{name} cannot be computed: T is a transcoder, and only its decoder rows are used, by sae-feature and"
    with pytest.raises(TiltmeterError, match=sentence):
        check_suits(name, dictionary())
