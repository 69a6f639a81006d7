"""The methods of distillation: one file each, named as in the configuration."""

from __future__ import annotations

from pipeline.config import Section
from pipeline.factories import Factory

TAKES = ("options", "student", "teacher", "context", "key")


def _made() -> tuple[type, ...]:
    from pipeline.objectives.base import Objective  # loads torch, and names of methods are wanted before

    return (Objective,)


FACTORY = Factory("build", TAKES, Section, _made, "decant.objectives")
"""How objectives are made that lie outside of this folder."""
