"""Training from object storage: the same steps as from a folder, every chunk fetched once, ahead of its use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from object_server import Bucket
from training_pieces import samples, steps, views, whole

from pipeline.store.format.encoded import EncodedSignals
from pipeline.store.reader import TeacherCache
from pipeline.store.remote import chunks as fetched
from pipeline.store.remote.chunks import FetchedChunks
from pipeline.training import FreshViews, FromCaches, Steps, loader
from pipeline.training.encoded_outputs import EncodedEnsemble
from pipeline.training.order import WINDOW_BLOCKS, order
from pipeline.training.teacher_outputs import Upcoming

NAME = "caches/tiny.zarr"


@pytest.fixture
def remote(bucket: Bucket, road: Path) -> TeacherCache:
    bucket.upload(road / "artifacts/caches/tiny.zarr", NAME)
    return TeacherCache.open(bucket.url(NAME))


def alike(one: Any, other: Any) -> None:
    assert one.index == other.index
    for field in ("images", "labels", "sample", "view"):
        assert torch.equal(getattr(one, field), getattr(other, field))
    for said, expected in zip(members(one.teacher_outputs), members(other.teacher_outputs), strict=True):
        ours, theirs = said.arrays, expected.arrays
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def members(outputs: Any) -> tuple[EncodedSignals, ...]:
    return outputs.members if isinstance(outputs, EncodedEnsemble) else (outputs,)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 4])
def test_steps_are_those_of_a_folder_and_every_chunk_is_fetched_once(
    bucket: Bucket, road: Path, remote: TeacherCache, workers: int, start: int
) -> None:
    run = steps(road, whole(remote), resident_gigabytes=0, workers=workers)
    here = steps(road)
    got = list(loader(run, start, torch.device("cpu")))
    assert [step.index for step in got] == list(range(start, 9))
    for step in got:
        alike(step, here[step.index])
    counts = Counter(bucket.requests("GET", "/c/"))
    assert set(counts.values()) == {1}
    assert {key.split("/")[2] for key in counts} == {"view_parameters", "logits", "embedding", "features"}


@pytest.mark.parametrize("workers", [0, 2])
def test_of_several_views_in_a_step_each_is_expected_and_fetched_once(
    bucket: Bucket, road: Path, remote: TeacherCache, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(fetched, "KEPT_BYTES", 0)  # what is not expected is fetched again
    settings = {"views_per_step": 2, "epochs": 2, "resident_gigabytes": 0, "workers": workers}
    run, here = steps(road, whole(remote), **settings), steps(road, **settings)
    for step in loader(run, 0, torch.device("cpu")):
        alike(step, here[step.index])
    assert set(Counter(bucket.requests("GET", "/c/")).values()) == {1}


def test_what_is_held_is_what_was_foretold(road: Path, remote: TeacherCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of one row block each: of two views, and of one."""
    monkeypatch.setattr(fetched, "KEPT_BYTES", 0)
    monkeypatch.setattr(fetched, "BLOCKS_PER_VIEW", 1)
    assert isinstance(remote._chunks, FetchedChunks)
    for per_step in (1, 2):
        windows = [(view, np.array([row])) for row in (0, 25) for view in range(per_step)]
        remote.expect(windows)
        for view, rows in windows:
            remote.read_encoded(view, rows)
            remote.view_parameters(view, rows)
        held = sum(spec.chunk_bytes for spec, _ in remote._chunks._held)
        assert held == remote.held_bytes(per_step)


class Watched(FreshViews):
    """A remote source that notes what it is told to expect, and what is asked for then."""

    remote = True

    def __init__(self) -> None:
        self.told: list[list[tuple[int, NDArray[np.int64]]]] = []
        self.asked = 0

    def expect(self, upcoming: Upcoming) -> None:
        self.told.append(list(upcoming))

    def teacher_outputs(self, view: int, samples: NDArray[np.int64], images: Any) -> None:
        """It is among what was announced last."""
        self.asked += 1
        expected = {(number, int(row)) for number, rows in self.told[-1] for row in rows}
        assert {(view, int(row)) for row in samples} <= expected


@pytest.mark.parametrize("batch_size", [3, 7])
def test_a_source_is_told_of_this_window_and_the_next(road: Path, batch_size: int) -> None:
    plain = steps(road, epochs=3, batch_size=batch_size)
    watched = Watched()
    run = Steps(plain.samples, plain.views, watched, range(2), plain.config, 5, rows_per_block=1)
    for index in range(len(run)):
        assert run[index].teacher_outputs is None
    assert watched.asked == len(run)
    windows = [
        (view, order(5, epoch, 48, 1)[start : start + WINDOW_BLOCKS].tolist())
        for epoch, view in enumerate((0, 1, 0))
        for start in (0, 16, 32)
    ]
    told = [[(view, rows.tolist()) for view, rows in part] for part in watched.told]
    assert told == [windows[i : i + 2] for i in range(9)]


def test_a_run_that_starts_in_the_middle_says_where(road: Path) -> None:
    plain = steps(road, epochs=3, batch_size=3)
    watched = Watched()
    run = Steps(plain.samples, plain.views, watched, range(2), plain.config, 5, rows_per_block=1)
    run[16 + 6]
    ((view, rows), (_, following)) = watched.told[0]
    assert view == 1
    assert rows.tolist() == order(5, 1, 48, 1)[16:32].tolist()
    assert following.tolist() == order(5, 1, 48, 1)[32:].tolist()


def test_a_source_at_hand_is_told_nothing(road: Path) -> None:
    run = steps(road)
    run.source.expect = None  # type: ignore[assignment, method-assign]
    assert len(list(loader(run, 0, torch.device("cpu")))) == 9


MEMBERS = {"tiny": "artifacts/caches/tiny.zarr", "more": "more.zarr", "other": "other.zarr"}
"""Views 0 and 1, and 2 and 3, of one teacher, and 0 to 3 of another: row blocks of 20, 13 and 20 samples."""


@pytest.mark.parametrize(
    ("workers", "afar"),
    [(0, ("more",)), (0, ("tiny", "other")), (0, ("tiny", "more", "other")), (2, ("tiny", "other"))],
)
def test_of_several_caches_each_that_lies_afar_is_fetched_once_and_the_others_are_at_hand(
    bucket: Bucket, several: Path, workers: int, afar: tuple[str, ...]
) -> None:
    for name in afar:
        bucket.upload(several / MEMBERS[name], f"{name}.zarr")

    def opened(remote: tuple[str, ...]) -> FromCaches:
        opened = {
            n: TeacherCache.open(bucket.url(f"{n}.zarr") if n in remote else several / MEMBERS[n]) for n in MEMBERS
        }
        parts = [(opened["tiny"], (0, 1)), (opened["more"], (2,)), (opened["other"], (0, 1, 2))]
        return FromCaches.of(parts, "mean-logits").reading(("embedding",))

    def run(source: FromCaches) -> Steps:
        settings = steps(several, epochs=4, resident_gigabytes=0, workers=workers).config
        return Steps(samples(several), views(), source, source.views, settings, 0, rows_per_block=2)

    source, here = run(opened(afar)), run(opened(()))
    assert (source.source.remote, here.source.remote) == (True, False)
    got = list(loader(source, 0, torch.device("cpu")))
    assert [step.index for step in got] == list(range(len(here)))
    for step in got:
        alike(step, here[step.index])
    counts = Counter(bucket.requests("GET", "/c/"))
    assert set(counts.values()) == {1}
    read = {tuple(key.split("/")[:2]) for key in counts}
    own = {(f"{n}.zarr", array) for n in afar for array in ("view_parameters", "logits", "embedding")}
    assert read == own - {("other.zarr", "view_parameters"), ("other.zarr", "embedding")}


def test_a_cache_without_the_next_views_lets_go(bucket: Bucket, several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "KEPT_BYTES", 0)
    for name in ("tiny", "more"):
        bucket.upload(several / MEMBERS[name], f"{name}.zarr")
    tiny, more = (TeacherCache.open(bucket.url(f"{name}.zarr")) for name in ("tiny", "more"))
    source = FromCaches.of([(tiny, (0, 1)), (more, (2, 3))])
    rows = np.arange(48)
    source.expect([(1, rows), (2, rows)])
    source.teacher_outputs(1, rows, torch.empty(0))
    source.teacher_outputs(2, rows, torch.empty(0))
    assert isinstance(tiny._chunks, FetchedChunks)
    assert tiny._chunks._held
    source.expect([(2, rows), (3, rows)])
    assert not tiny._chunks._held
