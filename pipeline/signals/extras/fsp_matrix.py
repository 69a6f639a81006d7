"""Computes the FSP matrix: how channels of a block and of the next deeper one respond together.

    G(c, d) = (1 / H W) Σ_i F(c, i) F'(d, i)     [C, C']

over places i. Yim, Joo, Bae and Kim, CVPR 2017. The larger map is low-passed, by means, to the smaller one's size; they
take the largest of a cell, and RepDistiller the mean. Products do not commute with low-passing otherwise.
`fsp-matrix/block2` is that of `block2` and `block3`.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.signals.lowpass import lowpass

MAPS = 2


def extract(maps: Tensor, deeper: Tensor) -> Tensor:
    """Compute G of every sample, [B, C, C'].

    Args:
        maps, deeper: of two blocks, [B, C, H, W] and [B, C', H', W'].
    """
    first = lowpass(maps, max(deeper.shape[2:])).flatten(2)
    second = lowpass(deeper, max(maps.shape[2:])).flatten(2)
    return first @ second.transpose(1, 2) / first.shape[2]
