"""Compute readouts from the changes of a perturbed run.

If the head is only a matrix, KL and loss are computed in float32, a block of the vocabulary at a time
(`tiltmeter.models.chunked_kl`). Otherwise, and if another readout of the output is wanted, all are computed from the
logits in float64 (`tiltmeter.models.output_change`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from tiltmeter.models.chunked_kl import Unembedding, block_sizes, clean_vocabulary
from tiltmeter.models.clean_run import CleanRun, LateActivations
from tiltmeter.models.differences import operand_precision
from tiltmeter.models.output_change import CleanOutput, OutputChange
from tiltmeter.models.readouts import Readout
from tiltmeter.models.split_model import SplitModel

CHUNK_ELEMENTS = 2**19
"""Logits in memory at a time, per path point: tokens of a chunk times the size of the vocabulary."""

WITHOUT_LOGITS = frozenset({"kl", "loss"})
"""Readouts that `chunked_kl` computes."""


@torch.no_grad()
def compute_readouts(
    model: SplitModel, clean: CleanRun, changes: LateActivations, readouts: Sequence[Readout], read: Sequence[int]
) -> dict[str, Float64[Tensor, "point batch read"]]:
    """Compute every readout at the positions `read` from the changes of a perturbed run.

    The loss at the last position of a sequence is NaN: it has no next token.
    """
    index = torch.tensor(read, device=changes.final.device) - clean.span.first
    values = {
        r.name: _measure_site(r, clean.late.sites[r.site][:, index], changes.sites[r.site][:, :, index])
        for r in readouts
        if r.site is not None
    }
    wanted = [r for r in readouts if r.site is None]
    if wanted:
        targets = _targets(clean.tokens, read).to(index.device)
        final, change = clean.late.final[:, index], changes.final[:, :, index]
        fast = {r.kind for r in wanted} <= WITHOUT_LOGITS
        unembedding = model.head.unembedding if fast else None
        if unembedding is None:
            outputs = _measure_outputs(model, final, change, targets, wanted)
        else:
            kept = partial(clean.tape.kept, ("vocabulary", tuple(read)))
            outputs = _measure_vocabulary(model, unembedding, kept, final, change, targets, wanted)
        if "loss" in outputs:
            outputs["loss"][..., targets < 0] = torch.nan
        values |= outputs
    return {name: value.cpu() for name, value in values.items()}


def _measure_site(readout: Readout, clean: Tensor, changes: Tensor) -> Float64[Tensor, "point batch read"]:
    if readout.own is None:
        return readout.definition.compute(clean, changes).double()
    before, after = clean.double(), clean.double() + changes.double()
    points = [readout.own.values(before.flatten(0, 1), point.flatten(0, 1)) for point in after]
    return torch.stack(points).reshape(changes.shape[:-1])


def _targets(tokens: Tensor, read: Sequence[int]) -> Int[Tensor, "batch read"]:
    """The next token of each position; -1 for the last."""
    following = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -1)], dim=1)
    return following[:, list(read)]


def _measure_outputs(
    model: SplitModel, clean: Tensor, changes: Tensor, targets: Tensor, readouts: Sequence[Readout]
) -> dict[str, Float64[Tensor, "point batch read"]]:
    """Unembed and compare a chunk of tokens at a time; all points share the clean logits of a chunk."""
    points, shape = changes.shape[0], changes.shape[:-1]
    clean, changes, targets = clean.flatten(0, 1), changes.flatten(1, 2), targets.flatten()
    values = {r.name: torch.empty(points, len(clean), dtype=torch.float64, device=changes.device) for r in readouts}
    for rows in torch.arange(len(clean), device=changes.device).split(max(16, CHUNK_ELEMENTS // model.vocabulary)):
        output = CleanOutput(model.logits(clean[rows]))
        for point in range(points):
            difference = model.logit_changes(clean[rows], output.logits, changes[point, rows])
            change = OutputChange(output, difference, targets[rows].clamp(min=0))
            for r in readouts:
                values[r.name][point, rows] = (
                    r.definition.compute(change, *(token.id for token in r.tokens))
                    if r.own is None
                    else r.own.of_distributions(output.log_p, change.log_q, targets[rows])
                )
    return {name: value.reshape(shape) for name, value in values.items()}


def _measure_vocabulary(
    model: SplitModel,
    unembedding: Unembedding,
    kept: Callable[[Callable[[], Any]], Any],
    clean: Tensor,
    changes: Tensor,
    targets: Tensor,
    readouts: Sequence[Readout],
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
        kl = torch.where(overflown, _measure_outputs(model, clean, changes, targets, [Readout("kl")])["kl"], kl)
    values = {"kl": kl, "loss": loss.reshape(shape) + kl}
    return {r.kind: values[r.kind] for r in readouts}


def _slices(whole: slice, size: int) -> Iterator[slice]:
    for begin in range(whole.start, whole.stop, size):
        yield slice(begin, min(begin + size, whole.stop))
