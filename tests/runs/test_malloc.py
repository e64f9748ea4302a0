"""Freed memory is kept: a large tensor that is made again gets no new pages."""

import ctypes
import resource
import sys

import pytest
import torch

from forked import Forked
from tiltmeter.runs.malloc import MMAP_MAX, keep_freed_memory

MMAP_THRESHOLD, SIZE = -3, 2**24
"""A parameter number of glibc's `mallopt`, and the bytes of a tensor."""


def new_pages():
    """New pages of five tensors after twenty, each of which is freed before the next is made."""
    for _ in range(20):
        torch.ones(SIZE // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(SIZE // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def before_and_after():
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 65536)  # glibc's own values, whatever earlier tests have set
    libc.mallopt(MMAP_THRESHOLD, 2**17)
    print(new_pages())
    keep_freed_memory()
    print(new_pages())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux's C library")
def test_memory_is_used_again():
    with Forked(before_and_after) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    before, after = map(int, out.split())
    pages = 5 * SIZE // resource.getpagesize()
    assert after < pages / 20
    assert before > after
