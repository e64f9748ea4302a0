"""The continuation of a curve from its smallest steps: ½ uᵀJᵀGJu in closed form, and by automatic derivatives."""

import numpy as np
import pytest
import torch

import tiltmeter as tm
from known_models import BLOCK, WIDTH, tokens, with_plateaus, without_plateaus
from tiltmeter.analysis.shapes import crossing
from tiltmeter.analysis.small_steps import later_than_measured, rate

STEPS = np.array([0.0, 0.001, 0.002, *np.linspace(0.1, 4.0, 40)])


def softmax_curve(weights, direction, start):
    """KL(clean ‖ perturbed) of a linear model with a softmax, along a straight line."""
    logits = [weights @ (start + step * direction) for step in STEPS]
    log_p = [one - np.logaddexp.reduce(one) for one in logits]
    return np.array([np.exp(log_p[0]) @ (log_p[0] - one) for one in log_p])


def test_the_rate_of_kl_is_half_the_fisher_form():
    rng = np.random.default_rng(0)
    for _ in range(5):
        weights, direction, start = rng.normal(size=(30, 8)), rng.normal(size=8), rng.normal(size=8)
        direction /= np.linalg.norm(direction)
        p = np.exp(weights @ start)
        p /= p.sum()
        fisher = np.diag(p) - np.outer(p, p)
        form = direction @ weights.T @ fisher @ weights @ direction
        found = rate(softmax_curve(weights, direction, start), STEPS, 2)
        assert found.value == pytest.approx(form / 2, rel=5e-3)
        assert found.at(STEPS)[1:3] == pytest.approx(softmax_curve(weights, direction, start)[1:3], rel=1e-2)
        assert found.reaches(1e-3) == pytest.approx(np.sqrt(2 * 1e-3 / form), rel=5e-3)


@pytest.mark.parametrize("made", [without_plateaus, with_plateaus])
def test_the_rate_of_a_sweep_is_that_of_derivatives(made):
    """In float32, at lengths of a thousandth: a KL of 10⁻⁷, of which no digit is lost."""
    loaded, given = made(), tokens(2)
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    vector = (vector - vector.mean()) / (vector - vector.mean()).norm()
    path = tm.Straight(lengths=(0.0, 0.01, 0.02))
    sweep = tm.Sweep(site=f"resid_pre:{BLOCK}", directions={"mine": vector}, path=path, positions="last", sequences=2)
    curves = tm.run_sweep(sweep, loaded, given)
    found = rate(curves.kl.values[0].T, curves["length"].values[0].T, 2).value
    hf = loaded.model.hf.double()

    def logits(x):
        block = hf.transformer.h[BLOCK]
        return hf.lm_head(hf.transformer.ln_f(x + block.mlp(block.ln_2(x))))

    for row, ids in enumerate(given.ids):
        x = hf.transformer.wte.weight[ids[-1]]
        z, change = torch.func.jvp(logits, (x,), (vector.double(),))
        p = z.softmax(-1)
        form = (p * change**2).sum() - (p * change).sum() ** 2
        assert found[row] == pytest.approx(float(form) / 2, rel=0.02)


def later(kl):
    return later_than_measured(rate(kl, STEPS, 2), 0.5, crossing(kl, STEPS, 0.5), STEPS, STEPS)


def test_a_plateau_breaks_off_before_its_continuation_and_a_quadratic_does_not():
    quadratic = 0.3 * STEPS**2
    plateau = 0.01 * STEPS**2 + 3 / (1 + np.exp(-(STEPS - 2) / 0.1)) - 3 / (1 + np.exp(20.0))
    saturating = 0.6 * -np.expm1(-(STEPS**2))
    assert later(quadratic) == pytest.approx(1.0, rel=0.01)
    assert later(plateau) > 3
    assert later(saturating) < 0.7
    for times in (0.1, 10.0):  # neither scale matters
        again = later_than_measured(
            rate(plateau, times * STEPS, 2), 0.5, crossing(plateau, STEPS, 0.5), STEPS, times * STEPS
        )
        assert again == pytest.approx(later(plateau))


def test_what_is_not_quadratic_at_its_smallest_steps_has_no_rate():
    for kl in (STEPS**7, STEPS, np.full_like(STEPS, np.nan)):
        assert np.isnan(rate(kl, STEPS, 2).value)
    assert rate(STEPS * 3, STEPS, 1).value == pytest.approx(3.0)
    assert np.isnan(later(np.full_like(STEPS, 0.0) + 1e-9 * STEPS**2)), "never passes"
