"""Training an SAE into a run directory: schedule, order, checkpoints, what is saved, wrong input."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import tiltmeter as tm
from sweep_cases import command, refusal, save_model, save_tokens
from tiltmeter.saes.training import run as training_run
from tiltmeter.saes.training import trainer
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.plot import draw

SMALL = {
    "site": "resid_pre:1",
    "sparsity": 0.5,
    "latents": 48,
    "tokens": 12 * 4 * 8,
    "batch": 4,
    "evaluation": 4,
    "every": 4,
}


@pytest.fixture(autouse=True)
def not_drawn(monkeypatch):
    """Drawing the log takes longer than these trainings; one test draws it."""
    monkeypatch.setattr(training_run, "draw", lambda log: b"")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return tm.load_model(str(save_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def tokens(loaded, tmp_path_factory):
    file = save_tokens(tmp_path_factory.mktemp("tokens") / "tokens.npy", sequences=24)
    return loaded.load_tokens(str(file))


def test_the_learning_rate_rises_then_follows_a_cosine_to_a_tenth():
    config = Training(kind="local", learning_rate=2e-3, **{k: v for k, v in SMALL.items() if k != "tokens"})
    rate = [trainer.learning_rate(config, progress) for progress in (0.0, 0.025, 0.05, 0.525, 1.0)]
    assert rate == pytest.approx([0, 1e-3, 2e-3, 0.55 * 2e-3, 2e-4])
    assert trainer.learning_rate(config, 0.2875) == pytest.approx(2e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi / 4))))


def test_every_sequence_is_trained_on_once_before_any_is_twice(loaded, tokens):
    job = training_run.make_task(Training(kind="local", **SMALL), loaded, tokens)
    count, size = len(job.ids), job.config.batch
    assert count == 20
    drawn = torch.cat([trainer.rows_of(job, step) for step in range(3 * count // size)]).view(3, count)
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert not set(map(tuple, job.ids.tolist())) & set(map(tuple, tokens.ids[:4].tolist()))


@pytest.mark.parametrize("kind", ["local", "topk", "e2e+ds"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(kind, loaded, tokens, tmp_path, monkeypatch):
    config = Training(kind=kind, **SMALL | ({"sparsity": 5, "dead_after": 64} if kind == "topk" else {}))
    whole = training_run.train_sae(config, loaded, tokens, tmp_path / "whole")

    class KilledError(Exception):
        pass

    advance = trainer.advance

    def dies(job, state):
        if state.step == 6:
            raise KilledError
        advance(job, state)

    monkeypatch.setattr(trainer, "advance", dies)
    with pytest.raises(KilledError):
        training_run.train_sae(config, loaded, tokens, tmp_path / "again")
    assert not (tmp_path / "again" / "sae").exists()
    monkeypatch.setattr(trainer, "advance", advance)
    again = training_run.train_sae(config, loaded, tokens, tmp_path / "again")
    assert torch.equal(again.W_enc, whole.W_enc) and torch.equal(again.W_dec, whole.W_dec)
    name = "sae/sae_weights.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert tm.load_sae(str(tmp_path / "again")).about.sha256 == again.about.sha256 == whole.about.sha256
    log = pd.read_csv(tmp_path / "again" / "log.csv")
    assert log.step.tolist() == [4, 8, 12] and log.seconds.is_monotonic_increasing


def test_pieces_of_a_batch_train_like_the_whole(loaded, tokens, tmp_path):
    one = training_run.train_sae(Training(kind="e2e", at_once=4, **SMALL), loaded, tokens, tmp_path / "one")
    two = training_run.train_sae(Training(kind="e2e", at_once=1, **SMALL), loaded, tokens, tmp_path / "two")
    assert torch.allclose(one.W_enc, two.W_enc, atol=2e-4)


def test_training_lowers_the_loss_and_sparsity_makes_sparse(loaded, tokens, tmp_path):
    longer = SMALL | {"tokens": 32 * 200, "every": 100, "learning_rate": 3e-3}
    logs = {}
    for sparsity in (0.01, 3.0):
        config = Training(kind="local", **longer | {"sparsity": sparsity})
        training_run.train_sae(config, loaded, tokens, tmp_path / str(sparsity))
        logs[sparsity] = pd.read_csv(tmp_path / str(sparsity) / "log.csv").iloc[-1]
    first = pd.read_csv(tmp_path / "0.01" / "log.csv").iloc[0]
    assert logs[0.01].explained_variance > max(0.6, first.explained_variance)
    assert logs[3.0].l0 < 0.7 * logs[0.01].l0


@pytest.mark.parametrize("kind", ["local", "topk"])
def test_sae_lens_reads_what_is_saved(kind, loaded, tokens, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    config = Training(kind=kind, **SMALL | ({"sparsity": 5} if kind == "topk" else {}))
    sae = training_run.train_sae(config, loaded, tokens, tmp_path)
    with pytest.warns(UserWarning, match="model_from_pretrained_kwargs"):  # it says how to load a centred model
        theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "sae"))
    x = torch.randn(7, 32)
    assert torch.allclose(theirs.encode(x), sae.encode(x), atol=1e-6)
    assert torch.allclose(theirs.decode(theirs.encode(x)), sae.decode(sae.encode(x)), atol=1e-5)
    assert theirs.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(48))
    if kind == "topk":
        assert bool(((sae.encode(x) > 0).sum(-1) <= 5).all())


def test_from_the_command_line(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "draw", draw)
    tokens = save_tokens(tmp_path / "tokens.npy", sequences=24)
    arguments = ("train-sae", "--model", loaded.model.name, "--tokens", tokens, "--out", tmp_path / "run")
    options = ("--site", "resid_pre:1", "--latents", 48, "--n-tokens", 384, "--batch", 4, "--evaluation", 4)
    outcome = command(*arguments, "--kind", "e2e", "--sparsity", 0.5, *options)
    assert outcome.status == 0, outcome.err
    assert "explained variance" in outcome.out
    config = json.loads((tmp_path / "run" / "sae" / "cfg.json").read_text())
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert config["metadata"]["l0"] == pytest.approx(log.l0.iloc[-1])
    assert (tmp_path / "run" / "training.png").stat().st_size > 5000
    other = refusal(*arguments, "--kind", "e2e", "--sparsity", 0.7, *options)
    assert "another configuration" in other and "sparsity" in other


WRONG = {
    "kind": (("--kind", "ee"), "--kind was 'ee' (did you mean e2e?); choose from local, topk, e2e, e2e+ds"),
    "sparsity": (("--sparsity", "-1"), "greater than 0"),
    "k": (("--kind", "topk", "--sparsity", "2.5"), "whole number"),
    "site": (("--site", "resid_pre:9"), "layers 0 to 2"),
    "downstream": (("--kind", "e2e+ds", "--downstream", "resid_pre:0"), "does not lie after"),
    "nothing later": (("--kind", "e2e+ds", "--site", "resid_post:2"), "needs a later site"),
    "downstream of another kind": (("--kind", "e2e", "--downstream", "resid_pre:2"), "apply only to e2e+ds"),
    "few sequences": (("--evaluation", "23"), "training needs 27"),
    "seed": (("--seed", "99999999999999999999999"), "less than 9223372036854775808"),
    "few tokens": (("--n-tokens", "31"), "one step of 4 sequences uses 32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case, loaded, tmp_path):
    tokens = save_tokens(tmp_path / "tokens.npy", sequences=24)
    given = {"--kind": "local", "--site": "resid_pre:1", "--sparsity": "1"}
    options, expected = WRONG[case]
    given |= dict(zip(options[::2], options[1::2], strict=True))
    given = {"--batch": "4", "--evaluation": "4"} | given
    flat = [part for pair in given.items() for part in pair]
    assert expected in refusal("train-sae", "--model", loaded.model.name, "--tokens", tokens, *flat)
    assert not (tmp_path / "runs").exists()


def with_boundaries(tokens, rows):
    """The same, with nothing but the boundary token in these sequences."""
    ids = tokens.ids.clone()
    ids[rows] = 0
    return dataclasses.replace(tokens, ids=ids, boundary=0)


@pytest.mark.parametrize("kind", ["local", "topk", "e2e", "e2e+ds"])
def test_sequences_of_which_the_loss_counts_nothing_are_not_trained_on(kind, loaded, tokens, tmp_path):
    config = Training(kind=kind, bos="out", at_once=1, **SMALL | {"batch": 1, "sparsity": 5, "tokens": 12 * 8})
    with_some = with_boundaries(tokens, slice(12, 20))
    job = training_run.make_task(config, loaded, with_some)
    assert job.ids.tolist() == tokens.ids[[*range(4, 12), *range(20, 24)]].tolist()
    assert len(training_run.make_task(config.model_copy(update={"bos": "in"}), loaded, with_some).ids) == 20
    assert torch.isfinite(training_run.train_sae(config, loaded, with_some, tmp_path).W_enc).all()


def test_too_few_sequences_that_are_more_than_boundaries_are_refused(loaded, tokens):
    config = Training(kind="local", bos="out", **SMALL)
    with pytest.raises(tm.TiltmeterError, match="24 sequences, 3 of which can be trained on, but training needs 8"):
        training_run.make_task(config, loaded, with_boundaries(tokens, slice(7, 24)))
    with pytest.raises(tm.TiltmeterError, match=r"first 4 sequences of .* contain only boundary positions"):
        training_run.make_task(config, loaded, with_boundaries(tokens, slice(0, 5)))


def test_a_downstream_site_named_twice_is_refused(loaded, tokens):
    config = Training(kind="e2e+ds", downstream=("resid_pre:2", "blocks.2.hook_resid_pre"), **SMALL)
    with pytest.raises(tm.TiltmeterError, match="named twice"):
        training_run.make_task(config, loaded, tokens)


def test_more_latents_than_fit_into_memory_are_refused(loaded, tokens, tmp_path):
    with pytest.raises(tm.TiltmeterError, match=f"{10**14} latents of width 32 do not fit into memory"):
        training_run.train_sae(Training(kind="local", **SMALL | {"latents": 10**14}), loaded, tokens, tmp_path)


@pytest.mark.parametrize("kind", ["local", "e2e+ds"])
def test_a_model_in_double_precision_is_trained_on_in_it(kind, loaded, tokens, tmp_path):
    double = tm.load_model(loaded.model.name, precision="float64")
    ours = training_run.train_sae(Training(kind=kind, **SMALL), double, tokens, tmp_path / "double")
    single = training_run.train_sae(Training(kind=kind, **SMALL), loaded, tokens, tmp_path / "single")
    assert torch.allclose(ours.W_enc, single.W_enc, atol=2e-3) and not torch.equal(ours.W_enc, single.W_enc)


def test_a_training_has_no_report(loaded, tokens, tmp_path):
    training_run.train_sae(Training(kind="local", **SMALL), loaded, tokens, tmp_path)
    assert "is the training of an SAE; look at its training.png" in refusal("report", tmp_path)


def test_each_training_has_a_directory_of_its_own(loaded, tmp_path, monkeypatch):
    tokens = save_tokens(tmp_path / "tokens.npy", sequences=24)
    monkeypatch.chdir(tmp_path)
    arguments = ("train-sae", "--model", loaded.model.name, "--tokens", tokens, "--site", "resid_pre:1")
    options = ("--kind", "local", "--sparsity", 0.5, "--n-tokens", 64, "--batch", 4, "--evaluation", 4)
    for latents in (16, 24, 16):
        assert command(*arguments, *options, "--latents", latents).status == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_in_python_what_is_wrong_is_said_in_a_sentence():
    with pytest.raises(tm.TiltmeterError, match=r"^kind was 'ee': Input should be 'local', 'topk', 'e2e' or 'e2e\+ds'"):
        Training(kind="ee", **SMALL)
    with pytest.raises(tm.TiltmeterError, match=r"^sparsity is missing"):
        Training(kind="e2e", site="resid_pre:1")


def test_weights_that_are_not_finite_are_refused(loaded, tokens, tmp_path, monkeypatch):
    advance = trainer.advance

    def overshoots(job, state):
        advance(job, state)
        state.dictionary.b_enc.data[3] = np.inf

    monkeypatch.setattr(trainer, "advance", overshoots)
    with pytest.raises(tm.TiltmeterError, match="not finite at step 1; use a smaller --learning-rate"):
        training_run.train_sae(Training(kind="local", **SMALL | {"every": 1}), loaded, tokens, tmp_path)


def test_a_loss_that_is_not_finite_is_refused(loaded, tokens, tmp_path):
    broken = tm.load_model(loaded.model.name)
    broken.model.hf.transformer.h[2].mlp.c_fc.weight.data.fill_(np.nan)
    with pytest.raises(tm.TiltmeterError, match="not finite"):
        training_run.train_sae(Training(kind="e2e", **SMALL), broken, tokens, tmp_path)


def test_a_model_and_ids_in_memory_are_taken_as_they_are(loaded, tokens, tmp_path):
    config = Training(kind="local", **SMALL | {"tokens": 64})
    expected = training_run.train_sae(config, loaded, tm.TokenSet(tokens.ids, "mine", None, {}), tmp_path / "set")
    found = training_run.train_sae(config, loaded.model.hf, tokens.ids, tmp_path / "objects")
    assert torch.equal(found.W_enc, expected.W_enc)
