"""Makes a try: trains its student, keeps its curve, and stops it where it is hopeless."""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import dataclass, replace

from pipeline.errors import ConfigError, Problem
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.publishing.artifacts import unfinished
from pipeline.sweeping.stopping import Hopeless, is_hopeless
from pipeline.sweeping.tries import State, Tries, Try, finished
from pipeline.training import Verify
from pipeline.training.history import History, cell_of
from stages import train_student

HOLDOUT_HINT = "add `holdout: {count: 500}` to `data`, and make the caches again"


@dataclass(frozen=True)
class TryMaking:
    """Says how tries are made.

    Args:
        name: of the run, of which all tries are.
        tries: their files.
        epochs: of a training.
        patience: as of the training.
        stops: whether hopeless tries are stopped.
        verify: how many views are compared with the teacher's.
    """

    name: RunName
    tries: Tries
    epochs: int
    patience: int | None
    stops: bool
    verify: Verify


@dataclass(frozen=True)
class MadeTry:
    """Holds what the process of a try returns.

    Args:
        state: of the try.
        compared: which views are compared by now.
    """

    state: State
    compared: dict[str, str]


def make_try(how: TryMaking, source: ConfigFile, one: Try, compared: dict[str, str]) -> MadeTry:
    """Train the student of a try, from its checkpoint if there is one, in the process that this is for.

    Args:
        how: as all tries are made.
        source: the configuration with the constants of this one.
        one: the try.
        compared: which views were compared before.

    What is known of the try is on the disk after every epoch.
    """
    tries, student, begun = how.tries, how.tries.student(one.number), _processor_seconds()

    def known(one: Try) -> Try:
        now = replace(one, processor_seconds=round(spent + _processor_seconds() - begun, 3))
        tries.write(now)
        return now

    def watch(history: History) -> None:
        column = history.score.column
        if column not in history.rows[-1]:
            what = "a sweep chooses by the score on the holdout, and this student has none"
            raise ConfigError([Problem("data.holdout", what, fix=HOLDOUT_HINT)])
        # As the tables of finished tries have it: or one that is equal to the median would lie below it.
        curve = tuple(float(cell_of(row[column])) for row in history.rows)
        nonlocal one
        one = known(replace(one, curve=curve, scored=history.score.name))
        if how.stops and not history.stale(how.patience):  # else it ends here by itself
            others = [each.curve for each in tries.read() if each.state == "finished" and each.number != one.number]
            if is_hopeless(curve, others, how.epochs):
                for folder in unfinished(student):  # nobody will go on with it; this process holds it until it is gone
                    shutil.rmtree(folder, ignore_errors=True)
                raise Hopeless

    spent, stopped = one.processor_seconds, False
    try:
        train_student.run(
            source, how.name, student, verify=how.verify, replace=False, wait=True, compared=compared, watch=watch
        )
    except Hopeless:
        stopped = True  # and no more is done here: while there is the error, processes that load images run on
    except BaseException:
        known(one)  # what it took so far counts
        raise
    one = replace(one, state="stopped") if stopped else finished(one, student, how.patience)
    return MadeTry(known(one).state, compared)


def _processor_seconds() -> float:
    """Return what this process took so far, and those of its own that ended, such as load images."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime
