"""Agreement with TransformerLens: HookedTransformer with its default processing, loaded with the same weights.

"nano" is the model that ships, on 2 x 48 tokens; "gpt2" has the widths of GPT-2 small, three layers, a vocabulary of
5,000 and random weights, on 2 x 12. Largest
differences seen, at every kind of site, for pushes of 0.01, 0.1 and 1 times the norm of the activation (`pytest -rP`
prints them):

| | activations and log p, of the largest | KL, relative | loss, nats | L2, relative |
|---|---|---|---|---|
| nano, float32 | under 2e-6 | 3.5e-4 where KL > 1e-4 | 1.3e-5 | 1.7e-4 |
| nano, float64 | under 1e-7 | 5.0e-7 where KL > 1e-8 | 7.6e-7 | 9.7e-8 |
| gpt2, float64 | under 2e-7 | 9.3e-7 where KL > 1e-8 | 1.3e-6 | 2.7e-8 |

TransformerLens folds its weights in float32 whatever their precision: that is what remains in float64. In float32, its
KL of unprocessed differences is noise below 1e-4.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.loading_from_pretrained import get_pretrained_model_config
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

from tiltmeter.models.loading import load_model
from tiltmeter.models.mlp_input import find_mlp_reader
from tiltmeter.models.positions import Span
from tiltmeter.models.readout_values import compute_readouts
from tiltmeter.models.readouts import parse_readout
from tiltmeter.models.sites import HOOKS, Site
from tiltmeter.models.split_model import SplitModel

PUSHES = (0.01, 0.1, 1.0)
"""Lengths, in norms of the activation that is pushed; each in a direction of its own."""

FIRST = 5
"""The first position that is pushed: those before it are the prefix."""

MIDDLE = tuple(f"{kind}:middle" for kind in HOOKS)


class Tolerance(NamedTuple):
    """Largest differences allowed, and the smallest KL that is compared."""

    activation: float
    kl: float
    loss: float
    l2: float
    smallest_kl: float


TOLERANCES = {
    torch.float32: Tolerance(activation=1e-5, kl=2e-3, loss=1e-4, l2=1e-3, smallest_kl=1e-4),
    torch.float64: Tolerance(activation=1e-6, kl=5e-6, loss=1e-5, l2=2e-6, smallest_kl=1e-8),
}


@dataclass(frozen=True)
class Pair:
    """One set of weights in both libraries, and tokens."""

    ours: SplitModel
    theirs: HookedTransformer
    tokens: Tensor


def processed(hf: GPT2LMHeadModel, directory: Path) -> HookedTransformer:
    """TransformerLens's model of these weights, with default processing, without asking the hub."""
    settings = hf.config.to_dict() | {"n_ctx": hf.config.n_positions, "architectures": ["GPT2LMHeadModel"]}
    (directory / "config.json").write_text(json.dumps(settings))
    config = get_pretrained_model_config(str(directory), dtype=hf.dtype, device="cpu")
    theirs = HookedTransformer(config)
    theirs.load_and_process_state_dict(convert_gpt2_weights(hf, config))
    return theirs.eval().requires_grad_(False)


def full_width() -> GPT2LMHeadModel:
    """Three layers as in GPT-2 small, randomly initialised so that the output is neither flat nor certain."""
    hf = GPT2LMHeadModel(GPT2Config(n_layer=3, vocab_size=5000, bos_token_id=0, eos_token_id=0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            mean = float("ln_" in name and name.endswith("weight"))
            parameter.normal_(mean, 0.14 if "wte" in name else 0.05, generator=generator)
    return hf


@pytest.fixture(scope="module", params=["nano-float32", "gpt2-float64"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, precision = request.param.split("-")
    if name == "nano":
        loaded = load_model("nano", precision=precision)
        ours, text = loaded.model, Path(__file__).read_text()
        tokens = torch.tensor(loaded.tokenizer(text)["input_ids"])[:96].reshape(2, 48)
    else:
        ours = SplitModel(full_width().to(getattr(torch, precision)))
        tokens = torch.randint(0, ours.vocabulary, (2, 12), generator=torch.Generator().manual_seed(1))
    return Pair(ours, processed(ours.hf, tmp_path_factory.mktemp(name)), tokens)


def site_of(pair: Pair, name: str) -> Site:
    last = pair.ours.n_layers - 1
    return pair.ours.site(name.replace("middle", str(last // 2)).replace("last", str(last)))


def shown_by_theirs(
    pair: Pair, reads: list[Site], edit: tuple[Site, Callable[[Tensor], Tensor]] | None = None
) -> tuple[dict[Site, Tensor], Tensor]:
    """Activations `[batch, position, width]` and logits of TransformerLens."""
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[..., None]:
        def hook(x: Tensor, hook: object) -> None:
            seen[site] = x.flatten(2).clone()

        return hook

    def move(x: Tensor, hook: object) -> Tensor:
        return edit[1](x.flatten(2)).reshape(x.shape)

    hooks = [(edit[0].name, move)] if edit else []
    logits = pair.theirs.run_with_hooks(pair.tokens, fwd_hooks=[*hooks, *((site.name, keep(site)) for site in reads)])
    return seen, logits


def folded_into_z(hf: GPT2LMHeadModel, layer: int) -> Tensor:
    """What TransformerLens moves out of values, and so out of z: b_V + ln1.b @ W_V, of the unprocessed weights."""
    block = hf.transformer.h[layer]
    weights, biases = block.attn.c_attn.weight.chunk(3, dim=1), block.attn.c_attn.bias.chunk(3)
    return biases[2] + block.ln_1.bias @ weights[2]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference, of the largest entry."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_activations(pair):
    tolerance = TOLERANCES[pair.ours.hf.dtype]
    sites = [site_of(pair, name) for name in ("resid_pre:0", *MIDDLE, "resid_pre:last", "resid_post:last")]
    clean = pair.ours.start(pair.tokens, Site(0, "resid_pre"), sites)
    seen, logits = shown_by_theirs(pair, sites)
    found = {}
    for site in sites:
        ours = clean.late.sites[site]
        if site.kind in ("v", "z"):
            assert difference(ours, seen[site]) > 10 * tolerance.activation, "the constant would not be noticed"
            ours = ours - folded_into_z(pair.ours.hf, site.layer)
        found[site.name] = difference(ours, seen[site])
    ours = pair.ours.logits(clean.late.final.flatten(0, 1)).log_softmax(-1)
    found["log p"] = difference(ours, logits.flatten(0, 1).log_softmax(-1))
    print(found)
    assert max(found.values()) <= tolerance.activation


def pushes(pair: Pair, site: Site, x: Tensor) -> Tensor:
    """What is added to the activations `x`: `[point, batch, position, width]`, as centred as they are."""
    generator = torch.Generator().manual_seed(site.layer)
    delta = torch.randn(len(PUSHES), *x.shape, dtype=torch.float64, generator=generator).to(x.dtype)
    delta = pair.ours.centre(delta, site)
    lengths = x.norm(dim=-1, keepdim=True) * torch.tensor(PUSHES, dtype=x.dtype)[:, None, None, None]
    return delta / delta.norm(dim=-1, keepdim=True) * lengths


def read_theirs(pair: Pair, site: Site, late_site: Site, delta: Tensor) -> dict[str, Tensor]:
    """KL, loss and L2 of every push by their textbook formulas on what TransformerLens gives, in float64."""
    following = pair.tokens[:, FIRST + 1 :, None]
    seen, logits = shown_by_theirs(pair, [late_site])
    clean = logits[:, FIRST:].double().log_softmax(-1)
    values: dict[str, list[Tensor]] = {"kl": [], "loss": [], "l2": []}
    for point in torch.nn.functional.pad(delta, (0, 0, FIRST, 0)):
        pushed, logits = shown_by_theirs(pair, [late_site], (site, point.__add__))
        log_p = logits[:, FIRST:].double().log_softmax(-1)
        values["kl"].append((clean.exp() * (clean - log_p)).sum(-1))
        values["loss"].append(-log_p[:, :-1].gather(2, following)[..., 0])
        values["l2"].append((pushed[late_site] - seen[late_site])[:, FIRST:].double().norm(dim=-1))
    return {name: torch.stack(points) for name, points in values.items()}


@pytest.mark.parametrize("name", [*MIDDLE, "resid_pre:last"])
def test_pushes(pair, name):
    site, late_site = site_of(pair, name), site_of(pair, "resid_post:last")
    span = Span(FIRST, pair.tokens.shape[1])
    clean = pair.ours.start(pair.tokens, site, [late_site], span)
    x = span.cut(clean.activation)
    delta = pushes(pair, site, x)
    readouts = [parse_readout(text, pair.ours) for text in ("kl", "loss", f"l2@{late_site.name}")]
    measured = compute_readouts(
        pair.ours, clean, pair.ours.resume(clean, x + delta).minus(clean.late), readouts, range(*span)
    )
    ours = {readout.kind: measured[readout.name] for readout in readouts}
    theirs = read_theirs(pair, site, late_site, delta)

    tolerance = TOLERANCES[pair.ours.hf.dtype]
    visible = theirs["kl"] > tolerance.smallest_kl
    assert theirs["kl"][-1].max() > (1e-2 if site.kind in "qk" else 0.1)
    assert visible[-1].all() or site.kind in "qk"
    found = {
        "kl": float((ours["kl"] / theirs["kl"] - 1).abs()[visible].max()),
        "loss": float((ours["loss"][..., :-1] - theirs["loss"]).abs().max()),
        "l2": float((ours["l2"] / theirs["l2"] - 1).abs().max()),
    }
    print(found)
    assert all(value <= getattr(tolerance, readout) for readout, value in found.items())


def test_what_an_mlp_reads_is_what_transformer_lens_calls_it(pair: Pair):
    """The normalised stream, by which transcoders of processed models are trained, and the stream before the norm."""
    layer = pair.ours.n_layers // 2
    found = find_mlp_reader(pair.ours, layer).inputs(pair.ours, pair.tokens)
    names = {
        "ln2.hook_normalized": f"blocks.{layer}.ln2.hook_normalized",
        "hook_resid_mid": f"blocks.{layer}.hook_resid_mid",
    }
    _, cache = pair.theirs.run_with_cache(pair.tokens, names_filter=[*names.values()])
    stream = found["hook_resid_mid"] - found["hook_resid_mid"].mean(-1, keepdim=True)
    for ours, theirs in ((found["ln2.hook_normalized"], "ln2.hook_normalized"), (stream, "hook_resid_mid")):
        expected = cache[names[theirs]]
        error = float((ours - expected).norm() / expected.norm())
        print(f"{theirs}: {error:.1e}")
        assert error < 1e-5
    read = found["mlp.hook_in"]
    assert float((read - cache[names["ln2.hook_normalized"]]).norm() / read.norm()) > 0.05
