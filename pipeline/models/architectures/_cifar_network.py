"""Provides what the networks of the literature for 32 x 32 images share: stem, stages, mean, classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from timm.models import build_model_with_cfg, generate_default_cfgs
from timm.models._features import feature_take_indices
from torch import Tensor, nn


def convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Make a convolution that keeps the size of the map, divided by the stride."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=bias)


def initialise(model: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. do (arXiv 1502.01852), by their outputs; their biases are zeros."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class CifarNetwork(nn.Module, ABC):
    """Runs a stem, stages, perhaps something behind them, the mean over places, and a linear classifier.

    A family of networks makes the layers and says where they are: `CLASSIFIER` names the classifier, `stem` and `last`
    are what lies before and behind the stages. width: of the embedding. stages: name, channels and reduction of the
    image's side of every stage, from shallow to deep. drop_rate: of dropout before the classifier.
    """

    CLASSIFIER: ClassVar[str] = "fc"

    def __init__(self, width: int, stages: Iterable[tuple[str, int, int]], num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features = self.head_hidden_size = width
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": name} for name, channels, reduction in stages
        ]
        self.drop = nn.Dropout(drop_rate)

    @abstractmethod
    def stem(self, x: Tensor) -> Tensor:
        """Map normalised images [B, C, H, W] to what the first stage reads."""

    def last(self, x: Tensor) -> Tensor:
        """Map the last stage's map to what the mean is taken of: by default nothing is done."""
        return x

    def classifier_of(self, num_classes: int) -> nn.Module:
        """Make a linear classifier for some classes; for none, the identity."""
        return nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return self.get_submodule(self.CLASSIFIER)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a new classifier; the pooling is always the mean."""
        self.num_classes = num_classes
        parent, _, name = self.CLASSIFIER.rpartition(".")
        setattr(self.get_submodule(parent), name, self.classifier_of(num_classes))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the last map and the maps of the stages at `indices`, as in timm's models."""
        take, deepest = feature_take_indices(len(self.feature_info), indices)
        intermediates = []
        x = self.stem(x)
        for index, stage in enumerate(self.feature_info):
            if stop_early and index > deepest:
                break
            x = self.get_submodule(str(stage["module"]))(x)
            if index in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (self.last(x), intermediates)

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute the map that the mean is taken of, [B, D, h, w]."""
        x = self.stem(x)
        for stage in self.feature_info:
            x = self.get_submodule(str(stage["module"]))(x)
        return self.last(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the logits of that map, or the embedding that the classifier sees."""
        x = self.drop(x.mean((2, 3)))
        result: Tensor = x if pre_logits else self.get_classifier()(x)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits [B, K] of normalised images [B, C, H, W]."""
        return self.forward_head(self.forward_features(x))


def cifar_cfgs(names: Iterable[str], places: int, classifier: str = "fc", first_conv: str = "conv1") -> Any:
    """Return timm's description of some networks. places: the side of the last map of an image of 32 pixels."""
    cfg: dict[str, Any] = {
        "url": "",
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": (places, places),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "first_conv": first_conv,
        "classifier": classifier,
    }
    return generate_default_cfgs(dict.fromkeys(names, cfg))


_Family = TypeVar("_Family", bound=CifarNetwork)


def build_cifar(
    family: type[_Family], variant: str, pretrained: bool, options: dict[str, Any], **architecture: Any
) -> _Family:
    """Build a network of a family as timm does. options: those of its user, who may not change the architecture's."""
    model: _Family = build_model_with_cfg(family, variant, pretrained, **architecture, **options)
    return model
