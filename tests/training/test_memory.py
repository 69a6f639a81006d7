"""The caches as a memory bank, against plain numpy over the arrays in the stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from training_pieces import cache, samples

from pipeline.errors import CacheMismatch, DataError
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Memory, memory

MAIN = "artifacts/caches/tiny.zarr"


def arrays(path: Path, name: str) -> np.ndarray:
    """[V, N, ...], as zarr reads them."""
    return np.asarray(zarr.open_group(path, mode="r")[name])


def whole(folder: Path) -> FromCaches:
    """Views 0 to 3 of one teacher, from two caches."""
    return FromCaches.of([(cache(folder), (0, 1)), (TeacherCache.open(folder / "more.zarr"), (2, 3))])


def of(source: FromCaches, folder: Path, **changes: object) -> Memory:
    return Memory(source, changes.get("labels", samples(folder).labels), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("signal", ["logits", "embedding", "features/block2", "features/block3"])
def test_the_bank_is_the_stored_arrays(several: Path, signal: str):
    bank = of(whole(several), several).bank
    rows = torch.tensor([47, 0, 0, 13, 30])
    for view, path, index in ((1, MAIN, 1), (2, "more.zarr", 0)):
        found = bank(signal, rows, view)
        assert found.dtype == torch.float32
        assert np.array_equal(found, arrays(several / path, signal)[index][rows.numpy()])


def test_the_banks_logits_are_the_ensembles(several: Path):
    other = TeacherCache.open(several / "other.zarr")
    bank = of(FromCaches.of([(cache(several), (1,)), (other, (1,))], "mean-logits"), several).bank
    rows = torch.tensor([5, 2])
    stored = [arrays(several / path, "logits")[1][rows.numpy()].astype(np.float64) for path in (MAIN, "other.zarr")]
    np.testing.assert_allclose(bank("logits", rows, 1), np.mean(stored, 0), rtol=1e-6)
    assert np.array_equal(bank("embedding", rows, 1), arrays(several / MAIN, "embedding")[1][rows.numpy()])


def test_what_the_bank_does_not_have_is_refused(several: Path):
    bank = of(FromCaches.of([(cache(several), (0, 1))]), several).bank
    with pytest.raises(CacheMismatch, match="lacks embeding") as error:
        bank("embeding", torch.tensor([0]), 0)
    assert "did you mean 'embedding'?" in str(error.value)
    with pytest.raises(CacheMismatch, match="view 2 is not one of those"):
        bank("embedding", torch.tensor([0]), 2)


@pytest.mark.parametrize("rows_at_a_time", [4096, 5])
def test_class_means_are_over_all_samples_and_views(
    several: Path, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
):
    monkeypatch.setattr(memory, "ROWS", rows_at_a_time)
    labels = samples(several).labels
    assert labels is not None
    embeddings = np.concatenate([arrays(several / path, "embedding") for path in (MAIN, "more.zarr")])
    expected = [embeddings[:, labels == k].astype(np.float64).mean((0, 1)) for k in range(4)]
    means = of(whole(several), several).class_means()
    assert means.dtype == torch.float32
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_class_means_are_over_the_views_that_are_used_and_the_samples_with_a_label(several: Path):
    labels = samples(several).labels
    assert labels is not None
    some = np.where(np.arange(48) % 5 == 0, -1, labels)
    embeddings = arrays(several / MAIN, "embedding")[1].astype(np.float64)
    expected = [embeddings[some == k].mean(0) for k in range(4)]
    source = FromCaches.of([(cache(several), (1,))])
    np.testing.assert_allclose(of(source, several, labels=some).class_means(), expected, rtol=1e-6)


def test_class_means_are_computed_once(several: Path, monkeypatch: pytest.MonkeyPatch):
    found = of(whole(several), several)
    means = found.class_means()
    monkeypatch.setattr(FromCaches, "signal", None)
    assert found.class_means() is means


def test_class_means_need_a_label_of_every_class(several: Path):
    with pytest.raises(DataError, match="mean embedding of a class without labeled samples") as error:
        of(whole(several), several, labels=np.arange(48) % 3).class_means()
    assert "got: none of class 3\n" in str(error.value)
    with pytest.raises(DataError, match="none of class 0, 1, 2, 3"):
        of(whole(several), several, labels=None).class_means()


@pytest.mark.parametrize("same", [True, False])
def test_the_nearest_are_those_of_a_sort_of_all_samples(several: Path, same: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.store.nearest.keep", lambda *_, **__: None)  # the folder is of all tests
    labels = samples(several).labels
    assert labels is not None
    every = [arrays(several / path, "embedding")[0:2].astype(np.float64) for path in (MAIN, "more.zarr")]
    vectors = np.concatenate(every)
    vectors = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).mean(0)
    cosines = vectors @ vectors.T / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors, axis=1)[:, None]
    wrong = (labels[:, None] == labels) != same
    cosines[wrong | np.eye(len(labels), dtype=bool)] = -2
    found = of(whole(several), several).nearest(4, same)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), np.argsort(-cosines, axis=1)[:, :4])
