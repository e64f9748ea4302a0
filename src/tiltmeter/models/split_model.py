"""A causal language model cut at a site: the part before it runs once, the part after it once per perturbation.

1. `SplitModel.start` runs the whole model once and keeps what perturbed runs need: the activation at the site, the keys
   and values of the positions before the first perturbed one, and the later activations to compare with.
2. `SplitModel.resume` puts a new activation at the site and runs only the blocks after it, at only the positions that
   can change. Attention is causal, so earlier positions keep their clean keys and values.
3. `SplitModel.logits` unembeds final hidden states. It is separate because logits are large ([token, vocabulary]) and
   most readouts need them in chunks, or not at all.

All three call the model's own forward pass. Blocks before the site are replaced by the identity for the duration of the
call; masks, rotary angles and attention are computed by the model's own code. Reimplementing a forward pass would have
to be done, and checked, per architecture.

LayerNorm models are measured in the *centred* residual stream, x minus its mean over d_model, as TransformerLens shows
it: every reader of the stream applies LayerNorm first, which removes the mean, so distances should not count it.
RMSNorm keeps the mean, so RMSNorm models are measured as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.architectures import find_parts, ignores_mean
from tiltmeter.models.chunked_kl import Unembedding
from tiltmeter.models.clean_run import CleanRun, LateActivations, clean_prefix, repeated_cache
from tiltmeter.models.differences.tape import Tape
from tiltmeter.models.hooks import captured, replaced, skipped
from tiltmeter.models.positions import Span
from tiltmeter.models.sites import STREAM, Site, parse_site

Stream = Literal["centred", "raw"]
"""How a LayerNorm model's residual stream is measured: minus its mean over d_model, or as it is."""


class SplitModel:
    """A Hugging Face causal language model that can run from a site on."""

    rounding: torch.dtype | None = None
    """Type that differences are rounded to before each matrix product; None keeps their own."""

    def __init__(self, hf: PreTrainedModel, name: str = "model") -> None:
        refuse_unmeasurable(hf, name)
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
        """The device of the model's parameters."""
        return self.hf.device

    def site(self, name: str) -> Site:
        """Parse a TransformerLens hook name, long or short, as a site of this model."""
        return parse_site(name, self.n_layers)

    def measured_in(self, stream: Stream) -> SplitModel:
        """The same model, measured in this stream. For an RMSNorm model, `"centred"` also means raw."""
        other = copy(self)
        other.centred = self.centred and stream == "centred"
        return other

    def centre(self, x: Tensor, site: Site) -> Tensor:
        """`x` as it is measured at `site`: minus its mean over d_model if the model ignores that mean."""
        return x - x.mean(-1, keepdim=True) if self.centred and site.kind != "z" else x

    @torch.no_grad()
    def start(
        self,
        tokens: Int[Tensor, "batch position"],
        site: Site,
        reads: Sequence[Site] = (),
        span: Span | None = None,
    ) -> CleanRun:
        """Run the whole model once on `tokens` and keep what perturbed runs from `site` on need.

        Args:
            tokens: token ids.
            site: where perturbed runs will replace the activation.
            reads: the later sites whose activations are compared.
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
        """As `start`, for perturbed runs from each of several sites: one clean pass serves them all.

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
                prefix=clean_prefix(cache, site.boundary, span),
                late=late,
                tape=tape,
            )
            for site in sites
        }

    def _clean_pass(
        self, tokens: Tensor, wanted: set[Site], span: Span, tape: Tape
    ) -> tuple[dict[Site, Tensor], Tensor, DynamicCache | None]:
        """Run once; return the wanted activations, the final hidden states, and the KV cache if the span needs one."""
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
            TiltmeterError: the sequences exceed the context, or an activation is not finite.
        """
        self._check(tokens, site, ())
        needed = site.boundary if site.kind in STREAM else site.layer + 1
        with ExitStack() as stack:
            stack.enter_context(skipped(self.parts.blocks, range(needed, self.n_layers)))
            found = stack.enter_context(captured(*self.tap(site)))
            self._trunk(input_ids=tokens.to(self.device), use_cache=False)
        return self._finite(self.centre(found[0], site), site)

    def whole(self, clean: CleanRun) -> Float[Tensor, "batch position d_site"]:
        """The clean activation at the site at every position; positions after the span are computed on demand."""
        if clean.span.stop == clean.tokens.shape[1]:
            return clean.activation
        after = self.activation(clean.tokens, clean.site)[:, clean.span.stop :]
        return torch.cat([clean.activation, after], dim=1)

    def resume(self, clean: CleanRun, x: Float[Tensor, "*point batch span d_site"]) -> LateActivations:
        """Run the layers after the site with activation `x` there. Gradients flow back to `x` if it requires them.

        Args:
            clean: the clean run of the same tokens.
            x: activations at the site at the positions of the span; path points are leading axes, before the batch.

        Returns:
            The activations after the site, with the leading axes of `x`.

        Raises:
            TiltmeterError: `x` is not shaped like the clean activation.
        """
        expected = clean.span.cut(clean.activation).shape
        if x.shape[-3:] != expected:
            raise TiltmeterError(
                f"Activations of shape {tuple(x.shape)} were given for {clean.site.name}; expected any number of path "
                f"points, each of shape {tuple(expected)} (batch, span, width)."
            )
        lead = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-2:]).contiguous()  # GPT-2's projections call .view on their input
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
        """The changes of the activations after the site when the activation there changes by `change`."""
        return self.resume(clean, clean.span.cut(clean.activation) + change).minus(clean.late)

    def logit_changes(
        self,
        final: Float[Tensor, "token d_model"],
        logits: Float[Tensor, "token vocabulary"],
        change: Float[Tensor, "token d_model"],
    ) -> Float[Tensor, "token vocabulary"]:
        """The change of the logits when final hidden states change by `change`.

        A linear head is applied to the change itself: subtracting two sets of logits would lose digits.
        """
        return self.logits(change) if self.head_is_linear else self._nonlinear_logit_changes(final, logits, change)

    def _nonlinear_logit_changes(self, final: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """The same for a head with a bias or a soft-cap: by subtraction."""
        return self.logits(final + change) - logits

    def logits(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocabulary"]:
        """Logits of final hidden states, by the model's own head (soft-cap and scaling included)."""
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
        """Whether logits(a) - logits(b) = logits(a - b), i.e. the head has no bias and no soft-cap."""
        probe = torch.linspace(-1, 1, self.width, dtype=self.hf.dtype, device=self.device)[None]
        return torch.equal(self.logits(1024 * probe), 1024 * self.logits(probe))  # powers of two are exact

    @cached_property
    def unembedding(self) -> Unembedding | None:
        """The unembedding matrix, if logits are exactly W h and the model is float32; else None.

        Some heads scale the logits as well: a probe compares W h with the model's own output.
        """
        head = self.hf.get_output_embeddings()
        if self.hf.dtype != torch.float32 or not isinstance(head, nn.Linear) or not self.head_is_linear:
            return None
        probe = torch.linspace(-1, 1, self.width, dtype=self.hf.dtype, device=self.device)[None]
        own, found = head.weight @ probe[0], self.logits(probe)[0]
        alone = torch.allclose(own, found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
        return Unembedding(head.weight) if alone else None

    def _suffix(self, clean: CleanRun, entry: Tensor, copies: int) -> Tensor:
        """Run the trunk on the span's positions, with the clean keys and values of earlier ones.

        The embeddings passed in are ignored: a hook puts `entry` in front of the first block that runs.
        """
        cache = repeated_cache(clean, copies) if clean.span.first else None
        positions = torch.arange(clean.span.first, clean.span.stop, device=entry.device)[None]
        return self._trunk(
            inputs_embeds=entry, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        )

    def _trunk(self, **inputs: Any) -> Tensor:
        return self.parts.trunk(**inputs).last_hidden_state

    def tap(self, site: Site) -> tuple[nn.Module, str]:
        """Where to hook a site: the module, and whether its `"input"` or `"output"` holds the activation."""
        if site.kind in STREAM:
            return self._stream_tap(site.boundary)
        return self.parts.component(site), "input" if site.kind == "z" else "output"

    def _stream_tap(self, boundary: int) -> tuple[nn.Module, str]:
        """Where to hook the residual stream after `boundary` blocks."""
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
                    f"{read.name} lies before {site.name}, so a perturbation there cannot reach it; read a later site."
                )


def _entry(site: Site) -> Site:
    """The residual stream that enters the first block to run again."""
    return site if site.kind in STREAM else Site(site.layer, "resid_pre")


@dataclass
class _TrunkOutput(BaseModelOutputWithPastAndCrossAttentions):  # type: ignore[misc]
    """What a head may read of the trunk's output: hidden states; every other field is None."""

    router_logits: None = None
