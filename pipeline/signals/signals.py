"""Defines what is kept of a network's outputs, in types that teachers, students and caches share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.signals.blocks import deepest_block

if TYPE_CHECKING:  # torch takes seconds, and shapes alone are wanted of caches
    import torch
    from torch import Tensor

Map = tuple[int, int, int]
"""Channels, height and width of one sample's map."""


@dataclass(frozen=True)
class LinearHead:
    """Computes logits from embeddings: the linear classifier at a network's end, `weight` [K, D], `bias` [K].

    `linear` says that the head may be read at every place of the last map: the deepest block's map is what
    pooling reads, its mean is the embedding, and the head of the embedding is the logits. Where only the last
    of these holds (a norm behind the pooling, a class token), it is False. `linear_final` says that it holds of
    `final` instead, where something lies between the deepest block and the pooling (a norm, a convolution).
    """

    weight: Tensor
    bias: Tensor
    linear: bool = True
    linear_final: bool = False

    def __call__(self, embedding: Tensor) -> Tensor:
        """Compute the logits [..., K] of embeddings [..., D], in the wider of both precisions under any autocast."""
        import torch
        import torch.nn.functional as F

        dtype = torch.promote_types(embedding.dtype, self.weight.dtype)
        with torch.autocast(embedding.device.type, enabled=False):
            return F.linear(embedding.to(dtype), self.weight.to(dtype), self.bias.to(dtype))

    def to(self, device: torch.device | str) -> LinearHead:
        """Return a copy on `device`."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))


@dataclass(frozen=True)
class SignalShapes:
    """Describes signals by their shapes for one sample: an objective is built from them, before any signal exists.

    Args:
        logits: K; 0 without logits.
        embedding: D; None without one.
        features: (C, H, W) by tap, from shallow to deep.
        linear, linear_final: the flags of the head; None and False without a head.
        local: whether there are `Signals.local` logits.
        filter: the low-pass filter that maps were reduced by.
        extras: shapes of extra signals by name.
        blocks: how many blocks there are, if the last is not held; None if the deepest that is held is the last.
        head_classes: the head's K; 0 without a head.
        standardised: whether embedding and maps were shifted and scaled, or rotated, since.
    """

    logits: int
    embedding: int | None = None
    features: Mapping[str, Map] = field(default_factory=dict)
    linear: bool | None = None
    filter: str = "mean"
    local: bool = False
    linear_final: bool = False
    extras: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    blocks: int | None = None
    head_classes: int = 0
    standardised: bool = False

    @property
    def classes(self) -> int:
        """Return how many classes the network knows, whether its logits are held or its head alone; 0 without both."""
        return self.logits or self.head_classes

    @property
    def depth(self) -> int:
        """Return how many blocks the network has, which is the number of its last; 0 if no block is known."""
        return max(self.blocks or 0, deepest_block(self.features, self.extras))


@dataclass(frozen=True)
class Signals:
    """Holds the outputs of a network for a batch of views.

    `logits` [B, K], with K = 0 where there are none; `embedding` [B, D], the vector that enters the head; `features`
    [B, C, H, W] by tap, from shallow to deep: at full resolution from a network, at most g x g from a cache; `extras`
    [B, ...] by "<signal>/<tap>", from a cache: a network's are computed from its maps (`extract`). `local` gives the
    logits [M, K] of places of `final`, [M, C]: the classifier's of a place alone, whatever lies between pooling and its
    head; None from a cache.
    """

    logits: Tensor
    embedding: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    head: LinearHead | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    local: Callable[[Tensor], Tensor] | None = None

    def detached(self) -> Signals:
        """Return the same signals as constants: no gradient flows through them into the network that computed them."""
        import torch

        head = self.head
        return replace(
            self,
            logits=self.logits.detach(),
            embedding=None if self.embedding is None else self.embedding.detach(),
            features={tap: maps.detach() for tap, maps in self.features.items()},
            head=None if head is None else replace(head, weight=head.weight.detach(), bias=head.bias.detach()),
            extras={name: tensor.detach() for name, tensor in self.extras.items()},
            local=None if self.local is None else torch.no_grad()(self.local),
        )

    def shapes(self, filter: str = "mean") -> SignalShapes:  # noqa: A002 - the word of the configuration
        """Return the shapes for one sample. `filter` is recorded: tensors do not tell what they were reduced by."""
        features: dict[str, Map] = {}
        for tap, tensor in self.features.items():
            _, channels, height, width = tensor.shape
            features[tap] = (channels, height, width)
        return SignalShapes(
            logits=self.logits.shape[1],
            embedding=None if self.embedding is None else self.embedding.shape[1],
            features=features,
            linear=None if self.head is None else self.head.linear,
            filter=filter,
            local=self.local is not None,
            linear_final=self.head is not None and self.head.linear_final,
            extras={name: tuple(tensor.shape[1:]) for name, tensor in self.extras.items()},
            head_classes=0 if self.head is None else len(self.head.weight),
        )
