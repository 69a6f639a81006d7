"""Computes strided 1 x 1 convolutions of few channels in a way that torch's library for CPUs computes rightly.

oneDNN's gradient of such a convolution's weights, of images with channels last, writes behind its memory: the process
dies, hangs, or goes on with wrong gradients (https://github.com/uxlfoundation/oneDNN/issues/6035; torch 2.14 has it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def pick_before_strides(network: nn.Module) -> Callable[[], None]:
    """Let 1 x 1 convolutions of few channels get only the places that their stride would pick, and make no strides.

    The sums are the same ones. Other convolutions, and networks that have none such, stay as they are.

    Args:
        network: to be trained on a CPU. Its weights and their names stay.

    Returns what gives the convolutions their strides back: the network may be an object of somebody else.
    """
    undone: list[Callable[[], None]] = []
    channels = 16 if torch.cpu._is_avx512_supported() else 8  # of one register of the processor, whatever torch may use
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.padding in ((0, 0), "valid")
            and module.in_channels // module.groups < channels
        ):
            hook = module.register_forward_pre_hook(_Picking(*module.stride))
            undone += [hook.remove, partial(setattr, module, "stride", module.stride)]
            module.stride = (1, 1)

    def undo() -> None:
        for each in undone:
            each()

    return undo


class _Picking:
    """Is a hook, and no function, so that networks can be copied and pickled."""

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0][..., :: self._rows, :: self._columns]
