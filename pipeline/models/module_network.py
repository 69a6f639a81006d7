"""Makes a network of any module: timm's, torchvision's, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, during, nearest
from pipeline.models.base import Network
from pipeline.models.fit import Kept
from pipeline.models.found_blocks import find_blocks
from pipeline.models.hooks import MapForm, Records, logits_of, recorded, require_module, require_repeatable, shape_text
from pipeline.models.preprocessing import InputSize, Interpolation
from pipeline.models.taps import disturbed_weights, evaluation_mode, nearly_equal
from pipeline.signals import LinearHead, Signals


class ModuleNetwork(Network):
    """Makes a network of any module: it takes uint8 images and returns `Signals`. `as_network` explains the options.

    Args:
        model: the module itself; train and save it as before. It takes float32 images [B, C, *input_size] and returns
            logits [B, K], or something with `logits`.
        blocks: None finds them (`find_blocks`).
        options: that the module was built with, for the identity.
        headless: whether what it returns is the embedding [B, D], and no logits.

    Attributes:
        taps: the shape of every tap for one sample: `block1` to `blockS` are what the modules at `blocks` return,
            `embedding` is what enters the head, if there is one.

    The other arguments are those of `as_network`.

    Raises ModelError for paths that the module lacks, blocks that are no maps, a head that does not give the logits,
    and for outputs that depend on chance or on the other images of a batch.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> network = ModuleNetwork(model, ["1"], input_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> network.taps
        {'block1': (8, 14, 14), 'embedding': (8,), 'logits': (5,)}
        >>> network.linear  # the embedding is the mean of block1
        True
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[str] | None,
        *,
        input_size: InputSize,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: Interpolation = "bilinear",
        head: str | None = "auto",
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
        kept: Kept | None = None,
        headless: bool = False,
    ) -> None:
        name = name or f"{type(model).__module__}.{type(model).__qualname__}"
        super().__init__(model, name, options or {}, input_size, mean, std, interpolation)
        self.kept, self.headless = kept, headless
        self.blocks = tuple(blocks or ())
        if len(set(self.blocks)) < len(self.blocks):
            raise ModelError("names a block twice", where=self.name, got=", ".join(self.blocks))
        for path in (*self.blocks, *([head] if head not in (None, "auto") else [])):
            require_module(model, path, self.name)
        self._forms: dict[str, MapForm] = {}
        self.head: str | None = None
        self.taps = self._probed(head, find=blocks is None)
        self._kept = self._maps = tuple(tap for tap in self.taps if tap.startswith("block"))
        self.num_classes = 0 if headless else self.taps["logits"][0]

    def _probed(self, head: str | None, *, find: bool) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all taps: run the module once with disturbed weights, as `pipeline.models.taps` does."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.mean), *self.pixels.sides)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        linears = [path for path, module in self.model.named_modules() if isinstance(module, nn.Linear) and path]
        with torch.no_grad(), evaluation_mode(self.model), disturbed_weights(self.model):
            pixels = self.pixels.to(device)(images.to(device))
            if find:
                self.blocks = tuple(find_blocks(self.model, pixels))
            with recorded(self.model, [*self.blocks, *linears]) as records:
                logits = logits_of(self.model(pixels), self.name)
            require_repeatable(lambda x: logits_of(self.model(x), self.name), pixels, logits, self.name)
            self.head = None if self.headless else self._head(head, linears, records, logits)
            taps: dict[str, tuple[int, ...]] = {}
            deepest: Tensor | None = None
            for number, path in enumerate(self.blocks, 1):
                deepest = self._first_map(path, records)
                taps[f"block{number}"] = tuple(deepest.shape[1:])
            if self.head is not None:
                embedding = records[self.head][0][0]
                taps["embedding"] = tuple(embedding.shape[1:])
                self.linear = deepest is not None and nearly_equal(deepest.mean((2, 3)), embedding)
        return taps | {"embedding" if self.headless else "logits": tuple(logits.shape[1:])}

    def _first_map(self, path: str, records: Records) -> Tensor:
        """Return the map [B, C, H, W] of a block, and remember its form."""
        calls = records[path]
        output = calls[0][1] if len(calls) == 1 else None
        form = MapForm.of(output, self.pixels.sides) if isinstance(output, Tensor) else None
        if form is None:
            got = f"{len(calls)} outputs" if len(calls) != 1 else shape_text(output)
            expected = "one tensor for each run: maps [B, C, H, W] or [B, H, W, C], or tokens [B, L, C] of a square"
            raise ModelError("a block gives no map", where=f"{self.name}, {path}", expected=expected, got=got)
        assert isinstance(output, Tensor)
        self._forms[path] = form
        return form.map(output)

    def _head(
        self,
        wanted: str | None,
        linears: Sequence[str],
        records: Records,
        logits: Tensor,
    ) -> str | None:
        """Return the path of the linear layer whose output is the logits; None if there is none, or none is wanted."""
        for path in [] if wanted is None else linears if wanted == "auto" else [wanted]:
            calls = records.get(path, [])
            if len(calls) == 1 and calls[0][0].ndim == 2 and _same(calls[0][1], logits):
                return path
        if wanted not in (None, "auto"):
            what = "the logits are not the output of the head that is named"
            fix = "name the last linear layer, or leave `head` out"
            raise ModelError(what, where=f"{self.name}, {wanted}", expected="a torch.nn.Linear", fix=fix)
        return None

    def tap_of(self, block: str) -> str:
        """Return the tap of a block: `block2` for the path of the second one.

        Args:
            block: a path of `blocks`, or a tap.

        Raises ModelError for another.
        """
        if block in self._maps:
            return block
        if block in self.blocks:
            return f"block{self.blocks.index(block) + 1}"
        close = nearest(block, [*self.blocks, *self._maps])
        raise ModelError(
            f"{self.name} has no block {block!r}",
            expected="one of " + ", ".join(self.blocks) if self.blocks else "none: name them in `as_network`",
            got=repr(block),
            fix=f"did you mean {close!r}?" if close else None,
        )

    def forward(self, images: Tensor) -> Signals:
        """Return logits, embedding, head and maps for uint8 images [B, C, H, W].

        The head runs in the precision of its weights even under autocast. Raises ModelError for other images.
        """
        paths = {tap: self.blocks[int(tap.removeprefix("block")) - 1] for tap in self._kept}
        x = self.pixels(images)
        taps = [*paths.values(), *([self.head] if self.head else [])]
        with recorded(self.model, taps) as records, during(lambda: f"network {self.name}"):
            logits = logits_of(self.model(x), self.name)
        features = {tap: self._forms[path].map(records[path][-1][1]) for tap, path in paths.items()}
        if self.headless:
            embedding = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return Signals(embedding[:, :0], embedding, features)
        if self.head is None:
            return Signals(logits, None, features)
        layer: Any = self.model.get_submodule(self.head)
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        head = LinearHead(layer.weight, bias, self.linear)
        embedding = records[self.head][-1][0]
        if torch.is_autocast_enabled(images.device.type):
            embedding = embedding.to(layer.weight.dtype)
            logits = head(embedding)
        return Signals(logits, embedding, features, head)

    def remove_classifier(self) -> None:
        """Let the network end in its embedding: its last linear layer is taken off.

        Raises ModelError if it does not end in one.
        """
        if self.head is None:
            what, fix = f"{self.name} does not end in a linear layer", "name its `head`, or leave `head: none` out"
            raise ModelError(what, fix=fix)
        self.model.set_submodule(self.head, nn.Identity())
        self.taps = {tap: shape for tap, shape in self.taps.items() if tap != "logits"}
        self.head, self.headless, self.linear, self.num_classes = None, True, False, 0

    def map_of(self, images: Tensor, tap: str) -> Tensor:
        """Compute the map [B, C, H, W] of the block `tap`, of images as in `forward`."""
        path = self.blocks[self._maps.index(tap)]
        with recorded(self.model, [path]) as records, during(lambda: f"network {self.name}"):
            self.model(self.pixels(images))
        return self._forms[path].map(records[path][-1][1])

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights: its name, options, blocks and preprocessing.

        What else the class of a module was built with is not known in Python: where that differs and the weights do
        not, give `name`.
        """
        return {**super().identity(), "blocks": list(self.blocks), "head": self.head}

    @property
    def classifier(self) -> nn.Module | None:
        """Return the linear layer whose output is the logits; None if there is none."""
        return self.model.get_submodule(self.head) if self.head else None


def _same(output: object, logits: Tensor) -> bool:
    return isinstance(output, Tensor) and output.shape == logits.shape and bool(torch.equal(output, logits))
