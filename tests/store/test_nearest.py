"""The nearest samples of each in a cache: who they are, by comparing all, and the file in which they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import pipeline.store.nearest
from pipeline.errors import CacheCorrupt
from pipeline.progress import Silent
from pipeline.store.nearest import Among, find_nearest, kept_nearest
from pipeline.store.reader import TeacherCache

MAIN = Path("artifacts/caches/tiny.zarr")
CPU = torch.device("cpu")


def opened(views: int | None = None) -> dict[int, TeacherCache]:
    """The cache by the numbers of its views, or of so many of them."""
    cache = TeacherCache.open(MAIN)
    return dict.fromkeys([*cache.views][:views], cache)


def by_sorting(views: int | None = None) -> np.ndarray:
    """All samples by nearness, [N, N - 1], as a loop finds them in what zarr reads."""
    array = np.asarray(zarr.open_group(MAIN, mode="r")["embedding"]).astype(np.float64)[:views]
    vectors = (array / np.linalg.norm(array, axis=2, keepdims=True)).mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    for i, one in enumerate(vectors):
        near = [(-round(float(one @ other), 9), j) for j, other in enumerate(vectors) if j != i]
        found.append([j for _, j in sorted(near)])
    return np.array(found)


@pytest.mark.parametrize("views", [None, 1])
def test_they_are_those_of_a_sort_of_all(here: Path, views: int | None):
    expected = by_sorting(views)
    found = find_nearest(opened(views), 7, CPU, Silent())
    assert found.dtype == np.int32
    assert np.array_equal(found, expected[:, :7])
    everyone = find_nearest(opened(views), expected.shape[1], CPU, Silent())
    assert np.array_equal(everyone, expected)


def test_they_do_not_depend_on_the_pieces(here: Path, monkeypatch: pytest.MonkeyPatch):
    whole, width = find_nearest(opened(), 5, CPU, Silent()), opened()[0].shapes.embedding
    assert width is not None
    for vectors, pairs in ((50 * width, 70), (width * (len(whole) - 1), 10**9)):
        monkeypatch.setattr(pipeline.store.nearest, "VECTORS_AT_ONCE", vectors)
        monkeypatch.setattr(pipeline.store.nearest, "PAIRS_AT_ONCE", pairs)
        assert np.array_equal(find_nearest(opened(), 5, CPU, Silent()), whole)


class Alike:
    """A cache of four samples, of which the first three are the same and the last has no direction."""

    path, count = Path("alike.zarr"), 4

    def signal(self, name: str, view: int, samples: np.ndarray) -> torch.Tensor:
        return torch.tensor([[3.0, 4.0], [3.0, 4.0], [6.0, 8.0], [0.0, 0.0]])[torch.from_numpy(samples)]


def test_of_equally_near_samples_the_lower_number_comes_first():
    found = find_nearest({0: Alike()}, 3, CPU, Silent())  # type: ignore[dict-item]
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_they_are_found_once_and_fewer_of_them_read(here: Path, monkeypatch: pytest.MonkeyPatch):
    first = kept_nearest(opened(), 6, CPU)
    folder = Path("artifacts/caches/tiny.statistics")
    assert sorted(file.name for file in folder.iterdir()) == [".gitignore", "embedding.nearest"]
    assert np.array_equal(kept_nearest(opened(), 8, CPU)[:, :6], first)  # of more there is none
    monkeypatch.setattr(pipeline.store.nearest, "find_nearest", None)
    assert np.array_equal(kept_nearest(opened(), 6, CPU), first)
    assert np.array_equal(kept_nearest(opened(), 2, CPU), first[:, :2])


def test_a_sample_has_no_more_than_all_others(here: Path):
    found = kept_nearest(opened(1), 10**6, CPU)
    assert np.array_equal(found, by_sorting(1))


def test_other_views_are_not_taken_for_these_and_both_are_kept(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    first = kept_nearest(opened(1), 3, CPU)
    assert np.array_equal(kept_nearest(opened(), 3, CPU), by_sorting()[:, :3])
    assert len(list(Path("artifacts/caches/tiny.statistics").glob("embedding.nearest*"))) == 2
    monkeypatch.setattr(pipeline.store.nearest, "find_nearest", None)
    assert np.array_equal(kept_nearest(opened(), 3, CPU), by_sorting()[:, :3])
    assert np.array_equal(kept_nearest(opened(1), 3, CPU), first)
    assert not capsys.readouterr().err


def test_those_of_another_cache_that_lay_there_are_replaced(here: Path, capsys: pytest.CaptureFixture[str]):
    kept_nearest(opened(), 3, CPU)
    (kept,) = Path("artifacts/caches/tiny.statistics").glob("embedding.nearest*")
    fingerprint = opened()[0].manifest.fingerprint.encode()
    kept.write_bytes(kept.read_bytes().replace(fingerprint, b"0" * len(fingerprint)))
    assert np.array_equal(kept_nearest(opened(), 3, CPU), by_sorting()[:, :3])
    assert "embedding.nearest is of other caches, and is computed again" in capsys.readouterr().err
    assert list(Path("artifacts/caches/tiny.statistics").glob("embedding.nearest*")) == [kept]
    kept_nearest(opened(), 3, CPU)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("same", [True, False])
def test_those_of_the_same_class_or_of_others_alone(here: Path, same: bool, monkeypatch: pytest.MonkeyPatch):
    order = by_sorting()
    labels = np.arange(len(order)) % 5
    labels[:3], labels[labels == 4] = -1, 3  # some of none, and classes of different sizes
    expected = np.full((len(order), len(order) - 1), -1)
    for i, row in enumerate(order):
        fitting = [j for j in row if min(labels[i], labels[j]) >= 0 and (labels[i] == labels[j]) == same]
        expected[i, : len(fitting)] = fitting
    found = kept_nearest(opened(), len(order), CPU, among=Among(labels, same))
    assert np.array_equal(found, expected)
    monkeypatch.setattr(pipeline.store.nearest, "PAIRS_AT_ONCE", 70)
    assert np.array_equal(find_nearest(opened(), 4, CPU, Silent(), Among(labels, same)), expected[:, :4])


def test_other_labels_are_not_taken_for_these(here: Path, capsys: pytest.CaptureFixture[str]):
    labels = np.arange(opened()[0].count) % 4
    first = kept_nearest(opened(), 3, CPU, among=Among(labels, True))
    assert np.array_equal(kept_nearest(opened(), 3, CPU, among=Among(labels, True)), first)
    assert not capsys.readouterr().err
    assert not np.array_equal(kept_nearest(opened(), 3, CPU, among=Among(labels // 2, True)), first)
    assert np.array_equal(kept_nearest(opened(), 3, CPU, among=Among(labels, True)), first)


def test_damage_is_told(here: Path):
    kept_nearest(opened(1), 3, CPU)
    path = Path("artifacts/caches/tiny.statistics/embedding.nearest")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CacheCorrupt, match="delete it"):
        kept_nearest(opened(1), 3, CPU)
