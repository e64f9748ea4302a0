"""What the papers ran on: GPT-2 small, its SAEs that are released, and OpenWebText."""

from __future__ import annotations

MODEL = "gpt2"

PROMPTS = "apollo-research/Skylion007-openwebtext-tokenizer-gpt2:train"
"""Rows of OpenWebText in GPT-2's tokens; a prompt is the first tokens of a row, without a boundary token (Heimersheim &
Mendel 2024, Giglemiani et al. 2024)."""

DOCUMENTS = "Skylion007/openwebtext:train"
"""OpenWebText as text (Gurnee 2024, Lee & Heimersheim 2024). As there, sequences of 128 tokens run on over the
ends of documents, and the boundary token stands before every sequence and before every document. But here each document
gives one sequence before any gives a second one, because sequences of one document are alike."""

RESIDUAL_SAES = tuple(f"gpt2-small-res-jb:blocks.{layer}.hook_resid_pre" for layer in range(12))
"""Bloom's."""

ATTENTION_SAES = tuple(f"gpt2-small-hook-z-kk:blocks.{layer}.hook_z" for layer in range(12))
"""Kissane et al.'s."""

END_TO_END_SAES = tuple(
    f"gpt2-small-res_{kind}-ajt:blocks.6.hook_resid_pre" for kind in ("scl", "sll", "sce", "sle", "scefr", "slefr")
)
"""Braun et al.'s at layer 6, of the kinds local, e2e and e2e+ds, two of each: those on the hub."""

BRAUN_RUNS = {
    "local": {
        "ahxwn90o": 10.3,
        "43zmudf4": 17.5,
        "unji5etq": 30.9,
        "jup3glm9": 42.8,
        "h9hrelni": 53.2,
        "1jy3m5j0": 69.4,
        "4nlqrc2y": 102.6,
        "2wvu1zs5": 183.9,
        "uiwt81f1": 513.0,
    },
    "e2e": {
        "4zcbb4au": 21.0,
        "zgdpkafo": 27.5,
        "tvj2owza": 39.7,
        "1bubkmps": 77.0,
        "wzzcimkj": 146.8,
        "4d5ksz89": 428.5,
    },
    "e2e+ds": {
        "55get0e5": 31.4,
        "2lzle2f0": 36.8,
        "zidd0d3y": 46.5,
        "rb8q8czb": 58.8,
        "p9zmh62k": 90.0,
        "7nkdr21r": 131.3,
        "fqdgjxfe": 472.6,
    },
}
"""All 22 of Lee & Heimersheim 2024 by kind: the training runs of `sparsify/gpt2` on Weights & Biases that their code
names (dajale423/error_pathology), with the L0 that is logged there. Six of them are on the hub under other names; which
six is not documented. A run's folder, downloaded, is an SAE for `--sae`."""
