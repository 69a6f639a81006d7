"""Builds the wide ResNets of the distillation literature for 32 x 32 images, registered with timm.

Zagoruyko and Komodakis, arXiv 1605.07146: depth 6n + 4, one 3 x 3 convolution to 16 channels, three groups of n blocks
at 32, 16 and 8 pixels of widths 16k, 32k and 64k, a norm and a rectifier, global mean, linear classifier. Norm and
rectifier stand before the convolutions of a block; where a block changes the shape, its shortcut, a 1 x 1 convolution,
reads what they give. `cifar_wrn{depth}_{k}` has depth and k of Tian et al. (CRD, arXiv 1910.10699), without dropout
inside blocks; RepDistiller's weights load as they are. The maps of the groups are what blocks add up to, before any
norm, as in the literature; `final` is behind norm and rectifier.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from pipeline.models.architectures._cifar_network import CifarNetwork, build_cifar, cifar_cfgs, convolution, initialise


class WideBlock(nn.Module):
    """Computes two 3 x 3 convolutions, each behind a norm and a rectifier, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, 3)
        self.convShortcut = convolution(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to the sum [B, outputs, H / stride, W / stride], before any norm."""
        activated = self.bn1(x).relu()
        out = self.conv2(self.bn2(self.conv1(activated)).relu())
        result: Tensor = out + (x if self.convShortcut is None else self.convShortcut(activated))
        return result


class WideGroup(nn.Module):
    """Runs the blocks of one width, one after the other."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(inputs, outputs, stride)
        self.layer = nn.Sequential(first, *(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        result: Tensor = self.layer(x)
        return result


class CifarWideResNet(CifarNetwork):
    """Is a wide ResNet for small images, with timm's interface."""

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int],
        stem: int = 16,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        stages = [(f"block{i + 1}", width, 2**i) for i, width in enumerate(widths)]
        super().__init__(widths[-1], stages, num_classes, drop_rate)
        blocks = (depth - 4) // 6
        self.conv1 = convolution(in_chans, stem, 3)
        self.block1 = WideGroup(stem, widths[0], blocks, stride=1)
        self.block2 = WideGroup(widths[0], widths[1], blocks, stride=2)
        self.block3 = WideGroup(widths[1], widths[2], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self.fc = self.classifier_of(num_classes)
        initialise(self)
        if isinstance(self.fc, nn.Linear):
            nn.init.zeros_(self.fc.bias)

    def stem(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to [B, stem, H, W], before any norm."""
        result: Tensor = self.conv1(x)
        return result

    def last(self, x: Tensor) -> Tensor:
        """Normalise and rectify the last map."""
        result: Tensor = self.bn1(x).relu()
        return result


default_cfgs = cifar_cfgs(("cifar_wrn16_1", "cifar_wrn16_2", "cifar_wrn40_1", "cifar_wrn40_2"), places=8)


def _build(variant: str, pretrained: bool, options: dict[str, Any], depth: int, factor: int) -> CifarWideResNet:
    options = {"widths": (16 * factor, 32 * factor, 64 * factor), **options}
    return build_cifar(CifarWideResNet, variant, pretrained, options, depth=depth)


# timm finds a model's function by its name; it passes the model's options by keyword.


@register_model
def cifar_wrn16_1(pretrained: bool = False, **options: Any) -> CifarWideResNet:
    """Build WRN-16-1."""
    return _build("cifar_wrn16_1", pretrained, options, depth=16, factor=1)


@register_model
def cifar_wrn16_2(pretrained: bool = False, **options: Any) -> CifarWideResNet:
    """Build WRN-16-2."""
    return _build("cifar_wrn16_2", pretrained, options, depth=16, factor=2)


@register_model
def cifar_wrn40_1(pretrained: bool = False, **options: Any) -> CifarWideResNet:
    """Build WRN-40-1."""
    return _build("cifar_wrn40_1", pretrained, options, depth=40, factor=1)


@register_model
def cifar_wrn40_2(pretrained: bool = False, **options: Any) -> CifarWideResNet:
    """Build WRN-40-2."""
    return _build("cifar_wrn40_2", pretrained, options, depth=40, factor=2)
