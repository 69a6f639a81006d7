"""Loaders count epochs: made once or anew in every epoch, with workers, and under Accelerate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_pieces import COUNT, cached, network, opened

from pipeline import CachedViews, objective
from pipeline.errors import ConfigError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 24 photos in 3 views. Not to be changed."""
    return cached(tmp_path_factory.mktemp("epochs"))


@pytest.fixture
def data(path: Path) -> CachedViews:
    return opened(path, verify="none")


def seen(loader: Any) -> tuple[list[int], list[int], list[int]]:
    """The views, the indices and the samples of one epoch."""
    batches = list(loader)
    views = sorted({int(view) for batch in batches for view in batch.view})
    return views, [batch.index for batch in batches], torch.cat([batch.sample for batch in batches]).tolist()


def test_a_loader_made_in_every_epoch_is_as_good_as_one_made_before(data: CachedViews, path: Path) -> None:
    once = opened(path, verify="none").loader(12, seed=4)
    expected = [seen(once) for _ in range(4)]
    assert [views for views, _, _ in expected] == [[0], [1], [2], [0]]
    assert [seen(data.loader(12, seed=4)) for _ in range(4)] == expected


def test_so_it_is_with_workers(data: CachedViews) -> None:
    assert [seen(data.loader(COUNT, workers=1))[0] for _ in range(2)] == [[0], [1]]


def test_loaders_that_are_used_in_turn_count_for_themselves(data: CachedViews) -> None:
    one, other = data.loader(12), data.loader(12)
    assert [seen(each)[0] for each in (one, other, one, other)] == [[0], [0], [1], [1]]


def test_an_epoch_that_was_left_early_counts(data: CachedViews) -> None:
    assert [int(next(iter(data.loader(12))).view[0]) for _ in range(3)] == [0, 1, 2]


def test_other_settings_are_counted_apart(data: CachedViews) -> None:
    assert [seen(data.loader(12, seed=seed))[0] for seed in (0, 1, 0)] == [[0], [0], [1]]


def test_an_epoch_may_be_named(data: CachedViews) -> None:
    assert seen(data.loader(12, epoch=2))[1] == [4, 5]
    assert seen(data.loader(12))[1] == [6, 7]
    assert seen(data.loader(12, epoch=0))[1] == [0, 1]
    with pytest.raises(ConfigError, match="epoch: is no number from 0 on"):
        data.loader(12, epoch=-1)


def test_a_new_loss_begins_a_training(data: CachedViews) -> None:
    """A second student sees what the first one saw, and its schedules begin where training begins."""
    entry = {"name": "kd", "schedule": {"warmup": 0.5}}
    for _ in range(2):
        student = network()
        loss = objective(entry, student, data, total_steps=4)
        steps = [batch.index for _ in range(2) for batch in data.loader(12) if loss(student, batch) is not None]
        assert steps == [0, 1, 2, 3]
    late = objective(entry, student, data, total_steps=4)
    with pytest.warns(UserWarning, match="begins at step 4 of 4, where schedules have ended"):
        late(student, next(iter(data.loader(12, epoch=2))))


def test_a_framework_goes_forward_and_never_back(data: CachedViews) -> None:
    """Lightning goes to the epoch of a checkpoint; Accelerate begins at 0 with each loader that it prepares."""
    loader: Any = data.loader(12)
    loader.batch_sampler.set_epoch(2)
    assert seen(loader)[1] == [4, 5]
    for said in (0, 1, 3):
        loader.batch_sampler.set_epoch(said)
    assert seen(loader)[1] == [6, 7]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_accelerate_may_prepare_a_loader_in_every_epoch(data: CachedViews, workers: int) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    once = data.loader(12, seed=1)
    expected = [seen(once) for _ in range(3)]
    data.begin_training()
    assert [seen(accelerator.prepare(data.loader(12, seed=1, workers=workers))) for _ in range(3)] == expected


@pytest.mark.filterwarnings("ignore")
def test_accelerate_goes_on_after_an_epoch_that_was_left_early_or_named(data: CachedViews) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
    loader = accelerate.Accelerator(cpu=True).prepare(data.loader(12))
    assert [next(iter(loader)).index for _ in range(3)] == [0, 2, 4]
    late = accelerate.Accelerator(cpu=True).prepare(data.loader(12, epoch=5))
    assert [seen(late)[1] for _ in range(2)] == [[10, 11], [12, 13]]
