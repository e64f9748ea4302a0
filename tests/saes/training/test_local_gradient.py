"""The local loss's written-out gradient against autograd of the loss, with many latents that fire and with few."""

import pytest
import torch

from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.training import local_gradient, sparse_latents, trainer
from tiltmeter.saes.training.config import Training
from tiny_models import random_tokens, tiny

LATENTS = 48
BIASES = {"many": 0.0, "few": -7.0, "none": -1e3}


def begun(bias, **settings):
    """A local training in float64 whose SAE's latents all need this much to fire."""
    config = Training(kind="local", site="resid_pre:1", sparsity=1.7, latents=LATENTS, batch=4, **settings)
    model = SplitModel(tiny("gpt2", dtype=torch.float64))
    job = trainer.Task(config, model, model.site(config.site), (), random_tokens(16), None)
    state = trainer.begin(job, 32)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in state.dictionary.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        state.dictionary.b_enc += bias
    return job, state


def by_autograd(dictionary, x, sparsity):
    """The loss as the papers write it, and its gradient by parameter."""
    f = torch.relu(x @ dictionary.W_enc + dictionary.b_enc)
    given = f @ torch.nn.functional.normalize(dictionary.W_dec, dim=-1) + dictionary.b_dec
    loss = torch.nn.functional.mse_loss(given, x) + sparsity * f.sum(-1).mean() / x.shape[-1]
    return loss, torch.autograd.grad(loss, list(dictionary.parameters()))


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("kind", ["Dense", "Sparse"])
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_the_gradient_is_that_of_the_loss(bias, kind, pieces, monkeypatch):
    monkeypatch.setattr(sparse_latents, "SPARSE_BELOW", {"Dense": -1.0, "Sparse": 2.0}[kind])
    monkeypatch.setattr(sparse_latents, "CHUNK_ELEMENTS", 10 * LATENTS)
    dictionary = begun(bias)[1].dictionary
    x = 9 * torch.randn(64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert type(sparse_latents.encode(x, dictionary.W_enc.detach(), dictionary.b_enc.detach())).__name__ == kind
    loss, expected = by_autograd(dictionary, x, 1.7)
    terms, active = local_gradient.add_gradient(dictionary, 1.7, x.chunk(pieces), len(x))
    assert float(terms["reconstruction"] + 1.7 * terms["sparsity"]) == pytest.approx(float(loss.detach()), rel=1e-12)
    for parameter, gradient in zip(dictionary.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-15)
    assert torch.equal(active, (dictionary.pre(x) > 0).any(0))
    assert bool(active.any()) == (bias > -100)


def test_a_second_batch_begins_from_no_gradient():
    dictionary = begun(0.0)[1].dictionary
    x = torch.randn(2, 16, 32, dtype=torch.float64)
    local_gradient.add_gradient(dictionary, 1.7, [x[0]], 16)
    local_gradient.add_gradient(dictionary, 1.7, [x[1]], 16)
    assert torch.allclose(dictionary.W_enc.grad, by_autograd(dictionary, x[1], 1.7)[1][1], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("bos", ["in", "out"])
def test_weights_after_some_steps_are_those_of_autograd_and_plain_adam(bos):
    (job, state), (_, other) = begun(0.0, bos=bos, at_once=3), begun(0.0, bos=bos)
    plain = torch.optim.Adam(other.dictionary.parameters(), lr=job.config.learning_rate, foreach=False)
    counted = slice(None) if bos == "in" else slice(1, None)
    for step in range(5):
        x = job.model.activation(job.ids[trainer.rows_of(job, step)], job.site)[:, counted].flatten(0, 1)
        _, gradients = by_autograd(other.dictionary, x, job.config.sparsity)
        for parameter, gradient in zip(other.dictionary.parameters(), gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(other.dictionary.parameters(), job.config.clip)
        plain.param_groups[0]["lr"] = trainer.learning_rate(job.config, (step + 0.5) / job.steps)
        plain.step()
        trainer.advance(job, state)
    for ours, theirs in zip(state.dictionary.parameters(), other.dictionary.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(state.dictionary.W_enc, begun(0.0)[1].dictionary.W_enc, atol=1e-8)


def test_moments_of_a_checkpoint_lie_in_memory_as_their_weights_do():
    job, state = begun(0.0)
    trainer.advance(job, state)
    _, again = begun(0.0)
    trainer.restore(again, {name: value.copy(order="C") for name, value in trainer.to_arrays(state).items()})
    for mine, other in ((state, again), (again, state)):
        for parameter, twin in zip(mine.dictionary.parameters(), other.dictionary.parameters(), strict=True):
            moment = mine.optimizer.state[parameter]["exp_avg"]
            assert moment.stride() == parameter.stride()
            assert torch.equal(moment, other.optimizer.state[twin]["exp_avg"])
