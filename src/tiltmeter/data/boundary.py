"""The token that begins a document, and why it is that one."""

from __future__ import annotations

import re
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

DIALOGUE = re.compile(r"im_(start|end|sep)|eot|eom|turn|user|assistant|system|human|message|header|channel|call", re.I)
"""Special tokens that delimit the turns of a dialogue (`<|im_end|>`, `<end_of_turn>`, `<|eot_id|>`). No document begins
with one: models see them only around turns."""

SEPARATORS = frozenset({"endoftext", "endofdocument", "endofdoc", "eod"})
"""Letters of the eos tokens that stand between documents of training text, as GPT-2's `<|endoftext|>`."""


class Boundary(NamedTuple):
    """What stands before each document."""

    token: int | None
    """Id of the token that begins a document; None if there is none."""
    before: list[int]
    """Ids put before a document: that token, and others if the tokenizer puts several."""
    why: str
    """The token and where it is known from, or why there is none, for the manifest."""


def boundary_of(tokenizer: PreTrainedTokenizerBase | None, model_bos: int | None = None) -> Boundary:
    """Find the token that begins a document.

    It is the tokenizer's bos; else what the tokenizer itself puts before a text; else its eos, if that separates
    documents (by its name, or because the model's configuration has it as bos); else the bos of that configuration, if
    it is a special token of the tokenizer. A token that delimits the turns of a dialogue is never taken.

    Args:
        tokenizer: None where there is none.
        model_bos: `bos_token_id` of the model's configuration.
    """
    if tokenizer is None:
        return Boundary(None, [], "none: there is no tokenizer")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if _usable(tokenizer, bos):
        return _one(tokenizer, bos, "the tokenizer's bos")
    if (own := _put_before(tokenizer)) and _usable(tokenizer, own[0]):
        return Boundary(own[0], own, f"{_text(tokenizer, own[0])!r}: the tokenizer puts it before a text")
    if _usable(tokenizer, eos) and (_separates(_text(tokenizer, eos)) or eos == model_bos):
        return _one(tokenizer, eos, "the tokenizer's eos, which separates documents")
    if _usable(tokenizer, model_bos) and model_bos in _special(tokenizer):
        return _one(tokenizer, model_bos, "bos in the model's configuration")
    if bos is None and eos is None:
        return Boundary(None, [], "none: the tokenizer has neither bos nor eos")
    named = " and ".join(
        f"{kind} is {_text(tokenizer, i)!r}" for kind, i in (("bos", bos), ("eos", eos)) if i is not None
    )
    return Boundary(None, [], f"none: the tokenizer's {named}, which does not begin a document")


def _one(tokenizer: PreTrainedTokenizerBase, token: int, why: str) -> Boundary:
    return Boundary(token, [token], f"{_text(tokenizer, token)!r}: {why}")


def _usable(tokenizer: PreTrainedTokenizerBase, token: int | None) -> bool:
    return isinstance(token, int) and not DIALOGUE.search(_text(tokenizer, token))


def _put_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer itself puts before a text."""
    whole, text = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
    starts = [start for start in range(len(whole) - len(text) + 1) if whole[start : start + len(text)] == text]
    return list(whole[: starts[0]]) if text and starts else []


def _separates(text: str) -> bool:
    return re.sub(r"[^a-z]", "", text.lower()) in SEPARATORS


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(token for token, about in added.items() if about.special)}


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token))
