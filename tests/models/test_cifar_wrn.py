from __future__ import annotations

from plain_layers import State, assert_computes, classify, convolve, disturbed, images, normalise
from torch import Tensor


def plain(state: State, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Table 1 and figure 1 of arXiv 1605.07146, with two blocks in a group."""
    maps = []
    x = convolve(state, "conv1", x)
    for group in (1, 2, 3):
        for block in (0, 1):
            here, stride = f"block{group}.layer.{block}", 2 if group > 1 and block == 0 else 1
            activated = normalise(state, f"{here}.bn1", x).relu()
            out = convolve(state, f"{here}.conv1", activated, stride)
            out = convolve(state, f"{here}.conv2", normalise(state, f"{here}.bn2", out).relu())
            if f"{here}.convShortcut.weight" in state:
                x = convolve(state, f"{here}.convShortcut", activated, stride)
            x = x + out
        maps.append(x)
    return classify(state, "fc", normalise(state, "bn1", x).relu()), maps


def test_equals_the_paper_in_float64() -> None:
    for widths in ((16, 6, 8), (4, 6, 8)):  # the first group without and with a shortcut that convolves
        model, state = disturbed("cifar_wrn16_2", widths=widths)
        assert ("block1.layer.0.convShortcut.weight" in state) == (widths[0] == 4)
        assert_computes(model, *plain(state, images(16)), images(16))
