"""Modules of a user's own in a working directory: each test's are forgotten when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

INVERT = '''
"""Turns light into dark."""

from pipeline.views import OperationOptions
from own_levels import HIGHEST


class Options(OperationOptions):
    """amount: 0 leaves the pixels alone."""

    amount: int = 1


class Invert:
    """Turns pixels p into 255 - p. It has no column."""

    exact, parameter_names, words, needs_sizes, fixes_size = True, (), 0, False, False

    def __init__(self, options: Options) -> None:
        self.amount = options.amount

    def output_size(self, size):
        return size

    def ranges(self, size):
        return ()

    def draw(self, words, sizes):
        return words.astype("int32")

    def apply(self, images, parameters):
        return HIGHEST - images if self.amount else images.clone()


def broken(options: Options):
    return [][0]


def other(options: Options):
    return 3


def bare(options):
    return Invert(options)


def numbered(options: int):
    return Invert(options)
'''
"""An operation whose class is its factory, and functions that are none; it needs `LEVELS`."""

LEVELS = "HIGHEST = 255\n"


ENCODING = '''
from torch import Tensor

from pipeline.config import Section
from pipeline.store.encodings._one_array import OneArray


class Options(Section):
    """shift: what is added."""

    shift: int = 1


class Shifted(OneArray):
    dtype = "<f4"

    def __init__(self, shape, options: Options) -> None:
        super().__init__(shape)
        object.__setattr__(self, "shift", options.shift)

    def write(self, values):
        return values + self.shift

    def read(self, stored):
        return stored - self.shift

    def error_bound(self, values):
        return abs(values) * 1e-5 + 1e-5


def corner(x: Tensor, grid_h: int, grid_w: int) -> Tensor:
    return x[:, :, :grid_h, :grid_w].float()
'''
"""An encoding, which adds a number, and a filter, which keeps a corner: a test adds what else its module has."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with the modules `own_invert` and `own_levels` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_invert.py").write_text(INVERT)
    (tmp_path / "own_levels.py").write_text(LEVELS)
    path, before = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]
