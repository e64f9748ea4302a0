"""Comparisons of vectors with baselines."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tiltmeter as tm
from small_saes import random_sae
from sweep_cases import token_set
from tiltmeter.analysis.standing import LEVEL
from tiltmeter.data.token_set import TokenSet
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.reports.sweep import publish, short_table
from tiltmeter.saes.at_site import RowsAtSite
from tiltmeter.sweeps.compare import compare
from tiltmeter.sweeps.comparison import all_directions
from tiny_models import WIDTH, tiny

TOKENS = token_set(sequences=16)


@pytest.fixture(scope="module")
def loaded():
    return tm.load_model(tiny("gpt2"), name="small")


def draw(seed=0, width=WIDTH):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def run(loaded, out, vectors, tokens=TOKENS, site="resid_pre:1", **changes):
    few = {"draws": 9, "sequences": 8, "lengths": (0.3, 1.0), "budgets": (1e-3, 50.0)}
    return compare(loaded, tokens, site, vectors, out=out, **few | changes)


@pytest.fixture(scope="module")
def small(loaded, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    sae = random_sae(WIDTH, 40, dtype=torch.float32)
    return run(loaded, out, {"one": draw(0), "two": draw(1).numpy()}, sae=tm.wrap_sae(sae)), out


def test_curves_standings_and_files_agree(small):
    found, out = small
    names = [str(name) for name in found.curves.direction.values]
    assert len(names) == 4 + 9 * (3 + 2 * (2 + 1))  # permutations of each vector, and features, of both signs
    table = found.standings
    row = table[(table.vector == "minus-two") & (table.baseline == "permutation") & (table.length == 1)].iloc[0]
    kl = found.curves.kl.isel(step=1).mean("sequence").to_series()
    assert row["mean"] == pytest.approx(kl["minus-two"])
    assert row.baseline_mean == pytest.approx(kl[[f"minus-permutation:two#{i}" for i in range(9)]].mean())
    assert len(table) == 4 * 5 * 2
    stored = {name: pd.read_parquet(out / f"{name}.parquet") for name in ("standings", "budgets", "verdicts")}
    pd.testing.assert_frame_equal(stored["standings"], table)
    assert [*stored["verdicts"].sentence] == str(found).splitlines()
    assert all("no verdict is possible" in one.sentence for one in found.verdicts)  # of nine draws


def test_a_draw_is_one_vector_and_permutations_are_of_the_vector(small, loaded):
    found, _ = small
    model = tiny("gpt2").double()
    vector = draw(1).double()
    x = model(TOKENS.ids[:8], output_hidden_states=True).hidden_states[1]
    distance = float(found.curves.attrs["pair_distance"])
    clean = model(TOKENS.ids[:8]).logits[:, -1].log_softmax(-1)

    def kl(push):
        hook = model.transformer.h[1].register_forward_pre_hook(lambda _, args: (push_last(args[0], push), *args[1:]))
        perturbed = model(TOKENS.ids[:8]).logits[:, -1].log_softmax(-1)
        hook.remove()
        return float((clean.exp() * (clean - perturbed)).sum(-1).mean())

    def push_last(hidden, push):
        hidden = hidden.clone()
        push = push - push.mean()
        hidden[:, -1] += distance * push / push.norm()
        return hidden

    assert x.shape[-1] == WIDTH
    mean = found.curves.kl.isel(step=1).mean("sequence").to_series()
    with torch.no_grad():
        assert mean["two"] == pytest.approx(kl(vector), rel=1e-3)
        assert mean["minus-two"] == pytest.approx(kl(-vector), rel=1e-3)


def test_budgets_are_lengths_at_which_kl_is_reached(small):
    found, _ = small
    table = found.budgets.set_index(["budget", "direction"])
    assert set(table.loc[1e-3].index) == {
        *("one", "minus-one", "two", "minus-two", "isotropic", "cov-random-mixture", "real-mixture")
    }
    assert (table.loc[50.0].censored == 8).all() and np.isinf(table.loc[50.0]["median_high"]).all()
    assert table.loc[1e-3]["median"].between(0, 2).all()


def test_the_report_says_the_verdicts(small):
    found, out = small
    page = publish(out).read_text()
    assert found.verdicts[0].sentence in page and "data:image/svg+xml" in page
    text = short_table(out)
    assert str(found) in text and "permutation" in text


def test_an_interrupted_comparison_goes_on_and_another_is_refused(small, loaded):
    found, out = small
    sae = tm.wrap_sae(random_sae(WIDTH, 40, dtype=torch.float32))
    again = run(loaded, out, {"one": draw(0), "two": draw(1)}, sae=sae)
    pd.testing.assert_frame_equal(again.standings, found.standings)
    with pytest.raises(TiltmeterError, match="is a run of another configuration"):
        run(loaded, out, {"one": draw(0), "two": draw(2)}, sae=sae)


def test_random_vectors_are_found_no_more_often_than_the_stated_rate(loaded, tmp_path):
    vectors = {f"v{seed}": draw(seed + 100) for seed in range(40)}
    found = run(loaded, tmp_path, vectors, baselines=("isotropic",), draws=19, budgets=(), lengths=(0.5,), sequences=4)
    p = found.standings.p_curve.to_numpy()
    assert len(p) == 80 and set(np.round(p * 20).astype(int)) <= set(range(1, 21))
    for level in (0.1, 0.2, 0.5):  # the eighty share their draws: four standard errors
        assert (p <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / 80)
    assert p.min() < 0.3 and p.max() > 0.7


def test_a_row_of_the_unembedding_is_found_in_the_last_layer(tmp_path):
    nano = tm.load_model("nano")
    ids = nano.tokenizer.encode(Path(__file__).read_text())[: 12 * 20]
    tokens = TokenSet(torch.tensor(ids).reshape(12, 20), "this file", None, {})
    row = nano.model.hf.get_output_embeddings().weight[300].detach()
    found = compare(
        nano, tokens, "resid_post:5", {"token": row}, out=tmp_path, sequences=12, lengths=(0.5, 1.0), draws=79,
        baselines=("isotropic", "permutation"), budgets=(),
    )  # fmt: skip
    assert found.verdicts[0].differs and found.verdicts[0].p <= LEVEL
    assert "token changes the output more than every baseline" in str(found)


@pytest.mark.parametrize(
    ("vectors", "changes", "sentence"),
    [
        ({}, {}, "The vectors to compare were none"),
        ({"a": draw()}, {"lengths": (0, 1)}, "The lengths have a 0"),
        (draw(), {}, r"were of type Tensor; give them with labels, as \{'refusal': vector\}"),
        ({"a": torch.ones(3, WIDTH)}, {}, r"a has shape \(3, \d+\); a comparison is of vectors"),
        ({"a": draw(), "minus-a": draw()}, {}, "minus-a is tested as the opposite of a"),
        ({"isotropic": draw()}, {}, "The label 'isotropic'"),
        ({"a#1": draw()}, {}, "The label 'a#1' has a #"),
        ({"a": "nowhere.npy"}, {}, "nowhere.npy is not a file"),
        ({"a": draw(width=5)}, {}, "has width 5, but those at this site"),
        ({"isotropic#0": draw()}, {}, "'isotropic#0' has a #, which numbers random draws"),
        ({"a": torch.ones(WIDTH)}, {}, "a has the same number in every coordinate"),
        ({"a": draw()}, {"draws": 0}, "draws was 0"),
        ({"a": draw()}, {"statistics_sequences": None}, "statistics_sequences was None"),
        ({"a": draw()}, {"baselines": "iso"}, "'iso' is not a baseline"),
        ({"a": draw()}, {"baselines": ("sae-feature",)}, r"'sae-feature' is not a baseline here; .*needs an SAE"),
        ({"a": draw()}, {"baselines": ()}, "needs a baseline"),
        ({"a": draw()}, {"budgets": (-1.0,)}, "budgets"),
        ({"a": draw()}, {"lenghts": (1.0,)}, "no setting 'lenghts'"),
        ({"a": draw()}, {"readouts": ("js",)}, "no setting 'readouts'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(loaded, tmp_path, vectors, changes, sentence):
    with pytest.raises(TiltmeterError, match=sentence):
        run(loaded, tmp_path, vectors, **changes)


def test_a_label_that_begins_as_an_opposite_has_no_opposite_draws():
    at, names = (RowsAtSite(random_sae(WIDTH, 9), Site(1, "resid_pre"), lambda x: x)), ("permutation", "sae-feature")
    plain, marked = (all_directions({label: draw()}, names, 3, at, 0) for label in ("v", "minus-v"))
    rows = [
        {name: one.direction.given for name, one in found.items() if "feature" in name} for found in (plain, marked)
    ]
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 6
    assert all(torch.equal(rows[0][name], rows[1][name]) for name in rows[0])


def test_all_sequences_are_measured_where_there_are_few(loaded, tmp_path):
    few = compare(
        loaded, TOKENS, "resid_pre:1", {"a": draw()}, draws=3, lengths=(1.0,), budgets=(), baselines=("isotropic",)
    )
    assert few.curves.sizes["sequence"] == len(TOKENS.ids)


def test_a_file_stands_for_its_vector(loaded, tmp_path):
    np.save(tmp_path / "v.npy", draw(3).numpy())
    of_file = run(loaded, tmp_path / "a", {"v": tmp_path / "v.npy"}, baselines=("isotropic",), budgets=())
    given = run(loaded, tmp_path / "b", {"v": draw(3)}, baselines=("isotropic",), budgets=())
    pd.testing.assert_frame_equal(of_file.standings, given.standings)
    np.save(tmp_path / "two.npy", np.stack([draw(3), draw(4)]))
    with pytest.raises(TiltmeterError, match=r"has 2 vectors, and one is compared as 'v'; name it: two.npy#0"):
        run(loaded, tmp_path / "c", {"v": tmp_path / "two.npy"})
