"""Measures what a network costs: parameters, multiply-accumulates and images per second."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.measuring.prediction import inference
from pipeline.models.device import Precision

WARM_UP = 2
REPEATS = 5
LEAST_REPEATS = 3


class Rate(NamedTuple):
    """Holds images per second: the median of the repeats, and the lowest and highest of them."""

    median: float
    lowest: float
    highest: float
    repeats: int


def parameters(network: nn.Module) -> int:
    """Count trainable and frozen parameters of `network`; statistics of batch normalisation are not parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Count multiply-accumulates of one forward pass of `network`.

    Args:
        image_shape: (C, H, W) of one uint8 image.

    Counts convolutions, linear layers, matrix products and attention, as papers do: half of the floating-point
    operations that `torch.utils.flop_counter` finds. Bias, normalisation, activation and pooling are left out.
    """
    image = torch.zeros((1, *image_shape), dtype=torch.uint8, device=_device(network))
    counter = FlopCounterMode(display=False)
    # Fused attention kernels are not known to every version's counter; the plain form is two matrix products.
    with inference(network, "float32", image.device), sdpa_kernel(SDPBackend.MATH), counter:
        network(image)
    return counter.get_total_flops() // 2


def images_per_second(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int = 256,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    seconds: float = 1.0,
) -> Rate:
    """Measure the rate of forward passes over uint8 images that lie on `device` already, in images per second.

    Args:
        image_shape: (C, H, W).
        batch_size: images in a pass.
        precision: of the arithmetic.

    Takes about `seconds`, and at least three repeats of one batch however slow the network is.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, *image_shape)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    rates: list[float] = []
    with inference(network, precision, device):
        for _ in range(WARM_UP):
            once = _time(network, images, 1)
        passes = max(1, round(seconds / REPEATS / once))
        stop = time.perf_counter() + seconds
        while len(rates) < LEAST_REPEATS or (len(rates) < REPEATS and time.perf_counter() < stop):
            rates.append(passes * batch_size / _time(network, images, passes))
    return Rate(statistics.median(rates), min(rates), max(rates), len(rates))


def _time(network: nn.Module, images: torch.Tensor, passes: int) -> float:
    """Seconds that `passes` forward passes take, until the device has finished the last of them."""
    start = time.perf_counter()
    for _ in range(passes):
        network(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    elif images.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def _device(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
