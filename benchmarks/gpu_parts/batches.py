"""What batches gain that lie on the device over those of the loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch

from gpu_parts.pieces import Students, same, weights
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import in_turn
from pipeline.models.device import reproducible
from pipeline.store.format.encoded import EncodedSignals
from pipeline.training.loading import loader
from pipeline.training.resident import ResidentEpochs
from pipeline.training.step import Step

MOST = 100
"""Steps of a round."""


def batches(note: Note, place: Place) -> None:
    """An epoch's first steps: read and rendered by the loader, or on the device; and one batch again and again."""
    sizes, device, students = place.sizes, place.device, Students(place)
    kd, hard = (students.run(sizes.student, each, sizes.batch, resident=False) for each in ("kd", "hard"))
    count = min(MOST, kd.steps.steps_per_epoch)
    resident = ResidentEpochs(kd.steps, device)
    held = hard.steps[0].to(device)

    def loaded() -> Iterator[Step]:
        batches = loader(kd.steps, 0, device)
        yield from (step.to(device) for step in islice(batches, count))
        batches.close()  # type: ignore[attr-defined]

    def lying() -> Iterator[Step]:
        batches = resident.steps_from(0)
        yield from islice(batches, count)
        batches.close()  # type: ignore[attr-defined]

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
            for index, step in enumerate(islice(lying(), sizes.compared)):
                one.trainer.update(one.steps[index].to(device))
                other.trainer.update(step)
            note.fact("resident batches: same bits after training", same(weights(one), weights(other)))


def _alike(one: Step, other: Step) -> bool:
    pairs = [(one.images, other.images), (one.labels, other.labels), (one.sample, other.sample), (one.view, other.view)]
    read = one.teacher_outputs, other.teacher_outputs
    assert isinstance(read[0], EncodedSignals)
    assert isinstance(read[1], EncodedSignals)
    pairs += [(each, read[1].arrays[name]) for name, each in read[0].arrays.items()]
    return all(torch.equal(a, b) for a, b in pairs)
