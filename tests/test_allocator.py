"""Freed memory is used again: counted by the page faults that the system reports, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from pipeline.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import numpy as np
def use():
    first, second = np.ones(6_000_000), np.ones(6_000_000)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    pages = 10 * 2 * 6_000_000 * 8 // 4096
    assert faults("given back") > pages // 600  # huge pages are 512 times as large
    assert faults("kept") < pages // 6000
