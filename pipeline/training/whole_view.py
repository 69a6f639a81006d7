"""Reads a view of all samples, in order and in pieces, and lays it where a device computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.models.streams import own_stream
from pipeline.objectives import MixedLabels
from pipeline.training.batches import Steps
from pipeline.training.encoded_outputs import TeacherOutputs, tensors_of, with_tensors

PIECE_BYTES = 64 * 2**20
"""What is read before it is copied: page-locked memory is scarce, and whoever interrupts a run waits so long."""


@dataclass(frozen=True)
class WholeView:
    """Holds what is stored of a view, of all samples 0..N-1, on the device.

    Args:
        number: of the view.
        parameters: int32 [N, P].
        outputs: the teacher's, as they are stored; None without a teacher.
        partners: the samples that are mixed in, int64 [N]; None where views do not mix.
        mixed: their labels, and the shares.
        mixed_here: the same on the CPU.
    """

    number: int
    parameters: Tensor
    outputs: TeacherOutputs | None
    partners: Tensor | None
    mixed: MixedLabels | None
    mixed_here: MixedLabels | None


class Placing:
    """Copies tensors to a device; on a GPU from page-locked memory, and beside what it computes.

    Args:
        device: where they go; a CPU has them already.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self._stream = own_stream(device) if self.cuda else None

    def placed(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the CPU on the device."""
        if not self.cuda:
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def lay(self, tensor: Tensor, place: Tensor) -> None:
        """Copy a tensor of the CPU into a `place` on the device."""
        place.copy_(tensor.pin_memory() if self.cuda else tensor, non_blocking=self.cuda)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Have this thread's copies wait for nothing that is computed, and be done afterwards."""
        if self._stream is None:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()

    def wait(self) -> None:
        """Wait for what this thread has the device compute."""
        if self.cuda:
            torch.cuda.current_stream(self.device).synchronize()


def bytes_of_row(steps: Steps, view: int) -> int:
    """Return the bytes of one sample in a view: what the teacher said, parameters, and what is mixed in.

    Args:
        steps: of the run.
        view: the number of the view.

    Raises various errors if it cannot be read.
    """
    found = steps.source.teacher_outputs(view, np.zeros(1, np.int64), _none_rendered())
    outputs = sum(each.nbytes for each in tensors_of(found)) if found is not None else 0
    return outputs + 4 * len(steps.views.parameter_names) + (8 + 8 + 4 if steps.views.mixing else 0)


def read_whole(steps: Steps, view: int, placing: Placing, stop: threading.Event) -> WholeView:
    """Read what is stored of a view, look whether its parameters are such as are drawn, and lay it on the device.

    Args:
        steps: of the run, whose images are in memory.
        view: the number of the view.
        placing: copies it.
        stop: ends the reading between two pieces.

    Raises various errors if it cannot be read.
    """
    count = steps.samples.count
    size = max(1, PIECE_BYTES // max(1, bytes_of_row(steps, view)))
    parameters = np.empty((count, len(steps.views.parameter_names)), np.int32)
    outputs: TeacherOutputs | None = None
    for first in range(0, count, size):
        if stop.is_set() or not threading.main_thread().is_alive():
            raise TrainingError("the run has ended")
        rows = np.arange(first, min(first + size, count))
        parameters[rows] = steps.parameters(view, rows)
        piece = steps.source.teacher_outputs(view, rows, _none_rendered())
        if piece is None:
            continue
        if outputs is None:
            outputs = with_tensors(piece, lambda each: each.new_empty((count, *each.shape[1:]), device=placing.device))
        for place, tensor in zip(tensors_of(outputs), tensors_of(piece), strict=True):
            placing.lay(tensor, place[first : first + len(rows)])
    assert steps.resident is not None
    height, width = steps.resident.shape[2:]
    steps.views.refuse_outside(parameters, (height, width))
    partners, mixed = steps.mixed_with(parameters), steps.mixed_labels([parameters])
    return WholeView(
        view,
        placing.placed(torch.from_numpy(parameters)),
        outputs,
        None if partners is None else placing.placed(torch.from_numpy(partners)),
        mixed and mixed.map(placing.placed),
        mixed,
    )


def _none_rendered() -> Tensor:
    """Return no images, for sources that need none."""
    return torch.empty(0, dtype=torch.uint8)
