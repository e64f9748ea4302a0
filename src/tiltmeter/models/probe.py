"""A few tokens on which a model is tried before it is measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS, POSITIONS = 2, 8
"""Size of the batch."""


def probe_tokens(model: nn.Module, rows: int = ROWS, positions: int = POSITIONS) -> Tensor:
    """Different token ids [row, position] from the middle of the vocabulary, none of which the configuration names."""
    config = model.config
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    special = {
        value
        for one in (config, config.get_text_config())  # type: ignore[union-attr,operator]
        for key, value in vars(one).items()
        if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)
    }
    ordinary = [token for token in range(min(size, size // 3 + 4 * rows * positions)) if token not in special]
    found = [ordinary[-1 - index % len(ordinary)] for index in range(rows * positions)]
    return torch.tensor(found).reshape(rows, positions)
