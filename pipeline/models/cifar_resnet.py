"""The ResNets of the distillation literature for 32 x 32 images, registered with timm.

He et al., arXiv 1512.03385, section 4.2: depth 6n + 2, one 3 x 3 convolution, three groups of n basic blocks at
32, 16 and 8 pixels, global mean, linear classifier. `cifar_resnet{depth}` has widths 16, 32 and 64; the wide
ones of the distillation literature, `x4`, have a stem of 32 and widths 64, 128 and 256. Shortcuts that change
the shape are a 1 x 1 convolution and a batch norm. Weights with the names of chenyaofo/pytorch-cifar-models
load as they are.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Computes two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride], after activation."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(out)
        return result


class CifarResNet(nn.Module):
    """Is a ResNet for small images, with timm's interface."""

    def __init__(
        self,
        depth: int,
        stem: int = 16,
        widths: tuple[int, int, int] = (16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features = self.head_hidden_size = widths[-1]
        self.conv1 = _convolution(in_chans, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        blocks = (depth - 2) // 6
        self.layer1 = _layer(stem, widths[0], blocks, stride=1)
        self.layer2 = _layer(widths[0], widths[1], blocks, stride=2)
        self.layer3 = _layer(widths[1], widths[2], blocks, stride=2)
        self.feature_info = [
            {"num_chs": width, "reduction": 2**i, "module": f"layer{i + 1}"} for i, width in enumerate(widths)
        ]
        self.drop = nn.Dropout(drop_rate)
        self.fc: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a new classifier; the pooling is always the mean."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the last map and the maps of the groups at `indices`, as in timm's models."""
        take, deepest = feature_take_indices(3, indices)
        intermediates = []
        x = self.relu(self.bn1(self.conv1(x)))
        for index, layer in enumerate((self.layer1, self.layer2, self.layer3)):
            if stop_early and index > deepest:
                break
            x = layer(x)
            if index in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the last map, [B, D, H / 4, W / 4]."""
        x = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return result

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the logits of the last map, or the embedding that the classifier sees."""
        x = self.drop(x.mean((2, 3)))
        result: Tensor = x if pre_logits else self.fc(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits [B, K] of normalised images [B, C, H, W]."""
        return self.forward_head(self.forward_features(x))


def _layer(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_CFG: dict[str, Any] = {
    "url": "",
    "num_classes": 100,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs(
    dict.fromkeys((*(f"cifar_resnet{depth}" for depth in _DEPTHS), "cifar_resnet8x4", "cifar_resnet32x4"), _CFG)
)


def _build(variant: str, pretrained: bool, options: dict[str, Any], **architecture: Any) -> CifarResNet:
    model: CifarResNet = build_model_with_cfg(CifarResNet, variant, pretrained, **architecture, **options)
    return model


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
