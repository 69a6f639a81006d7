"""Reads what the modules inside a model compute, by hooks, and turns it into maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, nearest

MOST_PREFIX_TOKENS = 16
"""The most tokens before those of the image (a class token, registers) that are looked for."""

Records = dict[str, list[tuple[Tensor, Any]]]
"""The first argument and the output of every call of a module, by its path."""


@dataclass(frozen=True)
class MapForm:
    """Describes the layout of a block's output.

    Args:
        layout: `NCHW`, `NHWC`, or `NLC` for tokens.
        prefix: tokens before those of the image.
        sides: height and width of the tokens of an image.
    """

    layout: str
    prefix: int = 0
    sides: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, output: Tensor, image: tuple[int, int]) -> MapForm | None:
        """Return the form of a block's `output`, None if it is no map.

        Args:
            image: height and width of the input.
        """
        height, width = image
        if output.ndim == 4:
            fits = [alike(rows, columns, height, width) for rows, columns in (output.shape[2:], output.shape[1:3])]
            if fits[0] != fits[1]:
                return cls("NCHW" if fits[0] else "NHWC")
            turned = output.shape[1] == output.shape[2] and output.shape[2] != output.shape[3]
            return cls("NHWC" if turned else "NCHW")
        if output.ndim != 3:
            return None
        for prefix in range(MOST_PREFIX_TOKENS + 1):
            if sides := _sides(output.shape[1] - prefix, height, width):
                return cls("NLC", prefix, sides)
        return None

    def map(self, output: Tensor) -> Tensor:
        """Return a block's `output` as a map [B, C, H, W]."""
        if self.layout == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.layout == "NCHW":
            return output
        places = output[:, self.prefix :].transpose(1, 2)
        return places.reshape(len(output), -1, *self.sides)


def alike(rows: int, columns: int, height: int, width: int) -> bool:
    """Tell whether a grid may be that of an image: reduced alike in both directions, up to a place of rounding.

    Args:
        rows, columns: of the grid.
        height, width: of the image.
    """
    return abs(rows * width - columns * height) < max(height, width)


def _sides(places: int, height: int, width: int) -> tuple[int, int] | None:
    """Return the sides of a grid of so many places that has the shape of an image; None if there is none."""
    rows = round((max(places, 0) * height / width) ** 0.5)
    columns = places // rows if rows else 0
    return (rows, columns) if columns and rows * columns == places and alike(rows, columns, height, width) else None


@contextmanager
def recorded(model: nn.Module, paths: Sequence[str]) -> Iterator[Records]:
    """Record the first argument and the output of modules, for every call inside the context.

    Args:
        model, paths: the module, and the names of those in it.
    """
    records: Records = {path: [] for path in paths}

    def keep(path: str) -> Any:
        return lambda module, inputs, output: records[path].append((inputs[0] if inputs else torch.empty(0), output))

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in records]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def require_module(model: nn.Module, path: str, name: str) -> None:
    """Raise ModelError, with the nearest path, if a model has no module at a path.

    Args:
        name: of the model.
    """
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


SAME = 1e-3
"""How far outputs of one image may lie apart that are the same but for rounding, in units of their typical value."""


def require_repeatable(run: Callable[[Tensor], Tensor], pixels: Tensor, found: Tensor, name: str) -> None:
    """Raise ModelError if what a model says of an image depends on the images beside it, or on chance.

    A cache of such outputs would be of no image: they would be others in another batch.

    Args:
        run: computes outputs [B, K].
        pixels: its input [B, C, H, W], two images or more.
        found: what it said of them.
        name: of the model.
    """
    apart = SAME * found.float().square().mean().sqrt()
    beside_others = run(torch.cat([pixels[:1], pixels[1:].flip(-1) * 0.5]))
    if not bool(found.isfinite().all()) or (beside_others[0] - found[0]).abs().max() <= apart:
        return
    if (run(pixels) - found).abs().max() <= apart:
        what = "an image has other outputs beside other images, also in evaluation mode"
        fix = "let the module normalise with running statistics in evaluation mode, and each image by itself"
    else:
        what, fix = "an image has other outputs each time", "leave chance, such as dropout, out in evaluation mode"
    raise ModelError(what, where=name, expected="the same outputs for the same image", fix=fix)


def logits_of(output: Any, name: str) -> Tensor:
    """Return the logits [B, K] in what a model returns: the tensor itself, or its `logits`.

    Args:
        name: of the model.
        output: of the model.

    Raises ModelError for anything else.
    """
    logits = output.get("logits", output) if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        fix = "let the module return its logits alone, or something with them as `logits`"
        expected = "a tensor [B, K]"
        raise ModelError("a module gives no logits", where=name, expected=expected, got=shape_text(logits), fix=fix)
    return logits


def shape_text(output: object) -> str:
    """Describe a module's output in an error."""
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of {', '.join(map(str, output)) or 'nothing'}"
    return f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
