"""What the tests of sweeps and of the command line share: a small model on the disk, tokens, and `tiltmeter` itself."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from forked import Forked
from tiltmeter.cli.main import main
from tiltmeter.data.token_set import TokenSet
from tiny_models import random_tokens, tiny

BOUNDARY = 0
"""The token that begins a document, in the tests' token sets and in the small GPT-2's configuration."""


def save_model(folder, family="gpt2", **settings):
    """The directory of a small model, without a tokenizer."""
    tiny(family, **settings).save_pretrained(folder)
    return Path(folder)


def token_set(sequences=12, length=8, seed=0, name="tokens"):
    """Random sequences, none of which holds the boundary token but at its beginning."""
    ids = random_tokens(sequences, length, seed).clamp(min=1)
    ids[:, 0] = BOUNDARY
    return TokenSet(ids, name, BOUNDARY, {})


def save_tokens(path, sequences=12, length=8, seed=0):
    np.save(path, token_set(sequences, length, seed).ids.numpy())
    return path


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def command(*arguments):
    """Run `tiltmeter` in this process, the way the shell would."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    arguments = ["tiltmeter", *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", arguments):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


def refusal(*arguments):
    """Check that `tiltmeter` refuses with status 2 and one sentence, and return the sentence."""
    outcome = command(*arguments)
    assert outcome.status == 2, outcome
    *before, last = outcome.err.splitlines()
    assert not [line for line in before if line.startswith(("tiltmeter: ", "Traceback"))], outcome.err
    assert last.startswith("tiltmeter: "), outcome.err
    sentence = last.removeprefix("tiltmeter: ")
    assert sentence.endswith("."), sentence
    return sentence


def start(*arguments):
    """Start `tiltmeter` in a process of its own."""
    return Forked(_become, *map(str, arguments))


def _become(*arguments):
    sys.argv = ["tiltmeter", *arguments]
    main()
