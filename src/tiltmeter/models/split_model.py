"""A causal language model cut at a site: the part before it runs once, the part after it once per perturbation.

1. `SplitModel.start` runs the whole model once and keeps what perturbed runs need: the activation at the site, the keys
   and values of the positions before the first perturbed one, and the later activations to compare with.
2. `SplitModel.resume` puts a new activation at the site and runs only the blocks after it, at only the positions that
   can change. Attention is causal, so earlier positions keep their clean keys and values.
3. `SplitModel.logits` unembeds final hidden states (`head`).

All three call the model's own forward pass. Blocks before the site are replaced by the identity for the duration of the
call; masks, rotary angles and attention are computed by the model's own code. Reimplementing a forward pass would have
to be done, and checked, per architecture.

Not every model can be run in parts: a cache may hold a state instead of keys and values, layers may share keys, and
every layer may read the token ids. `SplitModel.way` tries the fast ways on a few tokens against the whole model, and
takes the fastest that gives the same.

LayerNorm models are measured in the *centred* residual stream, x minus its mean over d_model, as TransformerLens shows
it: every reader of the stream applies LayerNorm first, which removes the mean, so distances should not count it.
RMSNorm keeps the mean, so RMSNorm models are measured as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from copy import copy
from inspect import signature
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.accepted import refuse_unmeasurable
from tiltmeter.models.architectures import find_parts, ignores_mean
from tiltmeter.models.clean_run import CleanRun, LateActivations, Way, clean_prefix, repeated_cache
from tiltmeter.models.differences import Shifted
from tiltmeter.models.differences.products import forget_prepared_weights
from tiltmeter.models.differences.tape import Tape
from tiltmeter.models.failures import explained
from tiltmeter.models.head import Head
from tiltmeter.models.hooks import Place, captured, replaced, skipped
from tiltmeter.models.module_sites import module_site
from tiltmeter.models.positions import Span
from tiltmeter.models.probe import probe_tokens
from tiltmeter.models.sites import MODULE, OF_WIDTH_D_MODEL, STREAM, Site, check_visible, parse_site
from tiltmeter.models.trunk import Trunk, agree

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
        self.head = Head(hf, self.parts)
        self.n_layers = len(self.parts.blocks)
        config = hf.config.get_text_config()
        self.width = self.parts.width
        self.vocabulary: int = getattr(config, "vocab_size", None) or hf.get_input_embeddings().num_embeddings
        self.context: int = getattr(config, "max_position_embeddings", 2**31)
        self.trunk = Trunk(hf, self.parts, self.context)
        self.centred = ignores_mean(self.parts.final_norm, torch.empty(self.width, dtype=hf.dtype, device=hf.device))
        self._tried: dict[tuple[Site, Way], bool] = {}
        self._modules: dict[str, Site] = {}

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return self.hf.device

    def site(self, name: str) -> Site:
        """Parse a TransformerLens hook name, long or short, or `module:PATH`, as a site of this model.

        Raises:
            TiltmeterError: the model has no such layer or module.
        """
        if not name.strip().startswith(MODULE):
            return parse_site(name, self.n_layers)
        path = name.strip().removeprefix(MODULE)
        if path not in self._modules:
            self._modules[path] = module_site(self.trunk, path)
        return self._modules[path]

    def has(self, site: Site) -> bool:
        """Whether the site was found in this model: some blocks have no attention or no MLP of their own."""
        return not site.is_in_block or bool(site.path) or self.parts.inside(site.layer).has(site.kind)

    def heads(self, layer: int, kind: str) -> int:
        """How many heads there are of a kind of site in a block; 0 if they were not found."""
        found = self.parts.inside(layer).heads
        return 0 if found is None else found.heads["z" if kind == "result" else kind]

    def measured_in(self, stream: Stream) -> SplitModel:
        """The same model, measured in this stream. For an RMSNorm model, `"centred"` also means raw.

        Nothing that was computed from weights is kept, since they may have been changed since.
        """
        forget_prepared_weights()
        other = copy(self)
        other.head = Head(self.hf, self.parts)
        other.centred = self.centred and stream == "centred"
        return other

    def centre(self, x: Tensor, site: Site) -> Tensor:
        """`x` as it is measured at `site`: minus its mean over d_model if the model ignores that mean."""
        return x - x.mean(-1, keepdim=True) if self.centred and site.kind in OF_WIDTH_D_MODEL else x

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
        ways = {site: self.way(site, span) for site in sites}
        runs = self._starts(tokens, ways, reads, span)
        for site, clean in runs.items():
            self._check_finite(clean.activation, site)
        wrong = [site for site, clean in runs.items() if clean.way == "suffix" and not self._repeats(clean)]
        return runs | self._starts(tokens, dict.fromkeys(wrong, "layers"), reads, span) if wrong else runs

    def _repeats(self, clean: CleanRun) -> bool:
        """Whether a run from the clean activation gives the clean values.

        `way` tries this on a few tokens. Some models also read positions or documents from the token ids, which a run
        that begins inside a sequence sees only in part, so it is tried on every sequence.
        """
        again = SplitModel.resume(self._plain, clean, clean.span.cut(clean.activation)).final
        return agree(clean.late.final, again)

    def _starts(
        self, tokens: Tensor, ways: Mapping[Site, Way], reads: Sequence[Site], span: Span
    ) -> dict[Site, CleanRun]:
        """As `starts`, for perturbed runs in these ways."""
        stop = span.stop if self.trunk.may_be_cut else tokens.shape[1]
        runs = {site: Span(span.first if way == "suffix" else 0, stop) for site, way in ways.items()}
        tape = Tape()
        wanted = {*ways, *map(_entry, ways), *reads}
        seen, final, cache = self._clean_pass(tokens[:, :stop], wanted, ways, span, tape)
        late = LateActivations(span.cut(final), {s: self.centre(span.cut(seen[s]), s) for s in reads})
        result = {}
        for site, run in runs.items():
            activation = self.centre(seen[site], site)
            result[site] = CleanRun(
                tokens=tokens,
                site=site,
                span=span,
                way=ways[site],
                run=run,
                beyond=activation[:, span.stop :],
                activation=activation[:, : span.stop],
                entry=run.cut(seen[_entry(site)]),
                prefix=clean_prefix(cache, site.boundary, run),
                late=late,
                tape=tape,
            )
        return result

    def way(self, site: Site, span: Span) -> Way:
        """The fastest way to make perturbed runs from `site` that gives what the whole model gives, found by trying.

        Raises:
            TiltmeterError: the whole model fails.
        """
        if span.first and self._works(site, "suffix"):
            return "suffix"
        return "layers" if self._works(site, "layers") else "model"

    def _works(self, site: Site, way: Way) -> bool:
        """Whether runs in this way from sites of this kind equal runs of the whole model, on a few tokens."""
        asked = (Site(0, "resid_pre") if site.boundary == 0 else Site(site.boundary - 1, "resid_post"), way)
        if asked not in self._tried:
            self._tried[asked] = self._equals_whole(asked[0], way)
        return self._tried[asked]

    @torch.no_grad()
    def _equals_whole(self, site: Site, way: Way) -> bool:
        tokens, span = probe_tokens(self.hf), Span(3, 8)
        whole = self._pushed(tokens, site, "model", span)
        try:
            found = self._pushed(tokens, site, way, span)
        except TiltmeterError:
            return False
        return agree(whole, found)

    def _pushed(self, tokens: Tensor, site: Site, way: Way, span: Span) -> Tensor:
        """Final hidden states, clean and with two perturbations."""
        plain = self._plain
        clean = SplitModel._starts(plain, tokens, {site: way}, (), span)[site]
        x = span.cut(clean.activation)
        pushes = torch.stack([0.5 * x.flip(-1), -0.3 * x.roll(1, -1)])
        return torch.cat([clean.late.final[None], SplitModel.resume(plain, clean, x + pushes).final])

    @property
    def _plain(self) -> SplitModel:
        """The same model without carried differences."""
        plain = copy(self)
        plain.__class__ = SplitModel
        return plain

    def _clean_pass(
        self, tokens: Tensor, wanted: set[Site], ways: Mapping[Site, Way], span: Span, tape: Tape
    ) -> tuple[dict[Site, Tensor], Tensor, DynamicCache | None]:
        """Run once; return the wanted activations, the final hidden states, and the KV cache if a way needs one."""
        cache = DynamicCache() if "suffix" in ways.values() else None
        with explained(self.hf, "running the whole model"), ExitStack() as stack:
            found = {s: stack.enter_context(captured(self.tap(s))) for s in wanted}
            final = self.trunk(tokens, **_cache(cache))
        return {s: values[0] for s, values in found.items()}, final, cache

    def _check_finite(self, activation: Tensor, site: Site) -> None:
        if not bool(torch.isfinite(activation).all()):
            raise TiltmeterError(
                f"The model's activations at {site.name} are not finite on these tokens; check its weights, or load it "
                "with --precision float32 or float64."
            )

    @torch.no_grad()
    def activation(self, tokens: Int[Tensor, "batch position"], site: Site) -> Float[Tensor, "batch position d_site"]:
        """The activation at `site`, without running the layers after it.

        Raises:
            TiltmeterError: the sequences exceed the context, or an activation is not finite.
        """
        self._check(tokens, site, ())
        needed = site.boundary + site.is_in_block
        with explained(self.hf, f"running the layers before {site.name}"), ExitStack() as stack:
            if self.trunk.skips_later_blocks:
                stack.enter_context(skipped(self.parts.blocks, range(needed, self.n_layers), self.parts.extras))
            found = stack.enter_context(captured(self.tap(site)))
            self.trunk(tokens)
        self._check_finite(x := self.centre(found[0], site), site)
        return x

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
        lead, x = x.shape[:-3], clean.widened(x, clean.frame)
        x = x.reshape(-1, *x.shape[-2:]).contiguous()  # GPT-2's projections call .view on their input
        copies = x.shape[0] // clean.tokens.shape[0]
        with explained(self.hf, _resuming(clean.site)), ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad))
            final, found = self._perturbed_pass(stack, clean, x, copies)
        final = clean.narrowed(final)
        shape = (*lead, *clean.tokens.shape[:1], *final.shape[1:2])
        sites = {s: clean.narrowed(self.centre(value, s)).reshape(*shape, -1) for s, value in found.items()}
        return LateActivations(final.reshape(*shape, -1), sites)

    def _perturbed_pass(
        self, stack: ExitStack, clean: CleanRun, x: Tensor, copies: int
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """Final hidden states and late activations [row, run, width] with `x` at the site, in the way of `clean`.

        Token ids are passed in, because some models look up more than embeddings. The embeddings are ignored where
        blocks are skipped: a hook puts the stream in front of the first block that runs.
        """
        inputs: dict[str, Any] = {}
        inside = clean.site.is_in_block
        entry = self._entering(clean, x, copies) if inside else clean.entry
        if clean.way != "model":
            stack.enter_context(skipped(self.parts.blocks, range(clean.site.boundary), self.parts.extras))
        if inside and clean.way != "model":
            stack.enter_context(replaced(self._stream_tap(clean.site.boundary), entry))
        if clean.run.first:
            inputs |= _cache(repeated_cache(clean, copies))
            inputs["position_ids"] = torch.arange(clean.run.first, clean.run.stop, device=self.device)[None]
        stack.enter_context(self.placed(clean.site, x, entry))
        reads = {s: stack.enter_context(captured(self.tap(s))) for s in clean.late.sites}
        ids = clean.run.cut(clean.tokens).repeat(copies, 1)
        final = self.trunk(ids, **inputs)
        return final, {s: values[0] for s, values in reads.items()}

    def _entering(self, clean: CleanRun, x: Tensor, copies: int) -> Tensor:
        """The clean stream that enters the block of the site, where `x` will be put."""
        return clean.entry.repeat(copies, 1, 1)

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
        return self.logits(change) if self.head.is_linear else self._nonlinear_logit_changes(final, logits, change)

    def _nonlinear_logit_changes(self, final: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """The same for a head with a bias or a soft-cap: by subtraction."""
        return self.logits(final + change) - logits

    def logits(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocabulary"]:
        """Logits of final hidden states, by the model's own head (soft-cap and scaling included)."""
        return self.head.logits(final)

    @torch.no_grad()
    def last_logits(self, clean: CleanRun) -> Float[Tensor, "batch vocabulary"]:
        """The whole model's logits at the last position of the span; those of all positions would not fit in memory."""
        return self.last_logits_of(clean.tokens[:, : clean.run.stop], clean.run.stop - clean.span.stop + 1)

    @torch.no_grad()
    def last_logits_of(
        self, tokens: Int[Tensor, "batch position"], behind: int = 1
    ) -> Float[Tensor, "batch vocabulary"]:
        """The whole model's logits at the last position but `behind` - 1."""
        keeps = "logits_to_keep" in signature(type(self.hf).forward).parameters
        with explained(self.hf, "running the whole model"):
            inputs = {"logits_to_keep": behind} if keeps else {}
            return self.hf(input_ids=tokens.to(self.device), use_cache=False, **inputs).logits[:, -behind]

    def tap(self, site: Site) -> Place:
        """Where a site is read.

        Raises:
            TiltmeterError: this model has no such activation.
        """
        if site.kind in STREAM:
            return self._stream_tap(site.boundary)
        if site.path:
            return Place(self.hf.get_submodule(site.path), "output")
        if site.kind == "embed":
            return Place(self.hf.get_input_embeddings(), "output")
        if site.kind == "ln_final" and self.parts.final_norm is not None:
            return Place(self.parts.final_norm, "output")
        if site.kind == "ln_final":
            raise TiltmeterError(
                f"{type(self.hf).__name__} has no norm after its last block, so {site.name} cannot be measured; use "
                "hook_resid_post of that block."
            )
        return self.parts.place(site)

    def placed(self, site: Site, x: Tensor, entry: Tensor) -> AbstractContextManager[None]:
        """Put `x` at a site of a pass in which the stream `entry` enters the site's block.

        At `hook_resid_mid` no module's output is the stream: there x - entry takes the place of what attention adds.
        """
        if site.kind != "resid_mid":
            return replaced(self.tap(site), x)
        written = Shifted(x.clean - entry, x.difference) if isinstance(x, Shifted) else x - entry
        return replaced(self.tap(Site(site.layer, "attn_out")), written)

    def _stream_tap(self, boundary: int) -> Place:
        """Where to hook the residual stream after `boundary` blocks."""
        if later := [index for index in self.parts.running if index >= boundary]:
            return Place(self.parts.blocks[later[0]], "input")
        if self.parts.final_norm is not None:
            return Place(self.parts.final_norm, "input")
        return Place(self.parts.blocks[self.parts.running[-1]], "output")

    def _check(self, tokens: Tensor, site: Site, reads: Sequence[Site]) -> None:
        if self.hf.training:
            self.hf.eval()  # its owner may have trained it further since
        if torch.is_autocast_enabled(self.device.type):
            raise TiltmeterError(
                "torch.autocast is on, which rounds products to half precision whatever --precision says; call this "
                "outside of it."
            )
        if tokens.shape[1] > self.context:
            raise TiltmeterError(
                f"The sequences have {tokens.shape[1]} tokens, but {self.name} has a context of {self.context}; "
                "give shorter sequences."
            )
        rows = getattr(getattr(self.hf.get_input_embeddings(), "weight", None), "shape", (0,))[0]
        known = max(self.vocabulary, rows)  # models of images embed more ids than they predict
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < known:
            raise TiltmeterError(
                f"The sequences have token ids from {int(tokens.min())} to {int(tokens.max())}; {self.name} has "
                f"{known}, from 0 on: give ids of its own tokenizer."
            )
        for one in (site, *reads):
            self.tap(one)  # the parts of a block are found by a pass of their own, before hooks for this one are set
        for read in reads:
            check_visible(read, site)


def _entry(site: Site) -> Site:
    """The residual stream that enters the first block to run again."""
    return Site(site.layer, "resid_pre") if site.is_in_block else site


def _cache(cache: DynamicCache | None) -> dict[str, Any]:
    """The arguments that pass a cache on; none where there is none: state-space models do not know it."""
    return {} if cache is None else {"past_key_values": cache, "use_cache": True}


def _resuming(site: Site) -> str:
    return f"running the layers after {site.name}"
