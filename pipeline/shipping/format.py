"""Declares what a format of export is: what a file of `pipeline/shipping/formats/` provides."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import plugins
from pipeline.errors import ArgumentError, ModelError, unknown_name
from pipeline.shipping.student import ShippedStudent

FORMATS = "pipeline.shipping.formats"


class ExportRunner(NamedTuple):
    """Runs an exported student, as its users would.

    Args:
        run: computes logits [B, K] of its inputs.
        from_views: makes the inputs of views uint8 [B, C, H, W].
        from_image: makes them of one image uint8 [H, W, C], where the format's users have a transform of their own;
            None where they make the views themselves.
        whole: whether that transform does what the operations of the evaluation do, so that it is given the image as it
            is; else it is given the view.
    """

    run: Callable[[Tensor], Tensor]
    from_views: Callable[[Tensor], Tensor]
    from_image: Callable[[NDArray[np.uint8]], Tensor] | None = None
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Exported:
    """Holds what formats are written from.

    Args:
        student: as it was trained.
        module: takes views uint8 [B, C, H, W] of one size and returns logits [B, K]; reparameterised, with
            normalisation and resizing inside.
        views: some of the kind that it takes, uint8 [B, C, H, W].
        calibration: cached views uint8 [N, C, H, W], from which ranges of values are measured; None if none are at
            hand.
    """

    student: ShippedStudent
    module: nn.Module
    views: Tensor
    calibration: Tensor | None = None


class Format(Protocol):
    """Declares the functions of a format's file.

    Args:
        FILES: the names of the files that it writes.
        EXACT: whether it must give the student's logits, up to rounding.
    """

    FILES: frozenset[str]
    EXACT: bool

    def refusal(self, student: ShippedStudent) -> str | None:
        """Return why this student cannot be written so; None if it can."""

    def write(self, exported: Exported, folder: Path) -> None:
        """Write the files. Raises ModelError if the network cannot be written.

        Args:
            exported: the student.
            folder: is there, and empty.
        """

    def load_runner(self, exported: Exported, folder: Path, threads: int) -> ExportRunner:
        """Open what was written.

        Args:
            exported: the student.
            folder: of the files.
            threads: of the arithmetic.
        """


def format_named(name: str) -> Format:
    """Import the file of a format. Raises ConfigError, with the nearest name, if there is none."""
    return cast(Format, plugins.load(FORMATS, name, "--format"))


def library(name: str, what: str) -> Any:
    """Import a package that a format needs, and that is not always installed.

    Raises ModelError, which says how it is installed.

    Args:
        name: of the module.
        what: needs it.
    """
    try:
        module: ModuleType = importlib.import_module(name)
    except ImportError as error:
        package = (error.name or name).partition(".")[0]
        raise ModelError(f"{what} needs the package {package}", fix='pip install "decant-kd[export]"') from None
    return module


def refuse_unknown_formats(names: tuple[str, ...]) -> None:
    """Raise ArgumentError for names of formats that there are not.

    Args:
        names: as they were given.
    """
    known = plugins.names(FORMATS)
    problems = [unknown_name("--format", name, known) for name in names if name not in known]
    if problems:
        raise ArgumentError(problems, "pipeline export")
