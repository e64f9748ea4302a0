"""What an SAE is worth: each figure against a few naive lines on a full forward pass."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pytest
import torch

from small_saes import as_it_is, centre, random_sae
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.evaluation import Splice, evaluate, evaluate_each, keeping_massive, through
from tiltmeter.saes.fits import fits
from tiny_models import FAMILIES, HEAD, HEADS, WIDTH, full_pass, random_tokens, tiny

BOUNDARY = 0
IDS = random_tokens(5, 12)
IDS[1, 4] = IDS[3, 7] = BOUNDARY
EDGE = IDS == BOUNDARY
EDGE[:, 0] = True
PLACES = [("gpt2", "resid_pre"), ("gpt2", "z"), ("gpt2", "mlp_out"), ("llama", "resid_pre"), ("qwen3", "z")]


def sae_for(family, kind):
    width = WIDTH if kind != "z" or family == "gpt2" else HEADS * HEAD
    return random_sae(width, 40)


def measured(family, kind):
    return centre if FAMILIES[family].layer_norm and kind != "z" else as_it_is


def naive(family, kind, sae, keep):
    """The figures, with the activations at positions `keep` left as they are."""
    place, model, look = (1, kind), tiny(family), measured(family, kind)
    clean = full_pass(family, model, IDS, [place])
    x = look(clean.seen[place])
    f = sae.encode(x)
    y = look(sae.decode(f))
    spliced = full_pass(family, model, IDS, edits={place: lambda raw: torch.where(keep[..., None], raw, y)})
    p, q = clean.logits.log_softmax(-1), spliced.logits.log_softmax(-1)
    after = IDS[:, 1:, None]
    x, y, f = x[~EDGE], y[~EDGE], f[~EDGE]
    return {
        "tokens": 60,
        "l0": (f > 0).sum(-1).double().mean(),
        "explained_variance": 1 - (x - y).square().sum() / (x - x.mean(0)).square().sum(),
        "distance": (x - y).norm(dim=-1).mean(),
        "norm": x.norm(dim=-1).mean(),
        "alive": (f > 0).any(0).sum(),
        "clean_loss": -p[:, :-1].gather(-1, after).mean(),
        "loss": -q[:, :-1].gather(-1, after).mean(),
        "kl": (p.exp() * (p - q)).sum(-1).mean(),
    }


def run(family, kind, sae, spliced="in", batch=2):
    def reconstruct(x):
        return (latents := sae.encode(x)), sae.decode(latents)

    return evaluate(SplitModel(tiny(family)), reconstruct, IDS, BOUNDARY, Site(1, kind), spliced, batch)


@pytest.mark.parametrize("spliced", ["in", "out"])
@pytest.mark.parametrize(("family", "kind"), PLACES)
def test_every_figure_is_that_of_a_full_pass(family, kind, spliced):
    sae = sae_for(family, kind)
    expected = naive(family, kind, sae, EDGE if spliced == "out" else torch.zeros_like(EDGE))
    found = run(family, kind, sae, spliced)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-9
    )
    assert found.loss_increase == pytest.approx(float(expected["loss"] - expected["clean_loss"]), rel=1e-9)


def test_several_reconstructions_have_the_metrics_of_each():
    model, site = SplitModel(tiny("gpt2")), Site(1, "resid_pre")
    splices = [Splice(through(random_sae(WIDTH, 40, seed=seed)), where) for seed, where in ((0, "in"), (1, "out"))]
    together = evaluate_each(model, splices, IDS, BOUNDARY, site, math.inf, batch=2)
    for splice, metrics in zip(splices, together, strict=True):
        alone = evaluate(model, splice.reconstruct, IDS, BOUNDARY, site, splice.spliced, 2, math.inf)
        assert vars(metrics) == pytest.approx(vars(alone), rel=1e-12)


def test_the_batch_changes_nothing():
    sae = sae_for("gpt2", "resid_pre")
    assert vars(run("gpt2", "resid_pre", sae, batch=1)) == pytest.approx(vars(run("gpt2", "resid_pre", sae, batch=5)))


@pytest.mark.parametrize(("family", "kind"), PLACES)
def test_fits_are_those_of_assess(family, kind):
    model, sae, site = SplitModel(tiny(family)), sae_for(family, kind), Site(1, kind)
    other = sae_for(family, "resid_pre")
    places = [
        SAEAtSite(sae, site, partial(model.centre, site=site)),
        SAEAtSite(other, Site(2, "resid_post"), partial(model.centre, site=Site(2, "resid_post"))),
        SAEAtSite(other, Site(0, "resid_pre"), as_it_is),
    ]
    here, there, raw = fits(model, places, IDS, BOUNDARY, batch=2)
    expected = run(family, kind, sae)
    assert (here.l0, here.explained_variance) == pytest.approx((expected.l0, expected.explained_variance))
    seen = full_pass(family, model.hf, IDS, [(2, "resid_post"), (0, "resid_pre")]).seen
    look = measured(family, "resid_pre")
    assert figures(there) == pytest.approx(naive_fit(other, look(seen[2, "resid_post"])[~EDGE], look))
    assert figures(raw) == pytest.approx(naive_fit(other, seen[0, "resid_pre"][~EDGE], as_it_is))


def figures(fit):
    return {"l0": fit.l0, "explained_variance": fit.explained_variance, "slope": fit.slope}


def naive_fit(sae, x, look):
    f = sae.encode(x)
    given, one = look(sae.decode(f)), x - x.mean(0)
    rest, other = (x - given).square().sum() / one.square().sum(), given - given.mean(0)
    slope = (one * other).sum() / other.square().sum() if other.any() else math.nan
    active = float((f > 0).sum(-1).double().mean())
    return {"l0": active, "explained_variance": 1 - float(rest), "slope": pytest.approx(float(slope), nan_ok=True)}


def test_massive_activations_count_only_in_the_effect_on_the_output():
    hf = deepcopy(tiny("llama"))
    with torch.no_grad():
        hf.model.embed_tokens.weight[9] *= 1000
    ids = torch.where(random_tokens(5, 12) == 9, 8, random_tokens(5, 12))
    ids[2, 6] = 9
    model, site = SplitModel(hf), Site(0, "resid_pre")
    shrink = partial(torch.mul, other=0.9)
    found = evaluate(model, lambda x: (x.sign(), shrink(x)), ids, None, site)
    x = hf.model.embed_tokens(ids)[:, 1:].flatten(0, 1)
    x = x[x.norm(dim=-1) < 10 * x.norm(dim=-1).median()]
    assert len(x) == 5 * 11 - 1
    expected = 1 - (0.1 * x).square().sum() / (x - x.mean(0)).square().sum()
    assert found.explained_variance == pytest.approx(float(expected))
    assert found.norm == pytest.approx(float(x.norm(dim=-1).mean()))
    assert found.l0 == pytest.approx(float((x > 0).sum(-1).double().mean()))
    everything = evaluate(model, lambda x: (x.sign(), shrink(x)), ids, None, site, massive_above=math.inf)
    assert everything.norm > 10 * found.norm and everything.kl == found.kl
    above = 10 * float(x.norm(dim=-1).median())
    kept = evaluate(
        model,
        keeping_massive(lambda x: (x.sign(), torch.where(x.norm(dim=-1) > above, 0, 1)[..., None] * x), above),
        ids,
        None,
        site,
    )
    assert kept.kl < 1e-12 < found.kl

    at = SAEAtSite(random_sae(WIDTH, 40), site, as_it_is)
    (fit,) = fits(model, [at], ids, None, batch=2)
    assert figures(fit) == pytest.approx(naive_fit(at.sae, x, as_it_is))


def test_nothing_to_explain_is_not_a_number():
    same = torch.full((3, 4), 7)
    model = SplitModel(tiny("llama"))  # no positions are added to its embeddings
    found = evaluate(model, lambda x: (x, x), same, None, Site(0, "resid_pre"))
    assert found.explained_variance != found.explained_variance
    assert found.kl == pytest.approx(0, abs=1e-12)


def test_sequences_of_boundary_positions_alone_are_refused():
    with pytest.raises(TiltmeterError, match="only boundary positions"):
        evaluate(SplitModel(tiny("gpt2")), lambda x: (x, x), torch.tensor([[3], [4]]), None, Site(1, "resid_pre"))
