"""Keeps the memory that torch frees on a CPU, and fixes cuBLAS's workspaces on a GPU.

Imports nothing heavy: processes call this when they start.
"""

from __future__ import annotations

import ctypes
import os
import sys

# The numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_MOST = 2**31 - 1
_MOST_OF_OLD = 1 << 25  # older ones refuse more, and would then map every block of more than 128 KiB
_STEP = 1 << 26

WORKSPACES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""The environment variable that fixes them: eight of 4 MiB, the larger of the two forms that cuBLAS names."""


def fix_workspaces() -> None:
    """Let cuBLAS compute a product in the same way each time, also where streams share a GPU.

    It reads the variable when it begins, so this comes before torch is imported, or at least before a GPU is used.
    What somebody has set already is kept.
    """
    for name, value in WORKSPACES.items():
        os.environ.setdefault(name, value)


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of giving them back to the system; for the process, once, when it starts.

    By default a freed tensor of more than a few MiB is unmapped, and its successor faults in every page again: a
    float32 forward pass takes up to twice as long. The peak of stage one stays what it was to a few per cent, but what
    a process once used it keeps until it ends. Does nothing where the C library is another.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return
    mallopt(_ARENA_MAX, 1)  # arenas of threads hold at most 64 MiB, and map what is larger
    if not mallopt(_MMAP_THRESHOLD, _MOST):
        mallopt(_MMAP_THRESHOLD, _MOST_OF_OLD)
    mallopt(_TRIM_THRESHOLD, _MOST)
    mallopt(_TOP_PAD, _STEP)
