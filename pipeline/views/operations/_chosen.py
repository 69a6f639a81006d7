"""Changes some images of a batch, each with parameters of its own, without a loop over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Values worked on at a time: temporaries of a few megabytes stay in a CPU's cache.
_CHUNK = 1 << 19


def change_chosen_(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], *parameters: Tensor) -> None:
    """Replace the images where `chosen` [B] is true by `change(images, *parameters)`, in place.

    `images` uint8 [B, C, H, W], contiguous; each of `parameters` [B, ...]. `change` keeps the shape and treats
    every image by itself. A CPU computes the chosen images alone. Elsewhere all are computed and then chosen from:
    that costs more arithmetic, but no wait for the device.
    """
    (_change_rows_ if images.device.type == "cpu" else _change_all_)(images, chosen, change, parameters)


def _change_rows_(
    images: Tensor, chosen: Tensor, change: Callable[..., Tensor], parameters: tuple[Tensor, ...]
) -> None:
    for rows in torch.split(chosen.nonzero()[:, 0], max(1, _CHUNK // images[0].numel())):
        if len(rows):
            some = (values.index_select(0, rows) for values in (images, *parameters))
            _words(images).index_copy_(0, rows, _words(change(*some).contiguous()))


def _words(images: Tensor) -> Tensor:
    """The bytes of each image as one row of the widest words that fit: they are copied several times as fast."""
    rows = images.view(len(images), -1)
    return rows if rows.shape[1] % 8 else rows.view(torch.int64)


def _change_all_(images: Tensor, chosen: Tensor, change: Callable[..., Tensor], parameters: tuple[Tensor, ...]) -> None:
    images.copy_(select_bytes(chosen.view(-1, 1, 1, 1), change(images, *parameters), images))


def constants(values: object, images: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """Make a small tensor of Python's numbers on the device of the images, without a wait for that device.

    Args:
        values: a number, or nested lists of them.
        images: they lie on the device that is meant.
        dtype: of the tensor.
    """
    return torch.tensor(values, dtype=dtype).to(images.device, non_blocking=True)


def select_bytes(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Take values of `one` where `chosen` (bool) is true, of `other` elsewhere: uint8, broadcast.

    What torch.where does; on a CPU that is twenty times as slow for bytes.
    """
    return other ^ ((one ^ other) & chosen.view(torch.uint8).neg())
