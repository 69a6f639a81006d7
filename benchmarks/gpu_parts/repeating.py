"""Whether runs repeat themselves, and what arithmetic costs that is more exact than it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpu_parts.parts import MODELS
from gpu_parts.pieces import Students, calibrated, same, weights
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import in_turn
from pipeline.models.device import chance_operations, choose_precision, reproducible


def twice(note: Note, place: Place) -> None:
    """Two runs of some steps, as `train` makes them, for the sets whose gradients are added up in most ways."""
    sizes, device, students = place.sizes, place.device, Students(place)
    for model, kind in zip(MODELS, (sizes.student, sizes.vit), strict=True):
        for each in ("kd", "lfcc", "crcd"):
            name = f"{model}, {each}"
            if not note.time_for(name, 3):
                continue
            with note.trying(name), reproducible(device), chance_operations(device) as chance:
                found = []
                for _ in range(2):
                    run = students.run(kind, each, sizes.batch)
                    for number in range(sizes.compared):
                        run.trainer.update(run.steps[number].to(device))
                    found.append(weights(run))
                note.fact(name, same(*found))
                if chance:
                    note.fact(f"{name}: operations without a deterministic form", sorted(set(chance)))


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Let convolutions and products of a GPU round float32 to ten bits, or not."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [each.allow_tf32 for each in backends]
    for each in backends:
        each.allow_tf32 = enabled
    try:
        yield
    finally:
        for each, value in zip(backends, before, strict=True):
            each.allow_tf32 = value


def arithmetic(note: Note, place: Place) -> None:
    """Steps of both networks, and how far their logits are from those in float64."""
    sizes, device, students = place.sizes, place.device, Students(place)
    ways = {"float32": ("float32", False), "bfloat16": ("bfloat16", False)}
    if place.cuda:
        ways["tf32"] = ("float32", True)
    else:
        note.skip("tf32", "needs CUDA")
    if choose_precision("auto", device) == "float32":
        note.fact("bfloat16", "this device has no instructions for it")
    for model, kind in zip(MODELS, (sizes.student, sizes.vit), strict=True):
        if not note.time_for(model, 4):
            continue
        images = torch.randint(0, 256, (sizes.batch, 3, kind.size, kind.size), dtype=torch.uint8).to(device)
        exact = calibrated(kind, sizes.classes).double().to(device)
        plain = calibrated(kind, sizes.classes).to(device)
        works = {}
        for way, (precision, enabled) in ways.items():
            with note.trying(f"{model}: error of {way}"), torch.no_grad(), reproducible(device), tf32(enabled):
                wanted = exact(images).logits.double()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    given = plain(images).logits.double()
                error = float((given - wanted).norm() / wanted.norm())
                note.measure(f"{model}: error of {way}", "of the logits' norm", [error])
            run = students.run(kind, "kd", sizes.batch, precision=precision)
            step = run.steps[0].to(device)

            def work(run=run, step=step, enabled=enabled) -> None:
                with tf32(enabled):
                    run.trainer.update(step)

            works[way] = work
        with reproducible(device):
            found = in_turn(works, device, sizes.rounds, note, sizes.steps)
        for way, seconds in found.items():
            note.rate(f"{model}, {way}", "images/s", sizes.batch, seconds)
            if way != "float32":
                note.ratio(f"{model}: {way} over float32", found["float32"], seconds)
