r"""The tokens that a readout names: `logit-diff:" Paris"," London"`, `prob:yes`, `prob:#464`.

`#464` is the id of a token. A text stands for the one token with exactly this text inside a sequence, so that a space
at its beginning counts: in most vocabularies " Paris" and "Paris" are different tokens. A text in double quotes is a
JSON string; quotes are needed around spaces at either end, commas, quotes and a # at the beginning, and also around
what is not printable ("\n").
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from tiltmeter.errors import TiltmeterError

_TOKEN = re.compile(r'\s*(?:#(?P<id>\d{1,9})|(?P<quoted>"(?:[^"\\]|\\.)*"))\s*|(?P<bare>(?!\s*[#"])[^,"]+)')


class VocabularyToken(NamedTuple):
    """A token of the vocabulary."""

    id: int
    text: str | None = None
    """Its text inside a sequence; None where the model has no tokenizer."""

    @property
    def shown(self) -> str:
        """The token as figures name it: its text in quotes, or its id."""
        return f"#{self.id}" if self.text is None else json.dumps(self.text, ensure_ascii=False)


def parse_tokens(
    name: str, given: str, vocabulary: int, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[VocabularyToken, ...]:
    """Parse the tokens of a readout, separated by commas.

    Args:
        name: the whole name of the readout, for messages.
        given: what follows its colon.
        vocabulary: number of tokens of the model.
        tokenizer: the model's; None allows ids only.

    Raises:
        TiltmeterError: the text cannot be read, is not exactly one token, or an id is not in the vocabulary.
    """
    found, at = [], 0
    while match := _TOKEN.match(given, at):
        if match["id"] is not None:
            token = _of_id(name, int(match["id"]), vocabulary, tokenizer)
        else:
            token = _of_text(name, _text(name, match), vocabulary, tokenizer)
        found.append(token)
        at = match.end()
        if at == len(given):
            return tuple(found)
        if given[at] != ",":
            break
        at += 1
    raise TiltmeterError(
        f"The tokens of {name} could not be read from {repr(given[at:]) if given[at:] else 'the end'} on; separate "
        'them by commas, and write each as an id (#464), as a text (yes), or as a text in double quotes (" Paris").'
    )


def _text(name: str, match: re.Match[str]) -> str:
    if (bare := match["bare"]) is not None:
        if bare != bare.strip():
            raise TiltmeterError(
                f"The token {bare!r} of {name} has a space at its end or beginning, which may belong to it or not; "
                f"write {json.dumps(bare, ensure_ascii=False)} with the space, or {bare.strip()!r} without."
            )
        return bare
    try:
        text = json.loads(match["quoted"], strict=False)
    except ValueError as error:
        raise TiltmeterError(
            f"The token {match['quoted']} of {name} is not a JSON string ({error}); write a backslash as \\\\."
        ) from None
    return str(text)


def _of_id(name: str, token: int, vocabulary: int, tokenizer: PreTrainedTokenizerBase | None) -> VocabularyToken:
    if token >= vocabulary:
        raise TiltmeterError(
            f"The token #{token} of {name} does not exist: the model has {vocabulary:,}, from #0 to #{vocabulary - 1}."
        )
    return VocabularyToken(token, None if tokenizer is None else text_of(tokenizer, token))


def _of_text(name: str, text: str, vocabulary: int, tokenizer: PreTrainedTokenizerBase | None) -> VocabularyToken:
    if tokenizer is None:
        raise TiltmeterError(
            f"The token {text!r} of {name} is a text, and the model has no tokenizer; give the token's id, as #464."
        )
    pieces = tokenizer.encode(text, add_special_tokens=False)
    for token in _candidates(text, pieces, tokenizer):
        if text_of(tokenizer, token) == text:
            return _of_id(name, token, vocabulary, tokenizer)
    shown = " and ".join(f"{VocabularyToken(one, text_of(tokenizer, one)).shown} (#{one})" for one in pieces[:9])
    shown = f"reads it as {shown}" if shown else "reads nothing in it"
    raise TiltmeterError(
        f"{json.dumps(text, ensure_ascii=False)} in {name} is not the text of one token: the model's tokenizer "
        f"{shown}; give the exact text of a token, with its space, or an id, as #464."
    )


def _candidates(text: str, pieces: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that may have this text; some tokenizers add a space of their own at the beginning of a text."""
    after_space = tokenizer.encode(text[1:], add_special_tokens=False) if text[:1] == " " else []
    named = tokenizer.convert_tokens_to_ids(text)
    found = [one for some in (pieces, after_space) if len(some) == 1 for one in some]
    return [*found, named] if isinstance(named, int) else found


def text_of(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """The text of a token inside a sequence: what decoding adds to the text of a token before it."""
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]
    one, both = (
        str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for ids in (before, [*before, token])
    )
    return both.removeprefix(one)
