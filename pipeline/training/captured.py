"""Makes steps on a GPU from graphs: the kernels of a step are recorded once, and launched again as one."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import TrainingError, first_line
from pipeline.models.streams import own_stream
from pipeline.objectives import Terms
from pipeline.training.change import change_weights
from pipeline.training.encoded_outputs import tensors_of, with_tensors
from pipeline.training.step import Step
from pipeline.training.step_tables import rate_table, weight_table

if TYPE_CHECKING:
    from pipeline.training.trainer import Trainer

UNRECORDED_STEPS = 2
"""Steps of a kind before it is recorded: the first ones make what later ones find."""

NO_CAPTURE_HINT = "train.capture: false"


class Recorder(Protocol):
    """Records what a device is given to compute."""

    def apart(self, work: Callable[[], Terms]) -> Terms:
        """Do the `work` as it will be recorded, but record nothing."""

    def recorded(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """Record the `work`; return what does it again, and its result, which is written anew each time."""


class CudaRecorder:
    """Records on a GPU; the bits are those of the same kernels without a record.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = own_stream(device)

    def apart(self, work: Callable[[], Terms]) -> Terms:
        """Do the `work` on the stream on which it will be recorded."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def recorded(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """Record the `work`, which is not done by that."""
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        try:
            # Another thread may copy the next epoch meanwhile.
            with (
                _without_collections(),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                result = work()
        except BaseException:
            torch.cuda.set_stream(current)  # which torch leaves out where the end of a record fails
            raise
        return result, graph.replay


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from freeing an older graph in between, which would spoil the one that is recorded."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Unknown:
    """Stands for a number that changes from step to step: whoever computes with it fails."""

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("the number of the step, or the progress, is asked for")

    def __bool__(self) -> NoReturn:
        raise TypeError("the number of the step, or the progress, is asked for")

    __hash__ = None  # type: ignore[assignment]


class _Graph:
    """Holds a recorded step: where its batch and its numbers lie, its result, and the gradients that it writes."""

    def __init__(self, held: Step, factors: Tensor, rates: Tensor) -> None:
        self.held, self.factors, self.rates = held, factors, rates
        self.result: Terms | None = None
        self.gradients: list[Tensor | None] = []
        self.replay: Callable[[], None] = lambda: None


class CapturedSteps:
    """Makes the steps of a training from graphs, one for each size of batch and set of objectives.

    Args:
        trainer: whose steps they are.
        recorder: records them; None for the one of a GPU.

    Random numbers are keyed by the step, as without graphs. What an objective computes from the number of the step, or
    from the progress, cannot be recorded: TrainingError is raised for it, and where an attribute of a module is another
    one after a step, since what is recorded would go on with the old one.

    With a fused optimiser a graph holds the whole step: gradient, the look whether the loss is finite, clipping, the
    optimiser, which reads the learning rates on the device, and the moving average. Other optimisers compute with
    numbers of the host, so with them a graph holds the gradient alone.
    """

    def __init__(self, trainer: Trainer, recorder: Recorder | None = None) -> None:
        self.trainer, self.recorder = trainer, recorder or CudaRecorder(trainer.device)
        self.parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        where = trainer.steps, trainer.device
        self.factors = weight_table(trainer.objectives, *where)
        self.rates = rate_table(trainer.scheduler, trainer.optimizer, *where)
        self.labels = [entry.label for entry in trainer.objectives.entries]
        self._graphs: dict[Any, _Graph] = {}
        self._seen: dict[Any, int] = {}

    @property
    def whole(self) -> bool:
        """Return whether a graph changes the weights too."""
        return self.trainer.finite.deferred

    def __call__(self, step: Step) -> Terms:
        """Compute the gradient of a step, whose parameters have none, and its loss, which is returned.

        If `whole`, the weights are changed too. Raises TrainingError as `FiniteLoss.see` does.
        """
        value = self._made(step)
        if self.whole:
            self.trainer.finite.note(step.index, 0)
        else:
            self.trainer.finite.see(value, step.index, 0)
        return value

    def _made(self, step: Step) -> Terms:
        factors, rates = self.factors.row(step.index), self.rates.row(step.index)
        on = tuple(weight != 0 for weight in self.factors.here(step.index))
        decay = self.trainer.ema.get_decay(step.index) if self.whole and self.trainer.ema is not None else None
        key = (on, decay, tuple((each.shape, each.stride(), each.dtype) for each in _tensors(step)))
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        if seen <= UNRECORDED_STEPS:
            given = replace(step, index=cast(int, _Unknown()), host=None)
            before = self._attributes() if seen == UNRECORDED_STEPS else []
            drawn = self._drawn()
            found = self.recorder.apart(lambda: self._computed(given, factors, rates, on, step.index))
            self._refuse_changed(before)
            if self._drawn() != drawn:
                what = "a step draws random numbers on the host, which a record would repeat for ever"
                raise TrainingError(what, where="a layer of the network, or an objective", fix=NO_CAPTURE_HINT)
            return found
        if key not in self._graphs:
            self._graphs[key] = self._recorded(step, factors, rates, on)
        graph = self._graphs[key]
        for place, tensor in zip(_tensors(graph.held), _tensors(step), strict=True):
            place.copy_(tensor)
        graph.factors.copy_(factors)
        graph.rates.copy_(rates)
        graph.replay()
        for parameter, gradient in zip(self.parameters, graph.gradients, strict=True):
            parameter.grad = gradient
        assert graph.result is not None
        return graph.result

    def _recorded(self, step: Step, factors: Tensor, rates: Tensor, on: Sequence[bool]) -> _Graph:
        graph = _Graph(_copied(step), factors.clone(), rates.clone())
        try:
            work = lambda: self._computed(graph.held, graph.factors, graph.rates, on, step.index)  # noqa: E731
            graph.result, graph.replay = self.recorder.recorded(work)
        except RuntimeError as error:
            # The end of a record that is spoilt raises, too, while what spoilt it is raised.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(cause, torch.cuda.OutOfMemoryError):
                raise cause from None  # the record is not to blame
            what = "a step could not be recorded on the GPU"
            raise TrainingError(what, got=first_line(cause), fix=NO_CAPTURE_HINT) from error
        graph.gradients = [parameter.grad for parameter in self.parameters]
        return graph

    def _computed(self, step: Step, factors: Tensor, rates: Tensor, on: Sequence[bool], index: int) -> Terms:
        """Compute what depends on tensors alone, and on the set of objectives.

        index: of the step, by which the average is begun: records of other averages are others.
        """
        chosen = {label: factors[i] for i, label in enumerate(self.labels) if on[i]}
        try:
            with self.trainer.arithmetic():
                value = self.trainer.loss(step, cast(float, _Unknown()), chosen)
        except TypeError as error:
            what = "an objective computes with the number of the step, or with the progress, which no record can have"
            raise TrainingError(what, got=first_line(error), fix=NO_CAPTURE_HINT) from error
        if self.whole:
            self.trainer.finite.look(value)
        value.total.backward()  # type: ignore[no-untyped-call]
        if self.whole:
            change_weights(self.trainer, index, rates.unbind())
        return Terms(value.total.detach(), value.terms)

    def _drawn(self) -> list[Any]:
        """Return what changes where the host draws random numbers: a GPU has a generator of its own."""
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that others draw from
        here = [] if self.trainer.device.type == "cpu" else [torch.get_rng_state().tolist()]
        return [random.getstate(), str(numpy), *here]

    def _attributes(self) -> list[tuple[nn.Module, dict[str, Any]]]:
        modules = [*self.trainer.network.modules(), *self.trainer.objectives.modules()]
        return [(each, {**vars(each), **each._buffers, **each._parameters}) for each in modules]

    def _refuse_changed(self, before: list[tuple[nn.Module, dict[str, Any]]]) -> None:
        """Raise TrainingError if a module has another attribute than `before` a step."""
        for module, old in before:
            new = {**vars(module), **module._buffers, **module._parameters}
            if changed := [name for name in new if new[name] is not old.get(name)]:
                what = "a step sets an attribute of a module, which no record would do"
                where = f"{type(module).__name__}.{changed[0]}"
                raise TrainingError(what, where=where, fix=f"{NO_CAPTURE_HINT}; or change a buffer in its place")


def _tensors(step: Step) -> list[Tensor]:
    outputs = tensors_of(step.teacher_outputs) if step.teacher_outputs is not None else []
    mixed = [step.mixed.labels, step.mixed.share] if step.mixed is not None else []
    return [step.images, step.labels, step.sample, step.view, *mixed, *outputs]


def _copied(step: Step) -> Step:
    """Return a copy whose tensors stay where they are, and which no host knows."""
    images, labels, sample, view = (each.clone() for each in (step.images, step.labels, step.sample, step.view))
    held = replace(step, index=cast(int, _Unknown()), images=images, labels=labels, sample=sample, view=view, host=None)
    outputs = with_tensors(step.teacher_outputs, Tensor.clone) if step.teacher_outputs is not None else None
    return replace(held, teacher_outputs=outputs, mixed=step.mixed and step.mixed.map(Tensor.clone))
