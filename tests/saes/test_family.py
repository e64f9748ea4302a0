"""The SAEs that ship with nano: sizes, cards, and that they are better than what was not trained."""

import functools
import json
import math

import pytest
import torch

import tiltmeter as tm
from tiltmeter.saes.evaluation import evaluate, through
from tiltmeter.saes.loading import EMBEDDED_SAES, list_embedded

FAMILY = list_embedded()
MIDDLE = [name for name in FAMILY if "-3-" in name]
COMPARED = [
    name
    for kind, most in {"local": 64.0, "e2e": math.inf, "e2e+ds": math.inf}.items()
    for of_kind in [[name for name in MIDDLE if FAMILY[name]["kind"] == kind and FAMILY[name]["l0"] <= most]]
    for name in (min(of_kind, key=lambda name: FAMILY[name]["l0"]), max(of_kind, key=lambda name: FAMILY[name]["l0"]))
]
"""The sparsest and the densest of each kind, which should beat controls. A local one of L0 105 does not reach 105
principal components of 128 (explained variance 0.913 and 0.963)."""


DENSEST = COMPARED[1::2]
"""The densest of each kind, which controls come nearest to."""

MEASURED = [*COMPARED[::2], next(name for name in FAMILY if "-3-" not in name)]
"""The sparsest of each kind, and one of another site; the densest are measured beside their controls."""


@pytest.fixture(scope="module")
def nano():
    return tm.load_model("nano")


@pytest.fixture(scope="module")
def tokens(nano):
    return nano.load_tokens("nano", at_most=16)


def quality(nano, tokens, reconstruct, site="resid_pre:3"):
    return evaluate(nano.model, reconstruct, tokens.ids, tokens.boundary, nano.model.site(site))


@pytest.fixture(scope="module")
def trained(nano, tokens):
    """The quality of each SAE, measured once."""
    return functools.cache(lambda name: quality(nano, tokens, through(tm.load_sae(name)), FAMILY[name]["hook_name"]))


@pytest.fixture(scope="module")
def components(nano):
    """Mean of real activations at the middle layer, and their principal axes, the largest last."""
    others = nano.load_tokens("nano", at_most=80).ids[16:]
    x = nano.model.activation(others, nano.model.site("resid_pre:3"))[:, 1:].flatten(0, 1).double()
    mean = x.mean(0)
    return mean, torch.linalg.eigh((x - mean).T @ (x - mean))[1]


def keep_largest(pre, count):
    kept = pre.topk(count, dim=-1)
    return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())


def test_there_are_three_kinds_at_four_sparsities_with_a_matched_l0():
    l0 = {kind: [] for kind in ("local", "e2e", "e2e+ds")}
    for name in MIDDLE:
        facts = FAMILY[name]
        l0[facts["kind"]].append(facts["l0"])
    assert all(len(values) >= 4 and max(values) / min(values) >= 10 for values in l0.values()), l0
    closest = min(
        max(trio) / min(trio) for trio in ((a, b, c) for a in l0["local"] for b in l0["e2e"] for c in l0["e2e+ds"])
    )
    assert closest < 1.2


def test_every_layer_has_a_local_one_and_one_is_at_hook_z():
    hooks = [facts["hook_name"] for facts in FAMILY.values() if facts["kind"] == "local"]
    assert {f"blocks.{layer}.hook_resid_pre" for layer in range(6)} <= set(hooks)
    assert "blocks.3.attn.hook_z" in hooks


def test_all_together_are_at_most_twenty_megabytes():
    files = [file for file in EMBEDDED_SAES["nano"].rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 20_000_000


@pytest.mark.parametrize("name", FAMILY)
def test_the_card_says_what_the_configuration_says(name):
    facts = FAMILY[name]
    card = (EMBEDDED_SAES["nano"] / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in card and f"| {facts['l0']:.1f} | {facts['explained_variance']:.3f} |" in card


def as_stated(name, measured):
    """As far as 16 sequences can tell, whose text is another one with each version of Python."""
    facts = FAMILY[name]
    assert measured.l0 == pytest.approx(facts["l0"], rel=0.15)
    assert measured.explained_variance == pytest.approx(facts["explained_variance"], abs=0.06)
    assert measured.loss_increase == pytest.approx(facts["ce_increase"], rel=0.25, abs=0.1)


@pytest.mark.parametrize("name", MEASURED)
def test_the_configuration_says_what_is_measured(name, trained):
    as_stated(name, trained(name))


@pytest.mark.parametrize("name", DENSEST)
def test_a_trained_one_is_as_stated_and_beats_an_untrained_one_of_equal_l0(name, nano, tokens, trained):
    sae, own = tm.load_sae(name), trained(name)
    as_stated(name, own)
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(sae.W_dec.shape, generator=generator), dim=-1)
    mean = nano.model.activation(tokens.ids, nano.model.site("resid_pre:3")).flatten(0, 1).mean(0)
    count = max(1, round(own.l0))

    def untrained(x):
        latents = keep_largest((x - mean) @ rows.T, count)
        given = latents @ rows
        best = torch.linalg.vecdot(x - mean, given) / torch.linalg.vecdot(given, given).clamp(min=1e-6)
        return latents, mean + best[..., None] * given  # at the best scale for each token: a strong control

    control = quality(nano, tokens, untrained)
    if FAMILY[name]["kind"] == "local":
        assert own.explained_variance > control.explained_variance
    else:
        assert own.kl < control.kl


@pytest.mark.parametrize("name", DENSEST)
def test_a_trained_one_beats_principal_components_of_equal_l0(name, nano, tokens, trained, components):
    """Local SAEs in explained variance, end-to-end ones in KL: what each was trained for."""
    own, (mean, axes) = trained(name), components
    axes = axes[:, -max(1, round(own.l0)) :]

    def principal(x):
        scores = (x.double() - mean) @ axes
        return scores.abs().float(), (mean + scores @ axes.T).float()

    control = quality(nano, tokens, principal)
    if FAMILY[name]["kind"] == "local":
        assert own.explained_variance > control.explained_variance
    else:
        assert own.kl < control.kl


def test_configurations_are_saelens_ones():
    for name in FAMILY:
        config = json.loads((EMBEDDED_SAES["nano"] / name.partition(":")[2] / "cfg.json").read_text())
        assert config["architecture"] == "standard" and config["d_sae"] == 2048
        assert config["metadata"]["training_tokens"] >= 1_000_000
