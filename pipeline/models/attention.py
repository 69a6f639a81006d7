"""Chooses how attention is computed in training: the fastest way whose gradient is the same each time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.models.base import Network
from pipeline.models.device import Precision

MATH_BACKEND_TOKENS = 196
"""Tokens. On a CPU in bfloat16, attention and its gradient by plain products take 0.3 of the fused kernel's time for 17
tokens, 0.4 for 65, the same for 197, and 1.8 times as much for 577; in float32 no less for any number."""


def fastest_attention(network: Network, device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Let attention be plain products in training, not torch's fused kernels, where that is faster or repeats itself.

    Args:
        network: that is trained.
        device, precision: of the training.

    Faster: over few tokens on a CPU in bfloat16. Repeats itself: on a GPU, where the fused kernels add up gradients in
    the order in which threads come. The results are the same up to rounding, and networks without attention are not
    affected. What it is worth on a CPU is measured by `benchmarks/attention.py`.
    """
    if device.type == "cuda":
        return sdpa_kernel(SDPBackend.MATH)
    if device.type == "cpu" and precision == "bfloat16" and network.places <= MATH_BACKEND_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
