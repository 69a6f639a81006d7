"""What a worker does with units, without a cluster."""

from __future__ import annotations

import ast
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_standins import TinyNetwork, cache, content, teachers

from pipeline.errors import CacheError, ConfigError, Problem
from pipeline.publishing.scratch import Scratch
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.distribution import _commit
from pipeline.store.cluster.watch import WorkerProvenance
from pipeline.store.cluster.worker import Assignment, Receipt, UnitComputer, WorkerInfo, worker_identity
from pipeline.store.format.arrays import Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.local.workspace import LocalPlace, LocalWorkspace
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> StoreLayout:
    """Of the tiny cache."""
    return TeacherCache.open(cache(tmp_path_factory.mktemp("plan") / "a")).manifest.layout


@pytest.fixture
def assigned(plan: StoreLayout, tmp_path: Path) -> bytes:
    """Units of the tiny cache, to be written to the test's folder."""
    return pickle.dumps(Assignment("tiny", plan, LocalPlace(tmp_path, None), worker_identity(teachers()["tiny"])))


def test_each_attempt_at_a_unit_has_files_of_its_own(assigned: bytes, tmp_path: Path) -> None:
    computer = UnitComputer(teachers)
    receipts = [computer(assigned, 2, [1])[0] for _ in range(2)]
    assert receipts[0].attempt != receipts[1].attempt
    assert receipts[0].files == receipts[1].files
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(receipts[0].files)
    for attempt in (receipt.attempt for receipt in receipts):
        assert sum(attempt in path.name for path in files) == len(files) // 2
    computer.close()


def test_a_worker_stops_between_micro_batches_when_the_command_is_over(assigned: bytes, tmp_path: Path) -> None:
    asked: list[int] = []

    class Closing(TinyNetwork):
        def forward(self, images: Any) -> Any:
            asked.append(len(images))
            computer.close()
            return super().forward(images)

    computer = UnitComputer(lambda: teachers(network=Closing()))
    with pytest.raises(CacheError, match="is over"):
        computer(assigned, 0, [0])
    assert len(asked) <= 2
    assert computer._teachers is None
    assert not list(tmp_path.rglob("*.new"))
    with pytest.raises(CacheError, match="is over"):
        computer(assigned, 1, [0])


def test_a_worker_that_is_asked_for_nothing_lets_go_and_opens_again(
    assigned: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Semaphore(0)

    def opening() -> dict[str, TeacherPass]:
        opened.release()
        return teachers()

    monkeypatch.setattr("pipeline.store.cluster.worker.IDLE_SECONDS", 0.01)
    computer = UnitComputer(opening)
    computer(assigned, 0, [0])
    timer = computer._idle
    assert timer is not None
    timer.join(120)
    assert computer._teachers is None
    assert computer(assigned, 1, [0])[0].unit == Unit(0, 1)
    assert opened.acquire(blocking=False)
    assert opened.acquire(blocking=False)
    computer.close()


def test_a_worker_does_not_let_go_of_the_teacher_in_the_middle_of_a_unit(
    assigned: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, asked = threading.Event(), threading.Event()

    class Slow(TinyNetwork):
        def forward(self, images: Any) -> Any:
            asked.set()
            slow.wait(120)
            return super().forward(images)

    monkeypatch.setattr("pipeline.store.cluster.worker.IDLE_SECONDS", 0.01)
    computer = UnitComputer(lambda: teachers(network=Slow()))
    thread = threading.Thread(target=computer, args=(assigned, 0, [0]))
    thread.start()
    assert asked.wait(120)
    computer._free()  # as a timer would that was about to ring
    assert computer._teachers is not None
    slow.set()
    thread.join(120)
    assert computer._idle is not None
    computer._idle.join(120)
    assert computer._teachers is None


def test_what_a_worker_holds_is_made_when_it_is_asked_for(assigned: bytes) -> None:
    held = pickle.loads(pickle.dumps(workers.Held(pickle.dumps(UnitComputer(teachers)))))
    assert held._object is None
    assert held.get() is held.get()
    held.teardown(None)
    with pytest.raises(CacheError, match="is over"):
        held.get()(assigned, 0, [0])


def test_a_worker_of_another_version_is_refused(assigned: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.cluster.worker.versions", lambda: {"decant-kd": "0.0.7"})
    with pytest.raises(
        CacheError, match=r"(?s)a worker on \S+ does not see.*version.decant-kd: .*0\.0\.7.*same version"
    ):
        UnitComputer(teachers)(assigned, 0, [0])


def test_a_worker_without_the_folder_is_named(plan: StoreLayout, tmp_path: Path) -> None:
    assignment = Assignment("tiny", plan, LocalPlace(tmp_path / "elsewhere", None), worker_identity(teachers()["tiny"]))
    with pytest.raises(CacheError, match=r"(?s)a worker on \S+ cannot write to the cache.*all workers share"):
        UnitComputer(teachers)(pickle.dumps(assignment), 0, [0])
    assert not (tmp_path / "elsewhere").exists()


def test_files_that_a_worker_wrote_elsewhere_are_missed(
    plan: StoreLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.local.workspace.SEEN_SECONDS", 0.15)
    files = dict.fromkeys((spec.file(Unit(0, 0)) for spec in plan.arrays.values()), 0)
    receipt = Receipt(Unit(0, 0), "attempt", files, 1.0, WorkerInfo("far-away", "cpu", {}))
    with LocalWorkspace(tmp_path / "a", "0" * 64, plan, wait=False, notify=print) as workspace:
        with pytest.raises(CacheError, match=r"(?s)a worker on far-away wrote is not visible.*all workers share"):
            _commit(workspace, receipt)
        assert not workspace.units


def test_files_that_are_seen_a_moment_later_are_waited_for(assigned: bytes, plan: StoreLayout, tmp_path: Path) -> None:
    """As on a network file system, which remembers for a while what was not there."""
    with LocalWorkspace(tmp_path / "a", "0" * 64, plan, wait=False, notify=print) as workspace:
        assignment = Assignment("tiny", plan, workspace.place, worker_identity(teachers()["tiny"]))
        computer = UnitComputer(teachers)
        (receipt,) = computer(pickle.dumps(assignment), 2, [1])
        computer.close()
        late = [*workspace.folder.glob(f"logits/**/.*.{receipt.attempt}.new")]
        assert len(late) == 1
        hidden = late[0].rename(tmp_path / "hidden")
        timer = threading.Timer(0.15, hidden.rename, [late[0]])
        timer.start()
        _commit(workspace, receipt)
        timer.join()
        assert list(workspace.units) == ["1/2"]
        assert set(workspace.missing()) == {"static", *(unit.key for unit in plan.units)} - {"1/2"}


def test_a_worker_that_comes_too_late_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes until the cache gets its name, and afterwards."""
    whole = content(cache(tmp_path / "whole"))
    publish, places = Scratch.publish, []
    late = {"logits/c/0/0/0": np.zeros(4), "late/c/0": np.zeros(4)}

    def publishing(scratch: Scratch, replace: bool = False) -> None:
        places.append(LocalPlace(scratch.folder, None))
        places[0].write({name: late[name] for name in list(late)[:1]}, "early")
        publish(scratch, replace)

    monkeypatch.setattr(Scratch, "publish", publishing)
    assert content(cache(tmp_path / "a")) == whole
    with pytest.raises(CacheError, match="is finished"):
        places[0].write(late, "late")
    with pytest.raises(FileNotFoundError):  # it had looked before
        places[0]._write("late/c/0", late["late/c/0"], "late")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "whole"]
    assert content(tmp_path / "a") == whole


def receipt(device: str, torch: str) -> Receipt:
    return Receipt(Unit(0, 0), "", {}, 1.0, WorkerInfo("here", device, {"torch": torch}))


def test_workers_that_differ_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.cluster.watch.versions", lambda: {"torch": "2"})
    said: list[str] = []
    run: dict[str, Any] = {"device": "this"}
    roster = WorkerProvenance(run, said.append)
    for each in (receipt("A", "2"), receipt("A", "2"), receipt("B", "3"), receipt("A", "2")):
        roster.note(each)
    assert run == {
        "device": "A; B",
        "workers": [
            {"device": "A", "versions": {"torch": "2"}, "units": 3},
            {"device": "B", "versions": {"torch": "3"}, "units": 1},
        ],
    }
    assert said == [
        "note: workers differ, and so may the last bits of outputs: B on here, before A",
        'note: other versions on here: torch: expected "2", got "3"',
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CacheError("wrong", where="there", expected=1, got=2, fix="this"),
        lambda: ConfigError([Problem("a.b", "unknown", fix="c"), Problem("d", "absent")], "file.yaml"),
    ],
)
def test_errors_travel(make: Callable[[], Exception]) -> None:
    error = make()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    if isinstance(error, ConfigError):
        assert pickle.loads(pickle.dumps(error)).problems == error.problems


def test_dask_is_imported_only_where_it_is_used() -> None:
    """It takes a second; what needs it is imported inside functions."""
    heavy = {"distributed", "dask", "pipeline.store.cluster.held"}
    heavy |= {f"pipeline.store.cluster.{name}" for name in ("clusters", "distribution", "outstanding", "watch")}
    heavy |= {"pipeline.commands.on_workers"}
    users = set()
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/**/*.py")]:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            base = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if heavy & {base, *names, *(f"{base}.{name}" for name in names)}:
                users.add(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
    assert users == heavy - {"distributed", "dask"}
