"""Gives a network another end: an embedding that is pooled in another way, or a head of text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.base import Network
from pipeline.models.config import Pooling
from pipeline.models.text_head import TextEmbeddings
from pipeline.signals import LinearHead, Signals


class OtherEnd(Network):
    """Runs a network and ends in another way.

    Args:
        inner: the network.
        classes: K.
        width: D of the embedding.
    """

    def __init__(self, inner: Network, classes: int, width: int) -> None:
        super().__init__(
            inner.model, inner.name, inner.options, inner.input_size, inner.mean, inner.std, inner.interpolation
        )
        self.inner, self.num_classes, self.kept = inner, classes, inner.kept
        self._maps = tuple(tap for tap in inner.taps if tap not in ("embedding", "logits"))
        ends = {"embedding": (width,), **({"logits": (classes,)} if classes else {})}
        self.taps = {**{tap: inner.taps[tap] for tap in self._maps}, **ends}
        self.keep_taps([tap for tap in self._maps if tap != "final"])

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps and no others. Raises ModelError for a tap that is no map."""
        super().keep_taps(taps)
        self.inner.keep_taps(taps)

    def map_of(self, images: Tensor, tap: str) -> Tensor:
        """Compute the map [B, C, H, W] of the block `tap`, of images as in `forward`."""
        return self.inner.map_of(images, tap)


class Repooled(OtherEnd):
    """Ends in an embedding of all places of `final`: their mean, or the network's own embedding and their mean.

    Of a ViT the places are its patches, without class and register tokens.

    Args:
        inner: has no classifier.
        pooling: which.

    Raises ModelError for a network without such a map.
    """

    def __init__(self, inner: Network, pooling: Pooling) -> None:
        if inner.num_classes or "final" not in inner.taps:
            raise ModelError(
                f"the embedding of {inner.name} cannot be pooled in another way",
                where="teacher.pooling",
                expected="a teacher without a classifier, `head: none`, that ends in a map",
                got=f"{inner.num_classes} classes" if inner.num_classes else "no map at its end",
            )
        width = inner.taps["final"][0] + (inner.taps["embedding"][0] if pooling == "both" else 0)
        super().__init__(inner, 0, width)
        self.pooling: Pooling = pooling

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps and no others. Raises ModelError for a tap that is no map."""
        super().keep_taps(taps)
        self.inner.keep_taps([*taps, "final"])

    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W]. Raises ModelError for other images."""
        signals: Signals = self.inner(images)
        final = signals.features["final"]
        vector = final.to(torch.promote_types(final.dtype, torch.float32)).mean((2, 3))
        if self.pooling == "both" and signals.embedding is not None:
            vector = torch.cat([signals.embedding, vector.to(signals.embedding.dtype)], 1)
        features = {tap: maps for tap, maps in signals.features.items() if tap in self._kept}
        return Signals(vector[:, :0], vector, features)

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights, as plain JSON."""
        return {**self.inner.identity(), "pooling": self.pooling}


class WithTextHead(OtherEnd):
    """Ends in text embeddings of class names: its logits are scale · cosine(embedding, text).

    The embedding has unit length, so that the head is linear.

    Args:
        inner: its logits [D] are the projection to the space of the texts; or it has no classifier, and its embedding
            lies there.
        text: of the classes.

    Raises ModelError for another width.
    """

    weight: Tensor

    def __init__(self, inner: Network, text: TextEmbeddings) -> None:
        classes, width = text.text.shape
        found = inner.num_classes or inner.taps["embedding"][0]
        if found != width:
            raise ModelError(
                f"{inner.name} does not end in the space of the text embeddings",
                where="teacher.text_head",
                expected=f"{width} numbers for an image, as for a text",
                got=found,
                fix="embed the names by the text tower of this very model",
            )
        super().__init__(inner, classes, width)
        self.text_digest = text.digest()
        self.register_buffer("weight", text.scale * text.text, persistent=False)

    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W]. Raises ModelError for other images."""
        signals: Signals = self.inner(images)
        vector = signals.logits if self.inner.num_classes else signals.embedding
        assert vector is not None  # a network without a classifier ends in its embedding
        with torch.autocast(vector.device.type, enabled=False):
            vector = F.normalize(vector.to(torch.promote_types(vector.dtype, torch.float32)), dim=1)
        head = LinearHead(self.weight, self.weight.new_zeros(len(self.weight)), linear=False)
        return replace(signals, logits=head(vector), embedding=vector, head=head, local=None)

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights, as plain JSON; the texts by their digest."""
        return {**self.inner.identity(), "num_classes": self.num_classes, "text_head": self.text_digest}
