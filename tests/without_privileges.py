"""Permissions count, also for root, who may write to read-only files otherwise."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

VERSION = 0x20080522  # of Linux's interface: two words for each set
OVERRIDE = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

EFFECTIVE = 0
"""Of three words: effective, permitted, inheritable."""


COMMAND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""What to put before a command to the same effect: a program that root starts has all privileges again."""


@contextmanager
def without_privileges() -> Iterator[None]:
    """This thread, and those that it starts, may do with files what their permissions say."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()

    def call(function: str) -> None:
        if getattr(libc, function)(header, sets):
            raise OSError(ctypes.get_errno(), function)

    call("capget")
    before = sets[EFFECTIVE]
    sets[EFFECTIVE] = before & ~OVERRIDE
    call("capset")
    try:
        yield
    finally:
        sets[EFFECTIVE] = before
        call("capset")
