"""Readouts against arithmetic of 60 digits, against torch's own, and against the same model in float64."""

import math
from dataclasses import replace
from functools import cache

import mpmath
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from contexts import context_at
from tiltmeter import load_model
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.chunked_kl import BlockSizes
from tiltmeter.models.clean_run import LateActivations
from tiltmeter.models.differences import Tape
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.loading import PRECISIONS
from tiltmeter.models.output_change import CleanOutput, OutputChange
from tiltmeter.models.positions import Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import Readout, cosine, l2, parse_readout
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.directions import Plain, normalise
from tiltmeter.perturb.paths import Straight
from tiltmeter.perturb.sources import Isotropic
from tiltmeter.runs.rng import Address

READOUTS = ("kl", "js", "loss")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def read(logits, difference, target=0):
    """kl, js and loss of each row."""
    change = OutputChange(CleanOutput(logits), difference, torch.full((len(logits),), target))
    return {"kl": change.kl, "js": change.js(), "loss": change.loss()}


def exact(logits, difference, target=0):
    """The same of one row in 60 digits, from the definitions."""
    with mpmath.workdps(60):
        z = [mpmath.mpf(float(value)) for value in logits]
        w = [a + mpmath.mpf(float(b)) for a, b in zip(z, difference, strict=True)]
        log_p, log_q = (log_probabilities(values) for values in (z, w))
        log_m = [mpmath.log((mpmath.exp(a) + mpmath.exp(b)) / 2) for a, b in zip(log_p, log_q, strict=True)]
        kl = divergence(log_p, log_q)
        js = (divergence(log_p, log_m) + divergence(log_q, log_m)) / 2
        return {"kl": float(kl), "js": float(js), "loss": float(-log_q[target])}


def log_probabilities(logits):
    top = max(logits)
    total = top + mpmath.log(mpmath.fsum(mpmath.exp(value - top) for value in logits))
    return [value - total for value in logits]


def divergence(log_p, log_q):
    return mpmath.fsum(mpmath.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 200.0])
@pytest.mark.parametrize("readout", READOUTS)
def test_every_digit(readout, scale):
    logits, difference = 3 * draw(5, 24), scale * draw(5, 24, seed=1)
    found = read(logits, difference, 7)[readout]
    for row in range(5):
        expected = exact(logits[row], difference[row], 7)[readout]
        assert float(found[row]) == pytest.approx(expected, rel=1e-12 + 1e-14 / scale, abs=0)


@pytest.mark.parametrize(
    ("logits", "difference"),
    [
        ([0.0, -200, 3], [0.0, 200, -200]),
        ([0.0, 200, 3], [0.0, -200, 200]),
        ([300.0, 0, 0], [-300.0, 300, 0]),
        ([0.0, -1e9, 0], [0.0, 1e9, -1e9]),
        ([0.0, -1e9, 1], [0.1, 0, 0]),
        ([0.0, -1e9, 1], [1e-7, -1e9, 0]),
        ([0.0, -740, 1], [0.0, 760, 0]),
        ([1e9, 0, 0], [-2e9, 0, 0]),
        ([800.0, 0, 0], [0.0, 0, -1e9]),
    ],
)
def test_extreme_logits_are_finite_and_right(logits, difference):
    found = read(torch.tensor([logits]).double(), torch.tensor([difference]).double(), 2)
    expected = exact(logits, difference, 2)
    size = max(abs(value) for value in (*logits, *difference, 1.0))
    for readout in READOUTS:
        assert float(found[readout]) == pytest.approx(expected[readout], rel=1e-9, abs=1e-15 * size), readout


def test_kl_is_from_the_clean_to_the_perturbed():
    clean, perturbed = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.9, 0.1], [0.5, 0.5]))
    right = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    wrong = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5)
    assert abs(right - wrong) > 0.1
    assert read(clean, perturbed - clean)["kl"].item() == pytest.approx(right, rel=1e-14)
    assert read(perturbed, clean - perturbed)["kl"].item() == pytest.approx(wrong, rel=1e-14)


def test_agreement_with_torch():
    clean, perturbed = 3 * draw(200, 50), 3 * draw(200, 50, seed=1)
    found = read(clean, perturbed - clean, 13)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (clean, perturbed))
    torch.testing.assert_close(found["kl"], torch.distributions.kl_divergence(p, q), rtol=1e-11, atol=0)
    target = torch.full((200,), 13)
    torch.testing.assert_close(found["loss"], cross_entropy(perturbed, target, reduction="none"), rtol=1e-11, atol=0)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 30.0])
def test_bounds_and_symmetry(scale):
    clean, difference = 5 * draw(500, 40), scale * draw(500, 40, seed=1)
    found = read(clean, difference)
    assert (found["kl"] > 0).all()
    assert (found["js"] > 0).all()
    assert (found["js"] < math.log(2) + 1e-15).all()
    back = read(clean + difference, -difference)["js"]
    torch.testing.assert_close(found["js"], back, rtol=1e-10 + 1e-13 / scale, atol=0)


def test_no_change_and_a_constant_one_are_nothing():
    clean = 5 * draw(20, 40)
    for constant in (0.0, 1.0, -300.0):
        found = read(clean, torch.full_like(clean, constant))
        assert (found["kl"] >= 0).all()
        assert found["kl"].max() < 1e-24
        assert found["js"].abs().max() < 1e-24
    assert not read(clean, torch.zeros_like(clean))["kl"].any()


def float32_log_softmax_kl(clean, perturbed):
    """What everybody writes first; not good enough (the negative control)."""
    log_p, log_q = clean.float().log_softmax(-1), perturbed.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).double()


@pytest.mark.parametrize(("scale", "decade"), [(1.4e-3, -6), (1.4e-2, -4), (0.15, -2), (1.5, 0), (8.0, 1)])
def test_one_percent_with_float32_logits(scale, decade):
    clean = (3 * draw(16, 200)).float()
    perturbed = (clean + scale * draw(16, 200, seed=1)).float()
    expected = [exact(z, w - z)["kl"] for z, w in zip(clean.double(), perturbed.double(), strict=True)]
    expected = torch.tensor(expected, dtype=torch.float64)
    assert -0.5 < expected.median().log10() - decade < 0.5
    relative = (read(clean, perturbed - clean)["kl"] / expected - 1).abs()
    assert relative.max() < 1e-6
    naive = (float32_log_softmax_kl(clean, perturbed) / expected - 1).abs()
    assert (naive.median() > 1e-2) == (decade == -6)


def test_the_arguments_are_left_alone():
    clean, difference = draw(3, 9), draw(3, 9, seed=1)
    before = clean.clone(), difference.clone()
    read(clean, difference)
    assert torch.equal(clean, before[0])
    assert torch.equal(difference, before[1])


def gpt2(offset=0.0, vocabulary=1000, dtype=torch.float64):
    """A random GPT-2. All logits of a token share the offset, as they do in the real one, where it is near -100."""
    config = GPT2Config(
        n_layer=4, n_head=4, n_embd=64, vocab_size=vocabulary, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    hf = GPT2LMHeadModel(config).double()
    ramp = torch.linspace(-1, 1, 64, dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate(hf.parameters()):
            if parameter.ndim == 2:
                parameter.copy_(0.12 * draw(*parameter.shape, seed=seed).float())
        hf.transformer.wte.weight += 0.3 * ramp.float()
        hf.transformer.ln_f.bias += (offset / 0.3 / ramp.square().sum() * ramp).float()
    return SplitModel(hf.to(torch.float32).to(dtype))  # the same weights in both


def names(model, *readouts):
    return [parse_readout(name, model) for name in readouts]


def along_a_path(model, tokens, lengths, site="resid_pre:1"):
    """A clean run, and the late activations of a straight path in random directions."""
    clean, changes = changes_along_a_path(model, tokens, lengths, site)
    return clean, model.resume(clean, clean.activation + changes)


def changes_along_a_path(model, tokens, lengths, site="resid_pre:1"):
    """A clean run, and the changes of a straight path in random directions."""
    clean = model.start(tokens, model.site(site))
    x = clean.activation
    address = Address(0, "isotropic", torch.arange(len(tokens)), torch.arange(tokens.shape[1]))
    perturbation = normalise(
        Plain(Isotropic(x.shape[-1])), context_at(address, x), lambda vector: model.centre(vector, clean.site)
    )
    return clean, Straight(lengths=tuple(lengths), unit="norm").changes(x, perturbation, slice(None))


def pair(name):
    """One model in float32 and in float64."""
    if name == "nano":
        return [load_model("nano", precision=precision).model for precision in ("float32", "float64")]
    offset = -100.0 if "offset" in name else 0.0
    return [gpt2(offset, dtype=dtype) for dtype in (torch.float32, torch.float64)]


@pytest.mark.parametrize("name", ["nano", "random", "random with an offset"])
def test_one_percent_through_the_whole_pipeline(name):
    models = pair(name)
    tokens = torch.randint(1, models[0].vocabulary, (4, 24), generator=torch.Generator().manual_seed(1))
    runs = [along_a_path(model, tokens, [float(length) for length in torch.logspace(-4.5, 1, 16)]) for model in models]
    kl, expected = (
        compute_readouts(model, run[0], run[1].minus(run[0].late), names(model, "kl"), range(24))["kl"]
        for model, run in zip(models, runs, strict=True)
    )
    clean, late = runs[0]
    logits = models[0].logits(clean.late.final.flatten(0, 1))
    assert (logits.mean().abs() > 50) == (name == "random with an offset")
    naive = torch.stack([float32_log_softmax_kl(logits, models[0].logits(point.flatten(0, 1))) for point in late.final])
    for decade in range(-6, 1):
        chosen = (expected >= 10.0**decade) & (expected < 10.0 ** (decade + 1))
        assert chosen.sum() > 20 or decade == 0
        if not chosen.any():
            continue
        relative = (kl / expected - 1).abs()[chosen]
        assert relative.quantile(0.99) < 1e-2
        assert relative.median() < 1e-3
        if decade == -6:
            assert (naive.reshape(expected.shape) / expected - 1).abs()[chosen].median() > 1e-2


def carrying(name, precision):
    """A model that carries differences in this precision."""
    if name == "nano":
        return load_model("nano", precision=precision).model
    return PRECISIONS[precision][1](gpt2(dtype=torch.float32).hf)


@cache
def in_float64(name):
    """KLs of the path by differences that are carried in float64, and by two runs in float64."""
    plain = load_model("nano", precision="float64").model if name == "nano" else gpt2()
    return kl_along_a_path(ExactModel(plain.hf)), kl_along_a_path(plain)


def kl_along_a_path(model):
    tokens = torch.randint(1, model.vocabulary, (4, 24), generator=torch.Generator().manual_seed(1))
    clean, changes = changes_along_a_path(model, tokens, [float(x) for x in torch.logspace(-5.5, 1, 16)])
    return compute_readouts(model, clean, model.changes(clean, changes), names(model, "kl"), range(24))["kl"]


ERRORS = {"float32-difference": (1e-5, 1e-4), "bf16-difference": (3e-3, 2e-2)}
"""Relative errors of KL that are stated: the median's, and the 99th percentile's."""


@pytest.mark.parametrize(
    ("name", "precision"),
    [("nano", "float32-difference"), ("random", "float32-difference"), ("random", "bf16-difference")],
)
def test_carried_differences_are_right_at_every_kl(name, precision):
    """From 1e-10 to 10: where subtracting two float32 runs is noise, and where it is not.

    Below 1e-8 a second run in float64 is itself noise, so that there the rules are compared with themselves in float64.
    """
    kl, (expected, plain) = kl_along_a_path(carrying(name, precision)), in_float64(name)
    seen = expected > 1e-8
    torch.testing.assert_close(expected[seen], plain[seen], rtol=1e-5, atol=0)
    decades = 0
    for decade in range(-10, 1):
        chosen = (expected >= 10.0**decade) & (expected < 10.0 ** (decade + 1))
        if int(chosen.sum()) < 20:
            continue
        decades += 1
        relative = (kl / expected - 1).abs()[chosen]
        median, p99 = ERRORS[precision]
        assert relative.median() < median, decade
        assert relative.quantile(0.99) < p99, decade
    assert decades >= 10


def test_rounding_both_runs_instead_of_their_difference_loses_every_digit():
    """The negative control of bf16-difference: the same model with its weights and activations in bfloat16."""
    exactly, rounded = gpt2(), gpt2(dtype=torch.float32)
    rounded.hf.bfloat16()
    tokens = torch.randint(1, 1000, (4, 24), generator=torch.Generator().manual_seed(1))
    clean, changes = changes_along_a_path(exactly, tokens, [1e-3])
    expected = compute_readouts(exactly, clean, exactly.changes(clean, changes), names(exactly, "kl"), range(24))["kl"]
    own = rounded.start(tokens, rounded.site("resid_pre:1"))
    late = rounded.changes(own, changes.to(torch.bfloat16))
    kl = compute_readouts(rounded, own, late, names(rounded, "kl"), range(24))["kl"]
    assert float((kl / expected - 1).abs().median()) > 1


@pytest.fixture(scope="module")
def small():
    """A small model in float64, a clean run that reads two late sites, and three points of a path."""
    model = gpt2(vocabulary=90)
    tokens = torch.randint(1, 90, (3, 10), generator=torch.Generator().manual_seed(0))
    site, span = model.site("resid_pre:1"), Span(4, 10)
    clean = model.start(tokens, site, [Site(3, "resid_post"), Site(2, "mlp_out")], span)
    points = span.cut(clean.activation) + torch.stack([scale * draw(3, 6, 64, seed=1) for scale in (0.0, 0.1, 5.0)])
    return model, tokens, clean, model.resume(clean, points)


def test_measured_values_are_those_of_the_logits(small):
    model, tokens, clean, late = small
    found = compute_readouts(model, clean, late.minus(clean.late), names(model, *READOUTS), [4, 6, 9])
    assert {name: tuple(value.shape) for name, value in found.items()} == dict.fromkeys(READOUTS, (3, 3, 3))
    p = model.logits(clean.late.final[:, [0, 2, 5]].flatten(0, 1)).log_softmax(-1).unflatten(0, (3, 3))
    for point in range(3):
        q = model.logits(late.final[point][:, [0, 2, 5]].flatten(0, 1)).log_softmax(-1).unflatten(0, (3, 3))
        m = ((p.exp() + q.exp()) / 2).log()
        kl = (p.exp() * (p - q)).sum(-1)
        js = ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2
        torch.testing.assert_close(found["kl"][point], kl, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(found["js"][point], js, rtol=1e-9, atol=1e-13)
        loss = -q[:, :2].gather(-1, tokens[:, [5, 7], None])[..., 0]
        torch.testing.assert_close(found["loss"][point, :, :2], loss, rtol=1e-9, atol=0)
    assert found["kl"][1].min() > 1e-6
    assert found["kl"][2].min() > 1e-2


def test_the_loss_is_the_models_own_where_nothing_moves(small):
    model, tokens, clean, late = small
    loss = compute_readouts(model, clean, late.minus(clean.late), names(model, "loss"), range(4, 10))["loss"]
    logits = model.hf(tokens).logits
    own = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").reshape(3, 9)
    torch.testing.assert_close(loss[0, :, :-1], own[:, 4:], rtol=1e-9, atol=0)
    assert loss[..., -1].isnan().all()
    assert not loss[..., :-1].isnan().any()


def test_distances_and_cosines_are_those_of_the_late_activations(small):
    model, _, clean, late = small
    where = "blocks.3.hook_resid_post"
    found = compute_readouts(
        model, clean, late.minus(clean.late), names(model, "l2@resid_post:3", f"cos@{where}", "l2@mlp_out:2"), [5, 9]
    )
    assert set(found) == {f"l2@{where}", f"cos@{where}", "l2@blocks.2.hook_mlp_out"}
    for readout, site in [(f"l2@{where}", Site(3, "resid_post")), ("l2@blocks.2.hook_mlp_out", Site(2, "mlp_out"))]:
        a, b = clean.late.sites[site][:, [1, 5]], late.sites[site][:, :, [1, 5]]
        torch.testing.assert_close(found[readout], (b - a).square().sum(-1).sqrt(), rtol=1e-9, atol=1e-12)
    a, b = clean.late.sites[Site(3, "resid_post")][:, [1, 5]], late.sites[Site(3, "resid_post")][:, :, [1, 5]]
    torch.testing.assert_close(found[f"cos@{where}"], (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)))
    assert found[f"l2@{where}"][0].max() < 1e-9 < 1 < found[f"l2@{where}"][2].min()


@pytest.fixture(scope="module")
def single():
    """A small model in float32, a clean run and the changes of three points."""
    model = ExactModel(gpt2(vocabulary=90, dtype=torch.float32).hf)
    clean, changes = changes_along_a_path(model, torch.randint(1, 90, (3, 10)), [0.1, 0.3, 1.0])
    return model, clean, model.changes(clean, changes)


def test_in_one_pass_over_the_vocabulary_kl_and_loss_are_those_of_the_logits(single):
    model, clean, changes = single
    logits = model.logits(clean.late.final.flatten(0, 1)).double()
    targets = clean.tokens.roll(-1, 1).flatten()
    found = compute_readouts(model, clean, changes, names(model, "kl", "loss"), range(10))
    for point in range(3):
        log_q = (logits + model.logits(changes.final[point].flatten(0, 1)).double()).log_softmax(-1)
        kl = (logits.softmax(-1) * (logits.log_softmax(-1) - log_q)).sum(-1).reshape(3, 10)
        torch.testing.assert_close(found["kl"][point], kl, rtol=1e-5, atol=1e-9)
        loss = -log_q.gather(1, targets[:, None]).reshape(3, 10)
        torch.testing.assert_close(found["loss"][point, :, :-1], loss[:, :-1], rtol=1e-5, atol=1e-6)
        assert bool(found["loss"][point, :, -1].isnan().all())


@pytest.mark.parametrize(("kept", "columns"), [(20 * 90, 2048), (2**27, 7)])
def test_pieces_of_the_vocabulary_and_of_the_tokens_are_of_any_size(single, kept, columns, monkeypatch):
    model, clean, changes = single
    whole = compute_readouts(model, clean, changes, names(model, "kl", "loss"), range(10))
    monkeypatch.setattr("tiltmeter.models.chunked_kl.CPU_BLOCKS", BlockSizes(columns, 40, kept))
    again = ExactModel(model.hf)
    parts = compute_readouts(again, replace(clean, tape=Tape()), changes, names(again, "kl", "loss"), range(10))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-8, equal_nan=True)


def test_what_is_kept_of_clean_tokens_is_of_those_that_are_read(single):
    model, clean, changes = single
    whole = compute_readouts(model, clean, changes, names(model, "kl"), range(10))["kl"]
    for read in ([1, 2, 3], [4, 5, 6], [1, 2, 3]):
        part = compute_readouts(model, clean, changes, names(model, "kl"), read)["kl"]
        torch.testing.assert_close(part, whole[..., read], rtol=1e-5, atol=1e-10)


def test_where_exponentials_leave_float32_kl_is_still_right(single):
    model, clean, changes = single
    far = LateActivations(changes.final * 3000, {})
    found = compute_readouts(model, clean, far, names(model, "kl"), range(10))["kl"]
    logits = model.logits(clean.late.final.flatten(0, 1)).double()
    moved = model.logits(far.final[2].flatten(0, 1)).double()
    kl = (logits.softmax(-1) * (logits.log_softmax(-1) - (logits + moved).log_softmax(-1))).sum(-1).reshape(3, 10)
    assert float(kl.max()) > 100
    torch.testing.assert_close(found[2], kl, rtol=1e-5, atol=1e-5)


def test_small_angles_keep_their_digits_in_float32():
    clean, sideways = torch.zeros(1, 64), torch.zeros(1, 64)
    clean[:, 0], sideways[:, 1] = 80.0, 80.0
    assert 1 - cosine(clean, 1e-4 * sideways).item() == pytest.approx(5e-9, rel=1e-3)
    assert l2(clean, 1e-4 * sideways).item() == pytest.approx(8e-3)


def test_readouts_are_the_same_in_chunks_of_any_size(small, monkeypatch):
    model, _, clean, late = small
    readouts = names(model, *READOUTS, "l2@resid_post:3")
    whole = compute_readouts(model, clean, late.minus(clean.late), readouts, range(4, 10))
    sizes = []
    logits = model.logits
    monkeypatch.setattr("tiltmeter.models.readout_values.CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(model, "logits", lambda final: sizes.append(len(final)) or logits(final))
    parts = compute_readouts(model, clean, late.minus(clean.late), readouts, range(4, 10))
    assert set(sizes) == {16, 2}  # of 18 tokens
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-9, atol=1e-15, equal_nan=True)


def test_points_and_positions_do_not_see_each_other(small):
    model, _, clean, late = small
    whole = compute_readouts(model, clean, late.minus(clean.late), names(model, "kl"), range(4, 10))["kl"]
    last = LateActivations(late.final[2:], {})
    torch.testing.assert_close(
        compute_readouts(model, clean, last.minus(LateActivations(clean.late.final, {})), names(model, "kl"), [8])[
            "kl"
        ],
        whole[2:, :, 4:5],
    )


def soft_capped():
    config = Gemma2Config(
        hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, vocab_size=90, max_position_embeddings=32, final_logit_softcapping=3.0,
        attn_implementation="eager",
    )  # fmt: skip
    return SplitModel(Gemma2ForCausalLM(config).double())


def biased():
    model = gpt2(vocabulary=90)
    model.hf.lm_head = torch.nn.Linear(64, 90, dtype=torch.float64).requires_grad_(False)
    return model


class Rectified(torch.nn.Module):
    """A head that scales like a linear one, and does not add up."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head(x).relu()


def rectified():
    model = gpt2(vocabulary=90)
    model.hf.lm_head = Rectified(model.hf.lm_head)
    return model


@pytest.mark.parametrize(("build", "linear"), [(soft_capped, False), (biased, False), (rectified, False), (gpt2, True)])
def test_heads_that_are_not_linear_are_read_whole(build, linear):
    model = build()
    assert model.head.is_linear == linear
    for parameter in model.hf.get_output_embeddings().parameters():
        parameter.copy_(draw(*parameter.shape))
    tokens = torch.randint(1, 90, (2, 6), generator=torch.Generator().manual_seed(0))
    clean, late = along_a_path(model, tokens, [0.3, 2.0])
    found = compute_readouts(model, clean, late.minus(clean.late), names(model, "kl"), range(6))["kl"]
    p = model.logits(clean.late.final.flatten(0, 1)).log_softmax(-1)
    q = model.logits(late.final.flatten(0, 2)).log_softmax(-1).unflatten(0, (2, 12))
    torch.testing.assert_close(found.flatten(1), (p.exp() * (p - q)).sum(-1), rtol=1e-9, atol=1e-13)
    assert found.median() > 1e-3


@pytest.mark.parametrize("build", [soft_capped, biased, gpt2])
def test_carried_differences_pass_any_head(build):
    model = build()
    for parameter in model.hf.get_output_embeddings().parameters():
        parameter.copy_(draw(*parameter.shape))
    exact = ExactModel(model.hf)
    tokens = torch.randint(1, model.vocabulary, (2, 6), generator=torch.Generator().manual_seed(0))
    clean, changes = changes_along_a_path(model, tokens, [0.3, 2.0])
    kl = [
        compute_readouts(one, clean, one.changes(clean, changes), names(one, "kl"), range(6))["kl"]
        for one in (exact, model)
    ]
    torch.testing.assert_close(kl[0], kl[1], rtol=1e-4 if build is soft_capped else 1e-9, atol=1e-13)


def test_names(small):
    model = small[0]
    for text, name in [("kl", "kl"), ("js", "js"), ("l2@resid_post:3", "l2@blocks.3.hook_resid_post")]:
        assert parse_readout(text, model).name == name
    assert parse_readout("cos@z:2", model) == Readout("cos", Site(2, "z"))


@pytest.mark.parametrize("text", ["", "KL", "l2", "kl@resid_post:3", "kl@", "l3@resid_post:3", "@resid_post:3"])
def test_unknown_readouts_are_refused(small, text):
    with pytest.raises(
        TiltmeterError,
        match=r"is not a readout; choose from kl, js, loss, logit-diff:A,B, .*entropy, l2@SITE, cos@SITE",
    ):
        parse_readout(text, small[0])


def test_unknown_sites_of_readouts_are_refused(small):
    with pytest.raises(TiltmeterError, match="layer 4, but this model has layers 0 to 3"):
        parse_readout("l2@resid_post:4", small[0])
    with pytest.raises(TiltmeterError, match="'' is not a site"):
        parse_readout("l2@", small[0])
