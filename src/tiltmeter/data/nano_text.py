"""Sequences of the text that nano is trained and measured on (`tiltmeter.data.stdlib`)."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from operator import itemgetter
from typing import Literal

from transformers import PreTrainedTokenizerBase

from tiltmeter.data import stdlib
from tiltmeter.data.boundary import Boundary
from tiltmeter.data.cut import Piece, cut_of
from tiltmeter.data.documents import Shelves
from tiltmeter.data.packing import Sequences, encode, unlabelled
from tiltmeter.errors import TiltmeterError

NANO: Mapping[str, Literal["train", "held-out"]] = {"nano": "held-out", "nano-train": "train"}
"""The two sides of the standard library: modules that nano was not trained on, and those it was trained on."""


def nano_sequences(
    name: str, tokenizer: PreTrainedTokenizerBase | None, boundary: Boundary, length: int, bos_before: str
) -> Sequences:
    """Make all sequences of one side's modules, ordered by a hash of (module, index of the sequence in it).

    One sequence of each module comes first, as everywhere; a module that is missing from an interpreter removes only
    its own sequences.

    Args:
        name: one of `NANO`.
        tokenizer: of the model; None is refused.
        boundary: the token that begins a document.
        length: tokens per sequence.
        bos_before: one of `BOS_BEFORE`.

    Raises:
        TiltmeterError: there is no tokenizer, or the interpreter has no source files.
    """
    if tokenizer is None:
        raise TiltmeterError(f"{name!r} is text and there is no tokenizer to read it with: give a model that has one.")
    modules = list(stdlib.texts(NANO[name]))
    if not modules:
        raise TiltmeterError(
            f"{name!r} is the source of Python's standard library, and this interpreter has none in "
            f"{str(stdlib.library_root())!r}: use another interpreter or other tokens."
        )
    cut = cut_of(boundary, length, bos_before, name)
    keyed: list[tuple[bytes, str, Piece]] = []
    texts_hash = hashlib.sha256()
    for module, text in modules:
        texts_hash.update(f"{module}\0{text}\0".encode())
    encoded = zip((module for module, _ in modules), encode((text for _, text in modules), tokenizer), strict=True)
    for origin, pieces in cut.pieces(encoded):
        for index, piece in enumerate(pieces):
            keyed.append((hashlib.sha256(f"{origin}/{index}".encode()).digest(), str(origin), piece))
    facts = {
        "python": platform.python_version(),
        "modules": str(len(modules)),
        "text_sha256": texts_hash.hexdigest(),
    }
    shelves: Shelves[Piece] = Shelves()
    for _, module, piece in sorted(keyed, key=itemgetter(0)):
        shelves.add(module, [piece])
    return Sequences(*unlabelled(shelves, None), facts)
