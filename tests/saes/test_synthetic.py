"""Syntheses of latents, against naive references written latent by latent; what both keep; the ways to get it wrong."""

import pytest
import torch
from scipy import stats

from tiltmeter.errors import TiltmeterError
from tiltmeter.saes.synthetic import BaselineOptions, StructuredOptions, active_ids, baseline, structured

TOKENS, LATENTS, WIDTH, L0 = 25, 40, 9, 7
DEAD = (3, 17, 30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_latents(tokens=TOKENS, latents=LATENTS, most=L0, seed=0):
    """Tokens with 0, 1, ... or `most` active latents, all activations different; dead ones can be active too."""
    g, found = generator(seed), torch.zeros(tokens, latents, dtype=torch.float64)
    for token in range(tokens):
        ids = torch.randperm(latents, generator=g)[: token % (most + 1)]
        found[token, ids] = torch.rand(len(ids), generator=g, dtype=torch.float64) + 0.1
    return found


def chances(tokens=TOKENS, turns=L0, seed=1):
    return torch.rand(tokens, turns, generator=generator(seed), dtype=torch.float64)


LATENT = some_latents()
FREQUENCY = torch.rand(LATENTS, generator=generator(2), dtype=torch.float64) ** 3
FREQUENCY[list(DEAD)] = torch.tensor([0.0, 0, 0]).double()
DECODER = torch.randn(LATENTS, WIDTH, generator=generator(3), dtype=torch.float64) * (
    1 + torch.arange(LATENTS)[:, None]
)
BASELINES = [
    BaselineOptions(),
    BaselineOptions(top_k=1),
    BaselineOptions(top_k=4, sparsity_scale="log10"),
    BaselineOptions(top_k=60, exclude_dead=True),
]
STRUCTURED = [
    StructuredOptions(),
    StructuredOptions(pool=1),
    StructuredOptions(pool=5, similarity=-0.3),
    StructuredOptions(pool=6, sparsity_scale="log10", exclude_dead=True),
]


def ranked(old, frequency, options):
    """The latents that may stand for `old`, nearest in sparsity first."""
    values = [float(f) for f in (frequency if options.sparsity_scale == "linear" else (frequency + 1e-10).log10())]
    row = sorted(range(len(values)), key=lambda j: (values[j], j))
    place = {j: k for k, j in enumerate(row)}
    others = [j for j in row if j != old and not (options.exclude_dead and frequency[j] == 0)]
    apart = {j: place[j] - place[old] for j in others}
    return sorted(others, key=lambda j: (abs(values[j] - values[old]), abs(apart[j]), apart[j]))


def naive_baseline(f, frequency, chance, options):
    """Which latent each active one goes to."""
    went = {}
    for turn, old in enumerate(f.nonzero()[:, 0].tolist()):
        left = [j for j in ranked(old, frequency, options) if j not in went.values()][: options.top_k]
        went[old] = left[int(chance[turn] * len(left))]
    return went


def cosine(i, j, decoder):
    return float(decoder[i] @ decoder[j] / (decoder[i].norm() * decoder[j].norm()))


def naive_structured(f, frequency, decoder, options):
    """The same."""
    ids = f.nonzero()[:, 0].tolist()
    top = max(ids, key=lambda i: float(f[i]))
    pool = ranked(top, frequency, options)[: options.pool]
    went = {top: min(pool, key=lambda j: abs(cosine(top, j, decoder) - options.similarity))}
    for old in (i for i in ids if i != top):
        left = [j for j in range(len(f)) if j not in went.values() and not (options.exclude_dead and frequency[j] == 0)]
        went[old] = min(left, key=lambda j: abs(cosine(went[top], j, decoder) - cosine(top, old, decoder)))
    return went


def moved(f, went):
    result = torch.zeros_like(f)
    for old, new in went.items():
        result[new] = f[old]
    return result


def every_synthesis(latents=LATENT, frequency=FREQUENCY, decoder=DECODER):
    made = [baseline(latents, frequency, chances(len(latents)), options) for options in BASELINES]
    return made + [structured(latents, frequency, decoder, options) for options in STRUCTURED]


@pytest.mark.parametrize("options", BASELINES, ids=str)
def test_the_baseline_equals_a_naive_one(options):
    chance = chances()
    found = baseline(LATENT, FREQUENCY, chance, options)
    for f, u, one in zip(LATENT, chance, found, strict=True):
        assert torch.equal(one, moved(f, naive_baseline(f, FREQUENCY, u, options)))


@pytest.mark.parametrize("options", STRUCTURED, ids=str)
def test_the_structured_synthesis_equals_a_naive_one(options):
    found = structured(LATENT, FREQUENCY, DECODER, options)
    for f, one in zip(LATENT, found, strict=True):
        assert torch.equal(one, moved(f, naive_structured(f, FREQUENCY, DECODER, options)) if f.any() else f)


def test_the_options_matter():
    made = every_synthesis()
    assert all(not torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])


def test_the_activations_stay_and_no_latent_is_used_twice():
    for made in every_synthesis():
        assert torch.equal((made > 0).sum(-1), (LATENT > 0).sum(-1))
        assert torch.equal(made.sort(-1).values, LATENT.sort(-1).values)
        assert not made[(LATENT == 0).all(-1)].any()


def test_what_goes_in_is_left_alone():
    latents, frequency, decoder, chance = LATENT.clone(), FREQUENCY.clone(), DECODER.clone(), chances()
    baseline(latents, frequency, chance, BaselineOptions())
    structured(latents, frequency, decoder, StructuredOptions())
    assert torch.equal(latents, LATENT)
    assert torch.equal(frequency, FREQUENCY)
    assert torch.equal(decoder, DECODER)
    assert torch.equal(chance, chances())


def test_moving_activations_within_the_vector_would_lose_some():
    """The published code does: a latent that has just been given an activation has its own turn later."""
    frequency = torch.arange(6).double() / 8
    f = torch.tensor([[0.0, 5.0, 7.0, 0.0, 0.0, 0.0]])
    options, chance = BaselineOptions(top_k=2), torch.tensor([[0.9, 0.9]]).double()
    within, chosen = f[0].clone(), []
    for turn, old in enumerate([1, 2]):
        left = [j for j in ranked(old, frequency, options) if j not in chosen][:2]
        new = left[int(chance[0, turn] * 2)]
        chosen.append(new)
        value = within[old].clone()
        within[old], within[new] = 0.0, value
    assert chosen == [2, 3]
    assert within.tolist() == [0, 0, 0, 5, 0, 0]
    assert baseline(f, frequency, chance, options)[0].tolist() == [0, 0, 5, 7, 0, 0]


def test_each_of_the_nearest_is_equally_likely():
    tokens, options = 6000, BaselineOptions(top_k=6)
    f = torch.zeros(1, LATENTS)
    f[0, 8] = 1.0
    counts = (baseline(f.expand(tokens, -1), FREQUENCY, chances(tokens, 1), options) > 0).sum(0)
    near = ranked(8, FREQUENCY, options)[:6]
    assert set(counts.nonzero()[:, 0].tolist()) == set(near)
    assert stats.chisquare(counts[near]).pvalue > 1e-3


def test_the_first_and_the_last_chance_choose_the_nearest_and_the_farthest():
    f = torch.zeros(2, LATENTS)
    f[:, 8] = 1.0
    chance = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.float64)
    for top_k in (1, 7, 10):
        found = baseline(f, FREQUENCY, chance, BaselineOptions(top_k=top_k)).argmax(-1).tolist()
        near = ranked(8, FREQUENCY, BaselineOptions())
        assert found == [near[0], near[top_k - 1]]


@pytest.mark.parametrize("exclude_dead", [False, True])
def test_dead_latents_take_activations_unless_they_are_excluded(exclude_dead):
    made = [
        baseline(LATENT, FREQUENCY, chances(), BaselineOptions(top_k=30, exclude_dead=exclude_dead)),
        structured(LATENT, FREQUENCY, DECODER, StructuredOptions(exclude_dead=exclude_dead)),
    ]
    for one in made:
        assert bool(one[:, list(DEAD)].any()) is not exclude_dead
    assert LATENT[:, list(DEAD)].any()  # and they may be active before


def test_the_scale_decides_which_sparsity_is_near():
    """0.01 is nearer to 0.001 than to 0.05 in its value, and nearer to 0.05 in its logarithm."""
    frequency = torch.tensor([0.01, 0.001, 0.05, 0.9]).double()
    f = torch.tensor([[2.0, 0, 0, 0]])
    decoder = torch.eye(4)
    for scale, near in (("linear", 1), ("log10", 2)):
        nearest = BaselineOptions(top_k=1, sparsity_scale=scale)
        assert baseline(f, frequency, torch.zeros(1, 1).double(), nearest).argmax() == near
        assert structured(f, frequency, decoder, StructuredOptions(pool=1, sparsity_scale=scale)).argmax() == near


def test_equally_near_latents_are_taken_as_they_stand_in_the_list():
    frequency = torch.tensor([2.0, 1, 3, 2, 2, 0, 2, 0, 1]).double() / 8
    every, last = torch.ones(9, 9), torch.zeros(9, 1).double()
    one = torch.eye(9)
    for options in (BaselineOptions(top_k=1), BaselineOptions(top_k=1, sparsity_scale="log10")):
        expected = [ranked(i, frequency, options)[0] for i in range(9)]
        assert baseline(one, frequency, last, options).argmax(-1).tolist() == expected
    assert expected == [3, 8, 6, 0, 3, 7, 4, 5, 1]
    options = BaselineOptions(top_k=3)
    chance = chances(9, 9)
    latents = every.cumsum(0).tril()
    for f, u, found in zip(latents, chance, baseline(latents, frequency, chance, options), strict=True):
        assert torch.equal(found, moved(f, naive_baseline(f, frequency, u, options)))


def test_structured_keeps_the_cosines_to_the_strongest():
    """With many latents, each new one lies to t' almost exactly as the old one to t."""
    many = torch.randn(5000, 4, generator=generator(5), dtype=torch.float64)
    latents = some_latents(20, 5000, 9)
    frequency = torch.rand(5000, generator=generator(6), dtype=torch.float64)
    found = structured(latents, frequency, many, StructuredOptions())
    for f, one in zip(latents, found, strict=True):
        if not f.any():
            continue
        top, head = int(f.argmax()), int(one.argmax())
        assert one[head] == f[top]
        for old in f.nonzero()[:, 0].tolist():
            new = int((one == f[old]).nonzero()[0, 0])
            assert abs(cosine(head, new, many) - cosine(top, old, many)) < 5e-3
        assert abs(cosine(top, head, many) - 0.42) < 0.05
        assert head in ranked(top, frequency, StructuredOptions())[:100]


def test_the_new_strongest_latent_is_kept_for_the_strongest():
    """Latent 0 would have it: it lies to 1 almost as 1 itself does, and has its turn before."""
    decoder = torch.tensor([[1.0, 0.001], [1.0, 0.0], [0.42, 0.9075], [0.0, 1.0], [-1.0, 0.0]])
    f = torch.tensor([[1.0, 2.0, 0, 0, 0]])
    found = structured(f, torch.ones(5).double(), decoder, StructuredOptions())
    assert found[0].tolist() == [0, 0, 2, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_do_not_see_each_other(dtype):
    latents = LATENT.to(dtype)
    whole = every_synthesis(latents, decoder=DECODER.to(dtype))
    for token in range(TOKENS):
        one = latents[token : token + 1]
        assert torch.equal(baseline(one, FREQUENCY, chances()[token : token + 1], BASELINES[0])[0], whole[0][token])
        assert torch.equal(structured(one, FREQUENCY, DECODER.to(dtype), STRUCTURED[0])[0], whole[4][token])
        assert whole[4].dtype == dtype


def test_lengths_of_decoder_rows_do_not_matter_and_a_row_of_zeros_does_no_harm():
    shorter = DECODER / (1 + torch.arange(LATENTS)[:, None])
    assert torch.equal(every_synthesis()[4], structured(LATENT, FREQUENCY, shorter, STRUCTURED[0]))
    hole = DECODER.clone()
    hole[5] = 0
    assert torch.equal(structured(LATENT, FREQUENCY, hole, STRUCTURED[0]).sort(-1).values, LATENT.sort(-1).values)


def test_active_latents_are_listed_in_ascending_order():
    latents = torch.tensor([[0.0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]])
    assert active_ids(latents).tolist() == [[1, 3], [-1, -1], [0, -1]]
    assert active_ids(torch.zeros(2, 4)).shape == (2, 0)
    assert active_ids(torch.zeros(0, 4)).shape == (0, 0)


def test_tokens_without_active_latents_stay_so():
    nothing = torch.zeros(3, LATENTS)
    for made in every_synthesis(nothing):
        assert torch.equal(made, nothing)


def test_too_few_latents_are_refused():
    u, even = torch.zeros(1, 4).double(), torch.ones(4).double()
    alone, all_of_them = torch.tensor([[3.0]]), torch.arange(1.0, 5)[None]
    with pytest.raises(
        TiltmeterError, match=r"Up to 1 latents are active at a token, and the 1 that could .* wider SAE\.$"
    ):
        baseline(alone, even[:1], u, BaselineOptions())
    with pytest.raises(TiltmeterError, match="none may receive two or its own"):
        structured(alone, even[:1], torch.ones(1, 2), StructuredOptions())
    with pytest.raises(TiltmeterError, match="Up to 4 latents are active at a token, and the 4 that could"):
        baseline(all_of_them, even, torch.tensor([[0.0, 0.4, 0.9, 0]]).double(), BaselineOptions())  # 1, 2, 0, and 3?
    partly = torch.tensor([1.0, 1, 1, 0]).double()
    with pytest.raises(TiltmeterError, match="Up to 4 latents are active at a token, and the 3 that could"):
        structured(all_of_them, partly, torch.eye(4), StructuredOptions(exclude_dead=True))
    with pytest.raises(TiltmeterError, match="No latent of the SAE fired on the tokens of the statistics"):
        baseline(alone, torch.zeros(1).double(), u, BaselineOptions(exclude_dead=True))
    assert structured(all_of_them, partly, torch.eye(4), StructuredOptions()).all()


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"sparsity_scale": "log2"}, {"pool": 3}])
def test_options_of_the_baseline_are_checked(wrong):
    with pytest.raises(TiltmeterError):
        BaselineOptions(**wrong)


@pytest.mark.parametrize("wrong", [{"pool": 0}, {"similarity": 1.2}, {"top_k": 3}])
def test_options_of_the_structured_synthesis_are_checked(wrong):
    with pytest.raises(TiltmeterError):
        StructuredOptions(**wrong)
