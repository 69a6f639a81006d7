"""Mixes what a network says at several places and depths: tokens of its maps, and attention among all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.objectives.precision import precise


class Patches(nn.Module):
    """Computes r x r tokens of a map, [B, C, H, W] to [B, r², width]: a linear map of all pixels of a patch.

    Args:
        shape: (C, H, W).
        grid: r, patches a side. A side that r does not divide is enlarged to the next multiple, by its nearest pixels.
        width: of a token.
    """

    def __init__(self, shape: tuple[int, int, int], grid: int, width: int) -> None:
        super().__init__()
        channels, height, entire = shape
        self.grid = grid
        self.sides = -(-height // grid), -(-entire // grid)
        self.linear = nn.Linear(channels * self.sides[0] * self.sides[1], width)

    def forward(self, maps: Tensor) -> Tensor:
        """Cut `maps` [B, C, H, W] into patches, row by row, and map each to a token."""
        (tall, wide), grid = self.sides, self.grid
        x = maps if maps.shape[2:] == (tall * grid, wide * grid) else F.interpolate(maps, (tall * grid, wide * grid))
        patches = x.reshape(len(x), -1, grid, tall, grid, wide).permute(0, 2, 4, 1, 3, 5)
        tokens: Tensor = self.linear(precise(patches).reshape(len(x), grid * grid, -1))
        return tokens


def token_positions(count: int, width: int) -> Tensor:
    """Compute the sines and cosines that tell `count` tokens of a `width` apart: [count, width].

    Position p has sin(p / 10000^(2i / width)) at 2i and the cosine at 2i + 1: Vaswani et al., "Attention Is All You
    Need", 2017, section 3.5.
    """
    even = torch.arange(0, width, 2) / width
    angles = torch.arange(count)[:, None] / 10000**even
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)[:, :width]


class TokenAttention(nn.Module):
    """Computes attention among all tokens of a sample, with several heads: [B, N, width] to [B, N, width].

    Args:
        count: N.
        width: of a token, a multiple of `heads`.

    Each token is normalised, and told its place by sines added to queries and keys. What comes out is the mean of the
    values, as each token attends to them: nothing is added to it, and nothing learned follows.
    """

    positions: Tensor

    def __init__(self, count: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.all = nn.Linear(width, 3 * width)
        self.register_buffer("positions", token_positions(count, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix `tokens` [B, N, width]."""
        queries, keys, values = precise(self.all(self.norm(tokens))).chunk(3, dim=2)
        q, k, v = (self._by_heads(x) for x in (queries + self.positions, keys + self.positions, values))
        scores = precise(q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
        return precise(scores.softmax(3) @ v).transpose(1, 2).flatten(2)

    def _by_heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
