"""Tasks of several views: a worker decodes once for all, and workers end together."""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from store_standins import TinyNetwork, content, teachers
from test_faults import At, interrupt
from test_shared_images import IMAGES, VIEWS, made, some_views
from test_workers_hang import LET_GO, STUCK, Clock, Stuck

from pipeline.data import Samples, split
from pipeline.publishing.artifacts import unfinished
from pipeline.publishing.ledger import Ledger
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.cluster.outstanding import OutstandingUnits, Task, TaskPlan
from pipeline.store.format.arrays import Unit
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache

BLOCKS = 3


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> deque[bytes]:
    """The image files that are decoded, in whatever thread. To compare what workers see, the first is, and no other."""
    files: deque[bytes] = deque()
    decode = split.decode_image

    def noting(encoded: Any, *rest: Any) -> Any:
        files.append(bytes(encoded))
        return decode(encoded, *rest)

    monkeypatch.setattr(split, "decode_image", noting)
    monkeypatch.setattr("pipeline.store.cluster.worker.COMPARED", 1)
    return files


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The tasks that are requested of workers."""
    tasks: list[Task] = []
    request = OutstandingUnits.request

    def noting(outstanding: OutstandingUnits, more: Any, *rest: Any) -> None:
        tasks.extend(more)
        request(outstanding, more, *rest)

    monkeypatch.setattr(OutstandingUnits, "request", noting)
    # As if there were work for many rounds: with so few units, tasks would be small.
    monkeypatch.setattr(TaskPlan, "_size", lambda plan: 1 if plan._watch.unit_seconds() is None else 8)
    return tasks


SEEN: list[Samples] = []


def opened(network: type[TinyNetwork]) -> dict[str, TeacherPass]:
    """What a worker opens."""
    return teachers(network=network(), samples=SEEN[-1], views=some_views())


def distributed(
    client: Client, target: Path, samples: Samples, network: type[TinyNetwork] = TinyNetwork, **changes: Any
) -> Path:
    """The cache of `made`, by workers."""
    SEEN.append(samples)
    with runners_on(client, partial(opened, network), changes.get("notify", lambda text: None)) as runners:
        return made(target, samples, runner=runners("tiny"), **changes)


@pytest.fixture(scope="module")
def whole(photographs: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(made(tmp_path_factory.mktemp("whole") / "a", photographs))


def test_a_worker_decodes_once_for_the_views_of_a_task_and_no_byte_changes(
    client: Client,
    photographs: Samples,
    whole: dict[str, bytes],
    requested: list[Task],
    decoded: deque[bytes],
    tmp_path: Path,
) -> None:
    path = distributed(client, tmp_path / "a", photographs)
    assert content(path) == whole
    every = [Unit(view, block) for view in range(VIEWS) for block in range(BLOCKS)]
    assert sorted(unit for task in requested for unit in task) == every
    tasks = Counter(task[0].block for task in requested)
    expected = {image: tasks[image // 8] for image in range(1, IMAGES)}
    files = [bytes(file) for file in photographs.split.stored(np.arange(IMAGES))]
    assert {image: decoded.count(files[image]) for image in expected} == expected
    assert {task[0].block for task in requested if len(task) == VIEWS} >= {1, 2}
    (run,) = TeacherCache.open(path).manifest.provenance["runs"]
    assert sum(kind["units"] for kind in run["workers"]) == VIEWS * BLOCKS


def test_ctrl_c_keeps_what_was_handed_in_of_tasks_of_several_views(
    client: Client,
    photographs: Samples,
    whole: dict[str, bytes],
    requested: list[Task],
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        distributed(client, tmp_path / "a", photographs, progress=At(40, interrupt))
    (folder,) = unfinished(tmp_path / "a")
    kept = set(Ledger(folder).units)
    assert len(kept) - 1 < VIEWS * BLOCKS
    handed_in = [keys for task in requested if kept & (keys := {unit.key for unit in task})]
    assert all(keys <= kept for keys in handed_in)
    assert max(map(len, handed_in)) > 1
    assert content(made(tmp_path / "a", photographs, wait=False)) == whole  # one process goes on


@pytest.mark.long
def test_tasks_of_several_views_that_hang_are_computed_by_others(
    client: Client,
    photographs: Samples,
    whole: dict[str, bytes],
    requested: list[Task],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    Stuck.where, clock, said = None, Clock(monkeypatch), list[str]()
    LET_GO.clear()

    def hang() -> None:
        """From the first unit on, when tasks have several."""
        STUCK.release()
        clock.jumps(client).advance(1)

    try:
        path = distributed(client, tmp_path / "a", photographs, Stuck, progress=At(1, hang), notify=said.append)
        assert content(path) == whole
        assert any(" long on " in text and str(Stuck.where) in text for text in said), said
    finally:
        LET_GO.set()


class Watch:
    """What is known of workers."""

    patience = 60.0

    def __init__(self, workers: int, seconds: float | None) -> None:
        self._workers, self._seconds = workers, seconds

    def count(self) -> int:
        return self._workers

    def unit_seconds(self) -> float | None:
        return self._seconds


def plan_of(views: int, most: int, workers: int, seconds: float | None) -> tuple[TaskPlan, list[Unit]]:
    watch: Any = Watch(workers, seconds)
    units = [Unit(view, block) for view in range(views) for block in range(10)]
    return TaskPlan(units, most, watch), units


def test_until_the_time_of_a_unit_is_known_each_worker_has_one() -> None:
    plan, _ = plan_of(8, 8, 4, None)
    assert plan.next(0, 1000) == [(Unit(view, 0),) for view in range(4)]
    assert plan.next(4, 1000) == []


def test_without_decoding_a_task_is_a_unit_as_many_as_are_allowed_in_the_order_of_views() -> None:
    plan, units = plan_of(8, 1, 4, 0.1)
    assert plan.next(0, 50) == [(unit,) for unit in units[:50]]


@pytest.mark.parametrize(("seconds", "size"), [(1.0, 8), (10.0, 6), (31.0, 1), (200.0, 1)])
def test_a_task_takes_no_longer_than_the_patience_with_workers(seconds: float, size: int) -> None:
    plan, _ = plan_of(96, 8, 4, seconds)
    assert [len(task) for task in plan.next(0, 1000)] == [size] * 12


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_end_within_a_unit_or_two_of_each_other(workers: int) -> None:
    """Each computes one task after the other, a unit in a second, and may hold three."""
    plan, units = plan_of(40, 8, workers, 1.0)
    queues: list[deque[Task]] = [deque() for _ in range(workers)]
    busy, sizes = [0] * workers, Counter[int]()
    while True:
        for task in plan.next(sum(map(len, queues)), 1000):
            min(queues, key=lambda queue: sum(map(len, queue))).append(task)
            sizes[len(task)] += 1
        if not any(queues):
            break
        first = min((one for one in range(workers) if queues[one]), key=lambda one: busy[one] + len(queues[one][0]))
        busy[first] += len(queues[first].popleft())
    assert sum(size * count for size, count in sizes.items()) == len(units)
    assert max(busy) - min(busy) <= 3
    assert sizes[8] * 8 >= len(units) / 2
