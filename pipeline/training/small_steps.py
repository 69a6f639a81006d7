"""Makes many small steps at once, where making each by itself takes longer than what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.training.encoded_outputs import tensors_of, with_tensors
from pipeline.training.step import Step

if TYPE_CHECKING:
    from pipeline.training.batches import Steps

AT_ONCE_BYTES = 4 * 2**20
"""What is made at once: little enough to stay in a processor's cache until it is used."""


def made_at_once(steps: Steps, start: int) -> Iterator[Step]:
    """Yield the steps of a run in their order, each as `steps` makes it, from images in memory and from no network.

    Args:
        steps: of the run.
        start: the number of the first.

    An error is raised in place of its step.
    """
    count = 1  # whose bytes say how many more would do
    while start < len(steps):
        count = min(count, steps.steps_per_epoch - start % steps.steps_per_epoch)
        numbers = range(start, start + count)
        try:
            batch = steps.together(start, count)
        except (Exception, SystemExit):
            if count == 1:
                raise
            batch = None
        if batch is None:  # one of them cannot be made: which, and what of it, is said where its turn comes
            yield from (steps[number] for number in numbers)
        else:
            yield from _cut(batch, numbers, steps)
            count = max(1, AT_ONCE_BYTES * count // max(1, _bytes(batch)))
        start = numbers.stop


def _cut(batch: Step, numbers: range, steps: Steps) -> Iterator[Step]:
    first = 0
    for number in numbers:
        rows = slice(first, first + len(steps.read_by(number)[1]) * steps.config.views_per_step)
        first = rows.stop
        part = replace(batch.rows(rows), index=number)
        if part.teacher_outputs is not None:
            # What a product of matrices rounds to may depend on where in memory they begin.
            part.teacher_outputs = with_tensors(part.teacher_outputs, Tensor.clone)
        yield part


def _bytes(batch: Step) -> int:
    sizes = [each.nbytes for each in vars(batch).values() if isinstance(each, Tensor)]
    outputs = tensors_of(batch.teacher_outputs) if batch.teacher_outputs is not None else []
    return sum(sizes) + sum(each.nbytes for each in outputs)
