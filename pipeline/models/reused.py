"""Builds students that keep a projection of a map, with a classifier behind it: the teacher's (SimKD) or their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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

    own: LinearHead | None = None
    """The teacher's classifier stands behind it."""

    def __init__(self, block: str, channels: int, narrow: int, width: int, rectify: bool = True) -> None:
        super().__init__(Layer(channels, narrow, 1), Layer(narrow, narrow, 3), Layer(narrow, width, 1, rectify))
        self.block, self.channels, self.rectify = block, channels, rectify


class LiftProjector(nn.Module):
    """Maps [B, C, h, w] of a student's `block` to [B, D, h, w]: a linear map of each place, and a layer normalisation.

    Args:
        channels: C.
        width: D.
        classes: K of a classifier of its own, which is learned; None has the teacher's.
    """

    rectify = False

    def __init__(self, block: str, channels: int, width: int, classes: int | None) -> None:
        super().__init__()
        self.block, self.channels = block, channels
        self.linear, self.norm = nn.Linear(channels, width, bias=False), nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes) if classes is not None else None

    @property
    def own(self) -> LinearHead | None:
        """Return the classifier of its own, with the parameters that are learned; None where it has the teacher's."""
        classifier = self.classifier
        return LinearHead(classifier.weight, classifier.bias, linear=False) if classifier is not None else None

    def forward(self, maps: Tensor) -> Tensor:
        """Map `maps` place by place; the normalisation is in at least float32."""
        lifted: Tensor = self.linear(maps.permute(0, 2, 3, 1).to(self.linear.weight.dtype))
        normal: Tensor = self.norm(lifted.to(self.norm.weight.dtype))
        return normal.permute(0, 3, 1, 2)


KeptPart = Projector | LiftProjector
"""What a student keeps of an objective at inference."""

_OWN, _FILED = "projector.classifier.", "classifier."
"""How a classifier's tensors are called in a module that has its own, and in the file."""


class ReusedHead(nn.Module):
    """Holds what a student keeps of its training: `projector`, the projection, and the classifier behind it.

    Args:
        projector: the projection.
        head: the teacher's classifier; not read where the projection has its own.
    """

    def __init__(self, projector: KeptPart, head: LinearHead | None) -> None:
        super().__init__()
        self.projector = projector
        if projector.own is None:
            assert head is not None
            fixed = {"weight": head.weight, "bias": head.bias}
            self.classifier = nn.ParameterDict({k: nn.Parameter(v.detach(), False) for k, v in fixed.items()})

    def forward(self, maps: Tensor) -> Signals:
        """Compute z = W_t g + b_t, g the mean over cells of what the maps [B, C, h, w] of the block are projected to.

        The embedding is g; the classifier runs in at least float32, even under autocast.
        """
        embedding = self.projector(maps).mean((2, 3))
        head = self.projector.own or LinearHead(self.classifier["weight"], self.classifier["bias"], linear=False)
        with torch.autocast(embedding.device.type, enabled=False):
            logits = head(embedding)
        return Signals(logits, embedding, {self.projector.block: maps}, head)

    def save(self, path: Path) -> None:
        """Write weights as safetensors, atomically; what they do not tell is in the file's metadata.

        Args:
            path: of the file.
        """
        facts: dict[str, object] = {"block": self.projector.block, "rectify": self.projector.rectify}
        if isinstance(self.projector, LiftProjector):
            facts |= {"lift": True, "own": self.projector.own is not None}
        state = {name.replace(_OWN, _FILED): value for name, value in self.state_dict().items()}
        save_weights(path, state, {"reused": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises ModelError for any other file.

        Args:
            path: of the file.
        """
        weights = load_weights(path)
        try:
            facts = parse_json(load_metadata(path)["reused"].encode())
            classes, width = weights["classifier.weight"].shape
            own = facts.get("own") is True
            projector = _projector(facts, weights, width, classes if own else None)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "the file does not hold what stands in for a student's head",
                where=path,
                got=f"{type(error).__name__}: {error}",
                fix="train the student again with --replace",
            ) from None
        head = cls(projector, None if own else LinearHead(torch.zeros(classes, width), torch.zeros(classes)))
        fit_weights(head, {name.replace(_FILED, _OWN) if own else name: x for name, x in weights.items()}, path)
        return head


def _projector(facts: Mapping[str, object], weights: Mapping[str, Tensor], width: int, own: int | None) -> KeptPart:
    """The projection that a file is of. own: the classes of a classifier of its own."""
    if facts.get("lift") is True:
        _, channels = weights["projector.linear.weight"].shape
        return LiftProjector(str(facts["block"]), channels, width, own)
    narrow, channels = weights["projector.0.linear.weight"].shape[:2]
    return Projector(str(facts["block"]), channels, narrow, width, facts["rectify"] is True)


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
