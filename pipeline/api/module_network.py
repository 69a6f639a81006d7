"""Makes a network of any module: timm's, torchvision's, or a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, nearest
from pipeline.models.pixels import PixelInput
from pipeline.models.preprocessing import InputSize, Interpolation
from pipeline.models.taps import disturbed_weights, evaluation_mode, nearly_equal
from pipeline.models.weights import digest_of
from pipeline.signals import LinearHead, Signals

MOST_PREFIX_TOKENS = 16
"""The most tokens before those of the image (a class token, registers) that are looked for."""


@dataclass(frozen=True)
class MapForm:
    """Describes the layout of a block's output.

    layout: `NCHW`, `NHWC`, or `NLC` for tokens. prefix: tokens before those of the image.
    """

    layout: str
    prefix: int = 0

    @classmethod
    def of(cls, output: Tensor) -> MapForm | None:
        """Return the form of a block's `output` for square images; None if it is no map."""
        if output.ndim == 4:
            turned = output.shape[1] == output.shape[2] and output.shape[2] != output.shape[3]
            return cls("NHWC" if turned else "NCHW")
        if output.ndim != 3:
            return None
        squares = (p for p in range(MOST_PREFIX_TOKENS + 1) if _side(output.shape[1] - p) > 0)
        prefix = next(squares, None)
        return None if prefix is None else cls("NLC", prefix)

    def map(self, output: Tensor) -> Tensor:
        """Return a block's `output` as a map [B, C, H, W]."""
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.layout == "NCHW":
            return output
        places = output[:, self.prefix :].transpose(1, 2)
        side = _side(places.shape[2])
        return places.reshape(len(output), -1, side, side)


def _side(places: int) -> int:
    """Return the side of a square of so many places; 0 if they do not make a square."""
    side = int(max(places, 0) ** 0.5 + 0.5)
    return side if side * side == places else 0


class ModuleNetwork(nn.Module):
    """Makes a network of any module: it takes uint8 images and returns `Signals`. `as_network` explains the options.

    model: the module itself; train and save it as before. It takes float32 images [B, C, *input_size] and
    returns logits [B, K], or something with `logits`. taps: the shape of every tap for one sample: `block1` to
    `blockS` are what the modules at `blocks` return, `embedding` is what enters the head, if there is one. The other
    arguments are those of `as_network`.

    Raises ModelError for paths that the module lacks, blocks that are no maps, and a head that does not give the
    logits.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> network = ModuleNetwork(model, ["1"], input_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> network.taps
        {'block1': (8, 14, 14), 'embedding': (8,), 'logits': (5,)}
        >>> network.linear  # the embedding is the mean of block1
        True
    """

    linear_final = False

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[str],
        *,
        input_size: InputSize,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: Interpolation = "bilinear",
        head: str | None = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__()
        kind = type(model)
        self.model = model
        self.name = name or f"{kind.__module__}.{kind.__qualname__}"
        self.blocks = tuple(blocks)
        self.mean, self.std, self.input_size, self.interpolation = mean, std, input_size, interpolation
        self.pixels = PixelInput(self.name, input_size, mean, std, interpolation)
        if len(set(self.blocks)) < len(self.blocks):
            raise ModelError("names a block twice", where=self.name, got=", ".join(self.blocks))
        for path in (*self.blocks, *([head] if head not in (None, "auto") else [])):
            _module_at(model, path, self.name)
        self._forms: dict[str, MapForm] = {}
        self.head: str | None = None
        self.linear = False
        self.taps: Mapping[str, tuple[int, ...]] = self._probed(head)
        self._kept = self._maps = tuple(tap for tap in self.taps if tap.startswith("block"))
        self.num_classes = self.taps["logits"][0]

    def _probed(self, head: str | None) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all taps: run the module once with disturbed weights, as `pipeline.models.taps` does."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.mean), *self.pixels.sides)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        linears = [path for path, module in self.model.named_modules() if isinstance(module, nn.Linear) and path]
        with torch.no_grad(), evaluation_mode(self.model), disturbed_weights(self.model):
            pixels = self.pixels.to(device)(images.to(device))
            with _recorded(self.model, [*self.blocks, *linears]) as records:
                logits = _logits(self.model(pixels), self.name)
            self.head = self._head(head, linears, records, logits)
            taps: dict[str, tuple[int, ...]] = {}
            deepest: Tensor | None = None
            for number, path in enumerate(self.blocks, 1):
                deepest = self._first_map(path, records)
                taps[f"block{number}"] = tuple(deepest.shape[1:])
            if self.head is not None:
                embedding = records[self.head][0][0]
                taps["embedding"] = tuple(embedding.shape[1:])
                self.linear = deepest is not None and nearly_equal(deepest.mean((2, 3)), embedding)
        return taps | {"logits": tuple(logits.shape[1:])}

    def _first_map(self, path: str, records: Mapping[str, list[tuple[Tensor, Any]]]) -> Tensor:
        """Return the map [B, C, H, W] of a block, and remember its form."""
        calls = records[path]
        output = calls[0][1] if len(calls) == 1 else None
        form = MapForm.of(output) if isinstance(output, Tensor) else None
        if form is None:
            got = f"{len(calls)} outputs" if len(calls) != 1 else _described(output)
            expected = "one tensor for each run: maps [B, C, H, W] or [B, H, W, C], or tokens [B, L, C] of a square"
            raise ModelError("a block gives no map", where=f"{self.name}, {path}", expected=expected, got=got)
        assert isinstance(output, Tensor)
        self._forms[path] = form
        return form.map(output)

    def _head(
        self,
        wanted: str | None,
        linears: Sequence[str],
        records: Mapping[str, list[tuple[Tensor, Any]]],
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

    def keep_taps(self, taps: Sequence[str]) -> None:
        """Choose the maps that `forward` returns; before the first call it returns all.

        taps: such as `block2`. Raises ModelError for one that the network does not have.
        """
        for tap in taps:
            if tap not in self._maps:
                expected = ", ".join(self._maps) or "none: as_network(..., blocks=[...]) names them"
                raise ModelError(f"{self.name} has no map at tap {tap!r}", expected=expected, got=repr(tap))
        self._kept = tuple(tap for tap in self._maps if tap in taps)

    def tap_of(self, block: str) -> str:
        """Return the tap of a block: `block2` for the path of the second one.

        block: a path of `blocks`, or a tap. Raises ModelError for another.
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
        with _recorded(self.model, [*paths.values(), *([self.head] if self.head else [])]) as records:
            logits = _logits(self.model(x), self.name)
        features = {tap: self._forms[path].map(records[path][-1][1]) for tap, path in paths.items()}
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

    def identity(self) -> dict[str, Any]:
        """Return what the network is, apart from its weights: the name of its class, its blocks and preprocessing.

        What else the class was built with is not known: where that differs and the weights do not, give `name`.
        """
        return {
            "model": self.name,
            "options": {},
            "num_classes": self.num_classes,
            "input_size": self.input_size if isinstance(self.input_size, int) else list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            **({"interpolation": self.interpolation} if self.interpolation != "bilinear" else {}),
            "blocks": list(self.blocks),
            "head": self.head,
        }

    def weights_digest(self) -> str:
        """Return `sha256:...` of the module's weights and buffers."""
        return digest_of(self.model.state_dict())


@contextmanager
def _recorded(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, list[tuple[Tensor, Any]]]]:
    """Record the first argument and the output of modules, for every call inside the context."""
    records: dict[str, list[tuple[Tensor, Any]]] = {path: [] for path in paths}

    def keep(path: str) -> Any:
        return lambda module, inputs, output: records[path].append((inputs[0] if inputs else torch.empty(0), output))

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in records]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _module_at(model: nn.Module, path: str, name: str) -> None:
    known = [each for each, _ in model.named_modules() if each]
    if path not in known:
        close = nearest(path, known)
        few = [each for each in known if each.count(".") <= 1][:40]
        raise ModelError(
            f"{name} has no module {path!r}",
            expected="one of " + ", ".join(few) + (", ..." if len(few) < len(known) else ""),
            got=repr(path),
            fix=f"did you mean {close!r}?" if close else None,
        )


def _logits(output: Any, name: str) -> Tensor:
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ModelError("a module gives no logits", where=name, expected="a tensor [B, K]", got=_described(logits))
    return logits


def _described(output: object) -> str:
    return f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__


def _same(output: object, logits: Tensor) -> bool:
    return isinstance(output, Tensor) and output.shape == logits.shape and bool(torch.equal(output, logits))
