"""Sweeps along directions that are objects."""

import json

import numpy as np
import pytest
import torch

import tiltmeter as tm
from sweep_cases import token_set
from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.run_directory import read_manifest
from tiny_models import WIDTH, tiny

LENGTHS = (0.0, 1.0, 3.0)
TOKENS = token_set(sequences=4)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def run(loaded, out, directions, **changes):
    sweep = tm.Sweep(
        **{"site": "resid_pre:1", "directions": directions, "path": tm.Straight(lengths=LENGTHS), "sequences": 4}
        | changes
    )
    return tm.run_sweep(sweep, loaded, TOKENS, out)


def centred(vector):
    vector = vector - vector.mean(-1, keepdim=True)
    return vector / vector.norm(dim=-1, keepdim=True)


def kl_by_hooks(model, push):
    """KL at every position and length when `push` [sequence, position, d] is added at block 1's input, in float64."""
    model = model.double()
    clean = model(TOKENS.ids).logits.log_softmax(-1)
    found = []
    for length in LENGTHS:
        hook = model.transformer.h[1].register_forward_pre_hook(
            lambda _, args, length=length: (args[0] + length * push, *args[1:])
        )
        perturbed = model(TOKENS.ids).logits.log_softmax(-1)
        hook.remove()
        found.append((clean.exp() * (clean - perturbed)).sum(-1))
    return torch.stack(found).detach().numpy()


def test_vectors_and_functions_give_what_hooks_give(loaded, tmp_path):
    vector, rows = torch.randn(WIDTH), torch.randn(TOKENS.ids.shape[1], WIDTH)
    given = {
        "vector": vector,
        "rows": rows.numpy(),
        "away": tm.versioned(lambda x, context: x.roll(1, -1), "1"),
        "isotropic": ...,
    }
    found = run(loaded, tmp_path / "run", given, keep_positions=True)
    assert found.direction.values.tolist() == ["vector", "rows", "away", "isotropic"]
    model = tiny("gpt2").double()
    (x,) = (model(TOKENS.ids, output_hidden_states=True).hidden_states[1],)
    x = x - x.mean(-1, keepdim=True)
    pushes = {
        "vector": centred(vector).expand_as(x),
        "rows": centred(rows).expand_as(x),
        "away": centred(x.roll(1, -1)),
    }
    for name, push in pushes.items():
        expected = kl_by_hooks(model, push.double())
        np.testing.assert_allclose(found.kl.sel(direction=name).transpose("step", ...), expected, rtol=2e-4, atol=1e-12)


def test_a_vector_gives_what_its_file_gives(loaded, tmp_path):
    vector = np.random.default_rng(0).normal(size=WIDTH)
    np.save(tmp_path / "v.npy", vector)
    of_file = run(loaded, tmp_path / "file", (f"along:{tmp_path / 'v.npy'}",))
    assert np.array_equal(of_file.kl, run(loaded, tmp_path / "object", {"mine": vector}).kl)
    vectors = [read_manifest(tmp_path / name)["identity"]["vectors"] for name in ("file", "object")]
    assert [*vectors[0].values()] == [*vectors[1].values()]


def test_a_run_is_resumed_only_with_the_same_vector_and_version(loaded, tmp_path):
    run(
        loaded, tmp_path / "run", {"v": torch.ones(WIDTH).cumsum(0), "f": tm.versioned(lambda x, _: x.roll(1, -1), "1")}
    )
    shown = read_manifest(tmp_path / "run")["identity"]["sweep"]["directions"]
    assert shown["f"] == "a function, version 1" and json.dumps(shown)
    for vector, version in ((torch.ones(WIDTH).cumsum(0) ** 2, "1"), (torch.ones(WIDTH).cumsum(0), "2")):
        with pytest.raises(TiltmeterError, match="is a run of another configuration"):
            run(loaded, tmp_path / "run", {"v": vector, "f": tm.versioned(lambda x, _: x, version)})


def test_a_function_without_a_version_is_not_stored(loaded, tmp_path):
    with pytest.raises(TiltmeterError, match=r"The direction f is a function, .*tm.versioned\(f, .1.\)"):
        run(loaded, tmp_path / "run", {"f": lambda x, _: x.roll(1, -1)})
    assert not (tmp_path / "run").exists()


def test_vectors_of_another_shape_are_refused(loaded, tmp_path):
    with pytest.raises(TiltmeterError, match="v has 3 vectors, but sequences have 8 positions"):
        run(loaded, tmp_path / "a", {"v": torch.ones(3, WIDTH)})
    with pytest.raises(TiltmeterError, match=f"v has width 5, but those at this site {WIDTH}"):
        run(loaded, tmp_path / "b", {"v": torch.ones(5)})


@pytest.mark.parametrize(
    ("directions", "sentence"),
    [
        ({"f": lambda x, _: x.roll(1, 0)}, "f returned other vectors for a sequence beside others than alone"),
        ({"v": torch.ones(WIDTH), "isotropic": ...}, "v has the same number in every coordinate"),
    ],
)
def test_what_would_give_other_numbers_in_another_batch_or_none_is_refused(loaded, directions, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        run(loaded, None, directions)


def test_a_function_that_changes_its_context_gets_what_one_that_does_not_gets(loaded):
    one, other = (run(loaded, None, {"f": f}) for f in (lambda x, _: x.clamp(min=0), lambda _, c: c.x.clamp_(min=0)))
    assert np.array_equal(one.kl, other.kl)


def test_crossings_take_them_too(loaded, tmp_path):
    sweep = tm.Sweep(
        site="resid_pre:1",
        directions={"mine": torch.ones(WIDTH).cumsum(0), "zero": ...},
        path=tm.Straight(lengths=(0, 2, 4, 8)),
        sequences=4,
        positions="last",
    )
    table = tm.run_crossings(
        tm.Crossings(sweep=sweep, goal=tm.CrossingTarget(threshold=1e-3)), loaded, TOKENS, tmp_path
    )
    assert set(table.direction) == {"mine", "zero"}
