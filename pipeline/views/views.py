"""Draws the parameters of the views of a data set, and renders their pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins
from pipeline.data.split import Images
from pipeline.errors import ConfigError, DataError, Problem
from pipeline.views.config import OPERATIONS, ViewsConfig
from pipeline.views.keyed_random import random_words
from pipeline.views.operation import Operation, Size


class Views:
    """Draws and renders augmented views, the same every time. `build_views` makes it.

    operations: in their order. image_size: height and width of all images; None if sizes differ.

    Attributes:
        config: the section that they were built from.
        numbers: the view numbers, `range(first, first + count)`.
        parameter_names: of the P columns of parameters, `pad-crop.top`; where an operation occurs twice its
            columns begin with its place in the list, `2.pad-crop.top`.
        exact: the same pixels on every device, thread count and batch size.
        needs_sizes: `parameters` must be given the sizes of the images.
        output_size: height and width of a rendered view; None if the operations leave differing sizes.
    """

    def __init__(self, config: ViewsConfig, operations: Sequence[Operation], image_size: Size | None) -> None:
        self.config = config
        self.numbers = range(config.first, config.first + config.count)
        self.exact = all(operation.exact for operation in operations)
        self._operations = tuple(operations)
        self._image_size = image_size
        self._words = sum(operation.words for operation in operations)
        self.needs_sizes = False
        size = image_size
        problems: list[Problem] = []
        for i, operation in enumerate(operations):
            self.needs_sizes |= operation.needs_sizes and size is None
            try:
                size = operation.output_size(size)
            except ConfigError as error:
                problems += [problem.below(f"operations.{i}") for problem in error.problems]
                size = None
        if problems:
            raise ConfigError(problems)
        self.output_size = size
        counts = Counter(options.name for options in config.operations)
        self.parameter_names = tuple(
            (f"{i}." if counts[options.name] > 1 else "") + f"{options.name}.{column}"
            for i, (options, operation) in enumerate(zip(config.operations, operations, strict=True))
            for column in operation.parameter_names
        )

    def parameters(
        self, view: int, samples: NDArray[np.int64], sizes: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32]:
        """Draw view number `view` of the samples at these positions: int32 [B, P], reals as float32 bits.

        Parameters of a sample do not depend on the other samples. `sizes` [B, 2], heights and widths of the
        images, are needed only if `needs_sizes`: DataError without.
        """
        samples = np.asarray(samples, np.int64)
        if self._image_size is not None:
            sizes = np.broadcast_to(np.array(self._image_size, np.int64), (len(samples), 2))
        elif sizes is None and self.needs_sizes:
            raise DataError(
                "these views cannot be drawn without the sizes of the images",
                where=", ".join(options.name for options in self.config.operations),
                fix="give `sizes`, or build the views for one image size",
            )
        words = random_words(self.config.seed, view, samples, self._words)
        columns, at = [np.empty((len(samples), 0), np.int32)], 0
        for operation in self._operations:
            columns.append(operation.draw(words[:, at : at + operation.words], sizes))
            at += operation.words
            sizes = _sizes_after(operation, sizes)
        return np.concatenate(columns, 1)

    def sources(self, parameters: NDArray[np.int32], samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions int64 [B, S] of the images in the views of `samples` [B]; S is 1 without mixing.

        parameters: of these views, int32 [B, P].
        """
        return np.asarray(samples, np.int64)[:, None]

    def apply(self, images: Images, parameters: NDArray[np.int32] | Tensor) -> Tensor:
        """Render views: uint8 [B, C, H, W] on the images' device, from their sources and parameters [B, P].

        The sources are not changed; without operations they are returned as they are. Raises DataError if
        the parameters are not such as these operations draw, or if sizes or channels differ at the end.
        """
        drawn = parameters if isinstance(parameters, Tensor) else torch.tensor(parameters)
        if drawn.shape != (len(images), len(self.parameter_names)):
            raise DataError(
                "these are not the parameters of these views",
                expected=f"{len(images)} views with {len(self.parameter_names)} parameters: "
                + (", ".join(self.parameter_names) or "none"),
                got=f"an array of shape {tuple(drawn.shape)}",
            )
        at = 0
        for operation, options in zip(self._operations, self.config.operations, strict=True):
            images = _stacked(images)
            columns = drawn[:, at : at + len(operation.parameter_names)]
            at += len(operation.parameter_names)
            if isinstance(images, Tensor):
                images = _apply(operation, options.name, images, columns)
            else:
                images = [
                    _apply(operation, options.name, image[None], columns[i : i + 1])[0]
                    for i, image in enumerate(images)
                ]
        images = _stacked(images)
        if isinstance(images, Tensor):
            return images
        raise DataError(
            "images of differing shapes cannot make a batch",
            where=", ".join(options.name for options in self.config.operations) or "no operations",
            got=" and ".join("x".join(map(str, shape)) for shape in sorted({i.shape for i in images})[:2]),
            fix="add an operation that fixes the size: resize with [height, width], center-crop or resized-crop",
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the pixels of a view of a given number, as plain JSON values."""
        config = self.config.model_dump(mode="json")
        return {"operations": config["operations"], "seed": config["seed"]}


def build_views(config: ViewsConfig, image_size: Size | None = None, key: str = "views") -> Views:
    """Make the views of images of `image_size` (H, W); None if their sizes differ or are not known yet.

    Raises ConfigError, at keys below `key`, if the operations cannot work on such images.
    """
    built = []
    for i, options in enumerate(config.operations):
        module = plugins.load(OPERATIONS, options.name, f"{key}.operations.{i}.name")
        built.append(module.build(options))
    try:
        return Views(config, built, image_size)
    except ConfigError as error:
        raise ConfigError([problem.below(key) for problem in error.problems]) from None


def sizes_of(images: Images) -> NDArray[np.int64]:
    """Return height and width of each image: int64 [B, 2]."""
    return np.array([tuple(image.shape[-2:]) for image in images], np.int64).reshape(-1, 2)


def _sizes_after(operation: Operation, sizes: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The sizes [B, 2] that images of these sizes come out in; None if that cannot be known."""
    if sizes is None or not len(sizes):
        size = operation.output_size(None)
        return None if size is None or sizes is None else np.empty((0, 2), np.int64)
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    after = [operation.output_size((int(h), int(w))) for h, w in different]
    return np.array(after, np.int64)[which.reshape(-1)]


def _stacked(images: Images) -> Images:
    """One tensor if the shapes are equal."""
    if isinstance(images, list) and len({image.shape for image in images}) == 1:
        return torch.stack(images)
    return images


def _apply(operation: Operation, name: str, images: Tensor, columns: Tensor) -> Tensor:
    """Apply to one tensor, after a look at the parameters where that costs no wait for a device."""
    if columns.device.type == "cpu" and columns.numel():
        H, W = images.shape[2:]
        low, high = torch.tensor(operation.ranges((H, W)), dtype=columns.dtype).unbind(1)
        wrong = ((columns < low) | (columns > high)).any(0)
        if wrong.any():
            column = int(wrong.int().argmax())
            raise DataError(
                "a parameter of a view is outside its range",
                where=f"{name}.{operation.parameter_names[column]}",
                expected=f"{int(low[column])} to {int(high[column])}",
                got=f"{int(columns[:, column].min())} to {int(columns[:, column].max())}",
                fix="these parameters were drawn for other operations or images",
            )
    return operation.apply(images, columns.to(images.device, non_blocking=True))
