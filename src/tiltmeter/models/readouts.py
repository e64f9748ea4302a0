"""Readouts: one number per token that says what a perturbation did to the model's output, or to a later activation.

`kl`, KL(clean ‖ perturbed) of the next-token distribution in nats, asks how much the model's prediction changed,
weighted by the clean distribution; changes that the softmax ignores do not count. `js` is its symmetric, bounded
relative. `l2@SITE` and `cos@SITE` ask how far a later activation moved, whether or not the output depends on it.

The others are numbers of the perturbed run itself, and at length 0 those of the clean run. `loss` asks whether the
change hurt the prediction, `entropy` how certain it left the model, `logit-diff` and `prob` what became of tokens that
are named, `rank` and `top1` what became of the clean run's own prediction.

`tiltmeter.models.readout_values` computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import TiltmeterError
from tiltmeter.models.output_change import OutputChange
from tiltmeter.models.own_readouts import OwnReadout
from tiltmeter.models.readout_tokens import VocabularyToken, parse_tokens
from tiltmeter.models.sites import Site
from tiltmeter.models.split_model import SplitModel
from tiltmeter.runs.plugins import Registry


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
    """Of an output: a function of an `OutputChange` and the ids of the tokens that are named. Of a site: a function of
    the clean activation and its change."""
    meaning: str
    tokens: tuple[str, ...] = ()
    """What the tokens are called that a user names."""
    label: str = ""
    """How figures name it, with a place for each token, if `tiltmeter.analysis.curves` does not know it."""

    def written(self, kind: str) -> str:
        """How a user writes it: `kl`, `logit-diff:A,B`."""
        return f"{kind}:{','.join(self.tokens)}" if self.tokens else kind


_OWN: dict[str, ReadoutDefinition] = {
    "kl": ReadoutDefinition(lambda change: change.kl, "KL(clean ‖ perturbed) of the next-token distribution, nats"),
    "js": ReadoutDefinition(OutputChange.js, "Jensen-Shannon divergence of the two distributions, nats, at most log 2"),
    "loss": ReadoutDefinition(
        OutputChange.loss, "cross-entropy of the next token under the perturbed distribution, nats"
    ),
    "logit-diff": ReadoutDefinition(
        OutputChange.logit_difference,
        "logit of the token A minus that of B in the perturbed run (not its change)",
        tokens=("A", "B"),
        label="logit of {} minus logit of {}",
    ),
    "prob": ReadoutDefinition(
        OutputChange.probability,
        "probability of TOKEN in the perturbed run",
        tokens=("TOKEN",),
        label="probability of {}",
    ),
    "top1": ReadoutDefinition(
        OutputChange.top1, "1 where the clean run's most likely token is so in the perturbed run as well, else 0"
    ),
    "rank": ReadoutDefinition(
        lambda change: change.rank, "rank, from 1, of the clean run's most likely token in the perturbed distribution"
    ),
    "entropy": ReadoutDefinition(OutputChange.entropy, "entropy of the perturbed distribution, nats"),
}

OUTPUT_READOUTS: MutableMapping[str, ReadoutDefinition] = Registry("tiltmeter.readouts", _OWN)
"""Readouts of the output, those of other packages among them (`tiltmeter.readouts`)."""

SITE_READOUTS: Mapping[str, ReadoutDefinition] = {
    "l2": ReadoutDefinition(l2, "L2 distance of the perturbed from the clean activation at SITE"),
    "cos": ReadoutDefinition(cosine, "cosine similarity of the perturbed to the clean activation at SITE"),
}


@dataclass(frozen=True)
class Readout:
    """A readout of one model: its kind and, where it has them, site and tokens; or a user's function."""

    kind: str
    """For a user's function, its label."""
    site: Site | None = None
    tokens: tuple[VocabularyToken, ...] = ()
    own: OwnReadout | None = None

    @property
    def name(self) -> str:
        """`kl`, `l2@blocks.11.hook_resid_post`, `logit-diff:#464,#262`, or the label of a user's function."""
        if self.own is not None:
            return self.kind
        if self.tokens:
            return f"{self.kind}:{','.join(f'#{token.id}' for token in self.tokens)}"
        return self.kind if self.site is None else f"{self.kind}@{self.site.name}"

    def faulty(self, values: Float[Tensor, "*value"], followed: Bool[Tensor, "*value"]) -> Bool[Tensor, "*value"]:
        """The values that no run may have: infinite ones, and NaN where the readout is defined.

        A loss is defined where the sequence goes on (`followed`). A user's function says itself where it is.
        """
        if self.own is not None:
            return values.isinf()
        wrong = ~torch.isfinite(values)
        return wrong & followed if self.kind == "loss" else wrong

    @property
    def definition(self) -> ReadoutDefinition:
        """The definition of a readout that is not a user's function."""
        return (OUTPUT_READOUTS if self.site is None else SITE_READOUTS)[self.kind]

    @property
    def label(self) -> str | None:
        """How figures name it; None if `tiltmeter.analysis.curves` knows the kind."""
        if self.own is not None:
            return self.kind
        return self.definition.label.format(*(token.shown for token in self.tokens)) if self.tokens else None


def parse_readout(name: str, model: SplitModel, tokenizer: PreTrainedTokenizerBase | None = None) -> Readout:
    """Parse the name of a readout (`kl`, `l2@resid_post:11`, `prob:" Paris"`) for this model.

    Raises:
        TiltmeterError: no such readout; no such site in this model; the tokens of its tokenizer do not fit.
    """
    kind, colon, given = name.partition(":")
    if kind in OUTPUT_READOUTS and bool(colon) == bool(expected := OUTPUT_READOUTS[kind].tokens):
        return Readout(kind, tokens=_tokens(name, given, expected, model, tokenizer)) if colon else Readout(kind)
    kind, at, site = name.partition("@")
    if at and kind in SITE_READOUTS:
        return Readout(kind, model.site(site))
    raise TiltmeterError(f"{name!r} is not a readout; choose from {', '.join(readout_meanings())}.")


def own_readout(own: OwnReadout, model: SplitModel) -> Readout:
    """A user's function as a readout of this model.

    Raises:
        TiltmeterError: the model has no such site.
    """
    if own.site is None:
        return Readout(own.label, own=own)
    site = model.site(own.site)
    return Readout(own.label, site, own=replace(own, site=site.name))


def readout_meanings() -> dict[str, str]:
    """How every readout is written, and what it means."""
    return {one.written(kind): one.meaning for kind, one in OUTPUT_READOUTS.items()} | {
        f"{kind}@SITE": one.meaning for kind, one in SITE_READOUTS.items()
    }


def _tokens(
    name: str, given: str, expected: tuple[str, ...], model: SplitModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[VocabularyToken, ...]:
    tokens = parse_tokens(name, given, model.vocabulary, tokenizer)
    if len(tokens) != len(expected) or len({token.id for token in tokens}) < len(expected):
        raise TiltmeterError(
            f"{name!r} names {', '.join(token.shown for token in tokens)}; expected {','.join(expected)}, "
            f"{'two different tokens' if len(expected) > 1 else 'one token'} (a comma in a text needs quotes)."
        )
    return tokens
