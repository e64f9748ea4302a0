"""What a split model does besides its numbers: what it runs, and that it leaves everything as it was."""

from __future__ import annotations

import pytest
import torch

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiny_models import FAMILIES, LAYERS, WIDTH, block, random_tokens, tiny

LENGTH = 12
BATCH = 2


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_given_is_edited_in_place(family):
    model = SplitModel(tiny(family))
    for site in (Site(1, "resid_pre"), Site(2, "resid_post"), Site(1, "attn_out"), Site(1, "z")):
        clean = model.start(random_tokens(BATCH, LENGTH), site, [Site(2, "resid_post")], Span(4, 9))
        x = clean.activation[None, :, 4:9] + 1
        kept = [x, clean.tokens, clean.activation, clean.entry, clean.late.final, *clean.late.sites.values()]
        kept += [tensor for pair in clean.prefix for tensor in pair]
        copies = [tensor.clone() for tensor in kept]
        first = model.resume(clean, x).final
        assert torch.equal(model.resume(clean, x).final, first)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(kept, copies, strict=True))


@pytest.mark.parametrize(
    ("site", "blocks"),
    [
        (Site(0, "resid_pre"), [0, 1, 2]),
        (Site(1, "z"), [1, 2]),
        (Site(1, "resid_post"), [2]),
        (Site(2, "resid_post"), []),
    ],
    ids=lambda value: value.name if isinstance(value, Site) else "",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_blocks_after_the_site_and_the_positions_of_the_span_run(family, site, blocks):
    model, ran = SplitModel(tiny(family)), {}
    clean = model.start(random_tokens(BATCH, LENGTH), site, (), Span(4, 9))

    def count(layer):
        def hook(_, args, kwargs):
            ran.setdefault(layer, []).append(tuple((args[0] if args else kwargs["hidden_states"]).shape))

        return block(family, model.hf, layer).register_forward_pre_hook(hook, with_kwargs=True)

    handles = [count(layer) for layer in range(LAYERS)]
    model.resume(clean, torch.stack([clean.activation[:, 4:9]] * 3))
    for handle in handles:
        handle.remove()
    assert ran == {layer: [(3 * BATCH, 5, WIDTH)] for layer in blocks}


def traces(model: SplitModel) -> tuple:
    """Everything that a pass could leave behind in the model: other modules, hooks, attributes, weights."""
    modules = [
        (name, id(module), len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        for name, module in model.hf.named_modules()
    ]
    return modules, {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}


def assert_untouched(model: SplitModel, before: tuple) -> None:
    modules, weights = traces(model)
    assert modules == before[0]
    assert all(torch.equal(weights[name], tensor) for name, tensor in before[1].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family):
    model, site = SplitModel(tiny(family)), Site(1, "attn_out")
    before = traces(model)
    clean = model.start(random_tokens(BATCH, LENGTH), site, [Site(2, "z")], Span(4, 9))
    late = model.resume(clean, clean.activation[:, 4:9])
    model.logits(late.final[0])
    assert_untouched(model, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was_after_an_exception(family):
    class BreakError(Exception):
        pass

    def fail(*_):
        raise BreakError

    model, site = SplitModel(tiny(family)), Site(1, "attn_out")
    clean = model.start(random_tokens(BATCH, LENGTH), site, [Site(2, "z")], Span(4, 9))
    before = traces(model)
    head = model.hf.get_output_embeddings()
    for broken, run in [
        (block(family, model.hf, 2), lambda: model.start(clean.tokens, site)),
        (block(family, model.hf, 2), lambda: model.resume(clean, clean.activation[:, 4:9])),
        (head, lambda: model.logits(clean.late.final[0])),
    ]:
        handle = broken.register_forward_pre_hook(fail)
        with pytest.raises(TiltmeterError, match="BreakError") as told:
            run()
        assert isinstance(told.value.__cause__, BreakError)
        handle.remove()
        assert_untouched(model, before)
    assert torch.equal(model.start(clean.tokens, site, (), clean.span).late.final, clean.late.final)
