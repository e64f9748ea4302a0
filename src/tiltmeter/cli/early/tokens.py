"""Token sequences and positions, checked without reading the sequences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tiltmeter.cli.catalogue import choices
from tiltmeter.cli.early.headers import Stored, stored_arrays
from tiltmeter.errors import TiltmeterError
from tiltmeter.models.position_text import read_positions
from tiltmeter.runs.user_paths import user_path

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:\w[\w.]*)?")
"""Names that a data set on the Hugging Face hub can have."""

LONGEST = 2**31
"""Stands for the length of sequences that is not known yet."""


class TokenFacts(NamedTuple):
    """How many sequences there are at most, and how long they are; None where that is not known."""

    most: int | None = None
    length: int | None = None


def token_facts(name: str | None, model: str, length: int | None) -> TokenFacts:
    """What the header of a file of tokens says.

    Args:
        name: the tokens; None if none were named.
        model: the model, of which only nano has tokens of its own.
        length: the tokens per sequence that were asked for.

    Raises:
        TiltmeterError: there are no such tokens; they are fewer a sequence than was asked for.
    """
    if length is not None and length < 1:
        raise TiltmeterError(f"--sequence-length was {length}, expected at least 1.")
    if name is None:
        if model != "nano":
            raise TiltmeterError(
                f"No tokens were named for {model}; give --tokens a file or a data set of token sequences."
            )
        return TokenFacts(None, length)
    if name in choices("tokens"):
        return TokenFacts(None, length)
    path = user_path(name)
    _refuse_file(name, path)
    stored = stored_arrays(path) if path.is_file() else {}
    _refuse_content(name, path, stored)
    if len(stored) != 1 or len(shape := next(iter(stored.values())).shape) != 2:
        return TokenFacts(None, length)
    if length is not None and length > shape[1]:
        raise TiltmeterError(
            f"{name!r} holds no whole sequence of {length} tokens, but sequences of {shape[1]}: ask for a smaller "
            "length (--sequence-length)."
        )
    return TokenFacts(shape[0], shape[1] if length is None else length)


def _refuse_file(name: str, path: Path) -> None:
    suffix, known = path.suffix.lower(), choices("token files")
    if suffix in choices("pickles"):
        raise TiltmeterError(
            f"{name!r} is a pickle by its suffix, and loading one can run code: save the token ids as .safetensors or "
            ".npy."
        )
    if path.is_dir():
        return
    if path.exists() and suffix not in known:
        raise TiltmeterError(f"{name!r} is of an unknown kind, expected one of {', '.join(known)}: convert it.")
    if not path.exists() and suffix in known:
        raise TiltmeterError(f"There is no token file {name!r}: check the path.")
    if not path.exists() and not HUB_NAME.fullmatch(name):
        raise TiltmeterError(
            f"There are no tokens {name!r}: give 'nano', the path of a file, or a data set as 'owner/dataset:split'."
        )


def _refuse_content(name: str, path: Path, stored: Mapping[str, Stored]) -> None:
    """Refuse a file that is empty, or whose one array is no matrix of integers, by its header."""
    if path.is_file() and not path.stat().st_size:
        raise TiltmeterError(f"{name!r} is an empty file: give one with at least one sequence.")
    if path.suffix.lower() != ".npy" or not path.is_file():
        return
    if not stored:
        raise TiltmeterError(
            f"{name!r} is not a plain NumPy array, and pickled objects are never loaded: save an integer array "
            "[sequence, position] with numpy.save."
        )
    ids = stored[""]
    if ids.kind != "int":
        what = "floating-point numbers" if ids.kind == "float" else "no numbers"
        raise TiltmeterError(f"{name!r} holds {what}; expected integer token ids: store it as integers.")
    if len(ids.shape) != 2 or 0 in ids.shape:
        raise TiltmeterError(
            f"{name!r} holds an array of shape {ids.shape}; expected [sequence, position], with at least one of each."
        )


def check_positions(text: str, length: int | None) -> None:
    """Refuse positions that sequences do not have.

    Raises:
        TiltmeterError: they are outside the sequences, or no positions.
    """
    if text.strip() not in ("all", "last"):
        read_positions(text, length or LONGEST)


def check_number(sequences: int | None, there: TokenFacts, name: str | None) -> None:
    """Refuse to measure more sequences than there are.

    Raises:
        TiltmeterError: so it is.
    """
    if sequences is not None and there.most is not None and sequences > there.most:
        raise TiltmeterError(
            f"{sequences} sequences were requested, but {name} has {there.most}; request at most that many."
        )
