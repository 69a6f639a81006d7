"""Steps that are captured once and replayed: whether they are the same bit by bit, and what they gain."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from gpu_parts.parts import MODELS, SETS, STUDENTS, TRAINED
from gpu_parts.pieces import Run, Students, same, weights
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import finish, in_turn
from pipeline.models.attention import fastest_attention
from pipeline.models.device import chance_operations, reproducible
from pipeline.stepwise import Stepwise
from pipeline.store.format.encoded import EncodedSignals
from pipeline.training.side_by_side import Lane
from pipeline.training.step import Step

WARM_UP, BATCHES = 2, 4
"""Steps before a graph is captured, and batches that follow each other."""

RECORDED = 3
"""Steps until training has captured one."""


class FixedStep:
    """A step of a student, whose inputs always lie in one place.

    The learning rate is that of the first step, what objectives prepare on the host before a step is prepared once, and
    whether the loss is finite is not looked at: what is compared is the same kernels, launched one by one or replayed.

    Args:
        run: the student.
        device: of the training.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.trainer, self.device = run, run.trainer, device
        self.batches = [run.steps[number].to(device) for number in range(BATCHES)]
        self.held = _copy(self.batches[0])
        for _ in range(WARM_UP):
            self.trainer.objectives.prepare(self.held.known(), 0.0)
            self()  # normalisers and buffers of the optimiser are there from now on
        self.trainer.objectives.prepare(self.held.known(), 0.0)

    def fill(self, number: int) -> None:
        """Lay a batch where the step reads it."""
        step = self.batches[number % BATCHES]
        for held, given in zip(_tensors(self.held), _tensors(step), strict=True):
            held.copy_(given)

    def __call__(self) -> None:
        trainer, outputs = self.trainer, self.held.teacher_outputs
        trainer.network.train()
        trainer.objectives.train()
        trainer.optimizer.zero_grad(set_to_none=True)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=trainer.precision == "bfloat16")
        with autocast, fastest_attention(trainer.network, self.device, trainer.precision):
            student = trainer.network(self.held.images)
            assert outputs is not None
            value = trainer.objectives.compare(student, outputs.decode(trainer.head), self.held.known(), 0.0)
        value.total.backward()
        trainer.optimizer.step()


def _tensors(step: Step) -> list[torch.Tensor]:
    outputs = step.teacher_outputs
    assert isinstance(outputs, EncodedSignals)
    return [step.images, step.labels, step.sample, step.view, *outputs.arrays.values()]


def _copy(step: Step) -> Step:
    outputs = step.teacher_outputs
    assert isinstance(outputs, EncodedSignals)
    arrays = {name: each.clone() for name, each in outputs.arrays.items()}
    images, labels, sample, view = (each.clone() for each in (step.images, step.labels, step.sample, step.view))
    held = replace(step, images=images, labels=labels, sample=sample, view=view)
    return replace(held, teacher_outputs=EncodedSignals(outputs.specs, arrays))


def replayed(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays the work, which is done once; on a CPU the work itself."""
    if device.type != "cuda":
        work()
        return work
    side, current = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        work()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def capture(note: Note, place: Place) -> None:
    """Two students that are the same: one takes its steps, the other replays them."""
    sizes, device, students = place.sizes, place.device, Students(place)
    note.fact("captured", place.cuda)
    rows = [(MODELS[0], sizes.student, each) for each in SETS] + [(MODELS[1], sizes.vit, "kd")]
    with reproducible(device):
        for model, kind, each in rows:
            name = f"{model}, {each}"
            if not note.time_for(name, 3):
                continue
            with note.trying(name):
                eager, other = (FixedStep(students.run(kind, each, sizes.batch), device) for _ in range(2))
                eager()
                replay = replayed(other, device)
                for number in range(sizes.compared):
                    eager.fill(number)
                    eager()
                    other.fill(number)
                    replay()
                note.fact(f"{name}: same bits", same(weights(eager.run), weights(other.run)))
                found = in_turn({"eager": eager, "replayed": replay}, device, sizes.rounds, note, sizes.steps)
                for way, seconds in found.items():
                    note.rate(f"{name}, {way}", "images/s", sizes.batch, seconds)
                if place.cuda:
                    note.ratio(f"{name}: captured over eager", found["eager"], found["replayed"])
                else:
                    note.skip(f"{name}: captured over eager", "needs CUDA: no graph can be captured on a CPU")
    in_training(note, place)


def in_training(note: Note, place: Place) -> None:
    """Two students that are the same, in training: one of them with `train.capture`."""
    sizes, device, students = place.sizes, place.device, Students(place)
    for model, each in TRAINED:
        name, kind = f"{model}, {each}, train.capture", sizes.student if model == MODELS[0] else sizes.vit
        if not place.cuda:
            for what in ("same bits", "over eager"):
                note.skip(f"{name}: {what}", "needs CUDA: no graph can be captured on a CPU")
            continue
        if not note.time_for(name, 3):
            continue
        with note.trying(name), reproducible(device):
            runs = [students.run(kind, each, sizes.batch, capture=on) for on in (False, True)]
            batches = [runs[0].steps[number].to(device) for number in range(BATCHES)]
            for run in runs:
                for number in range(RECORDED + sizes.compared):
                    run.trainer.update(batches[number % BATCHES])
            note.fact(f"{name}: same bits", same(*map(weights, runs)))
            works = {way: _updating(run, batches[0]) for way, run in zip(("eager", "captured"), runs, strict=True)}
            found = in_turn(works, device, sizes.rounds, note, sizes.steps)
            note.ratio(f"{name}: over eager", found["eager"], found["captured"])


def _updating(run: Run, step: Step) -> Callable[[], None]:
    def work() -> None:
        run.trainer.update(step)

    return work


def side_by_side(note: Note, place: Place) -> None:
    """Students with seeds of their own, each a lane as of `train-students --side-by-side`, and each alone."""
    sizes, device, students = place.sizes, place.device, Students(place)
    note.fact("recorded", place.cuda)

    def training(seed: int, runs: dict[int, Run]) -> Stepwise[None]:
        run = runs[seed] = students.run(sizes.student, "kd", sizes.batch, seed, capture=place.cuda)
        batches = [run.steps[number].to(device) for number in range(BATCHES)]
        for number in itertools.count():
            run.trainer.update(batches[number % BATCHES])
            yield

    def begun(count: int, runs: dict[int, Run]) -> list[Lane[None]]:
        lanes = [Lane(training(seed, runs), device) for seed in range(count)]
        for _ in range(RECORDED + sizes.compared):
            advance(lanes)
        return lanes

    def advance(lanes: list[Lane[None]]) -> None:
        for lane in lanes:
            lane.advance()

    with reproducible(device), chance_operations(device):
        for count in STUDENTS:
            name, runs = f"{count} students", dict[int, Run]()
            if not note.time_for(name, 4):
                continue
            with note.trying(name):
                lanes = begun(count, runs)
                if count == sizes.students:
                    alone = dict[int, Run]()
                    for seed in range(count):
                        lone = Lane(training(seed, alone), device)
                        for _ in range(RECORDED + sizes.compared):
                            lone.advance()
                    finish(device)
                    equal = [same(weights(runs[seed]), weights(alone[seed])) for seed in range(count)]
                    note.fact("same bits as alone", all(equal))
                found = in_turn({"": partial(advance, lanes)}, device, sizes.rounds, note, sizes.steps)[""]
                note.rate(name, "images/s", count * sizes.batch, found)
