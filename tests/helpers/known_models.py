"""Two small GPT-2s of which it is known whether there are plateaus, for the whole of a study.

Both read a token's embedding, which no block changes before the site, and both end in a norm and an unembedding whose
logits are small, so that the softmax saturates nowhere: KL is a quadratic form of the change of the logits, and these
change with the direction of the last activation.

- `without_plateaus`: the blocks after the site do nothing either.
- `with_plateaus`: the block after the site adds the stored embedding nearest to what it reads (a softmax over all of
  them: a memory, as of Ramsauer et al. 2021), so much larger than the rest that the last norm sees little else. A real
  activation is one of those stored, so what is near it ends where it does.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from tiltmeter.data.token_set import TokenSet
from tiltmeter.models.loading import LoadedModel
from tiltmeter.models.split_model import SplitModel
from tiny_models import tiny

VOCABULARY, WIDTH, LENGTH = 150, 64, 5
BLOCK = 1
"""The block after the site, `resid_pre:1`."""

SHARP, LARGE = 0.8, 20.0
"""How sharply the nearest stored embedding is chosen, and how many times its norm is added."""

SPREAD = 1.0
"""Standard deviation of the logits."""


class Memory(nn.Module):
    """The stored embedding nearest to what is read, `LARGE` times."""

    def __init__(self, stored: Tensor) -> None:
        super().__init__()
        self.match, self.recall = nn.Linear(*stored.T.shape, bias=False), nn.Linear(*stored.shape, bias=False)
        self.match.weight = nn.Parameter(stored.clone())
        self.recall.weight = nn.Parameter(LARGE * stored.T.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.recall(torch.softmax(SHARP * self.match(x), -1))


def without_plateaus() -> LoadedModel:
    return _loaded(_do_nothing())


def with_plateaus() -> LoadedModel:
    model = _do_nothing()
    model.transformer.h[BLOCK].mlp = Memory(model.transformer.wte.weight.data)
    return _loaded(model)


def _loaded(model: nn.Module) -> LoadedModel:
    facts = {"name": "known", "sha256": "0", "class": "GPT2LMHeadModel", "revision": "none"}
    return LoadedModel(SplitModel(model), None, facts)


def _do_nothing() -> nn.Module:
    """Embeddings, blocks that add nothing, a norm and an unembedding."""
    model = deepcopy(tiny("gpt2", vocab_size=VOCABULARY, n_embd=WIDTH, tie_word_embeddings=False))  # that is cached
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        for block in model.transformer.h:
            for written in (block.attn.c_proj, block.mlp.c_proj):
                written.weight.zero_()
                written.bias.zero_()
        embeddings = torch.randn(VOCABULARY, WIDTH, generator=generator)
        embeddings -= embeddings.mean(-1, keepdim=True)
        model.transformer.wte.weight.copy_(embeddings / embeddings.std(-1, keepdim=True))
        model.lm_head.weight.copy_(SPREAD / WIDTH**0.5 * torch.randn(VOCABULARY, WIDTH, generator=generator))
    return model


def tokens(sequences: int) -> TokenSet:
    ids = torch.randint(VOCABULARY, (sequences, LENGTH), generator=torch.Generator().manual_seed(1))
    return TokenSet(ids, "known", None, {})
