"""Makes the tries of a sweep, in one process each: what the command `sweep` runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from pipeline.commands.children import ChildFailure, OfProcess, in_child
from pipeline.commands.errors_for_people import with_config
from pipeline.commands.many_students import on_workers, one_by_one
from pipeline.errors import PipelineError
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.files import write_atomic
from pipeline.progress import doing, duration
from pipeline.sweeping.drawing import drawn
from pipeline.sweeping.making import MadeTry, TryMaking, make_try
from pipeline.sweeping.sampling import Sampler
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.sweep import PICTURE, RESULT, Sweep, conditions_of, inputs_of
from pipeline.sweeping.tries import Try, best_of
from pipeline.training import Verify
from pipeline.training.config import TrainSection
from pipeline.yaml_text import to_yaml

ENDED = ("finished", "stopped")
"""The states of tries that are not made again."""

MEND_HINT = "see above why; mend it and run the same command again: what is finished is kept"


def run(
    source: ConfigFile,
    name: RunName,
    vary: Sequence[str],
    *,
    count: int | None = None,
    stops: bool = True,
    at_random: bool = False,
    folder: Path | None = None,
    verify: Verify = "full",
    replace: bool = False,
    wait: bool = True,
    scheduler: str | None = None,
    workers: int = 0,
    show_traceback: bool = False,
    config: object = None,
    done: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> dict[str, Any]:
    """Make the tries of a sweep that are missing, and write and return what came out.

    Args:
        source: the configuration.
        name: of the run that all tries are of.
        vary: `LABEL.OPTION=VALUES`, for each constant.
        count: how many tries; None for all that are listed, or 20.
        stops: stop hopeless tries early.
        at_random: draw constants from ranges at random, without a look at earlier tries.
        folder: of the sweep; None for one below `runs.path`.
        verify: how many views are compared with the teacher's.
        replace: begin anew if another sweep is there.
        wait: for another process that works on this sweep; else CacheError is raised.
        scheduler, workers, show_traceback, config: as of `many_students.run`.
        done: is called with what came out, also where no try could be finished.

    Raises ConfigError with every problem before any work, CacheMismatch if another sweep is there, and PipelineError if
    no try could be finished.
    """
    source = source.frozen()  # tries differ in nothing but their constants, whoever edits the file meanwhile
    inputs_of(source, name)
    space = SearchSpace.of(vary, name.objectives, source)
    sampler = Sampler.of(space, source, count, name.seed, at_random=at_random)
    apart = partial(_conditions_apart, scheduler=scheduler, show_traceback=show_traceback)
    sweep = Sweep.of(source, name, space, folder, stops=stops, at_random=at_random, conditions=apart)
    for note in sampler.notes:
        print(f"note: {note}")
    with sweep.held(wait=wait):
        known = {one.number: one for one in sweep.begin(replace_other=replace)}
        todo = [n for n in range(sampler.count) if n not in known or known[n].state not in ENDED]
        todo.sort(key=lambda n: n in known and known[n].state == "failed")  # they may fail again: others first
        if len(todo) < sampler.count:
            print(f"{sweep.folder}: {sampler.count - len(todo)} of {sampler.count} tries are there already")
        training = sweep.training
        how = TryMaking(name, sweep.tries, training.epochs, training.patience, stops, verify)
        compared, failures = dict[str, str](), dict[int, ChildFailure]()

        def work(place: int) -> Callable[[], OfProcess]:
            one = sweep.next_try(sampler, todo[place])
            print(f"try {one.number}: {one.text()}", flush=True)
            return partial(make_try, how, sweep.space.with_values(source, one.values), one, dict(compared))

        names = [f"try {number}" for number in todo]
        at_once = scheduler is not None or workers > 0
        ended = (
            on_workers(source, names, work, scheduler, workers)
            if at_once
            else one_by_one(source, names, work, show_traceback)
        )
        with closing(ended):  # before others may work here
            for outcome in ended:
                number = todo[outcome.number]
                if isinstance(outcome.value, ChildFailure):
                    click.echo(with_config(f"error: try {number}: {outcome.value.message}", config), err=True)
                    failures[number] = outcome.value
                    _failed(sweep, number, failures, done)
                else:
                    compared.update(cast(MadeTry, outcome.value).compared)
                tries = sweep.tries.read()
                sweep.write(tries)
                _tell(tries, number)
        return _told(sweep, source, failures, done)


def _conditions_apart(
    source: ConfigFile, name: RunName, *, scheduler: str | None, show_traceback: bool
) -> dict[str, Any]:
    """Call `conditions_of` in a process of its own, where the tries are made. Raises PipelineError with what ended it.

    The machine of this command need not have the device of a cluster's workers, nor compute in their precision.
    """
    function, found = partial(conditions_of, source, name), cast(object, None)
    if scheduler is None:
        found = in_child(function, show_traceback=show_traceback)
    else:
        from pipeline.commands.on_workers import cluster_of, run_on_workers  # a second that few need

        device = source.read(TrainSection).train.device
        with doing("what decides the tries", 0.0), cluster_of(scheduler, 0, device) as client:
            for ended in run_on_workers(client, ["what decides the tries"], lambda number: function):
                found = ended.value
    if isinstance(found, ChildFailure):
        error = PipelineError(found.message)
        error.exit_code = found.exit_code
        raise error
    return cast(dict[str, Any], found)


def _failed(
    sweep: Sweep, number: int, failures: Mapping[int, ChildFailure], done: Callable[[dict[str, Any]], None]
) -> None:
    """Keep why a try failed. Raises PipelineError if none ended yet and two failed alike: so would all others.

    One alone may fail by its own constants, and so may two that share one which others do not have.
    """
    tries, failure = sweep.tries.read(), failures[number]
    one = next(each for each in tries if each.number == number)
    sweep.tries.write(changed(one, state="failed", error=failure.message))
    alike = [each for each in tries if each.number in failures and _reason(failures[each.number]) == _reason(failure)]
    own = {key for key, axis in sweep.space.axes.items() if len(axis.tried()) > 1}
    apart = any(all(each.values[key] != one.values[key] for key in own) for each in alike if each.number != number)
    if failure.exit_code == 2 and apart and not any(each.state in ENDED for each in tries):
        done(sweep.write(sweep.tries.read()))
        what = "two tries failed for the same reason, and the others would, too"
        error = PipelineError(what, where=sweep.folder, fix=MEND_HINT)
        error.exit_code = 2
        raise error


def _reason(failure: ChildFailure) -> str:
    """Return a message without the folder of its try."""
    return re.sub(r"(?<=tries[/\\])\.?\d{4,}(\.[0-9a-f]+\.partial)?", "", failure.message)


def _tell(tries: Sequence[Try], number: int) -> None:
    one, best = next(each for each in tries if each.number == number), best_of(tries)
    score = "" if not one.curve else f", holdout {one.score if one.score is not None else max(one.curve):.2%}"
    text = f"try {number}: {one.state} after {len(one.curve)} epochs{score}"
    print(text if best is None else f"{text}; best: {best.score:.2%}, try {best.number}: {best.text()}", flush=True)


def _told(
    sweep: Sweep, source: ConfigFile, failures: Mapping[int, ChildFailure], done: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Write and draw what came out, and say it. Raises PipelineError if no try is finished."""
    tries = sweep.tries.read()
    facts, best = sweep.write(tries), best_of(tries)
    done(facts)
    if any(one.curve for one in tries):
        write_atomic(sweep.folder / PICTURE, drawn(f"{sweep.name}: {len(tries)} tries", sweep.space, tries))
    if best is None:
        error = PipelineError("no try could be finished", where=sweep.folder, fix=MEND_HINT)
        codes = {each.exit_code for each in failures.values()}
        error.exit_code = codes.pop() if len(codes) == 1 else 1
        raise error
    states = {state: sum(one.state == state for one in tries) for state in ("finished", "stopped", "failed")}
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    cost = facts["cost"]
    most = "" if sweep.training.patience is None else "at most "  # tries may end by it
    epochs = f"{cost['epochs']:,} epochs ({most}{cost['epochs_without_stopping']:,} without stopping)"
    print(f"{len(tries)} tries: {counts}; {epochs}, {duration(cost['processor_seconds'])} of processor time")
    print(f"chosen: try {best.number}, {best.score:.2%} on the holdout: {best.text()}")
    chosen = sweep.space.with_values(source, best.values).raw()["objectives"][sweep.name.objectives]
    print(to_yaml({"objectives": {sweep.name.objectives: chosen}}).rstrip())
    print(f"{sweep.folder / RESULT}, {sweep.folder / PICTURE}: all tries")
    return facts
