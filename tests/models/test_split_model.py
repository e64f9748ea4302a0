"""Resumed passes against full forward passes whose activation a plain torch hook replaces.

Largest absolute differences seen over all families, sites and positions below (logits as large as 7, late activations
as large as 41):

| precision | logits | late activations |
|---|---|---|
| float64 | 8e-15 | 2e-14 |
| float32 | 7e-6 | 3e-5 |

Families with RMSNorm take their norms in float32 even in a float64 model; the two passes still agree this well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.clean_run import CleanRun, LateActivations
from tiltmeter.models.positions import Positions, Span, parse_positions
from tiltmeter.models.sites import OF_WIDTH_D_MODEL, STREAM, Site
from tiltmeter.models.split_model import SplitModel
from tiny_models import (
    CONTEXT,
    FAMILIES,
    VOCABULARY,
    WIDTH,
    FullPass,
    full_pass,
    heads_and_modules,
    random_tokens,
    sites_of,
    tiny,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest absolute difference allowed between a resumed and a full pass."""

LENGTH = 12
BATCH = 2
ASKED = ("all", "last", "4+3", "2,5,9")
VARIANTS = [(family, attention) for family, parts in FAMILIES.items() for attention in parts.attentions]
WITH_ALL_POSITIONS = ("gpt2", "mistral")
"""One family with learned positions and one with rotary positions and sliding windows."""
CASES = {
    # Each family and attention at all sites in float64, position modes in turn, so that each meets both attentions;
    # each mode for two families; and one in float32, the models' own arithmetic.
    **{(*variant, torch.float64, ASKED[(at + at // 4) % 4]): None for at, variant in enumerate(VARIANTS)},
    **{(family, "sdpa", torch.float64, asked): None for family in WITH_ALL_POSITIONS for asked in ASKED},
    ("llama", "sdpa", torch.float32, "4+3"): None,
}


@dataclass(frozen=True)
class Perturbation:
    """One push, measured by a resumed pass and by a full pass for each point of the path."""

    clean: CleanRun
    x: Tensor
    late: LateActivations
    full: list[FullPass]


def push(family: str, model: SplitModel, site: Site, positions: Positions, points: int = 2) -> Perturbation:
    """Move the activation at `site` at the perturbed positions by random vectors whose mean is not zero."""
    tokens = random_tokens(BATCH, LENGTH)
    reads = [read for read in (*sites_of(family), *heads_and_modules(family)) if read.is_visible_from(site)]
    clean = model.start(tokens, site, reads, positions.span)
    generator = torch.Generator().manual_seed(sum(site.name.encode()))
    whole = model.whole(clean)
    shape = (points, *whole.shape)
    noise = 0.5 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64).to(whole.dtype)
    moved = torch.zeros(LENGTH, 1, dtype=noise.dtype)
    moved[list(positions.perturbed)] = 1
    delta = noise * moved
    x = (whole + delta)[:, :, positions.span.first : positions.span.stop]
    return Perturbation(clean, x, model.resume(clean, x), full_passes(family, model, tokens, reads, site, delta))


def full_passes(
    family: str, model: SplitModel, tokens: Tensor, reads: list[Site], site: Site, delta: Tensor
) -> list[FullPass]:
    """A pass for each point, all in one batch."""
    edit = {site: lambda raw: raw + delta.flatten(0, 1)}
    whole = full_pass(family, model.hf, tokens.repeat(len(delta), 1), reads, edit)
    seen = {read: x.chunk(len(delta)) for read, x in whole.seen.items()}
    return [
        FullPass({read: x[at] for read, x in seen.items()}, logits)
        for at, logits in enumerate(whole.logits.chunk(len(delta)))
    ]


def logits(model: SplitModel, final: Tensor) -> Tensor:
    """Logits of hidden states with any leading axes."""
    return model.logits(final.flatten(0, -2)).unflatten(0, final.shape[:-1])


def centred(family: str, site: Site, x: Tensor) -> Tensor:
    """What is measured: LayerNorm families show the stream, and what is written to it, minus its mean."""
    in_stream = FAMILIES[family].layer_norm and site.kind in OF_WIDTH_D_MODEL
    return x - x.mean(-1, keepdim=True) if in_stream else x


def differences(family: str, model: SplitModel, found: Perturbation) -> dict[str, float]:
    """Largest absolute difference of the two passes, for the logits and each late site."""
    cut = found.clean.span.cut
    result = {"logits": logits(model, found.late.final) - torch.stack([cut(full.logits) for full in found.full])}
    for site, late in found.late.sites.items():
        result[site.name] = late - torch.stack([cut(centred(family, site, full.seen[site])) for full in found.full])
    return {name: float(difference.abs().max()) for name, difference in result.items()}


@pytest.mark.parametrize(("family", "attention", "dtype", "asked"), CASES, ids=lambda part: str(part))
def test_a_resumed_pass_equals_the_full_pass(family, attention, dtype, asked):
    model = SplitModel(tiny(family, attention, dtype))
    positions = parse_positions(asked, LENGTH)
    sites = sites_of(family)
    if len(FAMILIES[family].attentions) > 1:  # each attention at every other site, together at all
        sites = sites[FAMILIES[family].attentions.index(attention) :: 2]
    for site in sites:
        found = push(family, model, site, positions)
        worst = max(differences(family, model, found).items(), key=lambda item: item[1])
        assert worst[1] <= TOLERANCE[dtype], f"pushed at {site.name}: {worst}"
        # The comparison would mean nothing if the push did not show.
        change = (logits(model, found.late.final) - logits(model, found.clean.late.final)).abs().amax(-1)
        perturbed = torch.tensor(positions.perturbed) - found.clean.span.first
        shown = change[:, :, perturbed]
        # A first token attends to itself alone, whatever its query; and little of one head's value reaches the logits.
        assert (shown.max() if site.kind in "qk" else shown.min()) > (0.01 if site.kind in "qkv" else 0.1), site.name


@pytest.mark.parametrize(("family", "asked"), zip(FAMILIES, (*ASKED, *ASKED), strict=True))
def test_heads_and_modules_are_pushed_like_every_site(family, asked):
    model, positions = SplitModel(tiny(family)), parse_positions(asked, LENGTH)
    for site in heads_and_modules(family):
        assert model.site(site.name) == site
        found = push(family, model, site, positions)
        assert max(differences(family, model, found).values()) < TOLERANCE[torch.float64], site.name
        assert (found.late.final - found.clean.late.final).abs().max() > 0.01, site.name
        for seen in (found.late.sites[read] for read in found.late.sites if read == site):
            torch.testing.assert_close(seen, found.x, msg=site.name)


def test_a_result_is_not_read_where_it_was_pushed():
    """It is computed from its z wherever it is read, so that its distance from the clean one would be zero."""
    model, site = SplitModel(tiny("gpt2")), Site(1, "result", 1)
    with pytest.raises(TiltmeterError, match="is computed from its z, and does not show a perturbation at"):
        model.start(random_tokens(BATCH, LENGTH), site, [site])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clean_run_holds_what_hooks_see(family):
    model, tokens, span = SplitModel(tiny(family)), random_tokens(BATCH, LENGTH), Span(3, 10)
    sites = [*sites_of(family), *heads_and_modules(family)]
    full = full_pass(family, model.hf, tokens, sites)
    for site in sites:
        clean = model.start(tokens, site, [site] if site.is_visible_from(site) else [], span)
        expected = centred(family, site, full.seen[site])
        same = partial(torch.testing.assert_close, rtol=0, atol=1e-12, msg=site.name)
        same(clean.activation, expected[:, :10])
        same(model.whole(clean), expected)
        for late in clean.late.sites.values():
            same(late, expected[:, 3:10])
        if site.is_in_block or site.kind in STREAM:
            entry = full.seen[Site(site.layer, "resid_post" if site.kind == "resid_post" else "resid_pre")]
            same(clean.entry, entry[:, 3:10])
        torch.testing.assert_close(logits(model, clean.late.final), full.logits[:, 3:10], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_later_positions_change(family):
    model = SplitModel(tiny(family))
    clean = model.start(random_tokens(BATCH, LENGTH), Site(1, "resid_pre"))
    x = clean.activation.clone()
    x[:, 5] += 1 + torch.arange(WIDTH) % 3
    change = (model.resume(clean, x).final - clean.late.final).abs().amax(-1)
    assert change[:, :5].max() < 1e-12
    assert change[:, 5:8].min() > 1e-2


@pytest.mark.parametrize(
    ("site", "part"), [(Site(1, "resid_pre"), "prefix"), (Site(1, "z"), "prefix"), (Site(1, "z"), "entry")]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_another_sequence_left_is_seen_to_be_wrong(family, site, part):
    """Negative control of the comparison: keys and values, or the entering stream, of other tokens."""
    model, span = SplitModel(tiny(family)), Span(8, LENGTH)
    mine, others = (model.start(random_tokens(BATCH, LENGTH, seed), site, (), span) for seed in (0, 1))
    x = span.cut(mine.activation)
    assert (model.resume(mine, x).final - mine.late.final).abs().max() < 1e-12
    wrong = replace(mine, **{part: getattr(others, part)})
    assert (model.resume(wrong, x).final - mine.late.final).abs().max() > 0.1


def test_sliding_windows_are_in_play():
    """Three layers of windows of four reach nine positions back; without a window the first token reaches the last."""
    tokens = random_tokens(1, LENGTH)
    other = tokens.clone()
    other[0, 0] = (tokens[0, 0] + 1) % VOCABULARY
    reach = {}
    for family in ("llama", "mistral"):
        one, two = (full_pass(family, tiny(family), ids).logits[0, -1] for ids in (tokens, other))
        reach[family] = float((one - two).abs().max())
    assert reach["mistral"] == 0 and reach["llama"] > 1e-3
    assert set(tiny("gemma2").config.layer_types) == {"sliding_attention", "full_attention"}


@pytest.mark.parametrize("family", FAMILIES)
def test_points_may_have_any_leading_axes(family):
    model, site, span = SplitModel(tiny(family)), Site(1, "resid_post"), Span(4, 9)
    clean = model.start(random_tokens(BATCH, LENGTH), site, [site], span)
    x = span.cut(clean.activation) * torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(2, 3, 1, 1, 1)
    many = model.resume(clean, x)
    assert many.final.shape == (2, 3, BATCH, 5, WIDTH)
    for i, j in [(0, 0), (1, 1), (1, 2)]:
        one = model.resume(clean, x[i, j])
        assert one.final.shape == (BATCH, 5, WIDTH)
        torch.testing.assert_close(many.final[i, j], one.final, rtol=0, atol=1e-12)
        torch.testing.assert_close(many.sites[site][i, j], one.sites[site], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_norm_models_are_centred_and_rms_norm_models_are_raw(family):
    model, tokens = SplitModel(tiny(family)), random_tokens(BATCH, LENGTH)
    assert model.centred == FAMILIES[family].layer_norm
    for site in sites_of(family):
        mean = model.start(tokens, site, [site]).activation.mean(-1).abs().max()
        assert (mean < 1e-12) == (model.centred and site.kind in OF_WIDTH_D_MODEL), site.name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "site", [Site(0, "resid_pre"), Site(1, "mlp_out"), Site(2, "resid_post")], ids=lambda s: s.name
)
def test_a_constant_in_the_stream_changes_nothing_exactly_where_the_stream_is_centred(family, site):
    model = SplitModel(tiny(family))
    late_site = Site(2, "resid_post")
    clean = model.start(random_tokens(BATCH, LENGTH), site, [late_site])
    late = model.resume(clean, clean.activation + 3.0)
    change = (logits(model, late.final) - logits(model, clean.late.final)).abs().max()
    moved = (late.sites[late_site] - clean.late.sites[late_site]).abs().max()
    if model.centred:
        assert change < 1e-9 and moved < 1e-9
    else:
        assert change > 0.02 and moved > 0.02


def test_soft_caps_are_the_models_own():
    model = SplitModel(tiny("gemma2"))
    clean = model.start(random_tokens(), Site(1, "resid_pre"))
    capped, plain = logits(model, 9 * clean.late.final), model.hf.lm_head(9 * clean.late.final)
    assert plain.abs().max() > 10
    torch.testing.assert_close(capped, 4 * torch.tanh(plain / 4), rtol=0, atol=1e-12)


def test_wrong_input_is_refused_in_a_sentence():
    model = SplitModel(tiny("gpt2"), name="tiny")
    tokens = random_tokens(1, CONTEXT)
    for name, words in {"resid_pre:3": "layers 0 to 2", "blocks.0.hook_x": "blocks.L.hook_resid_pre"}.items():
        with pytest.raises(TiltmeterError, match=words):
            model.site(name)
    with pytest.raises(TiltmeterError, match=r"blocks\.0\.hook_mlp_out comes before blocks\.1\.hook_resid_pre"):
        model.start(tokens, Site(1, "resid_pre"), [Site(0, "mlp_out")])
    with pytest.raises(TiltmeterError, match=r"17 tokens, but tiny has a context of 16"):
        model.start(random_tokens(1, CONTEXT + 1), Site(1, "resid_pre"))
    assert model.start(tokens, Site(1, "resid_pre")).activation.shape == (1, CONTEXT, WIDTH)


@pytest.mark.parametrize("shape", [(3, 5, WIDTH), (BATCH, 4, WIDTH), (BATCH, 5, WIDTH + 1), (2, 3, 5, WIDTH)])
def test_activations_of_another_shape_are_refused(shape):
    model = SplitModel(tiny("gpt2"))
    clean = model.start(random_tokens(BATCH, LENGTH), Site(1, "resid_pre"), (), Span(4, 9))
    with pytest.raises(TiltmeterError, match="Activations of shape"):
        model.resume(clean, torch.zeros(shape, dtype=torch.float64))
