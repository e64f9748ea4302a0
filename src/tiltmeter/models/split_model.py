"""A causal language model cut at a site: the part before it runs once, the part after it as often as needed.

1. `SplitModel.start` runs the whole model once and keeps what the perturbed runs need: the activation at the site, the
   keys and values of the positions before the first one that can change, and the late activations to compare with.
2. `SplitModel.resume` puts a new activation at the site and runs only the blocks after it, and only the positions that
   can change.
3. `SplitModel.logits` turns final hidden states into logits, a few tokens at a time.

All three run the model's own forward pass on its own modules: blocks before the site are swapped for ones that pass
their input on, masks, rotary angles and attention stay the model's. No model's mathematics is written down here.

LayerNorm models are read in the *centred* residual stream, x minus its mean over d_model, as TransformerLens shows
them: nothing in such a model can see the mean. RMSNorm models are read raw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.architectures import find_parts, ignores_mean
from tiltmeter.models.chunked_kl import Unembedding
from tiltmeter.models.differences.tape import Tape
from tiltmeter.models.hooks import captured, replaced
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import STREAM, Site, parse_site

Stream = Literal["centred", "raw"]
"""How a LayerNorm model's residual stream is measured: minus its mean over d_model, or as it is."""


@dataclass(frozen=True)
class CleanRun:
    """What one clean forward pass leaves for all perturbed ones."""

    tokens: Int[Tensor, "batch position"]
    site: Site
    span: Span
    """The positions that perturbed runs compute."""
    activation: Float[Tensor, "batch seen d_site"]
    """At the site, at every position up to the end of the span: later ones are not run (`SplitModel.whole`)."""
    entry: Float[Tensor, "batch span d_model"]
    """The stream entering the first block that runs again."""
    prefix: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of the positions before the span, for each block that runs again."""
    late: LateActivations
    tape: Tape = field(default_factory=Tape)
    """What exact differences need of clean values besides, from the first perturbed run on."""


@dataclass(frozen=True)
class LateActivations:
    """What is read after the site, at the positions of the span."""

    final: Float[Tensor, "*point batch span d_model"]
    """Hidden states after the final norm, the unembedding's input."""
    sites: dict[Site, Float[Tensor, "*point batch span d_site"]]

    def minus(self, clean: LateActivations) -> LateActivations:
        """How far everything has moved."""
        return LateActivations(
            self.final - clean.final, {site: value - clean.sites[site] for site, value in self.sites.items()}
        )


class SplitModel:
    """Any Hugging Face causal language model, cut at a site."""

    rounding: torch.dtype | None = None
    """What differences are rounded to where they enter a product of matrices."""

    def __init__(self, hf: PreTrainedModel, name: str = "model") -> None:
        self.hf = hf.eval().requires_grad_(False)
        self.name = name
        self.parts = find_parts(hf)
        self.n_layers = len(self.parts.blocks)
        config = hf.config.get_text_config()
        self.width: int = config.hidden_size
        self.vocabulary: int = config.vocab_size
        self.context: int = getattr(config, "max_position_embeddings", 2**31)
        self.centred = ignores_mean(self.parts.final_norm, torch.empty(self.width, dtype=hf.dtype, device=hf.device))

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return self.hf.device

    def site(self, name: str) -> Site:
        """The site that a TransformerLens name, long or short, means in this model."""
        return parse_site(name, self.n_layers)

    def measured_in(self, stream: Stream) -> SplitModel:
        """The same model, measured in this stream; in an RMSNorm model both are the raw one."""
        other = copy(self)
        other.centred = self.centred and stream == "centred"
        return other

    def centre(self, x: Tensor, site: Site) -> Tensor:
        """`x` as it is measured at `site`: minus its mean over d_model where nothing can see that mean."""
        return x - x.mean(-1, keepdim=True) if self.centred and site.kind != "z" else x

    @torch.no_grad()
    def start(
        self,
        tokens: Int[Tensor, "batch position"],
        site: Site,
        reads: Sequence[Site] = (),
        span: Span | None = None,
    ) -> CleanRun:
        """Run the whole model once on `tokens` and keep what perturbed runs at `site` need.

        Args:
            tokens: token ids.
            site: where activations will be replaced.
            reads: the late sites to keep activations of.
            span: the positions that perturbed runs will compute; default all.

        Raises:
            TiltmeterError: a read lies before the site, the sequences exceed the context, or an activation is not
                finite.
        """
        return self.starts(tokens, [site], reads, span)[site]

    @torch.no_grad()
    def starts(
        self,
        tokens: Int[Tensor, "batch position"],
        sites: Sequence[Site],
        reads: Sequence[Site] = (),
        span: Span | None = None,
    ) -> dict[Site, CleanRun]:
        """As `start`, for perturbed runs at several sites, each by itself: one pass serves them all.

        Raises:
            TiltmeterError: as `start`.
        """
        span = span or Span(0, tokens.shape[1])
        for site in sites:
            self._check(tokens, site, reads)
        tape = Tape()
        seen, final, cache = self._clean_pass(tokens[:, : span.stop], {*sites, *map(_entry, sites), *reads}, span, tape)
        late = LateActivations(span.cut(final), {s: self.centre(span.cut(seen[s]), s) for s in reads})
        return {
            site: CleanRun(
                tokens=tokens,
                site=site,
                span=span,
                activation=self._finite(self.centre(seen[site], site), site),
                entry=span.cut(seen[_entry(site)]),
                prefix=_prefix(cache, site.boundary, span),
                late=late,
                tape=tape,
            )
            for site in sites
        }

    def _clean_pass(
        self, tokens: Tensor, wanted: set[Site], span: Span, tape: Tape
    ) -> tuple[dict[Site, Tensor], Tensor, DynamicCache | None]:
        """What is wanted, the final hidden states, and the keys and values where some of them stay as they are."""
        cache = DynamicCache() if span.first else None
        with ExitStack() as stack:
            found = {s: stack.enter_context(captured(*self.tap(s))) for s in wanted}
            final = self._trunk(input_ids=tokens.to(self.device), past_key_values=cache, use_cache=cache is not None)
        return {s: values[0] for s, values in found.items()}, final, cache

    def _finite(self, activation: Tensor, site: Site) -> Tensor:
        if not bool(torch.isfinite(activation).all()):
            raise TiltmeterError(
                f"The model's activations at {site.name} are not finite on these tokens; check its weights, or load it "
                "with --precision float32 or float64."
            )
        return activation

    @torch.no_grad()
    def activation(self, tokens: Int[Tensor, "batch position"], site: Site) -> Float[Tensor, "batch position d_site"]:
        """The activation at `site`, without running the layers after it.

        Raises:
            TiltmeterError: the sequences exceed the context, or the activation is not finite.
        """
        self._check(tokens, site, ())
        needed = site.boundary if site.kind in STREAM else site.layer + 1
        with ExitStack() as stack:
            stack.enter_context(skipped(self.parts.blocks, range(needed, self.n_layers)))
            found = stack.enter_context(captured(*self.tap(site)))
            self._trunk(input_ids=tokens.to(self.device), use_cache=False)
        return self._finite(self.centre(found[0], site), site)

    def whole(self, clean: CleanRun) -> Float[Tensor, "batch position d_site"]:
        """The activation at the site of a clean run at every position: those after its span are run for this."""
        if clean.span.stop == clean.tokens.shape[1]:
            return clean.activation
        after = self.activation(clean.tokens, clean.site)[:, clean.span.stop :]
        return torch.cat([clean.activation, after], dim=1)

    def resume(self, clean: CleanRun, x: Float[Tensor, "*point batch span d_site"]) -> LateActivations:
        """Run the layers after the site with activation `x` there. Gradients reach `x` where it asks for them.

        Args:
            clean: the clean run of the same tokens.
            x: activations at the site for the positions of the span, any number of path points in front of the batch.

        Returns:
            What is read after the site, with the leading axes of `x`.

        Raises:
            TiltmeterError: `x` is not shaped like the clean activation.
        """
        expected = clean.span.cut(clean.activation).shape
        if x.shape[-3:] != expected:
            raise TiltmeterError(
                f"Activations of shape {tuple(x.shape)} were given for {clean.site.name}; give any number of path "
                f"points, each of shape {tuple(expected)} (batch, span, width)."
            )
        lead = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-2:]).contiguous()  # GPT-2's projections take views of what they are given
        copies = x.shape[0] // clean.tokens.shape[0]
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad))
            stack.enter_context(skipped(self.parts.blocks, range(clean.site.boundary)))
            if clean.site.kind in STREAM:
                entry = x
            else:
                entry = clean.entry.repeat(copies, 1, 1)
                stack.enter_context(replaced(*self.tap(clean.site), x))
            stack.enter_context(replaced(*self._stream_tap(clean.site.boundary), entry))
            found = {s: stack.enter_context(captured(*self.tap(s))) for s in clean.late.sites}
            final = self._suffix(clean, entry, copies)
        shape = (*lead, *clean.tokens.shape[:1], clean.span.stop - clean.span.first)
        sites = {s: self.centre(values[0], s).reshape(*shape, -1) for s, values in found.items()}
        return LateActivations(final.reshape(*shape, -1), sites)

    def changes(self, clean: CleanRun, change: Float[Tensor, "point batch span d_site"]) -> LateActivations:
        """How far what is read after the site moves where the activations there move by `change`."""
        return self.resume(clean, clean.span.cut(clean.activation) + change).minus(clean.late)

    def logit_changes(
        self,
        final: Float[Tensor, "token d_model"],
        logits: Float[Tensor, "token vocabulary"],
        change: Float[Tensor, "token d_model"],
    ) -> Float[Tensor, "token vocabulary"]:
        """How far the logits of final hidden states move where those move by `change`."""
        return self.logits(change) if self.head_is_linear else self._bent_changes(final, logits, change)

    def _bent_changes(self, final: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """The same of a head that is not linear."""
        return self.logits(final + change) - logits

    def logits(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocabulary"]:
        """Logits of final hidden states through the model's own head (soft-cap and scaling included)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and final.requires_grad):
            return self._head(final[None], final[None])[0]

    def _head(self, hidden: Tensor, placeholder: Tensor) -> Tensor:
        trunk = self.parts.trunk
        trunk.forward = lambda *_, **__: _TrunkOutput(last_hidden_state=hidden)
        try:
            return self.hf(inputs_embeds=placeholder, use_cache=False).logits
        finally:
            del trunk.forward

    @cached_property
    def head_is_linear(self) -> bool:
        """Whether the logits of a difference are the difference of the logits: the head has no bias and no soft-cap."""
        probe = torch.linspace(-1, 1, self.width, dtype=self.hf.dtype, device=self.device)[None]
        return torch.equal(self.logits(1024 * probe), 1024 * self.logits(probe))  # a power of two rounds nothing

    @cached_property
    def unembedding(self) -> Unembedding | None:
        """The matrix that makes logits of final hidden states, where nothing else does, in a model of float32."""
        head = self.hf.get_output_embeddings()
        if self.hf.dtype != torch.float32 or not isinstance(head, nn.Linear) or not self.head_is_linear:
            return None
        probe = torch.linspace(-1, 1, self.width, dtype=self.hf.dtype, device=self.device)[None]
        own, found = head.weight @ probe[0], self.logits(probe)[0]
        alone = torch.allclose(own, found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
        return Unembedding(head.weight) if alone else None

    def _suffix(self, clean: CleanRun, entry: Tensor, copies: int) -> Tensor:
        """Run the trunk on the span's positions, with the clean keys and values of earlier ones.

        What goes in as embeddings does not matter: a hook puts `entry` in front of the first block that runs.
        """
        cache = _cache(clean, copies) if clean.span.first else None
        positions = torch.arange(clean.span.first, clean.span.stop, device=entry.device)[None]
        return self._trunk(
            inputs_embeds=entry, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        )

    def _trunk(self, **inputs: Any) -> Tensor:
        return self.parts.trunk(**inputs).last_hidden_state

    def tap(self, site: Site) -> tuple[nn.Module, str]:
        """The module, and which side of it, that a site's activation passes through."""
        if site.kind in STREAM:
            return self._stream_tap(site.boundary)
        return self.parts.component(site), "input" if site.kind == "z" else "output"

    def _stream_tap(self, boundary: int) -> tuple[nn.Module, str]:
        """The same for the residual stream after `boundary` blocks."""
        return (self.parts.final_norm if boundary == self.n_layers else self.parts.blocks[boundary]), "input"

    def _check(self, tokens: Tensor, site: Site, reads: Sequence[Site]) -> None:
        if tokens.shape[1] > self.context:
            raise TiltmeterError(
                f"The sequences have {tokens.shape[1]} tokens, but {self.name} has a context of {self.context}; "
                "give shorter sequences."
            )
        for read in reads:
            if not read.is_visible_from(site):
                raise TiltmeterError(
                    f"{read.name} lies before {site.name}, so nothing done there can reach it; read a later site."
                )


def _entry(site: Site) -> Site:
    """The stream in front of the first block that runs again."""
    return site if site.kind in STREAM else Site(site.layer, "resid_pre")


@contextmanager
def skipped(blocks: nn.ModuleList, which: range) -> Iterator[None]:
    """Let some blocks pass their input on. The list keeps its length: models look up masks by index."""
    originals = {index: blocks[index] for index in which}
    try:
        for index in which:
            blocks[index] = _PassOn()
        yield
    finally:
        for index, block in originals.items():
            blocks[index] = block


@dataclass
class _TrunkOutput(BaseModelOutputWithPastAndCrossAttentions):  # type: ignore[misc]
    """What a head may ask of its trunk: the hidden states, and nothing else that is there."""

    router_logits: None = None


class _PassOn(nn.Module):
    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


def _prefix(cache: DynamicCache | None, first_block: int, span: Span) -> tuple[tuple[Tensor, Tensor], ...]:
    if cache is None:
        return ()
    layers = cache.layers[first_block:]
    return tuple((layer.keys[..., : span.first, :], layer.values[..., : span.first, :]) for layer in layers)


def _cache(clean: CleanRun, copies: int) -> DynamicCache:
    """A cache that holds the clean prefix, repeated for each path point.

    Skipped blocks get an entry of the right length without storage: models ask the first layer how long the past is.
    """
    cache = DynamicCache()
    batch = copies * clean.tokens.shape[0]
    placeholder = clean.entry.new_zeros(1).expand(batch, 1, clean.span.first, 1)
    for layer in range(clean.site.boundary):
        cache.update(placeholder[..., :0, :], placeholder[..., :0, :], layer)
        cache.layers[layer].keys = cache.layers[layer].values = placeholder
    for layer, (keys, values) in enumerate(clean.prefix, start=clean.site.boundary):
        cache.update(keys.repeat(copies, 1, 1, 1), values.repeat(copies, 1, 1, 1), layer)
    return cache
