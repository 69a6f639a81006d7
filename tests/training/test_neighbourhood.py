"""Neighbours of samples in their batches: who comes, how often, and that steps are the same however they are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_pieces import HARD, cache, config, network, objectives, samples, views, whole

from pipeline.errors import ConfigError
from pipeline.objectives import Neighbours
from pipeline.progress import Silent
from pipeline.store.nearest import find_nearest
from pipeline.training import FromCaches, Steps, loader, train
from pipeline.training.neighbourhood import Neighbourhood
from pipeline.training.order import balanced, windows
from pipeline.training.share import Share, even_sizes
from pipeline.training.world import World

CPU = torch.device("cpu")
TWO = Neighbours(2, 4)
COUNT = 48
"""The samples of `road`."""


def around(count: int = 20, near: int = 4, wanted: Neighbours = TWO) -> Neighbourhood:
    """Of samples on a circle, whose nearest are those behind them."""
    found = Neighbourhood(FromCaches([{}]), wanted, CPU)
    found.nearest = ((np.arange(count)[:, None] + np.arange(1, near + 1)) % count).astype(np.int32)
    return found


def groups(order: np.ndarray, sizes: list[int]) -> list[list[int]]:
    return [each.tolist() for each in np.split(order, np.cumsum(sizes)[:-1])]


def test_batches_are_groups_of_a_sample_and_some_of_its_nearest():
    order = np.random.default_rng(1).permutation(20)
    found = around().grouped(order, [7, 7, 6], 1, seed=3, epoch=5)
    assert found.dtype == np.int64
    # Of 7 rows three groups, which are even; 6 rows are two groups of a sample and two neighbours.
    for group, place in zip(groups(found, [3, 2, 2, 3, 2, 2, 3, 3]), (0, 2, 5, 7, 10, 12, 15, 17), strict=True):
        first = order[place]
        assert group[0] == first
        behind = [(each - first) % 20 for each in group[1:]]
        assert set(behind) <= {1, 2, 3, 4}
        assert len(set(behind)) == len(behind)


def test_a_step_of_several_batches_has_groups_in_each():
    order = np.arange(20)
    found = around().grouped(order, [10, 10], 3, seed=3, epoch=5)
    # Batches of 4, 3 and 3 samples, as a step is cut.
    assert [group[0] for group in groups(found, [2, 2, 3, 3, 2, 2, 3, 3])] == [0, 2, 5, 7, 10, 12, 15, 17]


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_of_a_large_cache_that_is_sorted_by_class_groups_begin_with_all_classes(sampling: str):
    """Of 64 row blocks 16 are shuffled together: an epoch's first part is of a quarter of the classes."""
    count, classes = 25600, 64
    labels = np.arange(count) * classes // count
    parts = windows(0, 1, count, 400)
    assert len(np.unique(labels[parts[0]])) == 16
    if sampling == "balanced":  # of what is skewed: every other class has a fourth of its samples
        kept = (labels % 2 == 0) | (np.arange(count) % 4 == 0)
        labels = np.where(kept, labels, labels - 1)
        parts = balanced(parts, labels, 0, 1)
    near = around(count, 4, Neighbours(3, 4))
    found = near.grouped(np.concatenate(parts), [128] * 200, 1, seed=0, epoch=1)
    shares = np.bincount(labels[found[::4]], minlength=classes) / (count / 4)
    assert shares.min() > 0.6 / classes
    assert shares.max() < 1.5 / classes


def test_they_depend_on_seed_and_epoch_and_all_nearest_come_alike():
    order = np.arange(20)
    drawn = {(seed, epoch): around().grouped(order, [20], 1, seed, epoch) for seed in (0, 1) for epoch in range(400)}
    assert len({each.tobytes() for each in drawn.values()}) == len(drawn)
    again = around().grouped(order, [20], 1, 1, 7)
    assert np.array_equal(again, drawn[1, 7])
    behind = np.concatenate([groups(each, [*even_sizes(20, 7)])[0][1:] for each in drawn.values()])
    counts = np.bincount(behind, minlength=5)[1:]
    assert counts.sum() == 2 * len(drawn)
    expected = len(drawn) / 2  # of the two of four, each in one of two draws
    assert np.abs(counts - expected).max() < 5 * np.sqrt(len(drawn) / 4)


def test_of_few_samples_all_others_come():
    found = around(3, 2, Neighbours(15, 31)).grouped(np.array([2, 0, 1]), [3], 1, 0, 0)
    assert found[0] == 2
    assert sorted(found) == [0, 1, 2]


def near_steps(folder: Path, seed: int = 0, **changes: Any) -> Steps:
    """Steps with three of the five nearest of each sample that a group begins with."""
    source = whole(cache(folder))
    near = Neighbourhood(source, Neighbours(3, 5), CPU)
    near.nearest = find_nearest(source.teachers[0], 5, CPU, _Silent)
    return Steps(samples(folder), views(), source, range(2), config(**changes), seed, 20, near)


class _Silent:
    begin = advance = end = staticmethod(lambda *_: None)


def test_steps_read_what_the_teacher_said_of_the_samples_that_come(road: Path):
    steps, plain = near_steps(road, batch_size=16), whole(cache(road))
    nearest = steps.neighbourhood.nearest  # type: ignore[union-attr]
    assert len(steps) == 3 * COUNT // 16  # as many as without neighbours
    for index in (0, 4, 8):
        step = steps[index]
        rows, view = step.sample.numpy(), int(step.view[0])
        for group in rows.reshape(4, 4):
            assert set(group[1:]) <= set(nearest[group[0]].tolist())
        assert step.teacher_outputs is not None
        assert torch.equal(step.teacher_outputs.decode().embedding, plain.signal("embedding", view, rows))
        assert np.array_equal(step.labels.numpy(), steps.labels[rows])
    firsts = {each for index in range(3) for each in steps[index].sample[::4].tolist()}
    assert len(firsts) == 12
    other = {each for index in range(3, 6) for each in steps[index].sample[::4].tolist()}
    assert firsts != other


@pytest.mark.parametrize("changes", [{"batch_size": 11}, {"views_per_step": 2, "batch_size": 22}, {"accumulate": 2}])
def test_steps_are_the_same_from_any_step_on_and_however_they_are_made(road: Path, changes: dict[str, Any]):
    made = list(loader(near_steps(road, **changes), 0, CPU))
    fresh = near_steps(road, **changes)
    resident = list(loader(near_steps(road, resident=True, **changes), 0, CPU))
    for step, lying in zip(made, resident, strict=True):
        one = fresh[step.index]
        for name in ("images", "labels", "sample", "view"):
            assert torch.equal(getattr(step, name), getattr(one, name))
            assert torch.equal(getattr(step, name), getattr(lying, name))
    (later, *_) = loader(near_steps(road, **changes), 2, CPU)
    assert torch.equal(later.images, made[2].images)


def test_a_cache_on_object_storage_that_is_read_in_parts_is_refused(road: Path, monkeypatch: pytest.MonkeyPatch):
    source = whole(cache(road))
    monkeypatch.setattr(FromCaches, "remote", property(lambda self: True))
    Neighbourhood(source, TWO, CPU)  # one window holds all of it
    monkeypatch.setattr("pipeline.training.neighbourhood.WINDOW_BLOCKS", 1)
    with pytest.raises(ConfigError, match="copy the cache to a folder first"):
        Neighbourhood(source, TWO, CPU)


class _First(World):
    """Counts what the first of several processes does for all; or is another one, which does none of it."""

    def __init__(self, rank: int) -> None:
        self.rank, self.asked = rank, 0

    def first_does(self, work: Callable[[], Any]) -> Any:
        """Do it, if this is the first."""
        self.asked += 1
        return work() if self.rank == 0 else None


@pytest.mark.parametrize("rank", [0, 1])
def test_of_processes_that_train_together_the_first_finds_neighbours(
    road: Path, rank: int, monkeypatch: pytest.MonkeyPatch
):
    """Before any of them makes a batch; others read what it has kept."""
    found = list[int]()

    def nearest(*given: Any) -> Any:
        found.append(world.asked)
        return find_nearest(source.teachers[0], 5, CPU, _Silent)

    monkeypatch.setattr("pipeline.training.neighbourhood.kept_nearest", nearest)
    source, student, world = whole(cache(road)), network(), _First(rank)
    near = Neighbourhood(source, Neighbours(3, 5), CPU)
    run = Steps(samples(road), views(), source, range(2), config(epochs=1), 0, 20, near)
    monkeypatch.setattr("pipeline.training.loop.loader", lambda *given: loaded.append(len(found)) or loader(*given))
    loaded = list[int]()
    train(student, objectives(student, HARD), run, seed=0, folder=None, progress=Silent(), world=world)
    assert len(found) == 1
    assert loaded == [1 - rank]


def test_processes_that_train_together_have_the_same_groups(road: Path):
    alone, both = near_steps(road, batch_size=16), []
    for rank in (0, 1):
        steps = near_steps(road, batch_size=16)
        steps.share = Share(rank, 2, 2)
        both.append(steps[1])
    assert all(torch.equal(each.sample, alone[1].sample) for each in both)
    assert torch.equal(torch.cat([each.images for each in both]), alone[1].images)
