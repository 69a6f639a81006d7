"""Checks that the student sees the very pixels that the teacher saw."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np

from pipeline.errors import CacheMismatch
from pipeline.progress import Progress
from pipeline.store import TeacherCache
from pipeline.training.batches import Steps
from pipeline.views import digest

Verify = Literal["full", "sample", "bytes", "none"]

CHUNK = 1024
LONGEST_SECONDS = 60.0
SAMPLED_ROWS = 1024
FIX = (
    "the images or the view operations changed since the cache was made: restore them, or run "
    "`pipeline cache-teacher` again"
)


def check_views(steps: Steps, cache: TeacherCache, verify: Verify, progress: Progress) -> str:
    """Render the views that training will use and compare their digests with those of the teacher's views.

    `full` renders all of them, unless that would take over a minute: then, as with `sample`, a thousand of each
    view. `bytes` renders none: it is for encoded images where another version of the decoder rounds differently,
    and leaves it at the files' own bytes, which the cache's identity has. Returns a sentence that says what was
    checked. Raises CacheMismatch, naming the first samples that differ.
    """
    if verify == "none":
        return "views were not checked against the teacher's (--verify none)"
    if verify == "bytes":
        return "the images' bytes and the drawn parameters are the teacher's; pixels were not compared"
    count = steps.samples.count
    numbers = sorted({steps.view_of(epoch) for epoch in range(min(steps.config.epochs, len(steps.numbers)))})
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_ROWS)).astype(np.int64))
    if verify == "full":
        start = time.monotonic()
        _check(steps, cache, numbers[0], rows)
        if (time.monotonic() - start) / len(rows) * count * len(numbers) <= LONGEST_SECONDS:
            rows = np.arange(count)
    progress.begin("checking views", len(rows) * len(numbers), "views")
    for view in numbers:
        for chunk in np.array_split(rows, -(-len(rows) // CHUNK)):
            _check(steps, cache, view, chunk)
            progress.advance(len(chunk))
    progress.end()
    share = "all" if len(rows) == count else f"{len(rows):,} of {count:,} samples of"
    return f"{share} {len(numbers)} views match the teacher's pixels"


def _check(steps: Steps, cache: TeacherCache, view: int, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    ours = digest(steps.render(view, rows))
    wrong = rows[ours != cache.view_digests(view, rows)]
    if len(wrong):
        ids = [steps.samples.split.ids[int(steps.samples.positions[row])] for row in wrong[:5]]
        raise CacheMismatch(
            f"{len(wrong)} of {len(rows)} rendered views are not the pixels that the teacher saw",
            where=f"view {view}, samples {', '.join(ids)}{', ...' if len(wrong) > 5 else ''}",
            expected="the digests stored in the cache",
            fix=FIX
            if steps.samples.split.image_shape
            else f"{FIX}; where only the decoder of JPEG files is "
            "another version, --verify bytes compares the files' bytes instead",
        )
