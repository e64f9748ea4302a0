"""Functions as readouts: what they are given, what they may return, and which are refused."""

import functools

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.own_readouts import CheckedReadout, OwnReadout, at_site, read_own
from tiltmeter.models.positions import parse_positions
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import own_readout, parse_readout
from tiltmeter.models.self_check import check_functions
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.versions import versioned
from tiny_models import random_tokens, tiny

LATE = Site(2, "resid_post")


def kl(clean, perturbed):
    return (clean.exp() * (clean - perturbed)).sum(-1)


def loss(clean, perturbed, targets):
    return -perturbed.gather(1, targets[:, None])[:, 0]


def distance(clean, perturbed):
    return (perturbed - clean).norm(dim=-1)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def moved(request):
    model, tokens = SplitModel(tiny(request.param)), random_tokens()
    clean = model.start(tokens, model.site("resid_pre:1"), [LATE])
    change = torch.randn(3, 2, 12, 32, generator=torch.Generator().manual_seed(0)).double()
    return model, clean, model.changes(clean, change * torch.tensor([0, 0.1, 3])[:, None, None, None])


def computed(moved, functions, read=range(12)):
    model, clean, changes = moved
    readouts = [own_readout(read_own(label, one), model) for label, one in functions.items()]
    names = ("kl", "loss", "l2@resid_post:2")
    return compute_readouts(model, clean, changes, [*readouts, *(parse_readout(one, model) for one in names)], read)


def test_functions_get_what_tiltmeters_own_readouts_are_computed_from(moved):
    given = {"a": kl, "b": loss, "c": at_site("resid_post:2", distance), "d": versioned(kl, "1")}
    found = computed(moved, given)
    assert found["a"].shape == (3, 2, 12)
    torch.testing.assert_close(found["a"], found["kl"], rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(found["b"], found["loss"], rtol=1e-9, atol=1e-13, equal_nan=True)
    torch.testing.assert_close(found["c"], found["l2@blocks.2.hook_resid_post"], rtol=1e-9, atol=1e-13)
    assert torch.equal(found["d"], found["a"])
    assert float(found["a"][2].min()) > 1e-3


def test_targets_are_those_of_tokens_that_have_one(moved):
    seen = []

    def look(clean, perturbed, targets):
        seen.append(targets)
        return perturbed.argmax(-1) == targets

    found = computed(moved, {"look": look}, read=[3, 11])["look"]
    following = moved[1].tokens[:, 4]
    assert all(torch.equal(one, following) for one in seen)
    assert found[..., 1].isnan().all()
    assert set(found[..., 0].flatten().tolist()) <= {0.0, 1.0}
    assert computed(moved, {"look": look}, read=[11])["look"].isnan().all()
    assert not computed(moved, {"plain": kl}, read=[11])["plain"].isnan().any()


def test_chunks_do_not_matter(moved, monkeypatch):
    given = {"a": kl, "b": loss}
    whole = computed(moved, given)
    monkeypatch.setattr("tiltmeter.models.readout_values.CHUNK_ELEMENTS", 1)
    for name, value in computed(moved, given).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-13, equal_nan=True)


X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()


class Kept:
    """A function that remembers how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, clean, perturbed):
        self.calls += 1
        return clean.sum(-1) + self.calls


def in_place(clean, perturbed):
    perturbed += 1
    return perturbed.sum(-1)


def through_numpy(clean, perturbed):
    perturbed.numpy()[:] += 1
    return perturbed.sum(-1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda a, b: (a - b).sum(),
            r"returned a tensor of shape \[\], torch.float64, torch.strided; expected .* of shape \[8\]",
        ),
        (lambda a, b: a - b, r"returned a tensor of shape \[8, 5\]"),
        (lambda a, b: (a - b).sum(-1).to(torch.complex64), "complex64, .*; expected a tensor of real numbers"),
        (lambda a, b: (a - b).sum(-1).to_sparse(), "torch.sparse_coo; expected a tensor of real numbers"),
        (lambda a, b: (a - b).sum(-1).tolist(), "returned list; expected a tensor"),
        (lambda a, b: None, "returned NoneType"),
        (lambda a, b: a @ b, r"failed on tensors of shape \[8, 5\], \[8, 5\]: RuntimeError: mat1"),
        (lambda a, b: 1 / 0, "failed on .*: ZeroDivisionError: division by zero"),
        (lambda a, b: (a + torch.rand(())).sum(-1), "other numbers when called again; let nothing in it be drawn"),
        (Kept(), "other numbers when called again"),
        (lambda a, b: (a - a.mean(0)).sum(-1), "beside fewer others, so it would depend on the batch"),
        (lambda a, b: a.sum(-1).cumsum(0).flip(0), "beside fewer others"),
        (in_place, "changed the tensors that it was given; let it work on copies"),
        (through_numpy, "changed the tensors that it was given"),
    ],
)
def test_what_a_function_may_not_do(function, message):
    own = CheckedReadout(**vars(read_own("mine", function)))
    with pytest.raises(TiltmeterError, match=message) as refused:
        own.values(X.clone(), X + 1)
    assert str(refused.value).startswith("The readout mine ")
    assert "\n" not in str(refused.value)


def test_an_argument_that_is_changed_in_a_run_is_noticed_then():
    with pytest.raises(TiltmeterError, match="The readout mine changed the tensors that it was given"):
        read_own("mine", lambda a, b: b.clamp_(min=2).sum(-1)).values(X.clone(), X + 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: (a - b).abs().amax(-1).float(),
        lambda a, b: a.argmax(-1),
        lambda a, b: a.argmax(-1) == b.argmax(-1),
        lambda a, b: (a - b).sum(-1).where(a[:, 0] > 0, torch.nan),
        lambda a, b: torch.nn.functional.normalize(a, dim=-1).sum(-1),
        functools.partial(torch.nn.functional.cosine_similarity, dim=-1),
    ],
)
def test_what_it_may_do(function):
    found = CheckedReadout(**vars(read_own("mine", function))).values(X.clone(), X + 1)
    assert (found.dtype, found.shape) == (torch.float64, (8,))
    torch.testing.assert_close(found, function(X, X + 1).double(), equal_nan=True)


def two(clean, perturbed, temperature=2.0):
    return clean.sum(-1) * temperature


def three(clean, perturbed, targets, scale=1.0):
    return targets * scale


@pytest.mark.parametrize(
    ("function", "expected"),
    [(two, 2), (three, 3), (lambda *given: given[0], 3), (torch.dist, 2), (functools.partial(three, scale=2.0), 3)],
)
def test_a_function_gets_as_many_arguments_as_it_needs(function, expected):
    assert read_own("mine", function).arguments == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda clean: clean, r"is a function of \(clean\); expected one of \(clean, perturbed\) log probabilities"),
        (lambda a, b, c, d: a, r"is a function of \(a, b, c, d\)"),
        (lambda a, b, *, k: a, r"is a function of \(a, b, k\)"),
        (at_site("resid_post:2", three), r"of \(clean, perturbed, targets\); expected one of \(clean, perturbed\)\."),
        (3, "is of type int; give a function, or ... for the readout"),
        (torch.zeros(3), "is of type Tensor"),
    ],
)
def test_what_is_no_function_of_these(given, message):
    with pytest.raises(TiltmeterError, match=message):
        read_own("mine", given)


def test_versions_and_sites_combine_either_way():
    one = read_own("mine", versioned(at_site("resid_post:2", distance), "7"))
    other = read_own("mine", at_site("resid_post:2", versioned(distance, "7")))
    assert one == other
    assert one == OwnReadout("mine", versioned(distance, "7"), "resid_post:2")
    assert one.identity == "a function, version 7, at resid_post:2"
    with pytest.raises(TiltmeterError, match=r"at_site.. was given a int; expected a function"):
        at_site("resid_post:2", 3)
    with pytest.raises(TiltmeterError, match=r"at_site.. was given the site 2"):
        at_site(2, distance)


def test_the_self_check_runs_every_function_once_on_a_perturbed_run():
    model, tokens = SplitModel(tiny("gpt2")), random_tokens()
    seen = []

    def look(clean, perturbed):
        seen.append((clean - perturbed).abs().amax(-1))
        return clean.sum(-1)

    own = [own_readout(read_own(label, one), model) for label, one in (("a", look), ("b", at_site("z:2", look)))]
    for text in ("all", "last"):
        seen.clear()
        check_functions(
            model, tokens, model.site("resid_pre:1"), [parse_readout("kl", model), *own], parse_positions(text, 12)
        )
        assert len(seen) == 6  # each of the two three times
        assert all(float(one.min()) > 1e-3 for one in seen)
    mixing = own_readout(read_own("mixing", lambda a, b: a.sum(-1) - a.mean()), model)
    with pytest.raises(TiltmeterError, match="The readout mixing returned other numbers for the same tokens"):
        check_functions(model, tokens, model.site("resid_pre:1"), [mixing], parse_positions("last", 12))
