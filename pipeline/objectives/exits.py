"""Builds exits: small classifiers on a network's blocks, which give logits before its end. Trained with the student."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.models.cells import CellNorm
from pipeline.objectives.precision import precise


class Depthwise(nn.Conv2d):
    """Computes a 3 x 3 convolution of each channel, in float32: bfloat16 takes three times as long on CPUs."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to [B, C, H / stride, W / stride]."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(precise(x))


class TokenExit(nn.Module):
    """Classifies the maps of token networks: a layer for each token, their mean, and a linear map.

    Args:
        width: D of tokens.
        classes: K.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `maps` [B, C, H, W] to logits [B, K]."""
        logits: Tensor = self.head(self.each(maps.flatten(2).transpose(1, 2)).mean(1))
        return logits


def exits(own: Mapping[str, tuple[int, int, int]], blocks: tuple[str, ...], width: int, classes: int) -> nn.ModuleDict:
    """Make an exit for each of `blocks`: it maps [B, C, H, W] to logits [B, K].

    Args:
        own: the shapes of all blocks of the network, from shallow to deep.
        width: of the embedding.
        classes: K.

    Blocks that are all of one shape are those of a token network (ViT, mixer). Others are halved as many times as
    there are blocks after them, by two separable convolutions each, and end with `width` channels, a mean, and a
    linear map; the last block is not halved but mapped to the width.
    """
    names = list(own)
    tokens = len(names) > 1 and len(set(own.values())) == 1
    built: dict[str, nn.Module] = {}
    for block in blocks:
        channels = own[block][0]
        if tokens:
            built[block] = TokenExit(channels, classes)
        else:
            built[block] = _convolutional(channels, len(names) - 1 - names.index(block), width, classes)
    return nn.ModuleDict(built).apply(_initialise)


def _convolutional(channels: int, halvings: int, width: int, classes: int) -> nn.Module:
    widths = [channels * 2**step for step in range(halvings)] + [width]
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 1)] if not halvings else []
    for before, after in itertools.pairwise(widths):
        layers += [*_separable(before, before, 2), *_separable(before, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def _separable(channels: int, out: int, stride: int) -> list[nn.Module]:
    return [Depthwise(channels, stride), nn.Conv2d(channels, out, 1, bias=False), CellNorm(out), nn.ReLU()]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
