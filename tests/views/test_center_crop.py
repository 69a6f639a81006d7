"""The middle, as torchvision cuts it, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from pipeline.errors import ConfigError, DataError
from pipeline.views import Views, ViewsConfig, build_views


def views(size: Any, image_size: tuple[int, int] | None = None) -> Views:
    operations = [{"name": "horizontal-flip"}, {"name": "center-crop", "size": size}]
    return build_views(ViewsConfig.model_validate({"operations": operations}), image_size)


@pytest.mark.parametrize("H", [20, 21, 22, 23])
@pytest.mark.parametrize("size", [20, [17, 20], [18, 3]])
def test_equals_torchvision(H: int, size: Any) -> None:
    image = torch.randint(0, 256, (1, 3, H, 25), dtype=torch.uint8)
    pixels = views(size).apply(image, np.zeros((1, 1), np.int32))
    assert torch.equal(pixels, reference.center_crop(image, [size] if isinstance(size, int) else size))


def test_images_too_small_are_refused_before_any_work() -> None:
    with pytest.raises(ConfigError) as error:
        views([20, 24], (24, 20))
    assert [problem.key for problem in error.value.problems] == ["views.operations.1.size"]
    assert "resize" in str(error.value)


def test_one_image_too_small_is_refused() -> None:
    with pytest.raises(DataError, match="smaller than its center-crop"):
        views(20).apply(torch.zeros(1, 3, 30, 19, dtype=torch.uint8), np.zeros((1, 1), np.int32))
