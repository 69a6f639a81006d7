"""Outputs of several teachers as they are stored: moved, joined and cut like those of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_pieces import cache, network, samples, steps

from pipeline.errors import CacheMismatch
from pipeline.experiment.networks import shapes_of
from pipeline.objectives import Context, KnownTeacher, ObjectiveEntry, ObjectiveSet
from pipeline.progress import Silent
from pipeline.store.reader import TeacherCache
from pipeline.training import FromCaches, Memory, train
from pipeline.training.encoded_outputs import decode_others, join_views, select_rows

ROWS = np.array([31, 3, 47, 0])


def two(folder: Path) -> FromCaches:
    """Views 0 and 1 of both teachers, the second by its name."""
    other = FromCaches.of([(TeacherCache.open(folder / "other.zarr"), (0, 1))])
    return FromCaches.of([(cache(folder), (0, 1))]).beside("wide", {"narrow": other})


def test_views_are_joined_and_rows_cut_for_each_teacher(several: Path):
    source, none = two(several), torch.empty(0)
    first, second = (source.teacher_outputs(view, ROWS, none) for view in (0, 1))
    both = select_rows(join_views([first, second]), slice(2, 6)).to("cpu")
    for name, path in ((None, "artifacts/caches/tiny.zarr"), ("narrow", "other.zarr")):
        found = both.decode() if name is None else decode_others(both)[name]
        stored = TeacherCache.open(several / path)
        views = [stored.signal("embedding", view, ROWS) for view in (0, 1)]
        expected = torch.stack(views, 1).flatten(0, 1)[2:6]
        assert found.embedding is not None
        assert torch.equal(found.embedding, expected)


def test_only_what_is_read_is_read(several: Path):
    source = two(several)
    assert source.reading(("embedding",)).others == {}
    read = source.reading(("embedding",), {"narrow": ("embedding",)}).teacher_outputs(1, ROWS, torch.empty(0))
    other = decode_others(read)["narrow"]
    assert other.embedding is not None
    assert other.embedding.shape == (4, 32)
    with pytest.raises(CacheMismatch, match="lacks features/block9"):
        source.reading((), {"narrow": ("features/block9",)})


def test_teachers_of_other_views_or_of_one_name_are_refused(several: Path):
    own, more = FromCaches.of([(cache(several), (0, 1))]), TeacherCache.open(several / "more.zarr")
    other = TeacherCache.open(several / "other.zarr")
    with pytest.raises(CacheMismatch, match="same views"):
        own.beside("a", {"b": FromCaches.of([(other, (0, 1, 2))])})
    with pytest.raises(CacheMismatch, match="of two teachers"):
        own.beside("a", {"b": FromCaches.of([(other, (2, 3)), (more, (2, 3))])})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_several_views_in_a_step_and_accumulated_batches(several: Path, accumulate: int):
    """One step on two views of each sample: the mean of the terms of the parts, of both teachers."""
    source, student = two(several), network()
    labels = samples(several).labels
    context = Context(48, 4, views_per_step=2)
    others = {
        "narrow": KnownTeacher(source.others["narrow"].shapes, replace(context, bank=Memory(source, labels, 4).bank))
    }
    entries = [ObjectiveEntry.model_validate({"name": "vkd", "teacher": name}) for name in ("wide", "narrow")]
    torch.manual_seed(0)
    chosen = ObjectiveSet("t", entries, shapes_of(student), source.shapes, context, others, "wide")
    run = steps(several, source, views_per_step=2, accumulate=accumulate, epochs=1, batch_size=16)
    result = train(student, chosen, run, seed=0, folder=None, progress=Silent())
    (row,) = result.history.rows
    assert row["loss"] == pytest.approx(row["vkd-wide/feature"] + row["vkd-narrow/feature"], rel=1e-5)
