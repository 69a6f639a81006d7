"""Turns pixels into the input of a network: channels, normalisation, size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.preprocessing import Interpolation


class PixelInput(nn.Module):
    """Turns uint8 images [B, 3 or 1, H, W] into float32 [B, C, input_size, input_size] for a network.

    mean, std: C values each, 3 or 1, in units of the full range [0, 1]. With three, grey images are repeated.
    interpolation: of images of another size, antialiased. name: of the network, for errors. It has no state that is
    saved: what it does is in the identity of its network.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(
        self,
        name: str,
        input_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.name, self.input_size, self.interpolation = name, input_size, interpolation
        # (x / 255 - mean) / std as one product and one sum; the network's own, not weights of the model.
        scale = [1 / (255 * s) for s in std]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("_scale", torch.tensor(scale).view(len(std), 1, 1), persistent=False)
        self.register_buffer("_shift", torch.tensor(shift).view(len(std), 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input for images, in channels-last memory. Raises ModelError for other images."""
        channels = (1,) if len(self._scale) == 1 else (3, 1)
        if images.ndim != 4 or images.shape[1] not in channels or images.dtype != torch.uint8:
            raise ModelError(
                "a network takes whole batches of pixels",
                where=self.name,
                expected=f"uint8 [B, {' or '.join(map(str, channels))}, H, W]",
                got=f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}",
            )
        x = images.to(self._scale.dtype, memory_format=torch.channels_last)
        x = torch.addcmul(self._shift, x, self._scale)  # one channel becomes three here
        if tuple(x.shape[2:]) != (self.input_size, self.input_size):
            x = F.interpolate(x, (self.input_size, self.input_size), mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":  # as in Pillow, none is blacker than black or whiter than white
                x = x.clamp(self._shift, self._shift + 255 * self._scale)
        return x.contiguous(memory_format=torch.channels_last)
