"""Where the command line writes: what reads it may stop, and its encoding may lack characters."""

import io
import os
import sys

import pytest

from tiltmeter.cli.main import main


def test_what_an_encoding_lacks_is_replaced(monkeypatch):
    stream = io.TextIOWrapper(written := io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["tiltmeter", "list", "readouts"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert b"KL(clean ? perturbed)" in written.getvalue()


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["tiltmeter", "list", "readouts"])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code and not capsys.readouterr().err
