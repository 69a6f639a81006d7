"""Syntax trees of our own files, each made once for all tests of a module that look at them."""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator

import pytest


@functools.cache
def parsed(text: str) -> ast.Module:
    """The tree of a text, which is not to be changed."""
    collects = gc.isenabled()
    gc.disable()  # it would look at all trees again and again, and takes longer than parsing
    try:
        return ast.parse(text)
    finally:
        if collects:
            gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _trees_are_let_go() -> Iterator[None]:
    """Those of a whole package are large: every garbage collection would look at them."""
    yield
    parsed.cache_clear()
