"""Makes one module of a student, from pixels to logits, of which other programs can be written."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models import WithReusedHead
from pipeline.models.network import TimmNetwork
from pipeline.models.pixels import PixelInput
from pipeline.shipping.student import ShippedStudent


class FixedPixelInput(nn.Module):
    """Computes what `PixelInput` does, of images of one size, by arithmetic that every exporter knows.

    Antialiased resizing is linear in the pixels of each axis: it is two products with matrices, which are what torch
    makes of the unit vectors.

    Args:
        pixels: of the network.
        size: height and width of the images.
    """

    scale: Tensor
    shift: Tensor
    resize_rows: Tensor
    resize_columns: Tensor

    def __init__(self, pixels: PixelInput, size: tuple[int, int]) -> None:
        super().__init__()
        self._clamped = pixels.interpolation == "bicubic"
        self._resized = size != pixels.sides
        self.register_buffer("scale", pixels._scale.detach().clone())
        self.register_buffer("shift", pixels._shift.detach().clone())
        if self._resized:
            rows, columns = (
                _axis(count, wanted, pixels.interpolation) for count, wanted in zip(size, pixels.sides, strict=True)
            )
            self.register_buffer("resize_rows", rows)
            self.register_buffer("resize_columns", columns.T.contiguous())

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input of images uint8 [B, C, H, W]: float32 [B, C', *input_size]."""
        x = images.to(torch.float32) * self.scale + self.shift  # one channel becomes three here
        if self._resized:
            x = self.resize_rows @ x @ self.resize_columns
            if self._clamped:
                x = torch.maximum(torch.minimum(x, self.shift + 255 * self.scale), self.shift)
        return x


def _axis(count: int, wanted: int, interpolation: str) -> Tensor:
    """Return the matrix [wanted, count] by which one axis is resized."""
    unit = torch.eye(count)[None, None]
    return F.interpolate(unit, (wanted, count), mode=interpolation, antialias=True)[0, 0]


class PixelsToLogits(nn.Module):
    """Computes logits [B, K] of views uint8 [B, C, H, W] of one size, as a student does. `exportable` makes it.

    Args:
        pixels: prepares them.
        model: the network, or its model.
    """

    def __init__(self, pixels: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.pixels, self.model = pixels, model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K].

        Args:
            images: uint8 [B, C, H, W].
        """
        logits: Tensor = self.model(self.pixels(images))
        return logits


class _Signalling(nn.Module):
    """Computes the logits of a network that is given its input instead of pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs).logits
        return logits


def exportable(student: ShippedStudent, size: tuple[int, int]) -> PixelsToLogits:
    """Return a module of a student for views of one size, on the CPU, with memory in the standard order.

    Blocks of several branches (RepVGG, MobileOne, FastViT) are fused into the one convolution that they are equal to.

    Args:
        student: is not changed.
        size: height and width of the views.
    """
    network = copy.deepcopy(student.network).to(memory_format=torch.contiguous_format)
    own = network.network if isinstance(network, WithReusedHead) else network
    pixels = FixedPixelInput(own.pixels, size)
    if isinstance(own, TimmNetwork):
        own.model = reparameterised(own.model)
    if isinstance(network, TimmNetwork):
        return PixelsToLogits(pixels, network.model).eval()
    own.pixels = _Given(own.pixels)  # type: ignore[assignment]
    return PixelsToLogits(pixels, _Signalling(network)).eval()


class _Given(nn.Module):
    """Stands for the preparation of pixels in a network that is given its input."""

    def __init__(self, pixels: PixelInput) -> None:
        super().__init__()
        self.sides, self.channels = pixels.sides, pixels.channels

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def reparameterised(model: nn.Module) -> nn.Module:
    """Return a model of timm with fused blocks, for inference.

    Args:
        model: is not changed.
    """
    from timm.utils.model import reparameterize_model

    fused: nn.Module = reparameterize_model(model)
    return fused
