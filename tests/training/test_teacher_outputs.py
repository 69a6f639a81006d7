"""Outputs read from several caches, against plain numpy over the arrays in the stores."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from training_pieces import cache, samples, steps, whole

from pipeline.errors import CacheMismatch
from pipeline.progress import Silent
from pipeline.signals import Mean
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, check_views, loader

ROWS = np.array([31, 3, 47, 0, 3, 22])
IMAGES = torch.empty(0)
"""Sources that read caches do not look at images."""


def more(folder: Path) -> TeacherCache:
    """Views 2 and 3 of the same teacher."""
    return TeacherCache.open(folder / "more.zarr")


def other(folder: Path) -> TeacherCache:
    """Views 0 to 3 of another teacher."""
    return TeacherCache.open(folder / "other.zarr")


def ensemble(folder: Path, mean: Mean = "mean-probabilities") -> FromCaches:
    """Both teachers, on the views that they share."""
    parts = [(cache(folder), (0, 1)), (more(folder), (3,)), (other(folder), (0, 1, 3))]
    return FromCaches.of(parts, mean)


def stored(path: Path, name: str, view: int, rows: NDArray[np.int64] = ROWS) -> NDArray[Any]:
    """Rows of an array, as zarr reads them; `view` is the view number."""
    group = zarr.open_group(path, mode="r")
    first: Any = group.attrs["identity"]
    array: Any = group[name]
    return np.asarray(array[view - first["views"]["first"]])[rows]


MAIN = "artifacts/caches/tiny.zarr"


def test_every_view_comes_from_the_cache_that_has_it(several: Path):
    source = FromCaches.of([(more(several), (2, 3)), (cache(several), (0, 1))])
    assert source.views == (0, 1, 2, 3)
    for view, path in {0: MAIN, 1: MAIN, 2: "more.zarr", 3: "more.zarr"}.items():
        said = source.teacher_outputs(view, ROWS, IMAGES).decode()
        for name, tensor in {
            "logits": said.logits,
            "embedding": said.embedding,
            "features/block2": said.features["block2"],
        }.items():
            assert tensor is not None
            assert np.array_equal(tensor, stored(several / path, name, view))
        parameters = source.parameters(view, ROWS)
        assert np.array_equal(parameters, stored(several / path, "view_parameters", view))


def test_one_cache_is_what_it_was(several: Path):
    source, plain = whole(cache(several)), cache(several)
    said, expected = source.teacher_outputs(1, ROWS, IMAGES), plain.read_encoded(1, ROWS)
    assert type(said) is type(expected)
    assert said.specs == expected.specs
    assert all(torch.equal(said.arrays[name], array) for name, array in expected.arrays.items())
    assert source.shapes == plain.shapes


def softmax(z: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(z.astype(np.float64) - z.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("view", [0, 3])
def test_an_ensembles_logits_are_the_mean_and_all_else_is_the_primary_teachers(several: Path, view: int):
    own = several / (MAIN if view < 2 else "more.zarr")
    one, two = stored(own, "logits", view), stored(several / "other.zarr", "logits", view)
    said = ensemble(several).teacher_outputs(view, ROWS, IMAGES).decode()
    np.testing.assert_allclose(said.logits.exp(), (softmax(one) + softmax(two)) / 2, rtol=1e-5)
    mean = ensemble(several, "mean-logits").teacher_outputs(view, ROWS, IMAGES).decode()
    np.testing.assert_allclose(mean.logits, (one.astype(np.float64) + two) / 2, rtol=1e-6)
    assert said.embedding is not None
    assert np.array_equal(said.embedding, stored(own, "embedding", view))
    assert np.array_equal(said.features["block3"], stored(own, "features/block3", view))
    assert said.head is None
    assert ensemble(several).shapes.linear is None
    assert cache(several).shapes.linear is not None


def test_encoded_outputs_travel_and_are_combined_where_they_arrive(several: Path):
    said = ensemble(several).teacher_outputs(1, ROWS, IMAGES)
    again = pickle.loads(pickle.dumps(said)).to("cpu")
    assert torch.equal(again.decode().logits, said.decode().logits)
    moved = said.to("meta").decode()
    assert moved.logits.device.type == "meta"
    assert moved.logits.shape == said.decode().logits.shape


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_go_through_all_views_whoever_reads_them(several: Path, workers: int):
    run = steps(several, ensemble(several), epochs=4, resident_gigabytes=0.0, workers=workers)
    run.numbers = run.source.views  # type: ignore[attr-defined]
    found = list(loader(run, 0, torch.device("cpu")))
    assert [int(step.view[0]) for step in found[:: run.steps_per_epoch]] == [0, 1, 3, 0]
    for step in found[::2]:
        expected = ensemble(several).teacher_outputs(int(step.view[0]), step.sample.numpy(), IMAGES)
        assert step.teacher_outputs is not None
        assert torch.equal(step.teacher_outputs.decode().logits, expected.decode().logits)


def test_views_that_a_teacher_has_twice_are_refused(several: Path):
    with pytest.raises(CacheMismatch, match="two caches of one teacher have view 1\n") as error:
        FromCaches.of([(cache(several), (0, 1)), (cache(several), (1,))])
    assert "choose with `views`" in str(error.value)


def test_teachers_of_other_views_are_refused(several: Path):
    with pytest.raises(CacheMismatch, match="must have the same views") as error:
        FromCaches.of([(cache(several), (0, 1)), (other(several), (0, 1, 2))], "mean-logits")
    assert "expected: views 0, 1" in str(error.value)
    assert "got: views 0 to 2" in str(error.value)


def test_reading_a_part_of_the_signals(several: Path):
    source = ensemble(several).reading({"features/block3"})
    said = source.teacher_outputs(3, ROWS, IMAGES).decode()
    assert list(said.features) == ["block3"]
    assert said.embedding is None
    assert torch.equal(said.logits, ensemble(several).teacher_outputs(3, ROWS, IMAGES).decode().logits)


def test_a_signal_that_a_cache_lacks_or_holds_in_another_form_is_refused(several: Path):
    lacking = FromCaches([{0: cache(several), 1: other(several)}])  # as if they were of one teacher
    assert lacking.reading(()).views == (0, 1)
    with pytest.raises(CacheMismatch, match="lacks features/block3"):
        lacking.reading({"features/block3"})
    with pytest.raises(CacheMismatch, match=r"signals\.embedding\.shape\.0: expected 64, got 32"):
        lacking.reading({"embedding"})


def test_the_identity_is_of_every_cache_and_view_and_of_the_mean(several: Path):
    sources = [
        whole(cache(several)),
        FromCaches.of([(cache(several), (0,))]),
        FromCaches.of([(cache(several), (0, 1)), (more(several), (2,))]),
        FromCaches.of([(cache(several), (0, 1)), (other(several), (0, 1))], "mean-logits"),
        FromCaches.of([(cache(several), (0, 1)), (other(several), (0, 1))], "mean-probabilities"),
        FromCaches.of([(other(several), (0, 1)), (cache(several), (0, 1))], "mean-probabilities"),
    ]
    identities = [source.identity() for source in sources]
    assert all(one not in identities[:i] for i, one in enumerate(identities))
    one, two = cache(several).manifest.fingerprint, more(several).manifest.fingerprint
    assert identities[2] == {"mean": None, "teachers": [{one: [0, 1], two: [2]}]}


def test_views_are_checked_in_the_caches_that_have_them(several: Path):
    source = FromCaches.of([(cache(several), (0, 1)), (more(several), (2, 3))])
    run = steps(several, source, epochs=4)
    run.numbers = source.views
    assert check_views(run, source, "full", Silent()) == "all 4 views match the teacher's pixels"


@pytest.mark.parametrize("verify", ["full", "sample"])
def test_teachers_that_saw_other_pixels_are_found(several: Path, monkeypatch: pytest.MonkeyPatch, verify: Any):
    source, read = ensemble(several), TeacherCache.view_digests
    run = steps(several, source, epochs=3)
    run.numbers = source.views
    assert "3 views match" in check_views(run, source, verify, Silent())

    def changed(self: TeacherCache, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        found = read(self, view, rows)
        return np.where((rows == 17) & (view == 3) & (self.path.name == "other.zarr"), found ^ np.uint64(1), found)

    monkeypatch.setattr(TeacherCache, "view_digests", changed)
    with pytest.raises(CacheMismatch, match="two teachers saw different pixels in 1 of 48 views") as error:
        check_views(run, source, verify, Silent())
    data = samples(several)
    assert f"where: view 3, samples {data.split.ids[int(data.positions[17])]}\n" in str(error.value)
    assert "more.zarr" in str(error.value)
    assert "other.zarr" in str(error.value)
    assert "not compared" in check_views(run, source, "bytes", Silent())
