"""Trains several students at once in this process, on one GPU: `train-students --side-by-side N`.

A small student leaves most of a GPU idle. Here the steps of several are launched in turn, each student's as a graph of
its own (`train.capture`) on a stream of its own, so that the GPU computes them beside each other.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from pipeline.commands.children import ChildFailure, Ended, OfProcess
from pipeline.commands.errors_for_people import said_of
from pipeline.commands.prepared_students import Prepared, prepared_apart
from pipeline.errors import message
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.models.device import chance_operations, reproducible
from pipeline.stepwise import Stepwise
from pipeline.training import Verify

if TYPE_CHECKING:
    from pipeline.training.side_by_side import Lane

NO_MEMORY = ChildFailure(
    message(
        "the GPU has no memory left for this student",
        fix="lower train.batch_size, or set train.resident: false; its checkpoint is kept",
    ),
    1,
)
"""What ended a student for which there was no room."""


def side_by_side(
    source: ConfigFile,
    names: Sequence[RunName],
    work: Callable[[int, Callable[[], str]], Stepwise[OfProcess]],
    at_once: int,
    verify: Verify,
    *,
    replace: bool,
    show_traceback: bool,
) -> Iterator[Ended]:
    """Train students at once in this process; yield each when it has ended.

    Args:
        source, verify, replace: as of `prepared`.
        names: of the runs, in their order.
        work: returns what trains the student with a number; its second argument returns `Prepared.code`.
        at_once: how many are trained at once.
        show_traceback: print where in the code an error arose.

    Raises ConfigError as `refuse_side_by_side` does.
    """
    found = prepared_apart(source, names, verify, replace=replace, show_traceback=show_traceback)
    able, ended = dict[int, Prepared](), 0
    for number, each in enumerate(found):
        if isinstance(each, Prepared):
            able[number] = each
        else:
            ended += 1
            print(f"[{ended}/{len(names)}] {names[number]}: {_state(each)}", flush=True)
            yield Ended(number, 0.0, each)
    if not able:
        return
    numbers, device = [*able], torch.device(next(iter(able.values())).settings.device)
    begin = lambda place: work(numbers[place], able[numbers[place]].code_now)  # noqa: E731
    for outcome in trained_in_turn(len(numbers), begin, at_once, device, show_traceback=show_traceback):
        ended += 1
        number = numbers[outcome.number]
        print(f"[{ended}/{len(names)}] {names[number]}: {_state(outcome.value)}", flush=True)
        yield outcome._replace(number=number)


def _state(value: object | ChildFailure) -> str:
    return "failed" if isinstance(value, ChildFailure) else cast(OfProcess, value).state


@dataclass
class _Running:
    number: int
    start: float
    lane: Lane[object]


def trained_in_turn(
    count: int,
    begin: Callable[[int], Stepwise[object]],
    at_once: int,
    device: torch.device,
    *,
    show_traceback: bool = False,
) -> Iterator[Ended]:
    """Train students at once, a step of each in turn; yield each when it has ended. One that fails ends alone.

    One for which the GPU has no memory beside others is begun again later, from its checkpoint, and from then on one
    less is trained at once.

    Args:
        count: of the students.
        begin: begins the student with a number.
        at_once: how many are trained at once. When one has ended, the next begins.
        device: on which all of them compute.
        show_traceback: print where in the code an error arose.
    """
    from pipeline.training.side_by_side import Lane  # not where students are opened: it is no code of theirs

    waiting, running = deque(range(count)), list[_Running]()
    with reproducible(device), chance_operations(device), ExitStack() as left:
        left.callback(_close_all, running)
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.popleft()
                running.append(_Running(number, time.monotonic(), Lane(begin(number), device)))
            for each in [*running]:
                outcome = _advanced(each, show_traceback=show_traceback)
                if outcome is None:
                    continue
                running.remove(each)
                _let_go(device)
                if outcome.value is NO_MEMORY and running:
                    at_once = len(running)
                    print(f"no memory on the GPU for one more student: {at_once} at once from now on", flush=True)
                    waiting.append(each.number)
                else:
                    yield outcome


def _advanced(each: _Running, *, show_traceback: bool) -> Ended | None:
    """Do the next step of a student. Return None if there is more to do, else its result, or what ended it."""
    try:
        if each.lane.advance():
            return None
        value: object = each.lane.result
    except (Exception, SystemExit) as error:
        if show_traceback:
            traceback.print_exception(error)
        value = NO_MEMORY if isinstance(error, torch.cuda.OutOfMemoryError) else ChildFailure(*said_of(error))
    return Ended(each.number, time.monotonic() - each.start, value)


def _let_go(device: torch.device) -> None:
    """Give back the memory that a student had on the GPU: it serves no other stream."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _close_all(running: list[_Running]) -> None:
    """Leave all students where they are, each though another cannot be left."""
    with ExitStack() as stack:
        for each in running:
            stack.callback(each.lane.close)
