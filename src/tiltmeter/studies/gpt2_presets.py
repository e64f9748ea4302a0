"""What the papers ran on: GPT-2 small, its SAEs that are released, and OpenWebText."""

from __future__ import annotations

MODEL = "gpt2"

PROMPTS = "apollo-research/Skylion007-openwebtext-tokenizer-gpt2:train"
"""Rows of OpenWebText in GPT-2's tokens; a prompt is the first tokens of a row, without a boundary token (Heimersheim &
Mendel 2024, Giglemiani et al. 2024)."""

DOCUMENTS = "Skylion007/openwebtext:train"
"""OpenWebText as text (Gurnee 2024, Lee & Heimersheim 2024). As there, the boundary token stands before every sequence
of 128 tokens; but here no sequence holds the end of one document and the beginning of another."""

RESIDUAL_SAES = tuple(f"gpt2-small-res-jb:blocks.{layer}.hook_resid_pre" for layer in range(12))
"""Bloom's."""

ATTENTION_SAES = tuple(f"gpt2-small-hook-z-kk:blocks.{layer}.hook_z" for layer in range(12))
"""Kissane et al.'s."""

END_TO_END_SAES = tuple(
    f"gpt2-small-res_{kind}-ajt:blocks.6.hook_resid_pre" for kind in ("scl", "sll", "sce", "sle", "scefr", "slefr")
)
"""Braun et al.'s at layer 6, of the kinds local, e2e and e2e+ds, two of each: those on the hub. The other sixteen of
Lee & Heimersheim 2024 are in their authors' own runs: download these and give their folders."""
