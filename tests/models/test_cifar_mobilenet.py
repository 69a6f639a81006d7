from __future__ import annotations

from plain_layers import State, assert_computes, classify, convolve, disturbed, images, normalise
from torch import Tensor

STRIDES = {2: 2, 3: 2, 5: 2}
"""Of the first block in a group; 1 where none is named."""


def plain(state: State, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Figure 3 and table 2 of arXiv 1801.04381, for 32 pixels."""
    maps = []
    x = normalise(state, "conv1.1", convolve(state, "conv1.0", x, stride=2)).relu()
    for group, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(blocks):
            here, stride = f"blocks.{group}.{block}.conv", STRIDES.get(group, 1) if block == 0 else 1
            out = normalise(state, f"{here}.1", convolve(state, f"{here}.0", x)).relu()
            out = convolve(state, f"{here}.3", out, stride, groups=out.shape[1])
            out = normalise(state, f"{here}.4", out).relu()
            out = normalise(state, f"{here}.7", convolve(state, f"{here}.6", out))
            x = x + out if block > 0 else out
        maps.append(x)
    return classify(state, "classifier.0", normalise(state, "conv2.1", convolve(state, "conv2.0", x)).relu()), maps


def test_equals_the_paper_in_float64() -> None:
    model, state = disturbed("cifar_mobilenetv2_050", widths=(5, 6, 7, 8, 9, 10, 11), stem=4, width=12)
    assert_computes(model, *plain(state, images(32)), images(32))


def test_a_first_block_that_changes_no_shape_has_a_shortcut() -> None:
    model, _ = disturbed("cifar_mobilenetv2_050", widths=(5, 5, 7, 8, 9, 10, 11), stem=4, width=12)
    assert [block.residual for group in model.blocks for block in group][:4] == [False, True, True, False]
