"""After a power cut at any moment, what the ledger lists is there in full, and a published cache is whole.

The disk is a model that keeps only what was synced (`power_cut`); the run is the real one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from faults import Faults
from intact import verify_files
from power_cut import Chance, Choice, Directory, Disk, Everything, File, NamesOnly, Recorder, Tree, lay_out
from store_standins import TinyNetwork, TinySamples, TinyViews, cache, content
from watched_disk import Call, watch

ROOT = "zarr.json"
State = frozenset[tuple[str, bytes | None]]
"""A tree that can be compared with others."""
LUCK: list[Callable[[int], Choice]] = [
    lambda seed: Choice(),
    lambda seed: Everything(),
    lambda seed: NamesOnly(),
    Chance,
]


def small(target: Path, **changes: Any) -> Path:
    """Two views of five samples in row blocks of three: five units."""
    arguments = {"samples": TinySamples(5), "views": TinyViews(count=2), "rows_per_block": 3, "micro_batch": 3}
    return cache(target, **(arguments | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    return content(small(tmp_path_factory.mktemp("whole") / "a"))


def recorded(folder: Path, deaf: Callable[[Call], bool] = lambda call: False, **changes: Any) -> Recorder:
    """A run that makes `folder / "a"`, written down."""
    folder.mkdir(exist_ok=True)
    recorder = Recorder(folder, deaf)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, folder, recorder)
        small(folder / "a", **changes)
    return recorder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return recorded(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def found() -> set[State]:
    """The states from which a run went on, in any test."""
    return set()


def lines_of(ledger: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a ledger that are right, by `docs/cache-format.md`. Only the last may be wrong."""
    *lines, torn = ledger.split(b"\n")
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            check = record.pop("check")
            text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            right = google_crc32c.value(text.encode()) == int(check, 16)
        except (ValueError, KeyError, AttributeError, UnicodeDecodeError):
            right = False
        if right:
            yield record
        else:
            assert number == len(lines) - 1, "a line that is not the last is damaged"
            assert not torn


def below(tree: Tree, folder: str) -> dict[str, bytes]:
    """The files below a folder of a state."""
    return {
        path[len(folder) + 1 :]: data
        for path, data in tree.items()
        if path.startswith(f"{folder}/") and data is not None
    }


def check(tree: Tree, whole: dict[str, bytes], old: dict[str, bytes] | None = None) -> int:
    """Fail if the state lies about what is finished; returns the number of units that it lists.

    old: what was published before.
    """
    units = 0
    for path, ledger in tree.items():
        if re.fullmatch(r"\.a\.[0-9a-f]{16}\.partial/ledger\.jsonl", path) and ledger is not None:
            files = below(tree, os.path.dirname(path))  # noqa: PTH120
            for record in lines_of(ledger):
                units += 1
                for name, checksum in record["files"].items():
                    assert files.get(name) == whole[name], f"{name} of unit {record['unit']} is not whole"
                    assert whole[name][-4:] == int(checksum, 16).to_bytes(4, "little")
    if "a" in tree:
        files = below(tree, "a")
        root = files.pop(ROOT, b"")
        assert files in (whole, old), "half a cache is published"
        json.loads(root)
    return units


def states(recorder: Recorder, seeds: int) -> Iterator[tuple[int, Tree]]:
    """Disks that may be found, each once: after every step with every kind of luck, and by chance so many times."""
    found: set[State] = set()
    for step, disk in enumerate(recorder.disks()):
        for choice in (Choice(), Everything(), NamesOnly(), *(Chance(step * 1000 + seed) for seed in range(seeds))):
            if new(tree := disk.found(choice), found):
                yield step, tree


def new(tree: Tree, found: set[State]) -> bool:
    """Whether a state is none of those that were found; then it is one of them."""
    state = frozenset(tree.items())
    if state in found:
        return False
    found.add(state)
    return True


def check_all(recorder: Recorder, whole: dict[str, bytes], seeds: int) -> set[int]:
    """Check every state; returns the numbers of units that were listed."""
    return {check(tree, whole) for _, tree in states(recorder, seeds)}


def test_what_is_listed_is_there_whenever_the_power_goes(run: Recorder, whole: dict[str, bytes]) -> None:
    kinds = {call.kind for call, _ in run.steps}
    assert kinds >= {"open", "write", "fsync", "rename", "mkdir", "unlink"}
    assert check_all(run, whole, 3) == {0, 1, 2, 3, 4, 5}


def test_what_was_said_to_be_done_lasts(run: Recorder, whole: dict[str, bytes]) -> None:
    *_, last = run.disks()
    files = below(last.found(Choice()), "a")
    del files[ROOT]
    assert files == whole


def go_on(
    recorder: Recorder,
    folder: Path,
    whole: dict[str, bytes],
    faults: Faults,
    found: set[State],
    *,
    every: int,
    seed: int = 0,
) -> None:
    """Lay out every so-manyth state that was not found before, and run again."""
    for step, disk in itertools.islice(enumerate(recorder.disks()), 0, None, every):
        tree = disk.found(LUCK[step // every % len(LUCK)](seed + step))
        if not new(tree, found):
            continue
        place = folder / f"{step}-{seed}"
        lay_out(tree, place)
        with faults("power cut: the next run goes on (model of a disk)"):
            path = small(place / "a", wait=False)
            assert content(path) == whole
            verify_files(path)
            assert [each.name for each in place.iterdir()] == ["a"]


def test_a_run_goes_on_from_what_the_power_left(
    run: Recorder, whole: dict[str, bytes], tmp_path: Path, faults: Faults, found: set[State]
) -> None:
    go_on(run, tmp_path, whole, faults, found, every=len(run.steps) // 10)
    assert sum(tried for tried, _ in faults.counts.values()) >= 8


@pytest.mark.long
def test_a_run_goes_on_from_all_that_the_power_may_leave(
    run: Recorder, whole: dict[str, bytes], tmp_path: Path, faults: Faults, found: set[State]
) -> None:
    for _, tree in states(run, 50):
        with faults("power cut: what is listed is whole (model of a disk)"):
            check(tree, whole)
    for seed in range(2):
        go_on(run, tmp_path, whole, faults, found, every=1, seed=seed)


def test_a_second_power_cut_during_the_way_back(run: Recorder, whole: dict[str, bytes], tmp_path: Path) -> None:
    """The run that goes on starts from a disk on which everything that it finds lasts."""
    middle = len(run.steps) // 2
    tree = next(itertools.islice(run.disks(), middle, None)).found(Chance(7))
    lay_out(tree, tmp_path / "b")
    before = durable(tree)
    again = Recorder(tmp_path / "b")
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, tmp_path / "b", again)
        small(tmp_path / "b" / "a")
    for step, disk in enumerate(again.disks(before)):
        for choice in (Choice(), Everything(), NamesOnly(), Chance(step)):
            check(disk.found(choice), whole)


def durable(tree: Tree) -> Disk:
    """A disk on which all of a state lasts."""
    disk = Disk()
    for path, data in sorted(tree.items()):
        above = os.path.dirname(path)  # noqa: PTH120
        parent = disk.at(above)
        assert isinstance(parent, Directory)
        parent.durable[os.path.basename(path)] = Directory() if data is None else File(data, data)  # noqa: PTH119
    return disk


def test_a_cache_that_is_replaced_is_old_new_or_absent_but_never_mixed(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "b"
    old = content(small(folder / "a", network=TinyNetwork(seed=1)))
    begin = (
        {"a": None}
        | {f"a/{name}": data for name, data in old.items()}
        | {"a/zarr.json": (folder / "a/zarr.json").read_bytes()}
    )
    for name in list(begin):
        begin |= {
            f"a/{parent}": None
            for parent in map(str, Path(name.removeprefix("a/")).parents)
            if parent != "." and name != "a"
        }
    recorder = Recorder(folder)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, folder, recorder)
        small(folder / "a", replace=True)
    there = set()
    for step, disk in enumerate(recorder.disks(durable(begin))):
        for choice in (Choice(), Everything(), NamesOnly(), Chance(step)):
            tree = disk.found(choice)
            check(tree, whole, old)
            there.add("a" in tree and below(tree, "a")[".fingerprint"] == whole[".fingerprint"])
        *_, last = (tree,)
    assert there == {False, True}
    assert "a" in last


def chunk(path: str) -> bool:
    return "/c/" in path


PLANTED: dict[str, Callable[[Call], bool]] = {
    "chunk files are not synced": lambda call: call.kind == "fsync" and chunk(call.path) and Path(call.path).is_file(),
    "names of chunk files are not synced": lambda call: (
        call.kind == "fsync" and Path(call.path).is_dir() and chunk(call.path + "/")
    ),
    "new directories are not synced": lambda call: (
        call.kind == "fsync" and call.path.endswith((".partial", "logits", "features"))
    ),
    "the ledger is not synced": lambda call: call.kind == "fsync" and call.path.endswith("ledger.jsonl"),
    "metadata is not synced": lambda call: call.kind == "fsync" and "zarr.json" in call.path,
    "the fingerprint is not synced": lambda call: call.kind == "fsync" and ".fingerprint" in call.path,
    "nothing is synced": lambda call: call.kind == "fsync",
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_the_model_notices_what_is_not_synced(tmp_path: Path, whole: dict[str, bytes], mistake: str) -> None:
    recorder = recorded(tmp_path / "run", PLANTED[mistake])
    with pytest.raises((AssertionError, ValueError)):
        check_all(recorder, whole, 2)


def test_the_model_notices_that_a_published_name_is_not_synced(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = os.path.realpath(tmp_path / "run")
    recorder = recorded(tmp_path / "run", lambda call: call.kind == "fsync" and call.path == folder)
    *_, last = recorder.disks()
    assert "a" not in last.found(Choice())


class TestTheModel:
    """By hand, what POSIX says."""

    def disk(self) -> Disk:
        disk = Disk()
        disk.make("f", File())
        disk.write("f", b"one")
        return disk

    def test_nothing_lasts_unless_it_is_synced(self) -> None:
        disk = self.disk()
        assert disk.found(Choice()) == {}
        assert disk.found(Everything()) == {"f": b"one"}
        assert disk.found(NamesOnly()) == {"f": b""}

    def test_content_without_name_and_name_without_content(self) -> None:
        disk = self.disk()
        disk.sync("f")
        assert disk.found(Choice()) == {}
        assert disk.found(NamesOnly()) == {"f": b"one"}
        other = self.disk()
        other.sync("")
        assert other.found(Choice()) == {"f": b""}

    def test_an_append_that_was_not_synced_is_torn_behind_what_was(self) -> None:
        disk = self.disk()
        disk.sync("f")
        disk.sync("")
        disk.write("f", b"one,two")
        found = {disk.found(Chance(seed))["f"] for seed in range(300)}
        assert all(each is not None and each.startswith(b"one") for each in found)
        assert {b"one", b"one,two", b"one,", b"one\0\0\0\0", b"one\0\0\0o"} <= found

    def test_a_rename_is_one_change(self) -> None:
        disk = self.disk()
        disk.sync("f")
        disk.sync("")
        disk.rename("f", "g")
        found = {tuple(disk.found(Chance(seed))) for seed in range(50)}
        assert found == {("f",), ("g",)}
        disk.sync("")
        assert disk.found(Choice()) == {"g": b"one"}

    def test_a_rename_between_directories_loses_nothing(self) -> None:
        disk = self.disk()
        disk.make("d", Directory())
        for path in ("f", "d", ""):
            disk.sync(path)
        disk.rename("f", "d/f")
        for seed in range(50):
            assert {"f", "d/f"} & set(disk.found(Chance(seed)))
        disk.sync("")
        assert "f" in disk.found(Choice())
        disk.sync("d")
        disk.sync("")
        assert disk.found(Choice()) == {"d": None, "d/f": b"one"}

    def test_changes_of_one_name_keep_their_order(self) -> None:
        disk = self.disk()
        disk.sync("f")
        disk.make("g", File(b"x", b"x"))
        disk.rename("g", "f")
        found = {frozenset(disk.found(Chance(seed)).items()) for seed in range(100)}
        assert {frozenset(), frozenset({("f", b"one")}), frozenset({("f", b"x")})} <= found
        assert all(dict(state).get("g") in (None, b"x") for state in found)
