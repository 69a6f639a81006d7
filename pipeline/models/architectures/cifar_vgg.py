"""Builds the VGG networks of the distillation literature for 32 x 32 images, registered with timm.

Simonyan and Zisserman, arXiv 1409.1556, as Tian et al. use it (CRD, arXiv 1910.10699): five stages of 3 x 3
convolutions with a bias, each followed by a batch norm and a rectifier, of widths 64, 128, 256, 512 and 512; a pooling
by maximum before the second, third and fourth; global mean, and one linear classifier in place of three. A stage of
`cifar_vgg8` has one convolution, of `cifar_vgg13` two. The maps are before the pooling, at 32, 16, 8, 4 and 4 pixels.
RepDistiller's weights load as they are.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from pipeline.models.architectures._cifar_network import CifarNetwork, build_cifar, cifar_cfgs, convolution, initialise


class VGGStage(nn.Sequential):
    """Computes convolutions of one width, each with a norm and a rectifier. pool: whether a pooling stands before."""

    def __init__(self, inputs: int, outputs: int, depth: int, pool: bool) -> None:
        layers: list[nn.Module] = []
        for index in range(depth):
            layers.append(convolution(inputs if index == 0 else outputs, outputs, 3, bias=True))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H, W], or half of H and W, after activation."""
        x = F.max_pool2d(x, 2) if self.pool else x
        for layer in self:
            x = layer(x)
        return x


class CifarVGG(CifarNetwork):
    """Is a VGG with batch norms for small images, with timm's interface. depth: convolutions in a stage."""

    CLASSIFIER = "classifier"

    def __init__(
        self,
        depth: int,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        stages = [(f"block{i}", width, 2 ** min(i, 3)) for i, width in enumerate(widths)]
        super().__init__(widths[-1], stages, num_classes, drop_rate)
        inputs = in_chans
        for index, (name, width, _) in enumerate(stages):
            self.add_module(name, VGGStage(inputs, width, depth, pool=0 < index < 4))
            inputs = width
        self.classifier = self.classifier_of(num_classes)
        initialise(self)
        if isinstance(self.classifier, nn.Linear):
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def stem(self, x: Tensor) -> Tensor:
        """Return the images: the first stage reads them."""
        return x


default_cfgs = cifar_cfgs(("cifar_vgg8", "cifar_vgg13"), places=4, classifier="classifier", first_conv="block0.0")


# timm finds a model's function by its name; it passes the model's options by keyword.


@register_model
def cifar_vgg8(pretrained: bool = False, **options: Any) -> CifarVGG:
    """Build VGG-8."""
    return build_cifar(CifarVGG, "cifar_vgg8", pretrained, options, depth=1)


@register_model
def cifar_vgg13(pretrained: bool = False, **options: Any) -> CifarVGG:
    """Build VGG-13."""
    return build_cifar(CifarVGG, "cifar_vgg13", pretrained, options, depth=2)
