"""Holds the operations that views are made of: one file each, named as in the configuration."""

from __future__ import annotations

from pipeline.factories import Factory
from pipeline.views.mixing import MixingOperation
from pipeline.views.operation import Operation, OperationOptions

FACTORY = Factory("build", ("options",), OperationOptions, lambda: (Operation, MixingOperation), "decant.operations")
"""How operations are made that lie outside of this folder."""
