"""Readouts: one number per token that says how much a perturbation changed the model's output, or a later activation.

`kl`, KL(clean ‖ perturbed) of the next-token distribution in nats, asks how much the model's prediction changed,
weighted by the clean distribution; changes that the softmax ignores do not count. `js` is its symmetric, bounded
relative. `loss` asks whether the change hurt the prediction. `l2@SITE` and `cos@SITE` ask how far a later activation
moved, whether or not the output depends on it.

KL is computed from the change dz of the logits, with p the clean distribution:

    x = dz - Σ p dz,    KL = log1p(Σ p (eˣ - 1 - x)).

Every term is nonnegative, so nothing cancels and small values keep their digits; log p - log q summed directly would
lose them, because the first-order terms of KL cancel. For the same reason a linear head is applied to the change of the
final hidden states: all logits of a token can share an offset much larger than their differences. If the head is only a
matrix, `tiltmeter.models.chunked_kl` does this in float32, a block of the vocabulary at a time. Otherwise, and for
`js`, it is done here, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.chunked_kl import Unembedding, block_sizes, clean_vocabulary
from tiltmeter.models.clean_run import CleanRun, LateActivations
from tiltmeter.models.differences import operand_precision
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel

CHUNK_ELEMENTS = 2**19
"""Logits in memory at a time, per path point: tokens of a chunk times the size of the vocabulary."""


class CleanOutput:
    """The clean next-token distribution of some tokens, in float64, shared by all path points."""

    def __init__(self, logits: Float[Tensor, "token vocabulary"]) -> None:
        self.logits = logits
        self.log_p = logits.double().log_softmax(-1)
        self.p = self.log_p.exp()


class OutputChange:
    """A clean and a perturbed next-token distribution, compared in float64."""

    def __init__(
        self, clean: CleanOutput, difference: Float[Tensor, "token vocabulary"], targets: Int[Tensor, "token"]
    ) -> None:
        self.log_p, self.p = clean.log_p, clean.p
        self.targets = targets
        difference = difference.to(torch.float64, copy=True)
        self.x = difference.sub_(torch.linalg.vecdot(self.p, difference)[:, None])

    @cached_property
    def kl(self) -> Float64[Tensor, "token"]:
        """KL(clean ‖ perturbed), nats."""
        terms = torch.expm1(self.x).sub_(self.x).mul_(self.p)
        kl = torch.log1p(terms.sum(-1))
        if bool((overflown := ~torch.isfinite(kl)).any()):
            kl[overflown] = (self.log_p + self.x)[overflown].logsumexp(-1)
        return kl

    def js(self) -> Float64[Tensor, "token"]:
        """Jensen-Shannon divergence, nats, from 0 to log 2: the mean KL of p and q to their mixture m = (p + q) / 2.

        With u = log q - log p, a term of KL(p ‖ m) + KL(q ‖ m) is
        p[(eᵘ - 1)u/2 - (1 + eᵘ) log cosh(u/2)] = (p + q)(log 2 - log(1 + exp(-|u|))) - min(p, q)|u|,
        the first of which is accurate for small u, the second for large u.
        """
        u = self.x - self.kl[:, None]
        q, size = (self.log_p + u).exp(), u.abs()
        small = self.p * (torch.expm1(u) * u / 2 - (1 + u.exp()) * torch.log1p(2 * (u / 4).sinh() ** 2))
        large = (self.p + q) * (math.log(2) - size.neg().exp().log1p()) - torch.minimum(self.p, q) * size
        return torch.where(size < 1, small, large).sum(-1) / 2

    def loss(self) -> Float64[Tensor, "token"]:
        """Cross-entropy of the next token under the perturbed distribution, nats."""
        index = self.targets[:, None]
        return self.kl - (self.log_p + self.x).gather(1, index)[:, 0]


def l2(clean: Float[Tensor, "*#point d_site"], change: Float[Tensor, "*point d_site"]) -> Float[Tensor, "*point"]:
    """L2 distance of the perturbed from the clean late activation."""
    return change.norm(dim=-1)


def cosine(clean: Float[Tensor, "*#point d_site"], change: Float[Tensor, "*point d_site"]) -> Float[Tensor, "*point"]:
    """Cosine similarity of the perturbed to the clean late activation."""
    clean = clean.double()
    return torch.nn.functional.cosine_similarity(clean, clean + change.double(), dim=-1)


class ReadoutDefinition(NamedTuple):
    """How a readout is computed, and what it means to a user."""

    compute: Callable[..., Tensor]
    meaning: str


OUTPUT_READOUTS: Mapping[str, ReadoutDefinition] = {
    "kl": ReadoutDefinition(lambda change: change.kl, "KL(clean ‖ perturbed) of the next-token distribution, nats"),
    "js": ReadoutDefinition(OutputChange.js, "Jensen-Shannon divergence of the two distributions, nats, at most log 2"),
    "loss": ReadoutDefinition(
        OutputChange.loss, "cross-entropy of the next token under the perturbed distribution, nats"
    ),
}
SITE_READOUTS: Mapping[str, ReadoutDefinition] = {
    "l2": ReadoutDefinition(l2, "L2 distance of the perturbed from the clean activation at SITE"),
    "cos": ReadoutDefinition(cosine, "cosine similarity of the perturbed to the clean activation at SITE"),
}


@dataclass(frozen=True)
class Readout:
    """A readout of one model: its kind and, for later activations, the site."""

    kind: str
    site: Site | None = None

    @property
    def name(self) -> str:
        """`kl`, or `l2@blocks.11.hook_resid_post`."""
        return self.kind if self.site is None else f"{self.kind}@{self.site.name}"


def parse_readout(name: str, model: SplitModel) -> Readout:
    """Parse the name of a readout (`kl`, `l2@resid_post:11`) for this model.

    Raises:
        TiltmeterError: no such readout, or no such site in this model.
    """
    kind, at, site = name.partition("@")
    if not at and kind in OUTPUT_READOUTS:
        return Readout(kind)
    if at and kind in SITE_READOUTS:
        return Readout(kind, model.site(site))
    choices = [*OUTPUT_READOUTS, *(f"{kind}@SITE" for kind in SITE_READOUTS)]
    raise TiltmeterError(f"{name!r} is not a readout; choose from {', '.join(choices)}.")


@torch.no_grad()
def compute_readouts(
    model: SplitModel, clean: CleanRun, changes: LateActivations, readouts: Sequence[Readout], read: Sequence[int]
) -> dict[str, Float64[Tensor, "point batch read"]]:
    """Compute every readout at the positions `read` from the changes of a perturbed run.

    The loss at the last position of a sequence is NaN: it has no next token.
    """
    index = torch.tensor(read, device=changes.final.device) - clean.span.first
    values = {
        r.name: SITE_READOUTS[r.kind]
        .compute(clean.late.sites[r.site][:, index], changes.sites[r.site][:, :, index])
        .double()
        for r in readouts
        if r.site is not None
    }
    kinds = [r.kind for r in readouts if r.site is None]
    if kinds:
        targets = _targets(clean.tokens, read).to(index.device)
        final, change = clean.late.final[:, index], changes.final[:, :, index]
        unembedding = None if "js" in kinds else model.head.unembedding
        if unembedding is None:
            outputs = _measure_outputs(model, final, change, targets, kinds)
        else:
            kept = partial(clean.tape.kept, ("vocabulary", tuple(read)))
            outputs = _measure_vocabulary(model, unembedding, kept, final, change, targets, kinds)
        if "loss" in outputs:
            outputs["loss"][..., targets < 0] = torch.nan
        values |= outputs
    return {name: value.cpu() for name, value in values.items()}


def _targets(tokens: Tensor, read: Sequence[int]) -> Int[Tensor, "batch read"]:
    """The next token of each position; -1 for the last."""
    following = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -1)], dim=1)
    return following[:, list(read)]


def _measure_outputs(
    model: SplitModel, clean: Tensor, changes: Tensor, targets: Tensor, kinds: Sequence[str]
) -> dict[str, Float64[Tensor, "point batch read"]]:
    """Unembed and compare a chunk of tokens at a time; all points share the clean logits of a chunk."""
    points, shape = changes.shape[0], changes.shape[:-1]
    clean, changes, targets = clean.flatten(0, 1), changes.flatten(1, 2), targets.flatten().clamp(min=0)
    values = {kind: torch.empty(points, len(clean), dtype=torch.float64, device=changes.device) for kind in kinds}
    for rows in torch.arange(len(clean), device=changes.device).split(max(16, CHUNK_ELEMENTS // model.vocabulary)):
        output = CleanOutput(model.logits(clean[rows]))
        for point in range(points):
            difference = model.logit_changes(clean[rows], output.logits, changes[point, rows])
            change = OutputChange(output, difference, targets[rows])
            for kind in kinds:
                values[kind][point, rows] = OUTPUT_READOUTS[kind].compute(change)
    return {kind: value.reshape(shape) for kind, value in values.items()}


def _measure_vocabulary(
    model: SplitModel,
    unembedding: Unembedding,
    kept: Callable[[Callable[[], Any]], Any],
    clean: Tensor,
    changes: Tensor,
    targets: Tensor,
    kinds: Sequence[str],
) -> dict[str, Float64[Tensor, "point batch read"]]:
    """KL and loss in one pass over the unembedding (`tiltmeter.models.chunked_kl`).

    Clean distributions are cached on the run's tape if those of all tokens fit; otherwise they are recomputed.
    Where eˣ overflows float32, KL is computed again in float64.
    """
    shape, size = changes.shape[:-1], block_sizes(changes.device).rows // changes.shape[0]
    final, change, following = clean.flatten(0, 1), changes.flatten(1, 2), targets.flatten().clamp(min=0)
    kl, loss = (torch.empty(change.shape[:-1], dtype=torch.float64, device=change.device) for _ in range(2))
    blocks = list(_slices(slice(0, len(final)), max(16, block_sizes(final.device).cached // model.vocabulary)))
    with operand_precision(model.rounding):
        for block in blocks:
            make = partial(clean_vocabulary, unembedding, final[block], following[block])
            distributions = kept(make) if len(blocks) == 1 else make()
            for rows in _slices(block, max(16, size)):
                own = distributions.at(slice(rows.start - block.start, rows.stop - block.start))
                kl[:, rows] = own.kl(change[:, rows])
                loss[:, rows] = own.target_change(change[:, rows]) - own.log_p_target
    kl = kl.reshape(shape)
    if bool((overflown := ~torch.isfinite(kl)).any()):
        kl = torch.where(overflown, _measure_outputs(model, clean, changes, targets, ["kl"])["kl"], kl)
    values = {"kl": kl, "loss": loss.reshape(shape) + kl}
    return {kind: values[kind] for kind in kinds}


def _slices(whole: slice, size: int) -> Iterator[slice]:
    for begin in range(whole.start, whole.stop, size):
        yield slice(begin, min(begin + size, whole.stop))
