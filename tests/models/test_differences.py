"""Exact differences: every rule against float64, and whole models of every family."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.differences import Shifted, compilation, kernels
from tiltmeter.models.differences.reshaping import CleanPrefix
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import Site
from tiltmeter.perturb.bases import transplanted
from tiny_models import FAMILIES, heads_and_modules, random_tokens, sites_of, tiny

SIZES = [1e-7, 1e-4, 1e-1, 1.0, 10.0, 100.0]
"""Of differences, beside values of about one."""


def shifted(size, *shape, points=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    difference = size * torch.randn((points, *shape), generator=generator, dtype=torch.float64).to(dtype)
    return Shifted(clean, difference)


def exact(function, *values):
    """f(x + δ) - f(x) in float64, point by point."""
    values = [one if isinstance(one, Shifted) else one.double() for one in values]
    clean = [one.clean.double() if isinstance(one, Shifted) else one for one in values]
    points = max(one.points for one in values if isinstance(one, Shifted))
    moved = [
        [one.clean.double() + one.difference[at].double() if isinstance(one, Shifted) else one for one in values]
        for at in range(points)
    ]
    return torch.stack([function(*one) - function(*clean) for one in moved])


FUNCTIONS = {
    "square": lambda x: x.pow(2),
    "cube": lambda x: torch.pow(x, 3.0),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "rsqrt": lambda x: torch.rsqrt(x.pow(2) + 0.5),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "soft-cap": lambda x: torch.tanh(x / 4.0) * 4.0,
    "softmax": lambda x: torch.softmax(4 * x, -1),
    "layer-norm": lambda x: functional.layer_norm(x, x.shape[-1:], eps=1e-5),
    "linear": lambda x: functional.linear(x, torch.linspace(-1, 1, 64).reshape(4, 16).to(x.dtype)),
    "turned": lambda x: torch.cat([-x[..., 8:], x[..., :8]], -1).transpose(0, 1) * 2 - 1,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_rule_gives_the_difference(name, size):
    x = shifted(size, 5, 16)
    function = FUNCTIONS[name]
    found, wanted = function(x), exact(function, x)
    scale = wanted.abs().amax(-1, keepdim=True).clamp(min=1e-300)
    # Differences of scores are rounded themselves, and stand in an exponent.
    tolerance = 2e-5 * max(1.0, size if name == "softmax" else 1.0)
    assert float(((found.difference - wanted) / scale).abs().max()) < tolerance
    torch.testing.assert_close(found.clean.double(), function(x.clean.double()), atol=1e-5, rtol=1e-5)
    assert found.shape == (3 * found.clean.shape[0], *found.clean.shape[1:])


@pytest.mark.parametrize("size", [1e-7, 1e-2, 3.0])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_even_where_the_function_is_flat_every_difference_is_right(name, size):
    """Element by element: tanh(9) and tanh(9.01) share nine digits, and float32 has seven."""
    x = Shifted(torch.linspace(-30, 30, 61)[:, None], torch.full((1, 61, 1), size))
    clean, moved = x.clean.double(), x.clean.double() + x.difference[0].double()
    half = 1.0 if name == "tanh" else 0.5  # σ(x) = (1 + tanh(x/2)) / 2
    wanted = torch.sinh(half * (moved - clean)) / (torch.cosh(half * clean) * torch.cosh(half * moved)) * half
    torch.testing.assert_close(FUNCTIONS[name](x).difference[0].double(), wanted, atol=0.0, rtol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [torch.mul, torch.add, torch.sub, torch.div, lambda a, b: a @ b.transpose(-2, -1)])
def test_rules_of_two_numbers(function, size):
    a, b = shifted(size, 4, 6, 8), shifted(size, 4, 6, 8, seed=1)
    plain = torch.linspace(1, 2, 8)
    for pair in ((a, b), (a, plain[None, None].expand(4, 6, 8)), (plain[None, None].expand(4, 6, 8), b)):
        found = function(*pair)
        wanted = exact(function, *pair)
        error = (found.difference - wanted).abs() / wanted.abs().amax().clamp(min=1e-300)
        assert float(error.max()) < 2e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("size", SIZES[:5])
def test_attention(size, causal):
    q, k, v = (shifted(size, 2, 4, 7, 8, seed=seed) for seed in range(3))

    def attend(q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    wanted = exact(attend, q, k, v)
    assert float((attend(q, k, v).difference - wanted).abs().max() / wanted.abs().max()) < 2e-5


def test_a_mask_that_all_points_share_and_one_that_they_do_not():
    q, k, v = (shifted(0.1, 2, 1, 4, 8, seed=seed) for seed in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool).tril().expand(6, 1, 4, 4)
    found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    wanted = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found.difference, wanted.difference)
    other = mask.clone()
    other[-1, 0, 3, 0] = False
    with pytest.raises(TiltmeterError, match="share no clean value"):
        functional.scaled_dot_product_attention(q, k, v, attn_mask=other)


def test_what_has_no_rule_says_so():
    with pytest.raises(TiltmeterError, match=r"no difference rule for cumsum.*--precision float32"):
        torch.cumsum(shifted(1.0, 2, 3), 0)


def test_subtracting_two_runs_loses_what_the_rules_keep():
    """The negative control."""
    x = shifted(1e-6, 5, 16)
    wanted = exact(functional.gelu, x)
    subtracted = functional.gelu(x.clean + x.difference) - functional.gelu(x.clean)
    assert float((subtracted - wanted).abs().max() / wanted.abs().max()) > 1e-2
    assert float((functional.gelu(x).difference - wanted).abs().max() / wanted.abs().max()) < 2e-5


SITES = (
    Site(1, "resid_pre"),
    Site(1, "attn_out"),
    Site(1, "resid_mid"),
    Site(1, "mlp_post"),
    Site(0, "z"),
    Site(2, "resid_post"),
)


WHOLE = [
    (family, parts.attentions[(one + two) % len(parts.attentions)], site)
    for one, (family, parts) in enumerate(FAMILIES.items())
    for two, site in enumerate(SITES)
    if site in sites_of(family)
]
"""Each family at each site, with both attentions in turn."""

WHOLE += [
    (family, FAMILIES[family].attentions[-1], site)
    for family in ("gpt2", "neox-parallel", "llama")
    for site in (*(Site(1, kind) for kind in ("q", "k", "v", "mlp_pre")), *heads_and_modules(family))
]
WHOLE += [("llama", "sdpa", Site(1, "within", path=f"model.layers.1.{name}")) for name in ("self_attn.q_proj", "mlp")]


@pytest.mark.parametrize(("family", "attention", "site"), WHOLE, ids=str)
def test_whole_models(family, attention, site):
    """In float64, where a second full run is right to nine digits; less where the model itself rounds to float32."""
    model = ExactModel(tiny(family, attention))
    tokens, span = random_tokens(2, 10), Span(3, 10)
    last = Site(model.n_layers - 1, "resid_post")
    clean = model.start(tokens, site, [last] if last.is_visible_from(site) else [], span)
    generator = torch.Generator().manual_seed(3)
    moved = span.cut(clean.activation)
    rounds = attention == "eager" or not family.startswith(("gpt2", "neox"))
    for size in (1.0, 30.0) if rounds else (1e-5, 1e-2, 1.0, 30.0):
        difference = size * torch.randn((3, *moved.shape), generator=generator, dtype=torch.float64)
        found, other = model.changes(clean, difference), model.resume(clean, moved + difference)
        for one, two, base in (
            (found.final, other.final, clean.late.final),
            *((one, other.sites[read], clean.late.sites[read]) for read, one in found.sites.items()),
        ):
            wanted = two - base
            assert float((one - wanted).abs().max() / wanted.abs().max()) < (
                1e-5 if rounds else max(1e-9, 1e-11 / size)
            )


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *((family, "resid_pre") for family in FAMILIES),
        ("gpt2", "resid_mid"),
        ("llama", "resid_mid"),
        ("gpt2", "v"),
        ("llama", "q"),
    ],
)
def test_in_float32_a_small_difference_keeps_its_digits(family, kind):
    site, tokens = Site(1, kind), random_tokens(2, 10)
    exactly, quickly = ExactModel(tiny(family)), ExactModel(tiny(family, dtype=torch.float32))
    runs = [model.start(tokens, site) for model in (exactly, quickly)]
    difference = 1e-5 * torch.randn((2, *runs[0].activation.shape), generator=torch.Generator().manual_seed(0))
    wanted = exactly.changes(runs[0], difference.double()).final
    found = quickly.changes(runs[1], difference).final
    subtracted = quickly.resume(runs[1], runs[1].activation + difference).final - runs[1].late.final
    errors = [float((one.double() - wanted).norm() / wanted.norm()) for one in (found, subtracted)]
    assert errors[0] < 2e-5 and errors[1] > 1e-2, errors


@pytest.mark.parametrize("span", [Span(0, 10), Span(3, 10), Span(4, 7)], ids=str)
def test_one_clean_pass_serves_several_sites_in_any_order(span):
    """What was recorded for one is played for the others, from their block on."""
    model, tokens = ExactModel(tiny("gpt2")), random_tokens(2, 10)
    sites = [Site(1, "resid_pre"), Site(1, "mlp_out"), Site(0, "z"), Site(2, "resid_pre"), Site(2, "resid_post")]
    read = (Site(model.n_layers - 1, "resid_post"),)
    runs = model.starts(tokens, sites, read, span)
    for site in (sites[3], sites[0], sites[1], sites[2], sites[4], sites[0]):
        alone = model.start(tokens, site, read, span)
        torch.testing.assert_close(runs[site].activation, alone.activation)
        torch.testing.assert_close(runs[site].late.final, alone.late.final)
        change = torch.randn(2, *span.cut(alone.activation).shape, dtype=torch.float64)
        found, wanted = model.changes(runs[site], change), model.changes(alone, change)
        torch.testing.assert_close(found.final, wanted.final)
        torch.testing.assert_close(found.sites[read[0]], wanted.sites[read[0]])


def test_clean_values_are_computed_once():
    model, tokens = ExactModel(tiny("gpt2")), random_tokens(2, 10)
    clean = model.start(tokens, Site(1, "resid_pre"), (), Span(3, 10))

    def recorded():
        return [id(value) for section in clean.tape._sections.values() for value in section]

    changes, seen = [], []
    for points in (1, 3, 2):
        changes.append(model.changes(clean, torch.ones(points, *clean.span.cut(clean.activation).shape).double()))
        seen.append(recorded())
    assert len(seen[0]) > 20 and seen[0] == seen[1] == seen[2]
    torch.testing.assert_close(changes[1].final[2], changes[0].final[0])


def test_another_base_has_clean_values_of_its_own():
    model, tokens = ExactModel(tiny("gpt2")), random_tokens(2, 10)
    clean = model.start(tokens, Site(1, "resid_pre"))
    change = torch.randn(1, *clean.activation.shape, generator=torch.Generator().manual_seed(0)).double()
    model.changes(clean, change)
    moved = transplanted(model, clean, clean.activation.roll(1, 0))
    found = model.changes(moved, change).final
    wanted = model.resume(moved, moved.activation + change).final - moved.late.final
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("prefix", [0, 5])
def test_keys_of_earlier_positions_are_there_once(size, prefix):
    """Against the same with zeros written out."""
    q, k, v = (shifted(size, 2, 4, 3, 8, seed=seed) for seed in range(3))
    before = [torch.randn(2, 4, prefix, 8, generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    grown = [torch.cat([one.repeat(3, 1, 1, 1), two], -2) for one, two in zip(before, (k, v), strict=True)]
    whole = [
        Shifted(torch.cat([one, two.clean], -2), functional.pad(two.difference, (0, 0, prefix, 0)))
        for one, two in zip(before, (k, v), strict=True)
    ]
    assert all(isinstance(one, CleanPrefix) == (prefix > 0) for one in grown)
    found = functional.scaled_dot_product_attention(q, *grown)
    wanted = functional.scaled_dot_product_attention(q, *whole)
    torch.testing.assert_close(found.difference, wanted.difference, rtol=1e-4, atol=1e-5 * min(size, 1.0))
    for one, two in zip(grown, whole, strict=True):
        torch.testing.assert_close(one.difference, two.difference)


COMPILED = {
    "GELU by tanh": (kernels.gelu_tanh_difference, lambda x, d: (x, d)),
    "GELU": (kernels.gelu_difference, lambda x, d: (x, d)),
    "SiLU": (kernels.silu_difference, lambda x, d: (x, d)),
    "layer norm": (
        kernels.layer_norm_difference,
        lambda x, d: (x - x.mean(-1, True), x.var(-1, correction=0, keepdim=True) + 1e-5, d, x[0].exp(), 1e-5, x.dtype),
    ),
    "product": (kernels.product_difference, lambda x, d: (x, d, x.exp(), d.flip(0))),
    "softmax": (lambda *both: kernels.softmax_difference_near(*both)[0], lambda x, d: (x.softmax(-1), d)),
    "φ": (kernels.phi_sum, lambda x, d: (x.softmax(-1), d, d.mean(-1, True))),
}


# Each number of points is compiled anew, for a second; one point is tried where means are taken, too.
@pytest.mark.parametrize(("name", "points"), [*((name, 3) for name in COMPILED), ("layer norm", 1), ("φ", 1)])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_compiled_kernels_keep_their_digits(name, size, points, monkeypatch):
    """A compiler has its own way to write a function of one number, and not always one with digits near zero."""
    if not compilation.has_compiler():
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr(compilation, "MIN_COMPILED_SIZE", 1)
    kernel, arguments = COMPILED[name]
    x, d = torch.randn(4, 256), size * torch.randn(points, 4, 256)
    found = kernel(*arguments(x, d))
    monkeypatch.setattr(compilation, "MIN_COMPILED_SIZE", 2**30)
    wanted = kernel(*arguments(x.double(), d.double()))
    assert float((found - wanted).norm() / wanted.norm()) < 2e-6


GATES = {
    "GELU": (kernels.gelu_difference, functional.gelu),
    "SiLU": (kernels.silu_difference, functional.silu),
    "GELU by tanh": (kernels.gelu_tanh_difference, lambda x: functional.gelu(x, approximate="tanh")),
}


@pytest.mark.parametrize("size", [1e-2, 1.0, 30.0, 300.0])
@pytest.mark.parametrize("scale", [1.0, 10.0, 300.0])
@pytest.mark.parametrize("name", GATES)
def test_gates_however_far_open_or_shut(name, scale, size):
    """To rounding of the change: where a gate opens from nothing, where it shuts, and where exponentials overflow."""
    rule, function = GATES[name]
    x, d = scale * torch.randn(20000), size * torch.randn(2, 20000)
    wanted = function(x.double() + d.double()) - function(x.double())
    error = (rule(x, d) - wanted).abs() / (d.double().abs() + 1e-3 * size)  # float64, too, rounds x + δ
    assert float(error.max()) < 1e-6


@pytest.mark.parametrize("masked", [-math.inf, torch.finfo(torch.float32).min])
def test_a_masked_key_whose_score_rises_takes_no_digits(masked):
    """As models mask: with two keys that are seen, a softmax is a logistic function, and its difference tanh δ / 2."""
    scores, d = torch.tensor([[0.0, 0.0, masked]]), torch.tensor([[[1e-4, -1e-4, 100.0]]])
    found = functional.softmax(Shifted(scores, d), -1).difference[0, 0]
    moved = math.tanh(1e-4) / 2
    torch.testing.assert_close(found, torch.tensor([moved, -moved, 0.0]), rtol=1e-6, atol=0)


def test_gelu_keeps_its_digits_where_it_is_nearly_shut():
    def exact_gelu(x):
        return x * math.erfc(-x / math.sqrt(2)) / 2

    found = kernels.gelu_difference(torch.tensor([-6.0, -5.0]), torch.tensor([[-2.0, 1e-3]]))[0]
    wanted = [exact_gelu(-8.0) - exact_gelu(-6.0), exact_gelu(-4.999) - exact_gelu(-5.0)]
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=1e-4)


def test_without_a_compiler_it_goes_on(monkeypatch, caplog):
    calls = []

    def broken(function, **_):
        def fail(*arguments):
            calls.append(arguments)
            raise RuntimeError("no compiler")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compilation, "MIN_COMPILED_SIZE", 1)
    monkeypatch.setattr(compilation, "has_compiler", lambda: True)
    double = compilation.compiled(lambda x: 2 * x)
    for _ in range(2):
        assert double(torch.ones(2)).tolist() == [2.0, 2.0]
    assert len(calls) == 1 and "slower" in caplog.text


NORMS = {
    "layer norm": lambda x: functional.layer_norm(x, x.shape[-1:], torch.linspace(0.5, 2, 64).to(x.dtype), None, 1e-5),
    "RMS norm": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
}


def ratio(x):
    """How much larger the clean value is than the moved one: its rounding is so much larger there."""
    moved = (x.clean + x.difference).norm(dim=-1)
    return float((x.clean.norm(dim=-1) / moved.clamp(min=1e-2)).max())


@pytest.mark.parametrize("left", [0.3, 1e-2, 1e-3, 1e-4, 1e-5, 0.0])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_what_is_nearly_moved_to_zero(name, left):
    """There the variance of the clean value plus its change has no digits left, but the moved value has."""
    clean = 30 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    x = Shifted(clean, -(1 - left) * clean + left * noise)
    found, wanted = NORMS[name](x).difference, exact(NORMS[name], x)
    assert float(((found - wanted) / wanted.abs().amax(-1, keepdim=True)).abs().max()) < 2e-5 + 5e-6 * ratio(x)


@pytest.mark.parametrize("norm", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_a_massive_activation_that_becomes_an_ordinary_one(name, norm):
    clean = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    clean[:, 7] = norm
    x = Shifted(clean, torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)) - clean)
    found, wanted = NORMS[name](x).difference, exact(NORMS[name], x)
    assert float(((found - wanted) / wanted.abs().amax(-1, keepdim=True)).abs().max()) < 2e-5 + 5e-6 * ratio(x)
