"""What a core renders, and all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from gpu_parts.pieces import photo_views, photographs, small_samples, small_views
from gpu_parts.record import Note
from gpu_parts.running import Place
from gpu_parts.timing import in_turn
from pipeline.views import SampleViews, digest

CHUNK, SMALL = 16, 4096
"""Photographs that a thread renders at once, and small images."""


def rendering(note: Note, place: Place) -> None:
    """Views of photographs with one thread and with as many as there are cores; of small images here and there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _photographs(note, place)
        _small(note, place)
    finally:
        torch.set_num_threads(threads)


def _photographs(note: Note, place: Place) -> None:
    samples, sizes = photographs(place), place.sizes
    cores, here = len(os.sched_getaffinity(0)), torch.device("cpu")
    note.fact("cores", cores)
    rendered = SampleViews(samples, photo_views(sizes))
    parts = [np.arange(samples.count)[start : start + CHUNK] for start in range(0, samples.count, CHUNK)]

    def views(rows: np.ndarray) -> None:
        digest(rendered.draw(0, rows).pixels)

    def on(count: int) -> Callable[[], None]:
        def work() -> None:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(views, parts[: 4 * count]))

        return work

    works = {"decoding": lambda: samples.read(parts[0]), "views": lambda: views(parts[0])}
    for name, seconds in in_turn(works, here, sizes.rounds, note).items():
        note.rate(f"JPEG, {name}, one thread", "/s", len(parts[0]), seconds)
    for count in sorted({2, 4, 8, 16, 32, cores} - set(range(cores + 1, 33))):
        if note.time_for(f"JPEG, views, {count} threads", 1):
            rows = sum(map(len, parts[: 4 * count]))
            seconds = in_turn({"": on(count)}, here, sizes.rounds, note)[""]
            note.rate(f"JPEG, views, {count} threads", "/s", rows, seconds)
            if count == cores:
                note.rate("JPEG, views, all cores", "/s", rows, seconds)


def _small(note: Note, place: Place) -> None:
    sizes, device = place.sizes, place.device
    count = min(SMALL, sizes.samples)
    samples, views, rows = small_samples(sizes, count), small_views(sizes), np.arange(count)
    images, parameters = samples.read(rows), views.parameters(0, rows)
    assert isinstance(images, torch.Tensor)
    there, drawn = images.to(device), torch.from_numpy(parameters).to(device)
    equal = torch.equal(views.apply(there, drawn).cpu(), views.apply(images, parameters))
    note.fact("32 px: the device makes the same pixels", equal)
    works = {
        "32 px, views, one thread": lambda: views.apply(images, parameters),
        "32 px, views, on the device": lambda: views.apply(there, drawn),
        "32 px, digests, one thread": lambda: digest(images),
    }
    for name, seconds in in_turn(works, device, sizes.rounds, note).items():
        note.rate(name, "/s", count, seconds)
