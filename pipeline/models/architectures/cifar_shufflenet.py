"""Builds the ShuffleNets of the distillation literature for 32 x 32 images, registered with timm.

As Tian et al. use them (CRD, arXiv 1910.10699): a 1 x 1 convolution to 24 channels, no pooling, three groups of units
at 16, 8 and 4 pixels, global mean, linear classifier. `cifar_shufflenetv1` is of Zhang et al., arXiv 1707.01083, with 3
groups of channels and widths 240, 480 and 960; other than in the paper, its depthwise convolutions are rectified.
`cifar_shufflenetv2` is of Ma et al., arXiv 1807.11164, at width 1. RepDistiller's weights load as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from pipeline.models.architectures._cifar_network import CifarNetwork, build_cifar, cifar_cfgs, convolution

_STEM = 24


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Order channels [B, C, H, W] so that the first of every group come first, then all second ones."""
    batch, channels, height, width = x.shape
    parted = x.reshape(batch, groups, channels // groups, height, width)
    return parted.transpose(1, 2).reshape(batch, channels, height, width)


class GroupedUnit(nn.Module):
    """Computes ShuffleNet's unit: grouped 1 x 1, shuffle, depthwise 3 x 3, grouped 1 x 1, beside the input.

    With a stride of 2 the input's means stand beside the result instead of being added: so that all are `outputs`.
    first: groups of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, first
        own = outputs - inputs if stride == 2 else outputs
        inner = own // 4
        self.conv1 = convolution(inputs, inner, 1, groups=first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, own, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(own)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride], after activation."""
        out = shuffled(self.bn1(self.conv1(x)).relu(), self.groups)
        out = self.bn3(self.conv3(self.bn2(self.conv2(out)).relu()))
        if self.stride == 2:
            return torch.cat((out, F.avg_pool2d(x, 3, 2, padding=1)), 1).relu()
        result: Tensor = (out + x).relu()
        return result


class SplitUnit(nn.Module):
    """Computes ShuffleNetV2's unit: half of the channels stay as they are, the others are convolved; then a shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = convolution(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = convolution(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to the same shape, after activation."""
        left, right = x.chunk(2, 1)
        right = self.bn2(self.conv2(self.bn1(self.conv1(right)).relu()))
        right = self.bn3(self.conv3(right)).relu()
        return shuffled(torch.cat((left, right), 1), 2)


class HalvingUnit(nn.Module):
    """Computes ShuffleNetV2's unit that halves the map: two branches, each half of the outputs; then a shuffle."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = convolution(inputs, inputs, 3, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = convolution(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = convolution(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = convolution(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / 2, W / 2], after activation."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x)))).relu()
        right = self.bn4(self.conv4(self.bn3(self.conv3(x)).relu()))
        right = self.bn5(self.conv5(right)).relu()
        return shuffled(torch.cat((left, right), 1), 2)


class CifarShuffleNet(CifarNetwork):
    """Is what both versions share: their stem, their groups of units, their classifier."""

    CLASSIFIER = "linear"

    def __init__(self, in_chans: int, widths: tuple[int, ...], width: int, num_classes: int, drop_rate: float) -> None:
        stages = [(f"layer{i + 1}", outputs, 2 ** (i + 1)) for i, outputs in enumerate(widths)]
        super().__init__(width, stages, num_classes, drop_rate)
        self.conv1 = convolution(in_chans, _STEM, 1)
        self.bn1 = nn.BatchNorm2d(_STEM)

    def stem(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to [B, 24, H, W], after activation."""
        result: Tensor = self.bn1(self.conv1(x)).relu()
        return result


class CifarShuffleNetV1(CifarShuffleNet):
    """Is a ShuffleNet for small images, with timm's interface."""

    def __init__(
        self,
        widths: tuple[int, ...] = (240, 480, 960),
        blocks: tuple[int, ...] = (4, 8, 4),
        groups: int = 3,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, widths, widths[-1], num_classes, drop_rate)
        inputs = _STEM
        for index, (outputs, count) in enumerate(zip(widths, blocks, strict=True)):
            # The stem has too few channels for groups.
            first = GroupedUnit(inputs, outputs, 2, groups, first=1 if index == 0 else groups)
            rest = (GroupedUnit(outputs, outputs, 1, groups, groups) for _ in range(count - 1))
            self.add_module(f"layer{index + 1}", nn.Sequential(first, *rest))
            inputs = outputs
        self.linear = self.classifier_of(num_classes)


class CifarShuffleNetV2(CifarShuffleNet):
    """Is a ShuffleNetV2 for small images, with timm's interface."""

    def __init__(
        self,
        widths: tuple[int, ...] = (116, 232, 464),
        blocks: tuple[int, ...] = (4, 8, 4),
        width: int = 1024,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(in_chans, widths, width, num_classes, drop_rate)
        inputs = _STEM
        for index, (outputs, count) in enumerate(zip(widths, blocks, strict=True)):
            rest = (SplitUnit(outputs) for _ in range(count - 1))
            self.add_module(f"layer{index + 1}", nn.Sequential(HalvingUnit(inputs, outputs), *rest))
            inputs = outputs
        self.conv2 = convolution(inputs, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.linear = self.classifier_of(num_classes)

    def last(self, x: Tensor) -> Tensor:
        """Map the last group's map to [B, width, h, w], after activation."""
        result: Tensor = self.bn2(self.conv2(x)).relu()
        return result


default_cfgs = cifar_cfgs(("cifar_shufflenetv1", "cifar_shufflenetv2"), places=4, classifier="linear")


# timm finds a model's function by its name; it passes the model's options by keyword.


@register_model
def cifar_shufflenetv1(pretrained: bool = False, **options: Any) -> CifarShuffleNetV1:
    """Build ShuffleNet."""
    return build_cifar(CifarShuffleNetV1, "cifar_shufflenetv1", pretrained, options)


@register_model
def cifar_shufflenetv2(pretrained: bool = False, **options: Any) -> CifarShuffleNetV2:
    """Build ShuffleNetV2."""
    return build_cifar(CifarShuffleNetV2, "cifar_shufflenetv2", pretrained, options)
