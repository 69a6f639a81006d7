"""Turns pixels into the input of a network: channels, normalisation, size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel, height_and_width


class PixelInput(nn.Module):
    """Turns uint8 images [B, C, H, W] into float32 [B, C, *input_size] for a network.

    Args:
        input_size: in pixels, one number or height and width.
        mean, std: a value for each channel, in units of the full range [0, 1]. With three, grey images are repeated.
        interpolation: of images of another size, antialiased.
        name: of the network, for errors.

    It has no state that is saved: what it does is in the identity of its network.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(
        self,
        name: str,
        input_size: InputSize,
        mean: PerChannel,
        std: PerChannel,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.name, self.sides, self.interpolation = name, height_and_width(input_size), interpolation
        if len(mean) != len(std):
            what, fix = "mean and std are of different channels", "name both, a value for each channel"
            raise ModelError(what, where=name, expected=f"{len(mean)} values of std", got=str(len(std)), fix=fix)
        # (x / 255 - mean) / std as one product and one sum; the network's own, not weights of the model.
        scale = [1 / (255 * s) for s in std]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("_scale", torch.tensor(scale).view(len(std), 1, 1), persistent=False)
        self.register_buffer("_shift", torch.tensor(shift).view(len(std), 1, 1), persistent=False)

    @property
    def channels(self) -> tuple[int, ...]:
        """Return how many channels images may have: as many as the network's input, and grey for colours."""
        return (3, 1) if len(self._scale) == 3 else (len(self._scale),)

    def require(self, channels: int) -> None:
        """Raise ModelError if images with so many channels are not for this network."""
        if channels not in self.channels:
            few = f"{channels} channel{'s' if channels > 1 else ''}"
            raise ModelError(
                f"the images have {few}, and the network takes {' or '.join(map(str, self.channels))}",
                where=self.name,
                fix=f"name `mean` and `std` with {channels} values each, for a network that takes as many; "
                "or leave channels out of the data, such as transparency",
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input for images, in channels-last memory. Raises ModelError for other images."""
        if images.ndim != 4 or images.shape[1] not in self.channels or images.dtype != torch.uint8:
            raise ModelError(
                "a network takes whole batches of pixels",
                where=self.name,
                expected=f"uint8 [B, {' or '.join(map(str, self.channels))}, H, W]",
                got=f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}",
            )
        x = images.to(self._scale.dtype, memory_format=torch.channels_last)
        x = torch.addcmul(self._shift, x, self._scale)  # one channel becomes three here
        if tuple(x.shape[2:]) != self.sides:
            x = F.interpolate(x, self.sides, mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":  # as in Pillow, none is blacker than black or whiter than white
                x = x.clamp(self._shift, self._shift + 255 * self._scale)
        return x.contiguous(memory_format=torch.channels_last)
