"""What a step of training costs."""

from __future__ import annotations

from itertools import product

from gpu_parts.parts import BATCHES, MODELS, SETS
from gpu_parts.pieces import Students
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import asked_of, in_turn, kernels_of
from pipeline.models.device import reproducible


def cost(note: Note, place: Place) -> None:
    """Steps of `Trainer.update`, of both networks and all sets, on a batch that lies on the device."""
    sizes, students = place.sizes, Students(place)
    kinds = dict(zip(MODELS, (sizes.student, sizes.vit), strict=True))
    called = sorted(zip(BATCHES, sizes.batches, strict=True), key=lambda each: each[1] != sizes.batch)
    with reproducible(place.device):
        for (number, batch), model in product(called, MODELS):
            what = f"{model}, batch {number}"
            if not note.time_for(what, 5 if place.cuda else 0):
                continue
            with note.trying(what):
                works, names = {}, {}
                for each in [each for each in SETS if note.time_for(f"{what}, {each}")]:
                    run = students.run(kinds[model], each, batch)
                    step = run.steps[0].to(place.device)
                    works[each] = lambda run=run, step=step: run.trainer.update(step)
                    names[each] = f"{what}, {each}"
                found = in_turn(works, place.device, sizes.rounds, note, sizes.steps)
                for each, name in names.items():
                    note.rate(name, "images/s", batch, found[each])
                    note.ratio(f"{name}: over hard", found[each], found["hard"])
                if batch != sizes.batch:
                    continue
                for each, name in names.items():
                    operations, waits = asked_of(works[each])
                    note.fact(f"{name}: operations", operations)
                    note.fact(f"{name}: waits", len(waits))
                    _kernels(note, place, name, works[each])


def _kernels(note: Note, place: Place, name: str, step: object) -> None:
    if not place.cuda:
        note.skip(f"{name}: the chip's share", "needs CUDA")
        return
    with note.trying(f"{name}: the chip's share"):
        seen = kernels_of(step, place.sizes.steps)  # type: ignore[arg-type]
        note.measure(f"{name}: kernels", "a step", [seen["launches"]])
        note.measure(f"{name}: waits that CUDA sees", "a step", [seen["waits"]])
        note.measure(f"{name}: the chip's share", "of the time", [seen["busy"]])
