"""The head of a model: from final hidden states to logits, by the model's own code.

It is apart from the rest because logits are large ([token, vocabulary]), and most readouts need them in chunks, or not
at all.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from tiltmeter.models.architectures import ModelParts
from tiltmeter.models.chunked_kl import Unembedding
from tiltmeter.models.failures import explained
from tiltmeter.models.probe import probe_tokens


class Head:
    """What a causal language model does after its trunk: unembedding, and a scale or a soft-cap where it has one."""

    def __init__(self, hf: PreTrainedModel, parts: ModelParts) -> None:
        self.hf = hf
        self.parts = parts

    def logits(self, final: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocabulary"]:
        """Logits of final hidden states. Gradients flow back to `final` if it requires them."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and final.requires_grad):
            return self.run(final[None])[0]

    def run(self, hidden: Any, ids: Int[Tensor, "1 token"] | None = None) -> Any:
        """Logits [1, token, vocabulary] of hidden states [1, token, d_final], carried differences included.

        Token ids default to one and the same, since they should not matter here (`reads_ids`). Heads may read more of
        the trunk's output than hidden states, so the rest of it is that of a small pass.
        """
        trunk, output = self.parts.trunk, copy(self._trunk_output)
        output.last_hidden_state = hidden
        ids = self._one_token.expand(1, hidden.shape[1]) if ids is None else ids
        with explained(self.hf, "unembedding final hidden states"):
            own = vars(trunk).get("forward")
            trunk.forward = lambda *_, **__: output
            try:
                return self.hf(input_ids=ids, use_cache=False).logits
            finally:
                del trunk.forward
                if own is not None:  # a model that is spread over devices has one of its own
                    trunk.forward = own

    @torch.no_grad()
    def reads_ids(self, ids: Int[Tensor, " token"]) -> bool:
        """Whether logits of one and the same hidden state differ between these token ids."""
        for some in ids.to(self.hf.device).split(64):
            found = self.run(self._probe.expand(1, len(some), -1), some[None])[0]
            if bool((found - found[:1]).abs().max() > 1e-3 * found.abs().max()):
                return True
        return False

    @cached_property
    def is_linear(self) -> bool:
        """Whether logits(a) - logits(b) = logits(a - b), i.e. the head has no bias, soft-cap or other nonlinearity.

        A ReLU scales like a linear map, but does not change signs or add up like one.
        """
        a, b = self._probe[None], self._probe[None].square()
        at_a, at_b, at_both = (self.logits(x) for x in (a, b, a + b))
        scales = torch.equal(self.logits(-1024 * a), -1024 * at_a)  # powers of two are exact
        error = (at_both - at_a - at_b).abs().max()
        return scales and bool(error <= 1e-3 * at_both.abs().max())

    @cached_property
    def unembedding(self) -> Unembedding | None:
        """The unembedding matrix, if logits are exactly W h and the model is float32; else None.

        Some heads scale the logits as well: a probe compares W h with the model's own output.
        """
        head = self.hf.get_output_embeddings()
        if self.hf.dtype != torch.float32 or not isinstance(head, nn.Linear) or not self.is_linear:
            return None
        own, found = head.weight @ self._probe, self.logits(self._probe[None])[0]
        alone = torch.allclose(own, found, rtol=1e-3, atol=1e-3 * float(found.abs().max()))
        return Unembedding(head.weight) if alone else None

    @cached_property
    def _probe(self) -> Float[Tensor, "d_final"]:
        return torch.linspace(-1, 1, self.parts.final_width, dtype=self.hf.dtype, device=self.hf.device)

    @cached_property
    def _one_token(self) -> Tensor:
        return probe_tokens(self.hf, 1, 1).to(self.hf.device)

    @cached_property
    def _trunk_output(self) -> Any:
        with torch.no_grad(), explained(self.hf, "running it on a token"):
            return self.parts.trunk(input_ids=self._one_token, use_cache=False)
