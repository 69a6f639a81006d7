"""Builds students that end in their teacher's classifier: a projection of a map, and that classifier (SimKD)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.base import Network
from pipeline.models.cells import Convolution
from pipeline.models.fit import fit_weights
from pipeline.models.weights import load_metadata, load_weights, save_weights
from pipeline.signals import LinearHead, Signals
from pipeline.untrusted import parse_json

HEAD_FILE = "head.safetensors"
"""The file of projection and classifier, beside that of the network."""


class Layer(Convolution):
    """Computes a convolution and its normalisation, and perhaps a rectifier.

    Args:
        channels, width: of input and output.
        size: of the kernel.
        rectify: whether the output is rectified.
    """

    def __init__(self, channels: int, width: int, size: int, rectify: bool = True) -> None:
        super().__init__(channels, width, size)
        self.rectify = rectify

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, width, H, W].

        Args:
            maps: of a block.
        """
        result = super().forward(maps)
        return result.relu() if self.rectify else result


class Projector(nn.Sequential):
    """Maps [B, C, h, w] of a student's `block` to [B, D, h, w]: convolutions 1 x 1 to `narrow`, 3 x 3, 1 x 1 to D.

    Args:
        channels: C.
        width: D.
        rectify: whether the last of them is rectified, as the others are.
    """

    def __init__(self, block: str, channels: int, narrow: int, width: int, rectify: bool = True) -> None:
        super().__init__(Layer(channels, narrow, 1), Layer(narrow, narrow, 3), Layer(narrow, width, 1, rectify))
        self.block, self.channels, self.rectify = block, channels, rectify


class ReusedHead(nn.Module):
    """Holds what a student keeps of its training: `projector`, the projection, and `head`, the teacher's classifier."""

    def __init__(self, projector: Projector, head: LinearHead) -> None:
        super().__init__()
        self.projector = projector
        fixed = {"weight": head.weight, "bias": head.bias}
        self.classifier = nn.ParameterDict({k: nn.Parameter(v.detach(), False) for k, v in fixed.items()})

    def forward(self, maps: Tensor) -> Signals:
        """Compute z = W_t g + b_t, g the mean over cells of what the maps [B, C, h, w] of the block are projected to.

        The embedding is g; the classifier runs in at least float32, even under autocast.
        """
        embedding = self.projector(maps).mean((2, 3))
        head = LinearHead(self.classifier["weight"], self.classifier["bias"], linear=False)
        with torch.autocast(embedding.device.type, enabled=False):
            logits = head(embedding)
        return Signals(logits, embedding, {self.projector.block: maps}, head)

    def save(self, path: Path) -> None:
        """Write weights as safetensors, atomically; what they do not tell is in the file's metadata.

        Args:
            path: of the file.
        """
        facts = {"block": self.projector.block, "rectify": self.projector.rectify}
        save_weights(path, self.state_dict(), {"reused": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises ModelError for any other file.

        Args:
            path: of the file.
        """
        weights = load_weights(path)
        try:
            facts = parse_json(load_metadata(path)["reused"].encode())
            narrow, channels = weights["projector.0.linear.weight"].shape[:2]
            classes, width = weights["classifier.weight"].shape
            projector = Projector(str(facts["block"]), channels, narrow, width, facts["rectify"] is True)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "the file does not hold what stands in for a student's head",
                where=path,
                got=f"{type(error).__name__}: {error}",
                fix="train the student again with --replace",
            ) from None
        head = cls(projector, LinearHead(torch.zeros(classes, width), torch.zeros(classes)))
        fit_weights(head, weights, path)
        return head


class WithReusedHead(nn.Module):
    """Runs a network with a `ReusedHead` in place of its own classifier: uint8 images in, `Signals` out.

    Network and head are shared, not copied. The network's own classifier stays where it is, and in the network's file,
    but has no part in any output. Raises ModelError for the head of another network.
    """

    def __init__(self, network: Network, head: ReusedHead) -> None:
        super().__init__()
        block, channels = head.projector.block, head.projector.channels
        if network.taps.get(block, ())[:1] != (channels,):
            shapes = ", ".join(f"{tap} {list(shape)}" for tap, shape in network.taps.items() if len(shape) == 3)
            what = f"{network.name} has no map for the projection before the teacher's classifier"
            raise ModelError(what, expected=f"{block} with {channels} channels", got=shapes)
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W], prepared as the network does."""
        signals: Signals = self.head(self.network.map_of(images, self.head.projector.block))
        return signals

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that are used: all except those of the network's own classifier.

        Args:
            prefix, recurse, remove_duplicate: as of `nn.Module`.
        """
        classifier = self.network.classifier
        idle = {id(parameter) for parameter in classifier.parameters()} if classifier is not None else set()
        every = super().named_parameters(prefix, recurse, remove_duplicate)
        return ((name, parameter) for name, parameter in every if id(parameter) not in idle)

    def save(self, path: Path) -> None:
        """Write the network's weights to the file, as `Network.save` does, and the head's to `HEAD_FILE` beside it.

        Args:
            path: of the file.
        """
        self.network.save(path)
        self.head.save(path.with_name(HEAD_FILE))


def load_trained(network: Network, folder: Path) -> Network | WithReusedHead:
    """Return the network with the head that its folder holds, or as it is."""
    path = folder / HEAD_FILE
    return WithReusedHead(network, ReusedHead.load(path)) if path.exists() else network
