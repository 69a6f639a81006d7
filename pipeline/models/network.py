"""Runs a timm model: pixels in, signals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, did_you_mean
from pipeline.models.fit import Kept
from pipeline.models.pixels import PixelInput
from pipeline.models.preprocessing import InputSize, Interpolation, PerChannel
from pipeline.models.taps import Anatomy, examine, final_map, one_place, prefix_tokens
from pipeline.models.weights import digest_of, save_weights
from pipeline.signals import LinearHead, Signals


class Network(nn.Module):
    """Runs a teacher or a student: uint8 images in, `Signals` out. `build_network` makes it.

    model: a model of timm. name, options: that it is built by. num_classes: K. input_size: in pixels. mean, std: of the
    channels, in units of the range [0, 1]. interpolation: for images of another size. kept: what the network has of the
    weights that it was built from; None for random ones, or timm's.

    taps: the shape of every tap for one sample: `block1` to `blockS` (after activation, shallow to deep), `final` (what
    pooling reads; absent if that is no map), `embedding`, `logits`. linear: whether the embedding is the mean of the
    deepest block's map and the logits are linear in it. linear_final: the same of `final`. local: whether
    `place_logits` exist, since the logits are a function of the mean of `final`.
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
        super().__init__()
        self.model: Any = model
        self.name, self.options, self.num_classes, self.input_size = name, dict(options), num_classes, input_size
        self.mean, self.std, self.kept = mean, std, kept
        self.interpolation = interpolation
        self.pixels = PixelInput(name, input_size, mean, std, interpolation)
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(mean), *self.pixels.sides)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        self._anatomy: Anatomy = examine(model, self.pixels(images))
        self.taps: Mapping[str, tuple[int, ...]] = self._anatomy.shapes
        self.linear, self.linear_final = self._anatomy.linear, self._anatomy.linear_final
        self.local = self._anatomy.local
        self._maps = tuple(tap for tap in self.taps if tap not in ("embedding", "logits"))
        self.keep_taps([tap for tap in self._maps if tap != "final"])

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Let `forward` return the maps of these taps (blocks or `final`) and no others; at first, of all blocks.

        Raises ModelError for a tap that is no map of this network, naming those that are.
        """
        for tap in taps:
            if tap not in self._maps:
                raise ModelError(
                    f"{self.name} has no map at tap {tap!r}",
                    expected="one of " + ", ".join(self._maps),
                    got=repr(tap),
                    fix=did_you_mean(tap, self._maps),
                )
        self._kept = tuple(tap for tap in self._maps if tap in taps)
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

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights, as plain JSON. No `interpolation` means bilinear."""
        return {
            "model": self.name,
            "options": self.options,
            "num_classes": self.num_classes,
            "input_size": self.input_size if isinstance(self.input_size, int) else list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            **({"interpolation": self.interpolation} if self.interpolation != "bilinear" else {}),
        }

    def weights_digest(self) -> str:
        """Return "sha256:..." of the model's weights and buffers; see `pipeline.models.weights.digest_of`."""
        return digest_of(self.model.state_dict())

    def save(self, path: Path) -> None:
        """Write the timm model's weights as safetensors, atomically; timm and `build_network` load them."""
        save_weights(path, self.model.state_dict())

    @property
    def linear_classifier(self) -> bool:
        """Tell whether the logits are a linear classifier's of the embedding."""
        return self._anatomy.head

    @property
    def places(self) -> int:
        """Return height times width of the deepest block's map: the tokens of a ViT, those in a window of a Swin."""
        height, width = self.taps[f"block{len(self._anatomy.blocks)}"][1:]
        return height * width
