"""logit-diff, prob, entropy, rank and top1: against 60 digits, and against a full pass in float64 with a hook."""

from copy import deepcopy

import mpmath
import pytest
import torch

from tiltmeter import load_model
from tiltmeter.models.exact_model import ExactModel
from tiltmeter.models.output_change import CleanOutput, OutputChange
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import parse_readout
from tiltmeter.models.split_model import SplitModel
from tiny_models import full_pass, random_tokens, tiny

A, B = 7, 20
NAMES = (f"logit-diff:#{A},#{B}", f"prob:#{A}", "entropy", "rank", "top1")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def read(logits, difference):
    """Each readout of each row."""
    change = OutputChange(CleanOutput(logits), difference, torch.zeros(len(logits), dtype=torch.int64))
    values = (change.logit_difference(A, B), change.probability(A), change.entropy(), change.rank, change.top1())
    return dict(zip(NAMES, values, strict=True))


def exact(logits, difference):
    """The same of one row in 60 digits, from the definitions."""
    with mpmath.workdps(60):
        w = [mpmath.mpf(float(z)) + mpmath.mpf(float(d)) for z, d in zip(logits, difference, strict=True)]
        total = max(w) + mpmath.log(mpmath.fsum(mpmath.exp(value - max(w)) for value in w))
        log_q = [value - total for value in w]
        entropy = -mpmath.fsum(mpmath.exp(value) * value for value in log_q)
        rank = 1 + sum(value > w[int(logits.argmax())] for value in w)
        values = (w[A] - w[B], mpmath.exp(log_q[A]), entropy, rank, rank == 1)
        return dict(zip(NAMES, map(float, values), strict=True))


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-3, 1.0, 200.0])
def test_every_digit(scale):
    logits, difference = 3 * draw(5, 24), scale * draw(5, 24, seed=1)
    found = read(logits, difference)
    for row in range(5):
        for name, value in exact(logits[row], difference[row]).items():
            tiny = 1e-15 if name == "entropy" else 1e-200
            assert float(found[name][row]) == pytest.approx(value, rel=1e-12, abs=tiny), name
    assert set(found["top1"].tolist()) == ({1.0} if scale < 0.1 else {0.0, 1.0})


def test_where_kl_overflows_all_are_finite():
    logits = torch.zeros(3, 24).double()
    difference = torch.zeros(3, 24).double()
    logits[0, A], difference[0, A], logits[1, B], difference[2] = -1e9, 2e9, 1e9, torch.linspace(-2e3, 2e3, 24)
    found = read(logits, difference)
    for row in range(3):
        for name, value in exact(logits[row], difference[row]).items():
            assert float(found[name][row]) == pytest.approx(value, rel=1e-9, abs=1e-6), name


def test_small_changes_keep_their_digits_though_logits_are_float32():
    """A change of 1e-6 of logits near -100, as the readout at this length minus that at length 0."""
    logits, difference = (3 * draw(8, 24) - 100).float(), (1e-6 * draw(8, 24, seed=1)).float()
    before, after = read(logits, 0 * difference), read(logits, difference)
    double = difference.double()
    change = after[NAMES[0]] - before[NAMES[0]]
    torch.testing.assert_close(change, double[:, A] - double[:, B], rtol=1e-6, atol=1e-13)
    p = logits.double().softmax(-1)
    moved = p * (double - (p * double).sum(-1, keepdim=True))
    torch.testing.assert_close(after[NAMES[1]] - before[NAMES[1]], moved[:, A], rtol=1e-4, atol=1e-15)
    naive = (logits + difference)[:, [A, B]].double() - logits[:, [A, B]].double()
    assert (naive[:, 0] - naive[:, 1] - change).abs().max() > 0.5 * change.abs().median()


def test_equally_likely_tokens_do_not_push_the_first_one_down():
    logits = torch.tensor([[1.0, 3.0, 3.0] + [0.0] * 21]).double()
    found = read(logits, torch.zeros_like(logits))
    assert (float(found["rank"]), float(found["top1"])) == (1, 1)
    swapped = torch.zeros_like(logits)
    swapped[0, 0] = 5.0
    assert float(read(logits, swapped)["rank"]) == 2


def by_formula(clean, perturbed):
    """Each readout from two sets of logits [.., vocabulary]."""
    q = perturbed.softmax(-1)
    order = perturbed.argsort(-1, descending=True)
    rank = 1 + (order == clean.argmax(-1, keepdim=True)).int().argmax(-1)
    same = clean.argmax(-1) == perturbed.argmax(-1)
    values = (perturbed[..., A] - perturbed[..., B], q[..., A], -(q * q.log()).sum(-1), rank.double(), same.double())
    return dict(zip(NAMES, values, strict=True))


def measured(model, tokens, change):
    clean = model.start(tokens, model.site("resid_pre:1"))
    changes = model.changes(clean, change.to(clean.activation))
    readouts = [parse_readout(name, model) for name in (*NAMES, "kl")]
    return compute_readouts(model, clean, changes, readouts, range(tokens.shape[1]))


def hooked(family, hf, tokens, change):
    """The same of full passes in float64."""
    clean = full_pass(family, hf, tokens).logits
    passes = [full_pass(family, hf, tokens, edits={(1, "resid_pre"): lambda x, v=v: x + v}).logits for v in change]
    found = [by_formula(clean, perturbed) for perturbed in passes]
    return {name: torch.stack([one[name] for one in found]) for name in NAMES}


@pytest.mark.parametrize("case", ["double", "float32", "carried"])
def test_a_llama_gives_what_a_full_pass_with_a_hook_gives(case):
    hf, tokens = tiny("llama"), random_tokens()
    change = torch.stack([scale * draw(2, 12, 32, seed=3) for scale in (0.0, 1e-4, 3.0)])
    single = tiny("llama", dtype=torch.float32)
    model = {"double": SplitModel(hf), "float32": SplitModel(single), "carried": ExactModel(single)}[case]
    expected = hooked("llama", hf.double(), tokens, change)
    found = measured(model, tokens, change)
    tolerance = 1e-9 if case == "double" else 2e-4
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance, msg=name)
    assert 0 < float(expected["top1"][2].mean()) < 1
    assert float(expected["rank"][2].max()) > 5


def test_nano_gives_what_a_full_pass_with_a_hook_gives():
    """As users run it. Ranks may differ where two tokens are equally likely up to the rounding of float32."""
    double = load_model("nano", precision="float64").model
    model = ExactModel(deepcopy(double.hf).float())
    tokens = torch.randint(1, model.vocabulary, (2, 10), generator=torch.Generator().manual_seed(0))
    change = torch.stack([scale * draw(2, 10, 128, seed=3) for scale in (0.0, 1e-3, 1.0)])
    change = change - change.mean(-1, keepdim=True)
    found, expected = measured(model, tokens, change), hooked("gpt2", double.hf, tokens, change)
    for name in NAMES[:3]:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-5, msg=name)
        moved, wanted = (values[name][1] - values[name][0] for values in (found, expected))
        torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()), msg=name)
    assert float((found["rank"] - expected["rank"]).abs().max()) <= 1
    assert float(expected["rank"][2].max()) > 10
    assert torch.equal(found["top1"][0], torch.ones(2, 10).double())
    assert 0 < float(found["top1"][2].mean()) < 1


def test_readouts_of_the_output_do_not_change_each_other():
    model, tokens = ExactModel(tiny("llama", dtype=torch.float32)), random_tokens()
    change = 2 * draw(1, 2, 12, 32)
    together = measured(model, tokens, change)
    clean = model.start(tokens, model.site("resid_pre:1"))
    changes = model.changes(clean, change.to(clean.activation))
    for name in (*NAMES, "kl"):
        alone = compute_readouts(model, clean, changes, [parse_readout(name, model)], range(12))
        torch.testing.assert_close(alone[name], together[name], rtol=1e-5, atol=1e-9, msg=name)
