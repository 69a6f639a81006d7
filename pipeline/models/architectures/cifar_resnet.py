"""Builds the ResNets of the distillation literature for 32 x 32 images, registered with timm.

He et al., arXiv 1512.03385, section 4.2: depth 6n + 2, one 3 x 3 convolution, three groups of n basic blocks at
32, 16 and 8 pixels, global mean, linear classifier. `cifar_resnet{depth}` has widths 16, 32 and 64; the wide
ones of the distillation literature, `x4`, have a stem of 32 and widths 64, 128 and 256. Shortcuts that change
the shape are a 1 x 1 convolution and a batch norm. Weights with the names of chenyaofo/pytorch-cifar-models
load as they are.

`cifar_resnet50` is the paper's ResNet-50 with a stem for small images, as Tian et al. use it (CRD, arXiv 1910.10699):
one 3 x 3 convolution, no pooling, and bottlenecks that lose their stride in the 3 x 3 convolution. Its last map is
4 x 4. The names of its weights are those of RepDistiller.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from pipeline.models.architectures._cifar_network import CifarNetwork, build_cifar, cifar_cfgs, convolution, initialise


class BasicBlock(nn.Module):
    """Computes two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = convolution(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride], after activation."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class BottleneckBlock(nn.Module):
    """Computes a 3 x 3 convolution between two of 1 x 1, on a quarter of the channels, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride], after activation."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        result: Tensor = (self.bn3(self.conv3(out)) + self.shortcut(x)).relu()
        return result


class CifarResNet(CifarNetwork):
    """Is a ResNet of basic blocks for small images, with timm's interface."""

    def __init__(
        self,
        depth: int,
        stem: int = 16,
        widths: tuple[int, int, int] = (16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        stages = [(f"layer{i + 1}", width, 2**i) for i, width in enumerate(widths)]
        super().__init__(widths[-1], stages, num_classes, drop_rate)
        self.conv1 = convolution(in_chans, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        blocks = (depth - 2) // 6
        self.layer1 = _layer(BasicBlock, stem, widths[0], blocks, stride=1)
        self.layer2 = _layer(BasicBlock, widths[0], widths[1], blocks, stride=2)
        self.layer3 = _layer(BasicBlock, widths[1], widths[2], blocks, stride=2)
        self.fc = self.classifier_of(num_classes)
        initialise(self)

    def stem(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to [B, stem, H, W], after activation."""
        result: Tensor = self.relu(self.bn1(self.conv1(x)))
        return result


class CifarBottleneckResNet(CifarNetwork):
    """Is a ResNet of bottlenecks for small images, with timm's interface."""

    CLASSIFIER = "linear"

    def __init__(
        self,
        blocks: tuple[int, ...],
        stem: int = 64,
        widths: tuple[int, ...] = (256, 512, 1024, 2048),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        stages = [(f"layer{i + 1}", width, 2**i) for i, width in enumerate(widths)]
        super().__init__(widths[-1], stages, num_classes, drop_rate)
        self.conv1 = convolution(in_chans, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        inputs = stem
        for (name, width, reduction), count in zip(stages, blocks, strict=True):
            self.add_module(name, _layer(BottleneckBlock, inputs, width, count, stride=1 if reduction == 1 else 2))
            inputs = width
        self.linear = self.classifier_of(num_classes)
        initialise(self)

    def stem(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to [B, stem, H, W], after activation."""
        result: Tensor = self.bn1(self.conv1(x)).relu()
        return result


def _layer(
    block: type[BasicBlock] | type[BottleneckBlock], inputs: int, outputs: int, blocks: int, stride: int
) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
default_cfgs = {
    **cifar_cfgs((*(f"cifar_resnet{depth}" for depth in _DEPTHS), "cifar_resnet8x4", "cifar_resnet32x4"), places=8),
    **cifar_cfgs(["cifar_resnet50"], places=4, classifier="linear"),
}


def _build(variant: str, pretrained: bool, options: dict[str, Any], **architecture: Any) -> CifarResNet:
    return build_cifar(CifarResNet, variant, pretrained, options, **architecture)


# timm finds a model's function by its name; it passes the model's options by keyword.


@register_model
def cifar_resnet8(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-8."""
    return _build("cifar_resnet8", pretrained, options, depth=8)


@register_model
def cifar_resnet14(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-14."""
    return _build("cifar_resnet14", pretrained, options, depth=14)


@register_model
def cifar_resnet20(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-20."""
    return _build("cifar_resnet20", pretrained, options, depth=20)


@register_model
def cifar_resnet32(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-32."""
    return _build("cifar_resnet32", pretrained, options, depth=32)


@register_model
def cifar_resnet44(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-44."""
    return _build("cifar_resnet44", pretrained, options, depth=44)


@register_model
def cifar_resnet56(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-56."""
    return _build("cifar_resnet56", pretrained, options, depth=56)


@register_model
def cifar_resnet110(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-110."""
    return _build("cifar_resnet110", pretrained, options, depth=110)


@register_model
def cifar_resnet8x4(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-8, four times as wide."""
    return _build("cifar_resnet8x4", pretrained, options, depth=8, stem=32, widths=(64, 128, 256))


@register_model
def cifar_resnet32x4(pretrained: bool = False, **options: Any) -> CifarResNet:
    """Build ResNet-32, four times as wide."""
    return _build("cifar_resnet32x4", pretrained, options, depth=32, stem=32, widths=(64, 128, 256))


@register_model
def cifar_resnet50(pretrained: bool = False, **options: Any) -> CifarBottleneckResNet:
    """Build ResNet-50 for small images."""
    return build_cifar(CifarBottleneckResNet, "cifar_resnet50", pretrained, options, blocks=(3, 4, 6, 3))
