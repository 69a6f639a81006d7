"""Keeps a sweep: what it is of, its tries, its choice and its cost, in a folder that one process at a time works in."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import CacheCorrupt, CacheError, CacheMismatch, ConfigError, Problem
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.sections import caches_read
from pipeline.experiment.source import ConfigFile
from pipeline.experiment.students import StudentSections, training_of
from pipeline.files import write_atomic
from pipeline.publishing import differences, print_message
from pipeline.publishing.scratch import lock_error
from pipeline.store.format.manifest import Manifest
from pipeline.sweeping.making import HOLDOUT_HINT
from pipeline.sweeping.sampling import Sampler
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.tries import TRY_MAX_BYTES, Tries, Try, best_of
from pipeline.training.config import TrainConfig
from pipeline.untrusted import parse_json, read_file

RESULT, PICTURE = "sweep.json", "sweep.png"

OTHER_HINT = "--output names another folder; --replace deletes the tries that are there, and begins anew"

BROKEN_SWEEP_HINT = "bring it back from a copy; --replace deletes the tries beside it, and begins anew"


class Inputs(StudentSections, RunsSection):
    """Declares the sections that a sweep reads."""


def inputs_of(source: ConfigFile, name: RunName) -> Inputs:
    """Return the sections that a sweep reads; raises ConfigError with every problem of them.

    Args:
        source: the configuration.
        name: of the run.
    """
    inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
    if inputs.data.holdout is None:
        raise ConfigError([Problem("data.holdout", "is missing: a sweep chooses by it", fix=HOLDOUT_HINT)])
    return inputs


def conditions_of(source: ConfigFile, name: RunName) -> dict[str, Any]:
    """Open data, caches and network, and return what decides all tries and their scores, but for their constants.

    Args:
        source: the configuration.
        name: of the run.

    Torch computes: in the process that forks those of the tries, nothing of this may run.
    """
    inputs = source.read_only(Inputs, {"students": name.student, "objectives": name.objectives})
    with redirect_stdout(io.StringIO()):  # every try says it
        teacher_training = source.raw().get("teacher_training")
        opened = Experiment(inputs).student(name, exact=False, teacher_training=teacher_training)
        return opened.conditions()


@dataclass(frozen=True)
class Sweep:
    """Holds a sweep.

    Args:
        folder: of it.
        name: of the run that all tries are of.
        space: what varies.
        training: the settings of the trainings.
        definition: what must be the same for tries to be compared, as plain values.
    """

    folder: Path
    name: RunName
    space: SearchSpace
    training: TrainConfig
    definition: dict[str, Any]

    @classmethod
    def of(
        cls,
        source: ConfigFile,
        name: RunName,
        space: SearchSpace,
        folder: Path | None,
        *,
        stops: bool,
        at_random: bool = False,
        conditions: Callable[[ConfigFile, RunName], dict[str, Any]] = conditions_of,
    ) -> Sweep:
        """Read what a sweep is of; nothing is written.

        Args:
            source: the configuration.
            name: of the run.
            space: what varies.
            folder: of the sweep; None for one below `runs.path`.
            stops: whether hopeless tries are stopped.
            at_random: whether constants are drawn from ranges without a look at earlier tries.
            conditions: `conditions_of`, or what calls that in a process of its own.

        Raises ConfigError with every problem, CacheNotFound, and what `conditions` raises.
        """
        inputs = inputs_of(source, name)
        training = training_of(inputs.train, inputs.students[name.student], name.student)
        same = space.with_values(source, space.first(source)).read_only(Inputs, {"objectives": name.objectives})
        chosen = same.objectives[name.objectives]
        caches = [] if chosen.fresh else caches_read(inputs.data, inputs.store, inputs.caches)["training"]
        known = conditions(source, name)
        definition = {
            **name._asdict(),
            "vary": dict(space.texts),
            "stops": stops,
            **({"random": at_random} if space.listed is None else {}),
            "students": inputs.students[name.student].model_dump(mode="json"),
            "objectives_of": chosen.model_dump(mode="json"),
            "train": training.identity(),
            "data": inputs.data.model_dump(mode="json", include={"split", "limit", "holdout", "classes"}),
            "caches": [Manifest.read(path).fingerprint for path in caches],
            "precision": known["train"]["precision"],
            "conditions": {key: value for key, value in known.items() if key != "train"},
        }
        default = inputs.runs.path / "sweeps" / name.student / name.objectives / f"seed-{name.seed}"
        return cls(folder or default, name, space, training, definition)

    @property
    def tries(self) -> Tries:
        """Return the files of the tries."""
        return Tries(self.folder)

    @contextmanager
    def held(self, *, wait: bool) -> Iterator[None]:
        """Have no other process work in the folder.

        Args:
            wait: for one that does; else CacheError is raised.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    fix = "wait for it, or stop it: what it finished is kept"
                    raise CacheError("another process works on this sweep", where=self.folder, fix=fix) from None
                print_message(f"waiting for another process that works on {self.folder}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise lock_error(error, self.folder) from error
            raise
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # not by closing alone: forked processes share the descriptor
            os.close(descriptor)

    def begin(self, *, replace_other: bool) -> list[Try]:
        """Return the tries that were begun, of the same sweep.

        Args:
            replace_other: delete those of another one, and begin anew.

        Raises CacheMismatch if another sweep is there, with every value that differs, and CacheCorrupt if what is there
        is none.
        """
        file = self.folder / RESULT
        there = _definition_in(file, replace_other=replace_other) if file.exists() else None
        if there is None and any(self.tries.files()):  # of which sweep they are, nobody knows
            if not replace_other:
                what = f"there are tries, and no {RESULT} that says of which sweep"
                raise CacheCorrupt(what, where=self.folder, fix=BROKEN_SWEEP_HINT)
            there = {"broken": "no file"}
        own = {key: value for key, value in self.definition.items() if there is None or key in there}  # of older ones
        if there is not None and (lines := differences(json.loads(json.dumps(own)), there)):
            if not replace_other:
                what = "\n".join(["another sweep is here", *(f"  - {line}" for line in lines)])
                raise CacheMismatch(what, where=self.folder, fix=OTHER_HINT)
            if self.tries.folder.exists():
                shutil.rmtree(self.tries.folder)  # or what is left would count as tries of this sweep
            for name in (RESULT, PICTURE):
                (self.folder / name).unlink(missing_ok=True)
        found = self.tries.read()
        if there is None or not file.exists():
            self.write(found)
        return found

    def next_try(self, sampler: Sampler, number: int) -> Try:
        """Return a try that is to be made, as it was begun before, or with constants that are chosen now.

        Args:
            sampler: chooses them.
            number: of the try.
        """
        known = {one.number: one for one in self.tries.read()}
        if number in known:
            again = replace(known[number], state="begun", error=None)
        else:
            shutil.rmtree(self.tries.student(number), ignore_errors=True)  # of a try whose file somebody deleted
            again = Try(number, sampler.values(number, list(known.values())))
        self.tries.write(again)
        return again

    def write(self, tries: Sequence[Try]) -> dict[str, Any]:
        """Write what is known of the sweep, and return it, as plain values.

        Args:
            tries: all that were begun.
        """
        best, epochs = best_of(tries), sum(len(one.curve) for one in tries)
        chosen = best and {
            "number": best.number,
            "values": best.values,
            "score": best.score,
            "folder": self.tries.student(best.number).as_posix(),
        }
        facts = {
            **self.name._asdict(),
            "score": next((one.scored for one in tries if one.scored), None),
            "chosen": chosen,
            "tries": [one.to_json() for one in tries],
            "cost": {
                "processor_seconds": round(sum(one.processor_seconds for one in tries), 3),
                "epochs": epochs,
                "epochs_without_stopping": epochs
                + sum(self.training.epochs - len(one.curve) for one in tries if one.state == "stopped"),
            },
            "definition": self.definition,
        }
        write_atomic(self.folder / RESULT, json.dumps(facts, indent=2) + "\n")
        return facts


def _definition_in(file: Path, *, replace_other: bool) -> dict[str, Any]:
    """Read the definition of a sweep. replace_other: of what is none, return one that no sweep has."""
    try:
        found = parse_json(read_file(file, TRY_MAX_BYTES))["definition"]
        if not isinstance(found, dict):
            raise TypeError(f"a definition that is {found!r:.40}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        if replace_other:
            return {"broken": str(error)}
        raise CacheCorrupt("this is no sweep", where=file, got=str(error), fix=BROKEN_SWEEP_HINT) from None
    return found
