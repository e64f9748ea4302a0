"""Freed memory is kept: a large tensor that is made again gets no new pages."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from tiltmeter.runs.malloc import keep_freed_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)  # 64 MiB
before = faults()
for _ in range(5):
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux's C library")
def test_memory_is_used_again():
    found = {}
    for call in ("", "keep_freed_memory()"):
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(call=call)], check=True, capture_output=True, text=True
        )
        found[call] = int(ran.stdout)
    pages = 5 * 2**26 // resource.getpagesize()
    assert found["keep_freed_memory()"] < pages / 20
    assert found[""] > found["keep_freed_memory()"]
