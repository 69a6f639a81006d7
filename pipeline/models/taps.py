"""Finds the taps of a timm model by running it once: which blocks, which shapes, whether its end is linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MAX_BLOCKS = 4

NOISE_PERIOD = 1_000_003
"""Noise for weights repeats after so many numbers. To draw more takes longer than all else that is done to them.

A prime number: no two rows of a weight begin at the same of them.
"""


@dataclass(frozen=True)
class Anatomy:
    """Holds what was measured of a model.

    `blocks` are the indices of the blocks among the model's intermediates, `shapes` of every tap for one sample.
    `layout` is how the tensor that pooling reads lies in memory, "NCHW", "NHWC" or "NLC" (tokens), None where it
    is no map. `head` says that head(embedding) = logits holds with the model's linear classifier, `linear` that
    besides the embedding is the mean of the deepest block's map, `linear_final` that of `final` instead. `local` says
    that the logits are a function of the mean of `final`: so every place of it has logits of its own.
    """

    blocks: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    layout: str | None
    head: bool
    linear: bool
    linear_final: bool
    local: bool


def choose_blocks(reductions: Sequence[int]) -> tuple[int, ...]:
    """Choose at most four blocks among intermediates, by how much each reduces the image, and return their indices.

    The deepest at each of the deepest four distinct reductions; where all reduce alike (a ViT, a mixer), the
    ends of four parts of equal depth.
    """
    last = {reduction: index for index, reduction in enumerate(reductions)}
    if len(last) > 1:
        return tuple(sorted(last.values()))[-MAX_BLOCKS:]
    depth = len(reductions)
    parts = min(MAX_BLOCKS, depth)
    return tuple(-(-(part + 1) * depth // parts) - 1 for part in range(parts))


def final_map(final: Tensor, layout: str, shape: tuple[int, ...], prefix: int) -> Tensor:
    """Turn `final`, the tensor that pooling reads, into a map [B, C, H, W] of `shape`, without its `prefix` tokens.

    Args:
        layout: `NCHW`, `NHWC` or `NLC`.
    """
    if layout == "NHWC":
        return final.permute(0, 3, 1, 2)
    if layout == "NLC":
        return final[:, prefix:].transpose(1, 2).reshape(len(final), *shape)
    return final


def one_place(vectors: Tensor, layout: str, prefix: int) -> Tensor:
    """Make maps of a single place, as pooling reads them, of vectors [M, C]; `prefix` tokens before it are zeros.

    Args:
        layout: `NCHW`, `NHWC` or `NLC`.
    """
    if layout == "NHWC":
        return vectors[:, None, None, :]
    if layout == "NLC":
        return torch.nn.functional.pad(vectors[:, None, :], (0, 0, prefix, 0))
    return vectors[:, :, None, None]


def prefix_tokens(model: Any) -> int:
    """Return how many of a model's tokens are no places of the map."""
    return int(getattr(model, "num_prefix_tokens", 0))


def examine(model: Any, images: Tensor, *, headless: bool = False) -> Anatomy:
    """Run `model` on normalised random `images` [B, 3, H, W], with disturbed weights, and describe its blocks and head.

    Args:
        headless: it has no classifier, and ends in its embedding.

    Fresh weights would make much look linear that is not: batch norms that are the identity, heads of zeros. The model
    is left as it was.
    """
    with torch.no_grad(), evaluation_mode(model), disturbed_weights(model):
        final, maps = model.forward_intermediates(images, output_fmt="NCHW")
        embedding, logits = model.forward_head(final, pre_logits=True), model.forward_head(final)
        classifier = model.get_classifier()
        head = isinstance(classifier, nn.Linear) and nearly_equal(classifier(embedding), logits)
        info = getattr(model, "feature_info", ())
        reductions = [each["reduction"] for each in info]
        if len(reductions) != len(maps):
            reductions = [max(1, images.shape[-1] // each.shape[-1]) for each in maps]
        blocks = choose_blocks(reductions)
        deepest = maps[blocks[-1]]
        shapes = {f"block{i + 1}": tuple(maps[index].shape[1:]) for i, index in enumerate(blocks)}
        linear = head and nearly_equal(deepest.mean((2, 3)), embedding)
        layout = _layout(model, final, deepest)
        local = linear_final = False
        if layout is not None:
            channels = final.shape[1] if layout == "NCHW" else final.shape[-1]
            size = final.shape[2:] if layout == "NCHW" else deepest.shape[2:]
            shapes["final"] = (channels, *size)
            prefix = prefix_tokens(model)
            mean = final_map(final, layout, shapes["final"], prefix).mean((2, 3))
            local = head and nearly_equal(model.forward_head(one_place(mean, layout, prefix)), logits)
            linear_final = head and not linear and nearly_equal(mean, embedding)
    shapes |= {"embedding": tuple(embedding.shape[1:])}
    shapes |= {"logits": tuple(logits.shape[1:])} if not headless else {}
    return Anatomy(blocks, shapes, layout, head, linear, linear_final, local)


def _layout(model: Any, final: Any, deepest: Tensor) -> str | None:
    size = tuple(deepest.shape[2:])
    if not isinstance(final, Tensor):  # models of several branches return a list
        return None
    if final.ndim == 3 and final.shape[1] == prefix_tokens(model) + size[0] * size[1]:
        return "NLC"
    if final.ndim != 4:
        return None
    if getattr(model, "output_fmt", None) == "NHWC":
        return "NHWC"
    turned = tuple(final.shape[1:3]) == size and tuple(final.shape[2:]) != size
    return "NHWC" if turned else "NCHW"


def nearly_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors are equal up to float32 rounding, in units of the typical value.

    Args:
        a, b: of one shape.
    """
    if a.shape != b.shape or not bool(b.isfinite().all()):
        return False
    return float((a - b).abs().max()) <= 1e-4 * float(b.square().mean().sqrt())


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back into its own afterwards.

    Args:
        model: in any mode.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def disturbed_weights(model: nn.Module) -> Iterator[None]:
    """Change every weight and buffer a little at random, zeros too; restore them bit by bit afterwards.

    Args:
        model: whose weights change inside the context.
    """
    floats = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    originals = [t.data for t in floats]
    try:
        for tensor, noise in zip(floats, _noise(floats), strict=True):
            # Small against the fan-in of a weight, so that deep nets do not overflow; what is added to vectors is
            # positive, since variances are among them.
            added = 0.04 / (tensor.numel() / len(tensor)) ** 0.5 if tensor.ndim > 1 else 0.04
            tensor.data = tensor.data.addcmul(tensor.data, noise, value=0.2).add_(noise, alpha=added)
            if tensor.ndim < 2:
                tensor.data.add_(added / 2)
        yield
    finally:
        for tensor, original in zip(floats, originals, strict=True):
            tensor.data = original


def _noise(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield numbers from -0.5 to 0.5 of the shape, type and device of each tensor."""
    period = max(1, min(NOISE_PERIOD, sum(tensor.numel() for tensor in tensors)))
    numbers = torch.rand(period, generator=torch.Generator().manual_seed(0)) - 0.5
    start = 0
    for tensor in tensors:
        end = start + tensor.numel()
        enough = numbers if end <= period else numbers.repeat(-(-end // period))
        yield enough[start:end].view(tensor.shape).to(tensor)
        start = end % period
