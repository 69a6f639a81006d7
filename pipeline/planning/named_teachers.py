"""Finds what is known of the teachers that objectives name, before students learn from them."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import Problem
from pipeline.experiment.objective_set import OtherTeacher
from pipeline.experiment.sections import named_caches, own_name
from pipeline.objectives import ObjectiveSetConfig
from pipeline.planning.draft import Assembly, collected
from pipeline.store.backend import backend_of
from pipeline.store.format.manifest import Manifest


def bind_named_teachers(parts: Assembly) -> None:
    """Read the shapes of the named teachers' signals from their caches, where these are there already.

    Args:
        parts: takes the teachers, the names of those whose caches are not there, and all that is wrong.
    """
    with collected(parts.problems, "caches"):
        caches = parts.draft.caches or ()
        parts.own = own_name(caches)
        for name, entries in named_caches(caches).items():
            there = [entry.path for entry in entries if backend_of(entry.path).exists()]
            if name == parts.own:
                continue
            if entries[0].role == "teacher" and parts.shapes is not None:  # its own, beside the ensemble
                parts.others[name] = OtherTeacher(parts.shapes)
            elif there:
                parts.others[name] = OtherTeacher(Manifest.read(there[0]).layout.shapes)
            else:
                parts.absent.add(name)


def without_absent(parts: Assembly, config: ObjectiveSetConfig) -> tuple[ObjectiveSetConfig, list[int]]:
    """Return a set without the objectives of teachers whose caches are not there yet, and the numbers of the others.

    Args:
        parts: the experiment.
        config: the entry of the set.
    """
    kept = [i for i, entry in enumerate(config.objectives) if entry.teacher not in parts.absent]
    return config.model_copy(update={"objectives": tuple(config.objectives[i] for i in kept)}), kept


def renumbered(problem: Problem, place: str, kept: list[int]) -> Problem:
    """Return a problem of a set from `without_absent` with the key that it has in the configuration.

    Args:
        problem: its key may begin with `place` and the number of an objective.
        place: `objectives.<set>`.
        kept: the numbers in the configuration.
    """
    number, dot, rest = problem.key.removeprefix(f"{place}.").partition(".")
    if not problem.key.startswith(f"{place}.") or not number.isdigit():
        return problem
    return replace(problem, key=f"{place}.{kept[int(number)]}{dot}{rest}")
