from __future__ import annotations

import pytest
import torch.nn.functional as F
from plain_layers import State, assert_computes, classify, convolve, disturbed, images, normalise
from torch import Tensor


def plain(state: State, depth: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Five stages of arXiv 1409.1556 with batch norms; three poolings, so that 32 pixels end at 4."""
    maps = []
    for stage in range(5):
        x = F.max_pool2d(x, 2) if stage in (1, 2, 3) else x
        for layer in range(depth):
            out = convolve(state, f"block{stage}.{3 * layer}", x)
            x = normalise(state, f"block{stage}.{3 * layer + 1}", out).relu()
        maps.append(x)
    return classify(state, "classifier", x), maps


@pytest.mark.parametrize(("name", "depth"), [("cifar_vgg8", 1), ("cifar_vgg13", 2)])
def test_equals_the_paper_in_float64(name: str, depth: int) -> None:
    model, state = disturbed(name, widths=(4, 5, 6, 7, 8))
    assert all(f"block{stage}.{3 * depth}.weight" not in state for stage in range(5))
    assert_computes(model, *plain(state, depth, images(16)), images(16))
