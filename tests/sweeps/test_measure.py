"""A shard, against one full forward pass with a hook for each sequence, direction and step."""

import dataclasses

import numpy as np
import pytest
import torch

from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import BosPolicy
from tiltmeter.models.split_model import SplitModel
from tiltmeter.perturb.names import DirectionName
from tiltmeter.perturb.paths import Sphere, Straight, Substitute
from tiltmeter.sweeps.measure import measure_shard
from tiltmeter.sweeps.plan import Sweep, make_plan
from tiny_models import VOCABULARY, WIDTH, full_pass, tiny

BOUNDARY, LENGTH, SEQUENCES = 0, 7, 3
LATE = (2, "resid_post")
LENGTHS = (0.0, 0.7, 6.0)
READOUTS = ("kl", "loss", "l2@resid_post:2", "cos@resid_post:2")
BOUNDARIES = {(0, 0), (1, 0), (2, 0), (1, 3), (2, 6)}
"""(sequence, position); the last of them is all that `last` perturbs and reads of sequence 2."""
LOST = {DirectionName("first"): set(), DirectionName("second"): {(0, 2), (1, 3), (2, 5), (1, 6)}}
"""Tokens without a direction."""
POSITIONS = {
    "all": (range(LENGTH), range(LENGTH)),
    "last": ([6], [6]),
    "3": ([3], [3]),
    "2+3": ([2], [2, 3, 4, 5]),
    "1, 6,3": ([1, 3, 6], [1, 3, 6]),
}
"""Which positions a text perturbs, and which it reads."""


class Written:
    """A direction whose vectors are written down, one for each (sequence, position)."""

    def __init__(self, seed, zeros):
        self.vectors = torch.randn(SEQUENCES, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed)).double() + 1
        for place in zeros:
            self.vectors[place] = 0

    def vector(self, context):
        """The vectors of the context's tokens."""
        address = context.address
        return self.vectors[address.sequences][:, address.positions].to(context.x)


DIRECTIONS = {name: Written(seed, LOST[name]) for seed, name in enumerate(LOST)}


def some_tokens():
    ids = torch.randint(1, VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(1))
    for place in BOUNDARIES:
        ids[place] = BOUNDARY
    return TokenSet(ids, "tokens", BOUNDARY, {})


TOKENS = some_tokens()


def plan(family="gpt2", **changes):
    site = changes.pop("site", "resid_pre:1")
    sweep = Sweep(site=site, path=Straight(lengths=LENGTHS), readouts=READOUTS, sequences=SEQUENCES, **changes)
    return make_plan(sweep, SplitModel(tiny(family)), TOKENS)


def measured(plan, path=None):
    return measure_shard(plan, DIRECTIONS, path or plan.sweep.path, range(SEQUENCES))


def pushed(vectors, moved, length, centred):
    """An edit of the stream: add `length` times the unit vector at each position that moves."""

    def edit(x):
        x = x.clone()
        for p in moved:
            vector = vectors[p] - vectors[p].mean() if centred else vectors[p]
            x[0, p] += length * vector / vector.pow(2).sum().sqrt()
        return x

    return edit


def compared(clean, late, ids, centred):
    """Each readout at each position, from two full passes."""
    p, q = clean.logits[0].log_softmax(-1), late.logits[0].log_softmax(-1)
    before, after = clean.seen[LATE][0], late.seen[LATE][0]
    if centred:
        before, after = (x - x.mean(-1, keepdim=True) for x in (before, after))
    loss = [-q[i, ids[i + 1]] for i in range(LENGTH - 1)]
    return {
        "kl": (p.exp() * (p - q)).sum(-1),
        "loss": torch.tensor([*loss, torch.nan]),
        "l2@blocks.2.hook_resid_post": (after - before).pow(2).sum(-1).sqrt(),
        "cos@blocks.2.hook_resid_post": (after * before).sum(-1) / (after.norm(dim=-1) * before.norm(dim=-1)),
    }


def naive(plan, family, perturbed):
    """Each readout and the realised length, [direction, step, sequence, position], of every position."""
    model, centred, bos = plan.model.hf, family == "gpt2", plan.sweep.bos
    place = (plan.site.layer, plan.site.kind)
    found = {}
    for i, (name, direction) in enumerate(DIRECTIONS.items()):
        for s in range(SEQUENCES):
            ids = TOKENS.ids[s : s + 1]
            clean = full_pass(family, model, ids, [LATE])
            moved = moves(name, s, perturbed, bos)
            for k, length in enumerate(LENGTHS):
                late = full_pass(
                    family, model, ids, [LATE], {place: pushed(direction.vectors[s], moved, length, centred)}
                )
                values = compared(clean, late, ids[0], centred)
                values["length"] = torch.tensor([length * (p in moved) for p in range(LENGTH)], dtype=torch.float64)
                for readout, value in values.items():
                    shape = (len(DIRECTIONS), len(LENGTHS), SEQUENCES, LENGTH)
                    found.setdefault(readout, np.full(shape, np.nan))[i, k, s] = value.numpy()
    return found


def asked(sequence, perturbed, bos):
    """The positions of a sequence that should move."""
    return [p for p in perturbed if bos.perturbation == "in" or (sequence, p) not in BOUNDARIES]


def moves(direction, sequence, perturbed, bos):
    """The positions of a sequence that do move: where there is a direction."""
    return [p for p in asked(sequence, perturbed, bos) if (sequence, p) not in LOST[direction]]


def counts(direction, sequence, perturbed, read, bos):
    """The positions of a sequence that count: read, allowed, not lost, and not of a sequence in which nothing moves."""
    should, do = asked(sequence, perturbed, bos), moves(direction, sequence, perturbed, bos)
    if not do:
        return []
    lost = set(should) - set(do)
    return [p for p in read if p not in lost and (bos.average == "in" or (sequence, p) not in BOUNDARIES)]


def masked(positions_of):
    """A mask [direction, step, sequence, position] of the positions that a function of (direction, sequence) names."""
    mask = np.zeros((len(DIRECTIONS), 1, SEQUENCES, LENGTH), bool)
    for i, name in enumerate(DIRECTIONS):
        for s in range(SEQUENCES):
            mask[i, 0, s, list(positions_of(name, s))] = True
    return mask


def mean(values, mask):
    """Mean over the masked positions that have a value; NaN where there is none."""
    mask = mask & ~np.isnan(values)
    total, number = np.where(mask, values, 0).sum(-1), mask.sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def check(plan, family, text):
    """Compare a shard with the naive loop."""
    perturbed, read = POSITIONS[text]
    bos, keep = plan.sweep.bos, plan.sweep.keep_positions
    counted = masked(lambda name, s: counts(name, s, perturbed, read, bos))
    moved = masked(lambda name, s: moves(name, s, perturbed, bos))
    expected, arrays = naive(plan, family, perturbed), measured(plan)
    np.testing.assert_array_equal(arrays["tokens"], counted[:, 0].sum(-1))
    assert arrays.keys() == expected.keys() | {"tokens"}
    for readout, values in expected.items():
        mask = counted if readout != "length" else moved & counted if keep else moved
        wanted = np.where(mask, values, np.nan)[..., list(read)] if keep else mean(values, mask)
        np.testing.assert_allclose(arrays[readout], wanted, rtol=1e-9, atol=1e-10, err_msg=readout)


@pytest.mark.parametrize(
    ("text", "perturbation", "average"),
    [
        *((text, policy, policy) for text in POSITIONS for policy in ("in", "out")),
        ("all", "in", "out"),
        ("all", "out", "in"),
        ("last", "out", "in"),
    ],
)
def test_means_equal_a_naive_loop(text, perturbation, average):
    check(plan(positions=text, bos=BosPolicy(perturbation=perturbation, average=average)), "gpt2", text)


@pytest.mark.parametrize(("text", "policy"), [("all", "out"), ("all", "in"), ("last", "in"), ("2+3", "in")])
def test_kept_positions_equal_a_naive_loop(text, policy):
    bos = BosPolicy(perturbation=policy, average=policy)
    check(plan(positions=text, bos=bos, keep_positions=True), "gpt2", text)


@pytest.mark.parametrize(("text", "site"), [("all", "resid_pre:1"), ("2+3", "mlp_out:1"), ("2+3", "resid_mid:1")])
def test_a_model_without_centring_and_a_site_within_a_block(text, site):
    check(plan("llama", positions=text, site=site), "llama", text)


@pytest.mark.parametrize("batch_tokens", [1, 14, 10_000])
def test_memory_does_not_change_the_numbers(batch_tokens):
    whole, pieces = measured(plan()), measured(plan(batch_tokens=batch_tokens))
    for readout, values in whole.items():
        np.testing.assert_allclose(pieces[readout], values, rtol=1e-12, atol=1e-13, err_msg=readout)


def test_the_mean_loss_leaves_out_the_last_position():
    kept = measured(plan(keep_positions=True))["loss"]
    assert np.isnan(kept[..., -1]).all()
    assert not np.isnan(kept[0, ..., :-1]).any()
    np.testing.assert_allclose(measured(plan())["loss"], np.nanmean(kept, -1), rtol=1e-12)
    assert np.isnan(measured(plan(positions="last"))["loss"]).all()


def test_length_zero_moves_nothing():
    arrays = measured(plan())
    assert np.abs(arrays["kl"][:, 0]).max() < 1e-14
    assert arrays["l2@blocks.2.hook_resid_post"][:, 0].max() < 1e-12
    assert arrays["kl"][:, 2].min() > 1e-3  # and something does


def test_the_length_on_a_sphere_is_that_of_the_chord():
    wanted = plan(keep_positions=True)
    degrees = (0.0, 1e-3, 60.0, 180.0)
    arrays = measured(wanted, Sphere(degrees=degrees))
    stream = full_pass("gpt2", wanted.model.hf, TOKENS.ids, [(1, "resid_pre")]).seen[1, "resid_pre"]
    norm = (stream - stream.mean(-1, keepdim=True)).norm(dim=-1).numpy()
    for k, angle in enumerate(degrees):
        np.testing.assert_allclose(arrays["length"][0, k], 2 * norm * np.sin(np.deg2rad(angle) / 2), rtol=1e-9)


@pytest.mark.parametrize(("text", "policy"), [("all", "out"), ("2+3", "in")])
def test_a_substitution_moves_the_same_tokens_as_a_path_that_ends_there(text, policy):
    wanted = plan(positions=text, bos=BosPolicy(perturbation=policy))
    one, other = measured(wanted, Substitute()), measured(wanted, Straight(lengths=(1.0,), unit="target"))
    assert one["kl"].shape == (len(DIRECTIONS), 1, SEQUENCES)
    for readout, values in other.items():
        np.testing.assert_allclose(one[readout], values, rtol=1e-9, atol=1e-12, err_msg=readout)


def test_ids_outside_the_shard_do_not_matter():
    one = measure_shard(plan(), DIRECTIONS, plan().sweep.path, range(1, 2))
    for readout, values in measured(plan()).items():
        np.testing.assert_allclose(one[readout], values[..., 1:2], rtol=1e-12, atol=1e-13, err_msg=readout)


@pytest.mark.parametrize(("text", "readout"), [("all", "kl"), ("3", "loss"), ("last", "l2@resid_post:2")])
def test_what_is_not_finite_is_refused(text, readout):
    wanted = plan(positions=text)
    wanted = dataclasses.replace(wanted, readouts=tuple(r for r in wanted.readouts if r.kind == readout.split("@")[0]))
    with pytest.raises(TiltmeterError, match=r"along first is not finite at step 1e\+300") as refused:
        measured(wanted, Straight(lengths=(1.0, 1e300)))
    assert "\n" not in str(refused.value)
