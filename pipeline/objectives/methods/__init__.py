"""The methods of distillation: one file each, named as in the configuration."""

from __future__ import annotations

from pipeline.config import Section
from pipeline.factories import Factory
from pipeline.objectives.base import Objective

FACTORY = Factory(
    "build", ("options", "student", "teacher", "context", "key"), Section, (Objective,), "decant.objectives"
)
"""How objectives are made that lie outside of this folder."""
