"""Layers in evaluation mode as papers write them, in float64, from the names of a model's weights."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def disturbed(name: str, **options: Any) -> tuple[Any, State]:
    """A model in float64 and evaluation mode, and its weights and statistics, none of which is as a fresh one's."""
    generator = torch.Generator().manual_seed(0)
    model: Any = timm.create_model(name, num_classes=7, **options).double().eval()
    state: State = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand(value.shape, generator=generator, dtype=value.dtype))
    return model, state


def assert_computes(model: Any, expected: Tensor, maps: list[Tensor], images: Tensor) -> None:
    """That a model's logits and maps are these."""
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-11, atol=0)
        found = model.forward_intermediates(images, intermediates_only=True)
    assert len(found) == len(maps)
    for one, other in zip(found, maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def images(size: int) -> Tensor:
    """Two normalised images in float64."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def convolve(state: State, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, weight.shape[-1] // 2, groups=groups)


def normalise(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def classify(state: State, name: str, x: Tensor) -> Tensor:
    return x.mean((2, 3)) @ state[f"{name}.weight"].T + state[f"{name}.bias"]
