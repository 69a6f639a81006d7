"""Neighbours in the batches of a loader, as a loss asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from api_pieces import COUNT, cached, network, opened

from pipeline import objective
from pipeline.objectives import Neighbours
from pipeline.store.nearest import find_nearest
from pipeline.store.reader import TeacherCache


class _Silent:
    begin = advance = end = staticmethod(lambda *_: None)


def test_a_loader_puts_the_neighbours_that_a_loss_asks_for_into_its_batches(tmp_path: Path):
    path = cached(tmp_path)
    data, student = opened(path), network()
    loss = objective(("coss", 1.0, {"neighbours": 2, "nearest": 4}), student, data)
    assert loss.neighbours == Neighbours(2, 4)
    assert objective("vkd", student, data).neighbours is None
    cache = TeacherCache.open(path)
    nearest = find_nearest(dict.fromkeys(cache.views, cache), 4, torch.device("cpu"), _Silent)
    batches = list(data.loader(batch_size=6, signals=loss.reads, neighbours=loss.neighbours))
    groups = torch.cat([batch.sample for batch in batches]).reshape(-1, 3).numpy()
    assert len(groups) == COUNT // 3
    assert all(np.isin(group[1:], nearest[group[0]]).all() for group in groups)
    loss(student, batches[0]).backward()
    plain = torch.cat([batch.sample for batch in data.loader(batch_size=6, signals=loss.reads)])
    assert sorted(plain.tolist()) == list(range(COUNT))


def test_a_loader_without_them_warns_as_long_as_that_loss_is_the_last(tmp_path: Path):
    data, student = opened(cached(tmp_path)), network()
    loss = objective(("coss", 1.0, {"neighbours": 2, "nearest": 4}), student, data)
    with pytest.warns(UserWarning, match=r"neighbours of every sample .* data\.loader\(\.\.\., neighbours=loss"):
        data.loader(batch_size=6, signals=loss.reads)
    data.loader(batch_size=6, neighbours=loss.neighbours)
    objective("vkd", student, data)
    data.loader(batch_size=6)
