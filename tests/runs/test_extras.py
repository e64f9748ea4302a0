import sys

import numpy as np
import pytest

from tiltmeter.errors import TiltmeterError
from tiltmeter.runs.extras import is_installed, require


def test_what_is_installed_is_imported():
    assert require("numpy", "report", "This") is np
    assert is_installed("numpy") and not is_installed("no_such_package")


def test_what_is_missing_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(TiltmeterError, match=r"A .parquet file needs the package pyarrow, .*'tiltmeter\[parquet\]'"):
        require("pyarrow.parquet", "parquet", "A .parquet file")
