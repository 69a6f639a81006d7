"""What a pass of the teacher reaches against its bare forward."""

from __future__ import annotations

import time

import torch

from gpu_parts.pieces import VIEWS, cache_of, calibrated, photo_views, photographs, signals, small_samples, small_views
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.sizes import Kind
from gpu_parts.timing import in_turn, seconds_of
from pipeline.data import Samples
from pipeline.models.device import choose_precision
from pipeline.progress import Silent
from pipeline.signals import SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.views import Views

SOME = 20_480
"""Small images of which a cache is made in every round."""


class Clock(Silent):
    """Takes the time from the beginning of the views to their end: without start-up and digests of the data."""

    seconds = 0.0

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self._start = time.perf_counter()

    def end(self) -> None:
        self.seconds = time.perf_counter() - self._start


def small(note: Note, place: Place) -> None:
    """A ResNet-56 over small images; makes the cache that students of other parts learn from."""
    sizes = place.sizes
    samples = small_samples(sizes, min(sizes.samples, SOME))
    _against_bare(note, place, sizes.teacher, samples, small_views(sizes), signals(sizes), sizes.rounds)
    if note.time_for("cache for other parts", 5):
        cache_of(place, small_samples(sizes))


def photographs_run(note: Note, place: Place) -> None:
    """A ResNet-50 over JPEGs."""
    sizes = place.sizes
    kept = SignalsConfig()
    _against_bare(note, place, sizes.photo_teacher, photographs(place), photo_views(sizes), kept, sizes.rounds)


def _against_bare(
    note: Note, place: Place, kind: Kind, samples: Samples, views: Views, kept: SignalsConfig, rounds: int
) -> None:
    sizes, device = place.sizes, place.device
    precision = choose_precision("auto", device)
    network = calibrated(kind, sizes.classes)
    how = {"device": device, "precision": precision, "micro_batch": sizes.micro_batch}
    teacher = TeacherPass(network, samples, views, kept, **how)
    rows = range(min(sizes.micro_batch, samples.count))
    rendered = teacher.render(0, rows)
    images = rendered.images.to(device)
    batches = max(1, samples.count * VIEWS // sizes.micro_batch)

    def cached(number: int) -> float:
        clock, target = Clock(), place.folder / f"again-{samples.count}-{number}.zarr"
        make_cache(network, samples, views, kept, target=target, progress=clock, notify=lambda _: None, **how)
        return clock.seconds

    bare: list[float] = []
    whole: list[float] = []
    with teacher.inference_mode():
        teacher.signals(images)
        rendering = in_turn({"": lambda: teacher.render(0, rows)}, torch.device("cpu"), rounds, note)[""]
    for number in range(rounds):
        if number and not note.time_for(f"round {number + 1}", 2 * seconds_of_round(bare, whole)):
            break
        with teacher.inference_mode():
            bare.append(seconds_of(lambda: teacher.signals(images), device, batches) / len(rendered.images))
        whole.append(cached(number) / (samples.count * VIEWS))
    note.fact("network", f"{kind.model}, {precision}, micro-batches of {sizes.micro_batch}")
    note.rate("bare forward", "views/s", 1, bare)
    note.rate("rendering, one thread", "views/s", len(rows), rendering)
    note.rate("cache-teacher", "views/s", 1, whole)
    note.ratio("cache-teacher over bare forward", bare, whole)


def seconds_of_round(bare: list[float], whole: list[float]) -> float:
    """What the last round took, about."""
    return 0.0 if not whole else whole[-1] + bare[-1]
