"""What batches gain that lie on the device over those of the loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from gpu_parts.pieces import Run, Students, same, small_views, weights
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import in_turn
from pipeline.models.device import reproducible
from pipeline.store.format.encoded import EncodedSignals
from pipeline.training.loading import loader
from pipeline.training.order import order
from pipeline.training.step import Step

MOST = 100
"""Steps of a round."""


class Resident:
    """The first epoch of a run on the device: images, labels, and what is stored of one view.

    Args:
        run: whose steps they are.
        place: the device.
    """

    def __init__(self, run: Run, place: Place) -> None:
        steps, device = run.steps, place.device
        count = steps.samples.count
        self.batch = count // steps.steps_per_epoch
        (self.number,) = steps.views_of(0)
        rows, images = np.arange(count), steps.samples.resident(1 << 40)
        assert images is not None
        self.views, self.images = small_views(place.sizes), images.to(device)
        self.labels = torch.from_numpy(steps.labels).to(device)
        self.parameters = torch.from_numpy(run.source.parameters(self.number, rows)).to(device)
        outputs = run.source.teacher_outputs(self.number, rows, self.images)
        assert isinstance(outputs, EncodedSignals)
        self.outputs = outputs.to(device)
        self.order = torch.from_numpy(order(steps.seed, 0, count, steps.rows_per_block)).to(device)
        self.view = torch.full((self.batch,), self.number, device=device)

    def __getitem__(self, index: int) -> Step:
        rows = self.order[index * self.batch : (index + 1) * self.batch]
        pixels = self.views.apply(self.images[rows], self.parameters[rows])
        parts = {name: each[rows] for name, each in self.outputs.arrays.items()}
        return Step(index, pixels, self.labels[rows], rows, self.view, EncodedSignals(self.outputs.specs, parts))


def batches(note: Note, place: Place) -> None:
    """An epoch's first steps: read and rendered by the loader, or on the device; and one batch again and again."""
    sizes, device, students = place.sizes, place.device, Students(place)
    kd, hard = (students.run(sizes.student, each, sizes.batch) for each in ("kd", "hard"))
    count = min(MOST, kd.steps.steps_per_epoch)
    resident = Resident(kd, place)
    held = hard.steps[0].to(device)

    def loaded() -> Iterator[Step]:
        batches = loader(kd.steps, 0, device)
        yield from (step.to(device) for step in islice(batches, count))
        batches.close()  # type: ignore[attr-defined]

    def lying() -> Iterator[Step]:
        return (resident[index] for index in range(count))

    def trained(steps: Callable[[], Iterable[Step]]) -> Callable[[], None]:
        def work() -> None:
            for step in steps():
                kd.trainer.update(step)

        return work

    with reproducible(device):
        alike = [_alike(one, other) for one, other in islice(zip(loaded(), lying(), strict=True), sizes.compared)]
        note.fact("resident batches are the loader's", all(alike))
        works = {
            "loader alone": lambda: [None for _ in loaded()],
            "resident alone": lambda: [None for _ in lying()],
            "hard, one batch from memory": lambda: [hard.trainer.update(held) for _ in range(count)] and None,
            "kd, loader": trained(loaded),
            "kd, resident": trained(lying),
        }
        found = in_turn(works, device, sizes.rounds, note)
        for name, seconds in found.items():
            note.rate(name, "images/s", count * sizes.batch, seconds)
        hard_alone = found["hard, one batch from memory"]
        note.ratio("kd with the loader over hard from memory", hard_alone, found["kd, loader"])
        note.ratio("kd, resident over hard from memory", hard_alone, found["kd, resident"])
        note.ratio("resident over loader", found["kd, loader"], found["kd, resident"])
        if note.time_for("resident batches: same bits after training", 3):
            one, other = (students.run(sizes.student, "kd", sizes.batch) for _ in range(2))
            for index in range(sizes.compared):
                one.trainer.update(one.steps[index].to(device))
                other.trainer.update(resident[index])
            note.fact("resident batches: same bits after training", same(weights(one), weights(other)))


def _alike(one: Step, other: Step) -> bool:
    pairs = [(one.images, other.images), (one.labels, other.labels), (one.sample, other.sample), (one.view, other.view)]
    read = one.teacher_outputs, other.teacher_outputs
    assert isinstance(read[0], EncodedSignals)
    assert isinstance(read[1], EncodedSignals)
    pairs += [(each, read[1].arrays[name]) for name, each in read[0].arrays.items()]
    return all(torch.equal(a, b) for a, b in pairs)
