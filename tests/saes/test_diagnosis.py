"""Nano's SAEs, right and spoilt: each cause that the docs claim to find is named, and none of an SAE in its place.

The SAEs explain activations imperfectly, so what is tested is that a mistake is told from the ordinary error.
`scripts/sae_traps.py` does this for all SAEs and more mistakes.
"""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import pytest
import torch
from scipy import stats

from small_saes import as_it_is
from tiltmeter.models.loading import load_model
from tiltmeter.models.sites import Site
from tiltmeter.saes.at_site import SAEAtSite
from tiltmeter.saes.diagnosis import LONG, diagnose
from tiltmeter.saes.fits import STRETCH, Fit, fits
from tiltmeter.saes.loading import load_sae
from tiltmeter.saes.trials import near_trials

DENSE, LATER = "nano:local-3-l0-31", "nano:local-4-l0-37"
SEQUENCES = 2


@cache
def nano():
    """The model, centred, and held-out tokens."""
    loaded = load_model("nano")
    return loaded.model.measured_in("centred"), loaded.load_tokens("nano", at_most=SEQUENCES)


@cache
def right(name):
    """An SAE that does not say what it explains, and its site."""
    sae = load_sae(name)
    site = nano()[0].site(sae.about.hook_name)
    return dataclasses.replace(sae, about=dataclasses.replace(sae.about, l0=None, explained_variance=None)), site


def found(sae, site):
    """What the trials say."""
    (model, tokens), at = nano(), SAEAtSite(sae, site, partial(nano()[0].centre, site=site))
    norm = float(model.activation(tokens.ids, site).norm(dim=-1).mean())
    return diagnose(model, at, tokens.ids, tokens.boundary, norm)


def moved(layers):
    return lambda sae, site: (sae, site._replace(layer=site.layer + layers))


def convention(sae, site):
    return dataclasses.replace(sae, input_bias=sae.b_dec), site


def rows(sae, site):
    noise = torch.randn(len(sae.W_dec), generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(sae, W_dec=sae.W_dec * (0.7 * noise).exp()[:, None]), site


@pytest.mark.parametrize("name", [DENSE, LATER, "nano:e2e+ds-3-l0-5", "nano:e2e-3-l0-4", "nano:local-z3-l0-17"])
def test_an_sae_in_its_place(name):
    assert found(*right(name)).sentence is None


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        (DENSE, convention, "its b_dec is not subtracted from the input, and here it is"),
        (DENSE, moved(-1), "it belongs to blocks.3.hook_resid_pre"),
        (DENSE, moved(1), "it belongs to blocks.3.hook_resid_pre"),
        (DENSE, moved(2), "it belongs to blocks.3.hook_resid_pre"),
        (LATER, moved(-2), "it belongs to blocks.4.hook_resid_pre"),
    ],
)
def test_a_spoilt_sae(name, spoil, words):
    assert f"Likely cause: {words}" in found(*spoil(*right(name))).sentence


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("nano:local-z3-l0-17", moved(1), "it belongs to blocks.3.attn.hook_z"),
        (DENSE, rows, "its decoder rows were scaled"),
    ],
)
def test_a_spoilt_sae_that_is_known_to_be_off(name, spoil, words):
    """So few tokens do not rule out chance here, but the check also says that reconstructions are too long."""
    said = found(*spoil(*right(name)))
    assert said.used.slope < LONG and words in max(said.other).cause


def fit(unexplained, explained=0.6):
    return Fit(1.0, explained, 1.0, torch.as_tensor(unexplained, dtype=torch.float64))


def test_a_fit_beats_another_by_a_paired_test():
    draw = torch.randn(2, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text = 1 + 0.5 * draw[0]  # what a text leaves unexplained varies more than the fits differ
    better, worse = fit(0.4 * text), fit(0.5 * text + 0.1 * draw[1])
    p = stats.ttest_rel(worse.unexplained, better.unexplained, alternative="greater").pvalue
    assert p < 0.005 < stats.ttest_ind(worse.unexplained, better.unexplained, alternative="greater").pvalue
    ratio = float(worse.unexplained.mean() / better.unexplained.mean())
    assert better.beats(worse, 0.99 * ratio, 1.01 * p) and not better.beats(worse, 0.99 * ratio, 0.99 * p)
    assert not better.beats(worse, 1.01 * ratio, 1.01 * p)
    assert not worse.beats(better, 1.0, 0.4)


def test_too_few_tokens_or_nothing_to_explain_decide_nothing():
    assert not fit([0.1] * 3).beats(fit([0.9] * 3), 1.0, 0.5)
    assert not fit([float("nan")] * 8, float("nan")).beats(fit([0.9] * 8), 1.0, 0.5)
    assert fit([0.1] * 8).beats(fit([float("inf")] * 8, -float("inf")), 1.0, 0.5)


def test_stretches_are_those_of_the_tokens_in_order():
    (model, tokens), (sae, site) = nano(), right(DENSE)
    ids = tokens.ids[:1, : 4 * STRETCH]
    [one] = fits(model, [SAEAtSite(sae, site, as_it_is)], ids, None)
    x = model.measured_in("raw").activation(ids, site)[0, 1:]
    errors = (x - sae.decode(sae.encode(x))).square().sum(-1).double()
    share = (x - x.mean(0)).square().sum().double() / 3
    expected = torch.stack([errors[torch.arange(127) * 3 // 127 == part].sum() / share for part in range(3)])
    torch.testing.assert_close(one.unexplained, expected, rtol=1e-5, atol=0)
    assert one.explained_variance == pytest.approx(1 - float(expected.mean()), rel=1e-5)


def test_trials_depend_on_what_the_sae_is():
    (model, _), (sae, site) = nano(), right(DENSE)

    def kinds(sae, site=site):
        return {trial.kind for trial in near_trials(model, SAEAtSite(sae, site, as_it_is), 1.0)}

    assert {"stream", "b_dec", "site", "scale", "top-k"} == kinds(sae)
    assert "rows" in kinds(rows(sae, site)[0])
    assert "b_dec" not in kinds(dataclasses.replace(sae, b_dec=torch.zeros_like(sae.b_dec)))
    assert "stream" not in kinds(sae, Site(3, "z"))
