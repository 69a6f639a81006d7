"""Applies operations one after the other: their sizes, random words and columns follow from each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.split import Images
from pipeline.errors import ConfigError, DataError, Problem, during
from pipeline.views.mixing import MixingOperation
from pipeline.views.operation import Operation, OperationOptions, Size
from pipeline.views.resample import LARGE_IMAGE


@dataclass(frozen=True)
class Stretch:
    """Applies operations that treat one image.

    Args:
        operations: in their order.
        names: of each.
        parameter_names: of all their columns.
    """

    operations: tuple[Operation, ...] = ()
    names: tuple[str, ...] = ()
    parameter_names: tuple[str, ...] = ()

    @property
    def words(self) -> int:
        """Return how many random words one image takes."""
        return sum(operation.words for operation in self.operations)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw parameters int32 [B, P] from the words [B, ...] that begin with theirs, for images of these sizes."""
        columns, at = [np.empty((len(words), 0), np.int32)], 0
        for operation, name in zip(self.operations, self.names, strict=True):
            with during(lambda name=name: f"operation {name}"):  # type: ignore[misc]
                columns.append(operation.draw(words[:, at : at + operation.words], sizes))
            at += operation.words
            sizes = _sizes_after(operation, sizes, len(words))
        return np.concatenate(columns, 1)

    def apply(self, images: Images, columns: Tensor) -> Images:
        """Apply the operations to images under their parameters [B, P]: one by one where their sizes differ."""
        at = 0
        for operation, name in zip(self.operations, self.names, strict=True):
            if not (operation.fixes_size and _is_large(images)):  # those are smaller when they are put together
                images = stacked(images)
            drawn = columns[:, at : at + len(operation.parameter_names)]
            at += len(operation.parameter_names)
            if isinstance(images, Tensor):
                images = _applied(operation, name, images, drawn)
            else:
                images = [_applied(operation, name, image[None], drawn[i : i + 1])[0] for i, image in enumerate(images)]
        return stacked(images)

    def refuse_outside(self, columns: Tensor, size: Size) -> None:
        """Raise DataError if parameters [B, P] are not such as the operations draw for images of this size (H, W)."""
        at, here = 0, size
        for operation, name in zip(self.operations, self.names, strict=True):
            width = len(operation.parameter_names)
            _refuse_out_of_range(name, operation, here, columns[:, at : at + width])
            at, after = at + width, operation.output_size(here)
            if after is None:
                raise DataError("images come out in differing sizes", where=name)
            here = after


@dataclass(frozen=True)
class Chain:
    """Applies all operations of some views, of which one at most mixes two images.

    Args:
        before, after: those before and after that one; all are before where none mixes.
        mixing: its name; mix_size: of the images that it gets. columns: of the parameters, in order: of `before`, the
            partner's position, of the mix, of `before` for the partner, of `after`.
    """

    before: Stretch
    mix: MixingOperation | None
    mixing: str | None
    mix_size: Size | None
    after: Stretch
    needs_sizes: bool
    output_size: Size | None

    @classmethod
    def of(
        cls,
        options: Sequence[OperationOptions],
        operations: Sequence[Operation | MixingOperation],
        image_size: Size | None,
    ) -> Self:
        """Put operations together for images of a size. Raises ConfigError, with every problem, if they do not fit.

        Args:
            options: of the operations.
            image_size: height and width in pixels.
        """
        names = [each.name for each in options]
        needs_sizes, size, mix_size = False, image_size, None
        mixing = [i for i, operation in enumerate(operations) if isinstance(operation, MixingOperation)]
        problems = [_twice(names, mixing[0], i) for i in mixing[1:]]
        for i, operation in enumerate(operations):
            if isinstance(operation, MixingOperation):
                mix_size = size
                if size is None:
                    problems.append(_of_no_size(names[i], i))
                continue
            needs_sizes |= operation.needs_sizes and size is None
            try:
                size = operation.output_size(size)
            except ConfigError as error:
                problems += [problem.below(f"operations.{i}") for problem in error.problems]
                size = None
        if problems:
            raise ConfigError(problems)
        at = mixing[0] if mixing else len(operations)
        before, after = (_stretch(names, operations, part) for part in (range(at), range(at + 1, len(operations))))
        mix = operations[at] if mixing else None
        assert mix is None or isinstance(mix, MixingOperation)
        return cls(before, mix, names[at] if mixing else None, mix_size, after, needs_sizes, size)

    @property
    def words(self) -> int:
        """Return how many random words one view takes."""
        return self.before.words + (self.mix.words if self.mix else 0) + self.after.words

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of all columns."""
        mixed = (
            () if self.mix is None else (f"{self.mixing}.{column}" for column in ("partner", *self.mix.parameter_names))
        )
        theirs = () if self.mix is None else (f"partner.{name}" for name in self.before.parameter_names)
        return (*self.before.parameter_names, *mixed, *theirs, *self.after.parameter_names)

    @property
    def mix_columns(self) -> slice:
        """Return where the columns of the mix are; that of the partner is the one before."""
        first = len(self.before.parameter_names) + 1
        return slice(first, first + (len(self.mix.parameter_names) if self.mix else 0))

    def apply(self, images: Images, columns: Tensor, partners: Images | None) -> Images:
        """Render views from images and parameters [B, P]; partners: the images they are mixed with, where they are."""
        own = len(self.before.parameter_names)
        images = self.before.apply(images, columns[:, :own])
        if self.mix is None:
            return images
        if partners is None:
            raise DataError("the images that these views are mixed with are missing", where=self.mixing)
        mixed = self.mix_columns
        partners = self.before.apply(partners, columns[:, mixed.stop : mixed.stop + own])
        if not (isinstance(images, Tensor) and isinstance(partners, Tensor) and images.shape == partners.shape):
            raise DataError("images of differing shapes cannot be mixed", where=self.mixing)
        drawn = columns[:, mixed]
        _refuse_out_of_range(f"{self.mixing}", self.mix, (images.shape[2], images.shape[3]), drawn)
        with during(lambda: f"operation {self.mixing}"):
            images = self.mix.mix(images, partners, drawn.to(images.device, non_blocking=True))
        return self.after.apply(images, columns[:, mixed.stop + own :])

    def refuse_outside(self, columns: Tensor, size: Size) -> None:
        """Raise DataError if parameters [B, P] are not such as are drawn for images of this size (H, W)."""
        own = len(self.before.parameter_names)
        self.before.refuse_outside(columns[:, :own], size)
        if self.mix is None or self.mix_size is None:
            return
        mixed = self.mix_columns
        _refuse_out_of_range(f"{self.mixing}", self.mix, self.mix_size, columns[:, mixed])
        self.before.refuse_outside(columns[:, mixed.stop : mixed.stop + own], size)
        self.after.refuse_outside(columns[:, mixed.stop + own :], self.mix_size)


def stacked(images: Images) -> Images:
    """Make one tensor of images if their shapes are equal."""
    if isinstance(images, list) and len({image.shape for image in images}) == 1:
        return torch.stack(images)
    return images


def _is_large(images: Images) -> bool:
    return isinstance(images, list) and bool(images) and images[0][0].numel() >= LARGE_IMAGE


def _stretch(names: Sequence[str], operations: Sequence[Operation | MixingOperation], part: range) -> Stretch:
    counts = Counter(names)
    chosen = [(i, operation) for i in part if not isinstance(operation := operations[i], MixingOperation)]
    columns = tuple(
        (f"{i}." if counts[names[i]] > 1 else "") + f"{names[i]}.{column}"
        for i, operation in chosen
        for column in operation.parameter_names
    )
    return Stretch(tuple(operation for _, operation in chosen), tuple(names[i] for i in part), columns)


def _twice(names: Sequence[str], first: int, second: int) -> Problem:
    what = f"a view is mixed with one other image, and {names[first]} mixes it already"
    fix = "leave one of them out; {name: mixup-or-cutmix} does either, as chance has it"
    return Problem(f"operations.{second}", what, got=names[second], fix=fix)


def _of_no_size(name: str, place: int) -> Problem:
    what = f"{name} mixes images of one size, and these differ there"
    fix = "put {name: resized-crop, size: 224}, or a resize to [height, width], before it"
    return Problem(f"operations.{place}", what, fix=fix)


def _sizes_after(operation: Operation, sizes: NDArray[np.int64] | None, count: int) -> NDArray[np.int64] | None:
    """The sizes [B, 2] that `count` images of these sizes come out in; None if that cannot be known."""
    if sizes is None or not len(sizes):
        size = operation.output_size(None)
        return None if size is None else np.broadcast_to(np.array(size, np.int64), (count, 2))
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    after = [operation.output_size((int(h), int(w))) for h, w in different]
    return np.array(after, np.int64)[which.reshape(-1)]


def _applied(operation: Operation, name: str, images: Tensor, columns: Tensor) -> Tensor:
    """Apply to one tensor, after a look at the parameters."""
    _refuse_out_of_range(name, operation, (images.shape[2], images.shape[3]), columns)
    with during(lambda: f"operation {name}"):
        return operation.apply(images, columns.to(images.device, non_blocking=True))


def _refuse_out_of_range(name: str, operation: Operation | MixingOperation, size: Size, columns: Tensor) -> None:
    """Raise DataError for a parameter that is not drawn so, where to look costs no wait for a device."""
    if columns.device.type != "cpu" or not columns.numel():
        return
    values, (low, high) = columns.numpy(), np.array(operation.ranges(size), np.int64).T
    wrong = ((values < low) | (values > high)).any(0)
    if wrong.any():
        column = int(wrong.argmax())
        raise DataError(
            "a parameter of a view is outside its range",
            where=f"{name}.{operation.parameter_names[column]}",
            expected=f"{int(low[column])} to {int(high[column])}",
            got=f"{int(columns[:, column].min())} to {int(columns[:, column].max())}",
            fix="these parameters were drawn for other operations or images",
        )
