"""Declares what every network has, whichever library its model is of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ModelError, did_you_mean
from pipeline.models.fit import Kept
from pipeline.models.pixels import PixelInput
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel
from pipeline.models.weights import digest_of, save_weights
from pipeline.signals import Signals


class Network(nn.Module, ABC):
    """Runs a teacher or a student: uint8 images in, `Signals` out. `build_network` makes it.

    Args:
        model: the module itself.
        name, options: that it is built by.
        input_size: in pixels, one number or height and width.
        mean, std: of the channels, in units of the range [0, 1].
        interpolation: for images of another size.
        num_classes: K.
        kept: what the network has of the weights that it was built from; None for random ones, or where that is not
            known.
        classes: the indices of the model's own classes that are kept; None for all.
        taps: the shape of every tap for one sample, from shallow to deep: the maps (C, H, W), then `embedding`, if
            there is one, and `logits`.

    Attributes:
        linear: whether the embedding is the mean of the deepest block's map, and the logits are linear in it.
        linear_final: the same of a map `final`.
        local: whether every place of `final` has logits of its own.
    """

    taps: Mapping[str, tuple[int, ...]]
    num_classes: int
    linear = False
    linear_final = False
    local = False
    kept: Kept | None = None
    classes: tuple[int, ...] | None = None
    _maps: tuple[str, ...] = ()
    _kept: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        name: str,
        options: Mapping[str, Any],
        input_size: InputSize,
        mean: PerChannel,
        std: PerChannel,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.name, self.options, self.input_size = name, dict(options), input_size
        self.mean, self.std, self.interpolation = mean, std, interpolation
        self.pixels = PixelInput(name, input_size, mean, std, interpolation)

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps and no others; at first, of all blocks.

        Raises ModelError for a tap that is no map of this network, naming those that are.
        """
        for tap in taps:
            if tap not in self._maps:
                raise ModelError(
                    f"{self.name} has no map at tap {tap!r}",
                    expected="one of " + ", ".join(self._maps) if self._maps else "none: `blocks` names them",
                    got=repr(tap),
                    fix=did_you_mean(tap, self._maps),
                )
        self._kept = tuple(tap for tap in self._maps if tap in taps)

    @property
    def kept_taps(self) -> tuple[str, ...]:
        """Return the taps whose maps `forward` returns."""
        return self._kept

    @abstractmethod
    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W]. Raises ModelError for other images."""

    @abstractmethod
    def map_of(self, images: Tensor, tap: str) -> Tensor:
        """Compute the map [B, C, H, W] of the block `tap`, of images as in `forward`."""

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights, as plain JSON. No `interpolation` means bilinear."""
        return {
            "model": self.name,
            "options": self.options,
            "num_classes": self.num_classes,
            "input_size": self.input_size if isinstance(self.input_size, int) else list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            **({"interpolation": self.interpolation} if self.interpolation != "bilinear" else {}),
            **({"classes": list(self.classes)} if self.classes is not None else {}),
        }

    def keep_classes(self, classes: Sequence[int]) -> None:
        """Leave the logits of some classes and no others: the last layer becomes smaller.

        Args:
            classes: indices among the model's own, in the order of the new ones.

        Raises ModelError if the last layer is not known.
        """
        layer = self.classifier
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            what, fix = f"classes of {self.name} cannot be chosen", "leave `classes` out"
            raise ModelError(what, expected="a linear layer at its end", got=type(layer).__name__, fix=fix)
        layer.weight = nn.Parameter(layer.weight.detach()[list(classes)])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[list(classes)])
        if isinstance(layer, nn.Linear):
            layer.out_features = len(classes)
        else:
            layer.out_channels = len(classes)
        self.classes, self.num_classes = tuple(classes), len(classes)
        self.taps = {**self.taps, "logits": (len(classes),)}

    def weights_digest(self) -> str:
        """Return "sha256:..." of the model's weights and buffers; see `pipeline.models.weights.digest_of`."""
        return digest_of(self.model.state_dict())

    def save(self, path: Path) -> None:
        """Write the model's weights as safetensors, atomically; its library and `build_network` load them.

        Args:
            path: of the file.
        """
        save_weights(path, self.model.state_dict())

    @property
    def classifier(self) -> nn.Module | None:
        """Return the layer at the network's end that gives the logits; None if it is not known."""
        return None

    @property
    def linear_classifier(self) -> bool:
        """Tell whether the logits are a linear classifier's of the embedding."""
        return isinstance(self.classifier, nn.Linear)

    @property
    def places(self) -> int:
        """Return height times width of the deepest block's map: the tokens of a ViT, those in a window of a Swin."""
        blocks = [tap for tap in self._maps if tap.startswith("block")]
        if not blocks:
            return 0
        height, width = self.taps[blocks[-1]][1:]
        return height * width
