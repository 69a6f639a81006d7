"""Runs a model of timm: pixels in, signals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.base import Network
from pipeline.models.fit import Kept
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel
from pipeline.models.taps import Anatomy, examine, final_map, one_place, prefix_tokens
from pipeline.signals import LinearHead, Signals


class TimmNetwork(Network):
    """Runs a model of timm.

    Attributes:
        taps: `block1` to `blockS` (after activation, shallow to deep), `final` (what pooling reads; absent if that is
            no map), `embedding`, `logits` (absent without a classifier).
        local: whether `place_logits` exist, since the logits are a function of the mean of `final`.

    The other arguments are those of `Network`.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        options: Mapping[str, Any],
        num_classes: int,
        input_size: InputSize,
        mean: PerChannel,
        std: PerChannel,
        kept: Kept | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__(model, name, options, input_size, mean, std, interpolation)
        self.num_classes, self.kept = num_classes, kept
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(mean), *self.pixels.sides)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        self._anatomy: Anatomy = examine(model, self.pixels(images), headless=num_classes == 0)
        self.taps = self._anatomy.shapes
        self.linear, self.linear_final = self._anatomy.linear, self._anatomy.linear_final
        self.local = self._anatomy.local
        self._maps = tuple(tap for tap in self.taps if tap not in ("embedding", "logits"))
        self.keep_taps([tap for tap in self._maps if tap != "final"])

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps (blocks or `final`) and no others; at first, of all blocks.

        Raises ModelError for a tap that is no map of this network, naming those that are.
        """
        super().keep_taps(taps)
        self._indices = [index for i, index in enumerate(self._anatomy.blocks) if f"block{i + 1}" in self._kept]

    def forward(self, images: Tensor) -> Signals:
        """Compute the signals of uint8 images [B, C, H, W].

        Images are repeated to three channels, normalised in float32 and resized to `input_size` by `interpolation`
        (antialiased) where they differ from it. The head runs in the precision of its weights even under autocast:
        it costs next to nothing, and bfloat16 logits have 8 bits. Raises ModelError for other images.
        """
        x = self.pixels(images)
        features: dict[str, Tensor] = {}
        if self._indices:
            final, maps = self.model.forward_intermediates(x, indices=self._indices, output_fmt="NCHW")
            features.update(zip(self._kept, maps, strict=False))
        else:
            final = self.model.forward_features(x)
        layout = self._anatomy.layout
        if "final" in self._kept and layout is not None:
            features["final"] = final_map(final, layout, self.taps["final"], prefix_tokens(self.model))
        if not self._anatomy.head:
            embedding = self.model.forward_head(final, pre_logits=True)
            if not self.num_classes:
                embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
                return Signals(embedding[:, :0], embedding, features)
            return Signals(self.model.forward_head(final), embedding, features)
        embedding, logits = self._classify(final)
        classifier: nn.Linear = self.model.get_classifier()
        weight, bias = classifier.weight, classifier.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        head = LinearHead(weight, bias, self.linear, self.linear_final)
        return Signals(logits, embedding, features, head, local=self.place_logits if self.local else None)

    def map_of(self, images: Tensor, tap: str) -> Tensor:
        """Compute only the map [B, C, H, W] of the block `tap`, of images as in `forward`, without the head."""
        (found,) = self.model.forward_intermediates(
            self.pixels(images),
            indices=[self._anatomy.blocks[self._maps.index(tap)]],
            output_fmt="NCHW",
            intermediates_only=True,
        )
        result: Tensor = found
        return result

    def place_logits(self, vectors: Tensor) -> Tensor:
        """Compute logits [M, K] of `vectors` [M, C]: single places of `final`, or means of several.

        The mean of all places gives the network's logits. Only if `local` is true.
        """
        assert self._anatomy.layout is not None
        return self._classify(one_place(vectors, self._anatomy.layout, prefix_tokens(self.model)))[1]

    def _classify(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits."""
        embedding = self.model.forward_head(final, pre_logits=True)
        classifier: nn.Linear = self.model.get_classifier()
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(classifier.weight.dtype)
            return embedding, classifier(embedding)

    @property
    def classifier(self) -> nn.Module | None:
        """Return the layer at the network's end that gives the logits; None if there is no such layer."""
        found: Any = self.model.get_classifier()
        return found if isinstance(found, nn.Module) else None

    @property
    def linear_classifier(self) -> bool:
        """Tell whether the logits are a linear classifier's of the embedding."""
        return self._anatomy.head
