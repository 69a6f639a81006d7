"""Both ways to change some images of a batch give the same: the rows alone, and all, chosen from afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.views import ViewsConfig, build_views
from pipeline.views.operations import _chosen

OPERATIONS = ["rotate90", "rotate", "color-jitter", "grayscale", "solarize", "randaugment", "trivial-augment"]


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(9, 3, 5, 7), (40, 1, 8, 8), (1, 3, 4, 2)])
@pytest.mark.parametrize("way", [_chosen._change_rows_, _chosen._change_all_])
def test_only_the_chosen_change(way: object, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chosen, "_change_rows_", way)
    monkeypatch.setattr(_chosen, "_CHUNK", 2 * shape[1] * shape[2] * shape[3])
    images, result = noise(*shape), noise(*shape)
    amount = torch.arange(shape[0], dtype=torch.uint8)
    chosen = amount % 3 != 1
    _chosen.change_chosen_(result, chosen, lambda some, k: some + k.view(-1, 1, 1, 1), amount)
    for image, changed, k in zip(images, result, range(shape[0]), strict=True):
        assert torch.equal(changed, image + k if k % 3 != 1 else image)


@pytest.mark.parametrize("operation", [*OPERATIONS, "random-erasing"])
def test_a_device_that_computes_all_makes_the_same_pixels(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    views = build_views(ViewsConfig.model_validate({"operations": [operation]}), (12, 12))
    images = noise(64, 3, 12, 12)
    parameters = views.parameters(0, np.arange(64))
    pixels = views.apply(images, parameters)
    monkeypatch.setattr(_chosen, "_change_rows_", _chosen._change_all_)
    assert torch.equal(views.apply(images, parameters), pixels)


def test_bytes_are_selected_as_by_where() -> None:
    one, other, chosen = noise(4, 3, 6, 6), noise(4, 3, 6, 6).flip(0), noise(4, 1, 6, 6) > 100
    assert torch.equal(_chosen.select_bytes(chosen, one, other), torch.where(chosen, one, other))
