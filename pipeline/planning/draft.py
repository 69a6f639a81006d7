"""An experiment of which some sections may be wrong, and a list that takes all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.errors import ConfigError, DataError, ModelError, Problem
from pipeline.experiment.config import ExperimentConfig


class NotValid(Exception):  # noqa: N818 - no error of its own: the section's problems are
    """A section is asked for that is not valid; what is wrong with it is known already."""


class Draft(ExperimentConfig):
    """An experiment of which some sections may not be valid: asking for one of those raises NotValid."""

    @classmethod
    def of(cls, valid: Mapping[str, Any]) -> Draft:
        """An experiment of these sections and no others."""
        draft = cls.model_construct(**valid)
        for name in cls.model_fields.keys() - valid.keys():
            vars(draft).pop(name, None)  # the default, which nobody asked for
        return draft

    def __getattr__(self, name: str) -> Any:
        if name in type(self).model_fields:
            raise NotValid(name)
        raise AttributeError(name)


@contextmanager
def collected(problems: list[Problem], key: str = "", note: str = "") -> Iterator[None]:
    """Add what is raised inside to the problems; what needs a section that is not valid ends without a word.

    key: of what is no problem of the configuration as such. note: follows what is wrong.
    """
    try:
        yield
    except ConfigError as error:
        problems += [replace(problem, what=problem.what + note) for problem in error.problems]
    except (DataError, ModelError) as error:
        problems.append(Problem(key, str(error)))
    except NotValid:
        pass
