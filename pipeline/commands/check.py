"""Validates a whole experiment and prints the plan, before any work starts: the command `check`."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress

from pipeline.commands.dvc_file import outdated
from pipeline.errors import CacheError, ModelError
from pipeline.experiment.caches import open_caches, outputs_in
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.sections import CacheConfig
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.measured import TeacherWorth
from pipeline.measuring.teacher_accuracy import CachedAccuracy, cached_accuracy
from pipeline.measuring.teacher_worth import open_for_worth, teacher_worth
from pipeline.planning.artifacts import plan_experiment
from pipeline.planning.binding import bind_experiment
from pipeline.planning.disks import DvcCache
from pipeline.planning.plan import Plan
from pipeline.planning.plan_lines import disk_lines, plan_lines
from pipeline.planning.requirements import MissingSignalsError
from pipeline.planning.time_lines import Times
from pipeline.progress import doing, size
from pipeline.store.backend import backend_of
from pipeline.store.location import StorePath


def run(source: ConfigFile, *, as_json: bool, timed: bool = False) -> None:
    """Print the plan of an experiment.

    Args:
        source: the configuration.
        as_json: print facts for programs.
        timed: measure on a few images, for some seconds, how long the commands take.

    Raises ConfigError with every problem, and CacheError if a disk is too small.
    """
    try:
        with doing("looking at data, networks and methods"):
            bound = bind_experiment(source)
    except MissingSignalsError as error:
        if as_json:
            print(json.dumps({"packed": True, "requirements": error.requirements.facts()}, indent=2))
        raise
    if bound.data is None and as_json:
        print(json.dumps({"packed": False}))
        return
    if bound.data is None:
        print(f"{source.file}: the configuration is valid")
        command = f"pipeline prepare-data --config {shlex.quote(str(source.file))}"
        print(f"no packed data set yet at {bound.experiment.data.path}: run `{command}`, then check again")
        return
    given = _given_caches(bound.experiment, bound.data)
    dvc = DvcCache.find()
    plan = plan_experiment(bound, bound.data, dvc)
    if as_json:
        needs = bound.requirements.facts() if bound.requirements else None
        judged = _judged(bound.experiment)
        accuracy = {str(path): found.facts() for path, (found, _) in judged.items() if found}
        worth = {str(path): found.facts() for path, (_, found) in judged.items() if found}
        notes = [{"student": s, "objectives": o, "note": note} for (s, o), each in bound.notes.items() for note in each]
        facts = {**plan.facts(), "requirements": needs, "notes": notes, "teacher_accuracy": accuracy}
        facts["teacher_worth"] = worth
        if timed:
            facts["times"] = Times.of(bound, plan, bound.data).facts()
        print(json.dumps(facts, indent=2))
    else:
        print(f"{source.file}: the configuration is valid")
        for file in outdated(bound.experiment, source):
            command = f"pipeline dvc-file --config {source.file.as_posix()} --output {file.as_posix()}"
            print(f"warning: {file} no longer fits it; write it again: {command}")
        for line in (*plan_lines(bound, plan), *given, *disk_lines(plan, dvc)):
            print(line)
        for cache, (right, found) in _judged(bound.experiment).items():
            if right is not None:
                first, *warnings = right.sentences(bound.data.dataset.class_names)
                print("\n".join([f"accuracy  {cache}: {first}", *warnings]))
            if found is not None:
                first, *more = found.lines()
                print("\n".join([f"worth     {cache}: {first}", *(f"          {line}" for line in more)]))
        for line in Times.of(bound, plan, bound.data).lines() if timed else ():
            print(line)
    _refuse_small_disks(plan)


def _given_caches(experiment: ExperimentConfig, data: Data) -> list[str]:
    """Return a line for each of `caches`: whether it is there. Raises CacheMismatch for one that does not fit."""
    entries = sorted(experiment.caches or (), key=lambda entry: entry.role != "teacher")
    there = [entry for entry in entries if backend_of(entry.path).exists()]
    if there:
        opened = open_caches(Experiment(experiment, data), there, exact=False)
        if len(there) == len(entries):
            outputs_in(opened, experiment.caches)
    return [f"learnt    {e.path}, {_joins(e)}: {'fits' if e in there else 'not there yet'}" for e in entries]


def _joins(entry: CacheConfig) -> str:
    """Return how the teacher of a cache is read: its role, and its name."""
    return entry.role if entry.teacher is None else f"{entry.role} {entry.teacher}"


def _judged(experiment: ExperimentConfig) -> dict[StorePath, tuple[CachedAccuracy | None, TeacherWorth | None]]:
    """Return how often the teachers are right and what they can teach, by the caches that are there and can be read."""
    found: dict[StorePath, tuple[CachedAccuracy | None, TeacherWorth | None]] = {}
    for path in experiment.caches_read()["training"]:
        if backend_of(path).exists():
            # `verify` reports what is wrong with it, and training from it is refused
            with suppress(CacheError, ModelError):
                cache = open_for_worth(path)
                found[path] = cached_accuracy(cache), teacher_worth(cache)
    return found


def _refuse_small_disks(plan: Plan) -> None:
    small = [disk for disk in plan.disks if disk.needed > disk.free]
    if small:
        raise CacheError(
            "the disk is too small for what is still to be written",
            where=", ".join(str(disk.path) for disk in small),
            expected=", ".join(f"{size(disk.needed)} free" for disk in small),
            got=", ".join(f"{size(disk.free)} free" for disk in small),
            fix="free space, name another disk in store.path or runs.path, or keep fewer views or smaller signals",
        )
