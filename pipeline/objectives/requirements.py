"""Checks what objectives need of the networks that they compare, and refuses others."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import NO_CLASSES_HINT, Context
from pipeline.signals import SignalShapes


def require_same_classes(student: SignalShapes, teacher: SignalShapes, key: str, fewest: int = 1) -> None:
    """Raise ConfigError at `key` if the networks do not have the same number of classes.

    Args:
        student, teacher: shapes.
        fewest: the number of classes that the method needs.
    """
    if not teacher.classes:
        what = "needs the teacher's 'logits' or its head, and it has no classifier"
        raise ConfigError([Problem(key, what, fix=NO_CLASSES_HINT)])
    if student.logits != teacher.classes:
        what = f"student and teacher must know the same classes, got {student.logits} and {teacher.classes}"
        raise ConfigError([Problem(key, what)])
    if student.logits < fewest:
        what, fix = "compares classes with each other, and there are too few", "leave it out"
        raise ConfigError([Problem(key, what, f"{fewest} classes or more", str(student.logits), fix)])


def embedding_widths(student: SignalShapes, teacher: SignalShapes, key: str) -> tuple[int, int]:
    """D of the student and of the teacher. Raises ConfigError at `key` if one of them has no embedding."""
    if student.embedding is None:
        raise ConfigError([Problem(key, "needs the student's embedding, and it has none")])
    return student.embedding, teacher_embedding(teacher, key)


def teacher_embedding(teacher: SignalShapes, key: str) -> int:
    """D of the teacher. Raises ConfigError at `key` if its embedding is not cached."""
    if teacher.embedding is None:
        what = "needs the teacher's embedding, which the cache does not hold"
        raise ConfigError([Problem(key, what, fix="add `embedding: {}` to `signals` and cache the teacher again")])
    return teacher.embedding


def deepest_map(student: SignalShapes, key: str) -> tuple[str, tuple[int, int, int]]:
    """Return the student's deepest block and its shape (C, H, W). Raises ConfigError at `key` if it has no maps."""
    blocks = [name for name in student.features if name.startswith("block")]
    if not blocks:
        raise ConfigError([Problem(key, "needs the student's last map, and it has none")])
    return blocks[-1], student.features[blocks[-1]]


def require_active_places(teacher: SignalShapes, key: str) -> None:
    """Raise ConfigError at `key` if the teacher's maps do not tell where its neurons are active.

    A mean of values that are not negative is 0 where all of them are, and positive elsewhere. Other filters ring, or
    reach into neighbouring cells: with them next to no value is 0.
    """
    if teacher.standardised:
        what = "reads where neurons are active, which standardised maps do not tell"
        raise ConfigError([Problem(key, what, fix="leave `standardise` out")])
    if teacher.filter != "mean":
        what = f"reads where neurons are active, which maps low-passed by {teacher.filter!r} do not tell"
        fix = "set `signals.features.filter: mean` and cache the teacher again"
        raise ConfigError([Problem(key, what, fix=fix)])


def refuse_idle(options: Section, chosen: str, idle: Iterable[str]) -> None:
    """Raise ValueError if an option of `idle` differs from its default: what was `chosen` does not read it.

    Args:
        options: of the objective.
    """
    fields = type(options).model_fields
    found = [name for name in idle if getattr(options, name) != fields[name].default]
    if found:
        raise ValueError(f"{chosen} does not read {', '.join(found)}: leave out what has no effect")


def several_classes(context: Context, key: str) -> list[Problem]:
    """Return the problems of labels for a method that needs samples of other classes as negatives.

    Args:
        context: of the run.
        key: the dotted key that problems name.
    """
    if context.labels is None or len(torch.unique(context.labels)) > 1:
        return []
    return [Problem(key, "needs samples of other classes, and all samples have one label")]
