"""Walks a network through all that teachers and students do with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn

from pipeline.models import Network, build_network
from pipeline.signals import Signals
from pipeline.signals.lowpass import lowpass


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def walk(network: Network, images: Tensor, folder: Path, **like: Any) -> Signals:
    """What the network says of images, uint8 [B, C, H, W]; fails at the first step that goes wrong.

    like: what else `build_network` needs.
    """
    said = speaks(network, images)
    reads_its_head(network, said)
    gives_small_maps(said)
    speaks_in_half_precision(network, images)
    is_saved(network, images, folder, **like)
    learns(network, images)
    return said


def speaks(network: Network, images: Tensor) -> Signals:
    """Every map has the shape that was promised, and all numbers are finite."""
    maps = [tap for tap in network.taps if tap not in ("embedding", "logits")]
    network.keep_taps(maps)
    with torch.no_grad():
        said: Signals = network.eval()(images)
    given = {**said.features, "embedding": said.embedding, "logits": said.logits}
    assert list(given) == list(network.taps)
    for tap, value in given.items():
        assert value is not None
        assert tuple(value.shape) == (len(images), *network.taps[tap]), tap
        assert value.isfinite().all(), tap
    return said


def reads_its_head(network: Network, said: Signals) -> None:
    """The head of the embedding are the logits, and the embedding is the mean of the map that it is said to be."""
    deepest = [tap for tap in network.taps if tap.startswith("block")][-1]
    assert said.embedding is not None
    if said.head is not None:
        assert near(said.head(said.embedding), said.logits)
        assert (said.head.linear, said.head.linear_final) == (network.linear, network.linear_final)
    if network.linear:
        assert near(said.features[deepest].mean((2, 3)), said.embedding)
    if network.linear_final:
        assert near(said.features["final"].mean((2, 3)), said.embedding)
    if network.local:
        assert near(network.place_logits(said.features["final"].mean((2, 3))), said.logits)


def gives_small_maps(said: Signals) -> None:
    """What a cache keeps of a map is no larger than its grid."""
    for maps in said.features.values():
        small = lowpass(maps, 4)
        assert small.shape == (*maps.shape[:2], min(4, maps.shape[2]), min(4, maps.shape[3]))
        assert small.isfinite().all()


def speaks_in_half_precision(network: Network, images: Tensor) -> None:
    """Under autocast, with a head in full precision."""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        said = network.eval()(images)
    assert said.logits.isfinite().all()
    if said.head is not None:
        assert said.logits.dtype == torch.float32


def learns(network: Network, images: Tensor) -> None:
    """The maps and the logits lead to the first weights; a step is taken, and averaged."""
    average = ModelEmaV3(network, decay=0.5)
    network.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = network(images)
    logits = said.logits.float()
    loss = nn.functional.cross_entropy(logits, torch.arange(len(images)) % logits.shape[1])
    loss = loss + sum(lowpass(maps, 4).square().mean() for maps in said.features.values())
    loss.backward()
    weights = [weight for weight in network.parameters() if weight.requires_grad and weight.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert next(gradient for gradient in gradients if gradient.ndim > 1).any()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    torch.optim.SGD(weights, lr=1e-4).step()
    average.update(network)
    averages = dict(average.module.named_parameters())
    for name, weight in network.named_parameters():  # halfway; nearer to the new one where modules share a weight
        old, new, mean = before[name], weight.detach(), averages[name].detach()
        assert ((mean - old).abs() <= (new - old).abs() * 1.01 + 1e-6).all(), name
        assert ((mean - new).abs() <= (new - old).abs() * 0.51 + 1e-6).all(), name
    network.zero_grad()


def is_saved(network: Network, images: Tensor, folder: Path, **like: Any) -> None:
    """Plain timm loads the weights, and says the same; so does the network that is built from the file."""
    path = folder / "weights.safetensors"
    network.eval().save(path)
    plain = timm.create_model(
        network.name, num_classes=network.num_classes, checkpoint_path=str(path), **network.options
    ).eval()
    with torch.no_grad():
        expected = network(images).logits
        assert near(plain(network.pixels(images)), expected)
    again = build_network(network.name, network.num_classes, path, network.input_size, options=network.options, **like)
    assert again.weights_digest() == network.weights_digest()


def near(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of float32, in units of the typical value."""
    return a.shape == b.shape and float((a - b).detach().abs().max()) <= 1e-4 * float(b.square().mean().sqrt())
