"""Holds an experiment while it is checked: the sections that are valid, its parts so far, and all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import ConfigError, DataError, ModelError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data
from pipeline.experiment.objective_set import OtherTeacher
from pipeline.models import Network
from pipeline.signals import SignalShapes

SOME_CLASSES = 10
"""How many classes networks are built with as long as there is no packed data set."""


class NotValid(Exception):  # noqa: N818 - no error of its own: the section's problems are
    """Reports that a section was read which is not valid; what is wrong with it is known already."""


class Draft(ExperimentConfig):
    """Holds an experiment of which some sections may not be valid: reading one of those raises NotValid."""

    @classmethod
    def of(cls, valid: Mapping[str, Any]) -> Draft:
        """Return an experiment with these sections and no others.

        Args:
            valid: the sections, by name.
        """
        draft = cls.model_construct(**valid)
        for name in cls.model_fields.keys() - valid.keys():
            vars(draft).pop(name, None)  # the default: what is not valid must not look as if it were left out
        return draft

    def __getattr__(self, name: str) -> Any:
        if name in type(self).model_fields:
            raise NotValid(name)
        raise AttributeError(name)


@dataclass
class Assembly:
    """Holds an experiment while its parts are bound to each other: the parts so far, and all that is wrong.

    Args:
        draft: its sections.
        problems: takes what is wrong.
        data: None if it is not packed yet, or not what it should be.
        teacher, shapes: its network, and the shapes of what is kept of it; None if they cannot be had.
        students: those that can be built.
        views_per_step: of each sample in a batch, of the students whose settings of training are valid.
        samples_per_batch: of the same students.
        captured: those of them whose steps are to be recorded.
        notes: what is to be said of objectives, by student and objective set.
        own, others: the name of the teacher, and what is known of the teachers that objectives name beside it.
        absent: the names of those whose caches are not there yet.
        named_needs: the signals of these teachers that are read, by student and objective set, and by teacher.
    """

    draft: Draft
    problems: list[Problem]
    data: Data | None = None
    teacher: Network | None = None
    shapes: SignalShapes | None = None
    students: dict[str, Network] = field(default_factory=dict)
    views_per_step: dict[str, int] = field(default_factory=dict)
    samples_per_batch: dict[str, int] = field(default_factory=dict)
    captured: set[str] = field(default_factory=set)
    notes: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    own: str | None = None
    others: dict[str, OtherTeacher] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    named_needs: dict[tuple[str, str], dict[str, frozenset[str]]] = field(default_factory=dict)

    @property
    def class_names(self) -> Sequence[str] | int:
        """Return the names of the classes, or their number as long as there is no packed data set."""
        return self.data.dataset.class_names if self.data else SOME_CLASSES

    @property
    def classes(self) -> int:
        """Return the number of classes K; `SOME_CLASSES` as long as there is no packed data set."""
        return self.data.classes if self.data else SOME_CLASSES


@contextmanager
def collected(problems: list[Problem], key: str = "", note: str = "") -> Iterator[None]:
    """Add the errors that are raised inside to a list of problems, and go on after the block.

    NotValid ends the block too, and adds nothing.

    Args:
        problems: the list.
        key: the dotted key of errors that are no ConfigError and name none.
        note: text that follows what is wrong.
    """
    try:
        yield
    except ConfigError as error:
        problems += [replace(problem, what=problem.what + note) for problem in error.problems]
    except (DataError, ModelError) as error:
        problems.append(Problem(key, str(error)))
    except NotValid:
        pass
