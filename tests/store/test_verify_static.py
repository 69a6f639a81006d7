"""A head and labels that are whole in themselves, and yet not the teacher's and the data set's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_standins import TinyNetwork, TinySamples, cache
from test_verify_files import put, rewrite
from test_verify_teacher import checked, elsewhere

from pipeline.inspection.files import check_files
from pipeline.inspection.static import HeadReport, LabelsReport, compare_heads, verify_labels
from pipeline.signals import LinearHead
from pipeline.store.reader import TeacherCache


class ZeroBias(TinyNetwork):
    """One value of its head is 0.0."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.head.bias[2] = 0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return cache(tmp_path / "cache.zarr", network=ZeroBias())


def up(place: Any) -> Callable[[Any], None]:
    """The next larger float32."""
    return lambda elements: elements.__setitem__(place, np.nextafter(elements[place], np.float32(np.inf)))


@pytest.mark.parametrize("other_machine", [False, True])
@pytest.mark.parametrize(
    ("name", "change", "count"),
    [
        ("head/weight/c/0/0", up((3, 1)), 1),
        ("head/bias/c/0", put(2, -0.0), 1),
        ("head/weight/c/0/0", lambda elements: elements.__setitem__(slice(None), elements[::-1].copy()), 24),
    ],
)
def test_a_head_that_is_not_the_teachers_is_found_to_the_last_bit(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Any], None],
    count: int,
    other_machine: bool,
) -> None:
    """Wherever the teacher runs: its weights are the same bits on every device. Of 5 x 6 weights and 5 biases."""
    if other_machine:
        elsewhere(monkeypatch)
    rewrite(store, name, change)
    assert check_files(store).damaged == {}  # whole in itself
    report = checked(store, ZeroBias())
    assert report.problems == [f"{count} of 35 values of the stored head are not those of the teacher's"]
    assert f"WRONG  {count} of 35 values" in report.text()
    found = report.to_json()
    assert found["fine"] is False
    assert found["teacher"]["head"] == {"values": 35, "different": count}


def test_the_teachers_own_head_is_fine(store: Path) -> None:
    report = checked(store, ZeroBias())
    assert report.problems == []
    assert report.to_json()["teacher"]["head"] == {"values": 35, "different": 0}
    assert "its head is the stored one, bit for bit" in report.text()


def test_heads_of_other_shapes_or_none_at_all() -> None:
    def head(classes: int) -> LinearHead:
        return LinearHead(torch.zeros(classes, 2), torch.zeros(classes))

    assert compare_heads(None, None) is None
    assert compare_heads(head(3), None) == compare_heads(None, head(3)) == HeadReport(9, 9)
    assert compare_heads(head(3), head(4)) == HeadReport(12, 12)
    assert compare_heads(head(3), head(3)) == HeadReport(9, 0)


def test_other_labels_are_told_about_and_no_problem(store: Path) -> None:
    samples = TinySamples()
    assert verify_labels(TeacherCache.open(store), samples) == LabelsReport(23, 0, None)  # type: ignore[arg-type]
    samples.labels[[7, 11]] = [(samples.labels[7] + 1) % 5, -1]
    report, first = checked(store, ZeroBias(), samples=samples), f"{TinySamples().labels[7]} in the cache"
    where = f"sample 7 (image-14): {first}, {samples.labels[7]} in the data set"
    assert report.problems == report.unchecked == []
    assert report.to_json()["labels"] == {"samples": 23, "different": 2, "first": where}
    assert f"note     2 of 23 labels are not those of the data set today, first {where}" in report.text()


def test_a_data_set_without_labels_has_none_of_those_that_are_stored(store: Path) -> None:
    samples: Any = TinySamples()
    samples.labels = None
    assert verify_labels(TeacherCache.open(store), samples).different == 23
    bare = cache(store.with_name("bare.zarr"), samples=samples)
    assert verify_labels(TeacherCache.open(bare), samples).different == 0
