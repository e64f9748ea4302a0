"""The terms of the training losses against direct formulas, and each kind's loss against a full hooked forward pass."""

import pytest
import torch
from torch.nn import functional

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.training import losses, trainer
from tiltmeter.saes.training.config import Training
from tiny_models import full_pass, random_tokens, tiny

SITE, LATENTS, SPARSITY = 1, 48, 1.7


def task(kind, family="gpt2", sparsity=SPARSITY, **settings):
    model = SplitModel(tiny(family, dtype=torch.float64))
    config = Training(kind=kind, site=f"resid_pre:{SITE}", sparsity=sparsity, latents=LATENTS, batch=2, **settings)
    downstream = (model.site("resid_pre:2"), model.site("resid_post:2")) if kind == "e2e+ds" else ()
    return trainer.Task(config, model, model.site(config.site), downstream, random_tokens(8), None)


def begun(job):
    state = trainer.begin(job, 32)
    state.dictionary.double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in state.dictionary.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return state


def by_hand(job, state, tokens, family):
    """Latents, reconstruction, and the model's full forward passes with and without it: (x, f, x̂, clean, spliced)."""
    weights = {name: value.detach() for name, value in state.dictionary.named_parameters()}
    place, reads = (SITE, "resid_pre"), [(2, "resid_pre"), (2, "resid_post")]
    clean = full_pass(family, job.model.hf, tokens, [place, *reads])
    centre = (lambda v: v - v.mean(-1, keepdim=True)) if job.model.centred else (lambda v: v)
    x = centre(clean.seen[place])
    f = torch.relu(x @ weights["W_enc"] + weights["b_enc"])
    rows = weights["W_dec"] / weights["W_dec"].norm(dim=1)[:, None]
    given = f @ rows + weights["b_dec"]
    spliced = full_pass(family, job.model.hf, tokens, reads, {place: lambda _: given})
    apart = [(centre(spliced.seen[h]) - centre(clean.seen[h])).pow(2).mean() for h in reads]
    log_p, log_q = clean.logits.log_softmax(-1), spliced.logits.log_softmax(-1)
    return {
        "l1": f.sum(-1).mean() / 32,
        "mse": functional.mse_loss(given, x),
        "kl": functional.kl_div(log_q.flatten(0, 1), log_p.flatten(0, 1), log_target=True, reduction="batchmean"),
        "apart": sum(apart),
    }


FORMULAS = {
    "local": lambda t: t["mse"] + SPARSITY * t["l1"],
    "e2e": lambda t: t["kl"] + SPARSITY * t["l1"],
    "e2e+ds": lambda t: 0.5 * t["kl"] + SPARSITY * t["l1"] + 2.5 / 2 * t["apart"],
}
"""Braun et al. 2024 with the coefficients of the released GPT-2 configurations."""


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_the_loss_is_the_papers(kind, family):
    job = task(kind, family)
    state, tokens = begun(job), random_tokens(2, seed=5)
    terms, _, _ = trainer.loss_terms(job, state, tokens)
    expected = FORMULAS[kind](by_hand(job, state, tokens, family))
    assert trainer.weighted(job.config, terms).item() == pytest.approx(float(expected), rel=1e-6)


def test_kl_is_from_the_clean_to_the_spliced_distribution():
    job = task("e2e")
    state, tokens = begun(job), random_tokens(2, seed=5)
    terms, _, _ = trainer.loss_terms(job, state, tokens)
    clean = job.model.start(tokens, job.site)
    other = job.model.resume(clean, clean.activation + 1)
    a, b = clean.late.final.flatten(0, 1), other.final.flatten(0, 1) * 3
    forward, backward = losses.kl(job.model, a, b), losses.kl(job.model, b, a)
    p, q = job.model.logits(a).softmax(-1), job.model.logits(b).softmax(-1)
    assert float(forward) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)
    assert abs(float(forward - backward)) > 1e-3
    assert terms["kl"].item() > 0


def test_kl_in_chunks_is_the_same_and_has_the_same_gradient(monkeypatch):
    job = task("e2e")
    clean = torch.randn(10, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value_and_gradient():
        late = (clean * 1.5).requires_grad_()
        value = losses.kl(job.model, clean, late)
        return value.item(), torch.autograd.grad(value, late)[0]

    whole, gradient = value_and_gradient()
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 61 * 3)
    chunked, chunked_gradient = value_and_gradient()
    assert chunked == pytest.approx(whole, rel=1e-12)
    assert torch.allclose(chunked_gradient, gradient, rtol=1e-12)


def test_revive_rebuilds_the_error_from_dead_latents_alone():
    g = torch.Generator().manual_seed(1)
    pre, rows, error = torch.randn(5, 9, generator=g), torch.randn(9, 4, generator=g), torch.randn(5, 4, generator=g)
    dead = torch.tensor([False, True, True, False, True, True, False, False, False])
    total = 0.0
    for t in range(5):
        ranked = sorted(dead.nonzero()[:, 0].tolist(), key=lambda i: -float(pre[t, i]))[:2]  # d / 2
        rebuilt = sum(max(float(pre[t, i]), 0.0) * rows[i] for i in ranked)
        total += float((rebuilt - error[t]).pow(2).sum())
    expected = total / error.numel()
    assert float(losses.revive(pre, rows, error, dead)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.revive(pre, rows, error, torch.zeros(9, dtype=torch.bool))) == 0
    pre.requires_grad_()
    losses.revive(pre, rows, error, dead).backward()
    assert bool((pre.grad[:, ~dead] == 0).all()) and bool((pre.grad[:, dead] != 0).any())


@pytest.mark.parametrize("kind", [*FORMULAS, "topk"])
def test_gradients_reach_the_sae_and_nothing_else(kind):
    job = task(kind, sparsity=7)
    state = begun(job)
    before = [parameter.clone() for parameter in job.model.hf.parameters()]
    trainer.advance(job, state)
    assert all(parameter.grad is None for parameter in job.model.hf.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, job.model.hf.parameters(), strict=True))
    moments = state.optimizer.state_dict()["state"]
    assert all(bool(moments[index]["exp_avg"].any()) for index in range(4))


def test_a_local_loss_runs_no_later_layer():
    job = task("local")
    state = begun(job)

    def refuse(*_):
        raise AssertionError("a later block ran")

    handle = job.model.parts.blocks[SITE].register_forward_pre_hook(refuse)
    try:
        trainer.loss_terms(job, state, random_tokens(2))
        with pytest.raises(TiltmeterError, match="a later block ran"):
            trainer.loss_terms(task_with(job, "e2e"), state, random_tokens(2))
    finally:
        handle.remove()


def task_with(job, kind):
    config = job.config.model_copy(update={"kind": kind})
    return trainer.Task(config, job.model, job.site, (), job.ids, None)


def test_boundary_positions_left_out_keep_their_activations():
    tokens = random_tokens(2, seed=5)
    job = task("e2e", bos="out")
    state = begun(job)
    terms, _, _ = trainer.loss_terms(job, state, tokens)
    edited = {}
    place = (SITE, "resid_pre")
    frozen = {name: value.detach() for name, value in state.dictionary.named_parameters()}

    def edit(raw):
        x = raw - raw.mean(-1, keepdim=True)
        f = torch.relu(x @ frozen["W_enc"] + frozen["b_enc"])
        out = f @ (frozen["W_dec"] / frozen["W_dec"].norm(dim=1)[:, None]) + frozen["b_dec"]
        out[:, 0] = raw[:, 0]
        edited["l1"] = f[:, 1:].sum(-1).mean() / 32
        return out

    clean = full_pass("gpt2", job.model.hf, tokens)
    spliced = full_pass("gpt2", job.model.hf, tokens, (), {place: edit})
    p, q = clean.logits[:, 1:].softmax(-1), spliced.logits[:, 1:].softmax(-1)
    assert terms["kl"].item() == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-6)
    assert terms["sparsity"].item() == pytest.approx(float(edited["l1"]), rel=1e-9)
