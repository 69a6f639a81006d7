"""Builds the MobileNetV2 of the distillation literature for 32 x 32 images, registered with timm.

Sandler et al., arXiv 1801.04381, table 2, at half of its width, as Tian et al. use it (CRD, arXiv 1910.10699): a 3 x 3
convolution with a stride of 2, seven groups of inverted residuals of which three halve the map, a 1 x 1 convolution to
1280 channels, global mean, linear classifier. Other than in the paper, rectifiers have no upper limit, the second group
has no stride, and the first group has a 1 x 1 convolution before its depthwise one, too. The maps of the groups are
linear, as the paper's blocks end; they are at 16, 16, 8, 4, 4, 2 and 2 pixels. RepDistiller's weights load as they are.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from pipeline.models.architectures._cifar_network import CifarNetwork, build_cifar, cifar_cfgs, convolution, initialise

_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_STRIDES = (1, 1, 2, 2, 1, 2, 1)


def _rectified(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = convolution(inputs, outputs, size, stride, groups)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class InvertedResidual(nn.Module):
    """Expands the channels, filters each of them, and projects them back; beside a shortcut where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv = nn.Sequential(
            *_rectified(inputs, inner, 1),
            *_rectified(inner, inner, 3, stride, groups=inner),
            convolution(inner, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride], without activation."""
        result: Tensor = self.conv(x)
        return x + result if self.residual else result


class CifarMobileNetV2(CifarNetwork):
    """Is a MobileNetV2 for small images, with timm's interface."""

    CLASSIFIER = "classifier.0"

    def __init__(
        self,
        stem: int = 16,
        widths: tuple[int, ...] = (8, 12, 16, 32, 48, 80, 160),
        width: int = 1280,
        expansion: int = 6,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        groups: list[nn.Module] = []
        stages, inputs, reduction = [], stem, 2
        for index, (outputs, blocks, stride) in enumerate(zip(widths, _BLOCKS, _STRIDES, strict=True)):
            factor = 1 if index == 0 else expansion
            first = InvertedResidual(inputs, outputs, stride, factor)
            rest = (InvertedResidual(outputs, outputs, 1, factor) for _ in range(blocks - 1))
            groups.append(nn.Sequential(first, *rest))
            reduction *= stride
            stages.append((f"blocks.{index}", outputs, reduction))
            inputs = outputs
        super().__init__(width, stages, num_classes, drop_rate)
        self.conv1 = nn.Sequential(*_rectified(in_chans, stem, 3, stride=2))
        self.blocks = nn.ModuleList(groups)
        self.conv2 = nn.Sequential(*_rectified(inputs, width, 1))
        self.classifier = nn.Sequential(self.classifier_of(num_classes))
        initialise(self)
        if isinstance(linear := self.get_classifier(), nn.Linear):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)

    def stem(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to [B, stem, H / 2, W / 2], after activation."""
        result: Tensor = self.conv1(x)
        return result

    def last(self, x: Tensor) -> Tensor:
        """Map the last group's map to [B, width, h, w], after activation."""
        result: Tensor = self.conv2(x)
        return result


default_cfgs = cifar_cfgs(["cifar_mobilenetv2_050"], places=2, classifier="classifier.0", first_conv="conv1.0")


# timm finds a model's function by its name; it passes the model's options by keyword.


@register_model
def cifar_mobilenetv2_050(pretrained: bool = False, **options: Any) -> CifarMobileNetV2:
    """Build MobileNetV2 of half width."""
    return build_cifar(CifarMobileNetV2, "cifar_mobilenetv2_050", pretrained, options)
