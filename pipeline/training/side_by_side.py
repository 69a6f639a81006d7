"""Keeps trainings of one process apart that share a GPU: each has a stream and random numbers of its own there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Generic, TypeVar

import torch

from pipeline.models.device import exchange_noting
from pipeline.models.streams import own_stream
from pipeline.stepwise import Stepwise

TrainedT = TypeVar("TrainedT")


class Lane(Generic[TrainedT]):
    """Advances one of several trainings by a step at a time.

    Args:
        work: the training.
        device: on which it computes. On a GPU its kernels are launched on a stream of their own, so those of other
            lanes run beside them.

    While a lane advances, torch's default generators have its state, as if nobody else drew from them. On a GPU that is
    more than a number: a recorded step reads its seed from the state when it runs, which may be when another lane has
    begun a step.

    One thread advances all lanes, inside of `models.device.reproducible` and of `chance_operations`.

    Attributes:
        result: what the training returned, once it has ended.
    """

    result: TrainedT

    def __init__(self, work: Stepwise[TrainedT], device: torch.device) -> None:
        self._work, self._device = work, device
        self._drawn = torch.default_generator.get_state()
        self._noting = exchange_noting(None)
        exchange_noting(self._noting)  # what takes warnings now still does
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            self._index = torch.cuda.current_device() if device.index is None else device.index
            self._stream = own_stream(device)
            self._drawing = torch.cuda.default_generators[self._index].clone_state()

    def advance(self) -> bool:
        """Do the next step, and what is to be done before it; after the last one, what is to be done after it.

        Returns whether there is more to do. Raises whatever the training raises.
        """
        with self._apart():
            try:
                next(self._work)
            except StopIteration as end:
                self.result = end.value
                return False
        return True

    def close(self) -> None:
        """Leave the training where it is: what it holds is let go, as by an interruption."""
        with self._apart():
            self._work.close()

    @contextmanager
    def _apart(self) -> Iterator[None]:
        before, noting = torch.default_generator.get_state(), exchange_noting(self._noting)
        torch.default_generator.set_state(self._drawn)
        try:
            with self._apart_on_gpu() if self._device.type == "cuda" else nullcontext():
                yield
        finally:
            self._drawn, self._noting = torch.default_generator.get_state(), exchange_noting(noting)
            torch.default_generator.set_state(before)

    @contextmanager
    def _apart_on_gpu(self) -> Iterator[None]:
        default = torch.cuda.default_generators[self._index]
        before = default.graphsafe_get_state()
        default.graphsafe_set_state(self._drawing)
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                yield
        finally:
            default.graphsafe_set_state(before)
