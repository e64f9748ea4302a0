"""The SAE training benchmark: both trainers do the same work. No test depends on a time."""

import json
import sys
from itertools import islice

import pytest
import torch

import tiltmeter as tm
from benchmarks import paired_timing, sae_training, saelens_trainer
from tiltmeter.data import stdlib
from tiltmeter.saes.training import local_gradient, trainer
from tiltmeter.saes.training.config import Training
from tiltmeter.saes.training.trainable_sae import TrainableSAE

WIDTH, LATENTS, TOKENS, STEPS, RATE, SPARSITY = 16, 40, 64, 12, 3e-3, 0.8


def both(constrained):
    """A dictionary and SAELens's SAE of the same weights, with its trainer."""
    pytest.importorskip("sae_lens")
    dictionary = TrainableSAE(WIDTH, LATENTS, torch.relu, 0).double()
    with torch.no_grad():
        dictionary.W_dec.copy_(dictionary.rows)
    made = saelens_trainer.sae(dictionary, SPARSITY)
    if constrained:
        saelens_trainer.constrain_rows(made)
    ids = torch.zeros(4, TOKENS).long()
    config = saelens_trainer.runner_config(made, tm.load_model("nano").model.site("resid_pre:3"), ids, 1, RATE)
    return dictionary, saelens_trainer.trainer(made, config, None)


def batches():
    return torch.randn(STEPS, TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_at_the_same_weights_the_losses_and_gradients_are_the_same():
    dictionary, its = both(constrained=False)
    x = batches()[0]
    terms, _ = local_gradient.add_gradient(dictionary, SPARSITY, [x], TOKENS)
    made = its.sae
    seen = []
    its.optimizer.register_step_pre_hook(
        lambda *_: seen.append({n: p.grad.clone() for n, p in made.named_parameters()})
    )
    output = saelens_trainer.step(its, x)
    assert output.losses["mse_loss"].item() == pytest.approx(WIDTH * float(terms["reconstruction"]), rel=1e-10)
    assert output.losses["l1_loss"].item() == pytest.approx(WIDTH * SPARSITY * float(terms["sparsity"]), rel=1e-10)
    scale = seen[0]["b_enc"].norm() / dictionary.b_enc.grad.norm()  # the mean over dimensions, and what it clipped
    for name in ("W_enc", "b_enc", "b_dec"):
        assert torch.allclose(seen[0][name], scale * dictionary.get_parameter(name).grad, rtol=1e-8, atol=1e-14)
    free, rows = seen[0]["W_dec"], dictionary.rows
    held = free - (free * rows).sum(-1, keepdim=True) * rows
    assert torch.allclose(held, scale * dictionary.W_dec.grad, rtol=1e-8, atol=1e-14)


def trained(constrained):
    """Losses step by step, ours and theirs over the width, of equal weights on the same batches."""
    dictionary, its = both(constrained)
    config = Training(kind="local", site="resid_pre:3", sparsity=SPARSITY, latents=LATENTS, clip=1 / WIDTH)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=RATE, eps=1e-8 / WIDTH, fused=True)
    state = trainer.State(dictionary, optimizer, torch.zeros(LATENTS))
    ours, theirs = [], []
    for x in batches():
        terms, active = local_gradient.add_gradient(dictionary, SPARSITY, [x], TOKENS)
        trainer.update(config, state, active, RATE, TOKENS)
        ours.append(float(trainer.weighted(config, terms)))
        theirs.append(saelens_trainer.step(its, x).loss.item() / WIDTH)
    return ours, theirs


def test_with_rows_constrained_to_unit_norm_both_trainers_take_the_same_steps():
    ours, theirs = trained(constrained=True)
    assert ours == pytest.approx(theirs, rel=1e-7)
    assert ours[-1] < 0.95 * ours[0]


def test_with_unconstrained_rows_the_losses_differ_slightly():
    ours, theirs = trained(constrained=False)
    assert ours == pytest.approx(theirs, rel=0.1)
    assert ours != pytest.approx(theirs, rel=1e-5)


def test_the_models_of_both_give_the_same_activations():
    pytest.importorskip("sae_lens")
    model = tm.load_model("nano").model
    ids = torch.randint(4096, (4, 32), generator=torch.Generator().manual_seed(0))
    site = model.site("resid_pre:3")
    made = saelens_trainer.sae(TrainableSAE(128, 8, torch.relu, 0), 1.0)
    store = saelens_trainer.store(model, saelens_trainer.runner_config(made, site, ids, 2, RATE), ids)
    x = model.activation(ids, site)
    assert torch.allclose(store.get_activations(ids), x, atol=1e-4 * float(x.abs().max()))


def test_pairs_are_timed_in_turn_and_the_first_is_not_counted():
    calls = []
    found = paired_timing.timed(lambda: calls.append("a"), lambda: calls.append("b"), 3, 2)
    assert "".join(calls) == "aabb" + "bbaa" + "aabb" + "bbaa"
    assert all(len(clock.ours) == len(clock.theirs) == 3 for clock in found)
    assert paired_timing.Pairs((1.0, 2.0, 4.0), (2.0, 2.0, 2.0)).ratios == (2.0, 1.0, 0.5)
    assert paired_timing.Pairs((1.0, 2.0, 4.0), (2.0, 2.0, 2.0)).ratio == 1.0


@pytest.mark.filterwarnings("ignore::UserWarning:sae_lens")  # it copies a tensor in a way that torch advises against
def test_the_command_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sae_lens")
    out = tmp_path / "found.json"
    options = "--model nano --state fresh --latents 16 --pairs 1 --steps 1 --out"
    monkeypatch.setattr(sys, "argv", ["sae_training", *options.split(), str(out)])
    texts = stdlib.texts  # all of the standard library takes half a minute
    monkeypatch.setattr(stdlib, "texts", lambda side: islice(texts(side), 60))
    sae_training.main()
    record = json.loads(out.read_text())
    assert [row["measured"] for row in record["rows"]] == ["steps", "pipeline"]
    assert all(row["loss_difference"] < 1e-4 for row in record["rows"])
    assert record["versions"]["sae_lens"] and record["machine"]["threads"]
    assert "| nano | 128 | 16 | fresh, L0" in capsys.readouterr().out


def test_without_sae_lens_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(tm.TiltmeterError, match=r"'sae_lens' package is needed: pip install 'tiltmeter\[sae-lens\]'"):
        saelens_trainer.library()
