"""Checks that the student is trained on the same pixels that the teacher saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data import Images
from pipeline.errors import CACHE_COMMAND, CacheMismatch
from pipeline.progress import Progress
from pipeline.publishing import fingerprint
from pipeline.store.reader import TeacherCache
from pipeline.training.batches import Steps
from pipeline.training.teacher_outputs import FromCaches
from pipeline.views import digest

Verify = Literal["full", "sample", "bytes", "none"]

REPLAYED_ROWS = 1024
LONGEST_SECONDS = 60.0
SAMPLED_ROWS = 1024
VERIFY_BYTES_HINT = "--verify bytes (in Python, verify='bytes')"
CHANGED_VIEWS_HINT = (
    f"the images or the view operations changed since the cache was made: restore them, or run {CACHE_COMMAND} again"
)


def check_views(
    steps: Steps, source: FromCaches, verify: Verify, progress: Progress, compared: dict[str, str] | None = None
) -> str:
    """Render the views that training will use and compare their digests with those of the teacher's views.

    Args:
        steps: renders the views.
        source: reads the digests in the caches.
        progress: counts views.
        verify: how much is checked. `full` renders all views, unless that would take over a minute: then, as with
            `sample`, a thousand samples of each view. `bytes` renders none: it is for encoded images that another
            version of the decoder rounds differently; the bytes of the files were compared by the cache's identity.
            `none` checks nothing.
        compared: what was compared before, for students of one data set and one section `views`, and what was said of
            it: that is not compared again, and what is compared now is added. None remembers nothing.

    Of several teachers, `full` and `sample` compare all digests with each other first.

    Returns a sentence that says what was checked. Raises CacheMismatch, naming the first samples that differ.
    """
    if verify == "none":
        return "views were not checked against the teacher's (verify: none)"
    if verify == "bytes":
        return "the images' bytes and the drawn parameters are the teacher's; pixels were not compared"
    count = steps.samples.count
    epochs = range(min(steps.config.epochs, len(steps.numbers)))
    numbers = sorted({view for epoch in epochs for view in steps.views_of(epoch)})
    views = f"{len(numbers)} view{'s' if len(numbers) > 1 else ''}"
    caches = sorted({cache.manifest.fingerprint for view in numbers for cache in source.every_cache(view)})
    this = fingerprint({"verify": verify, "views": numbers, "caches": caches})
    if compared is not None and this in compared:
        return f"{compared[this]}: compared for a student before"
    rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_ROWS)).astype(np.int64))
    for view in numbers:
        _require_same_pixels(steps, source.every_cache(view), view)
    if verify == "full":
        start = time.monotonic()
        images = steps.images(rows)
        read = time.monotonic()
        _require_pixels(steps, source, numbers[0], rows, images)
        seconds = read - start + len(numbers) * (time.monotonic() - read)
        if seconds / len(rows) * count <= LONGEST_SECONDS:
            rows = np.arange(count)
        del images
    progress.begin("checking views", len(rows) * len(numbers), "views")
    for chunk in np.array_split(rows, -(-len(rows) // REPLAYED_ROWS)):
        images = steps.images(chunk)  # decoded once for all views
        for view in numbers:
            _require_pixels(steps, source, view, chunk, images)
            progress.advance(len(chunk))
    progress.end()
    if len(rows) < count:
        said = f"{len(rows):,} of {count:,} samples of {views} match the teacher's pixels"
    else:
        said = (
            f"all {views} match the teacher's pixels" if len(numbers) > 1 else "the view matches the teacher's pixels"
        )
    if compared is not None:
        compared[this] = said
    return said


def _require_pixels(steps: Steps, source: FromCaches, view: int, rows: NDArray[np.int64], images: Images) -> None:
    """Raise CacheMismatch if rendered pixels are not the primary teacher's. The other teachers' are the same."""
    cache = source.caches(view)[0]
    wrong = rows[digest(steps.render(view, rows, images).pixels) != cache.view_digests(view, rows)]
    if len(wrong):
        raise CacheMismatch(
            f"{len(wrong)} of {len(rows)} rendered views are not the pixels that the teacher saw",
            where=_named(steps, view, wrong),
            expected=f"the digests stored in {cache.path}",
            fix=CHANGED_VIEWS_HINT
            if steps.samples.split.image_shape
            else f"{CHANGED_VIEWS_HINT}; where only the decoder of JPEG files is another version, {VERIFY_BYTES_HINT} "
            "compares the files' bytes instead",
        )


def _require_same_pixels(steps: Steps, caches: Sequence[TeacherCache], view: int) -> None:
    """Raise CacheMismatch if the digests of a view differ between the caches of several teachers."""
    rows = np.arange(steps.samples.count)
    first, *others = caches
    for other in others:
        wrong = rows[first.view_digests(view, rows) != other.view_digests(view, rows)]
        if len(wrong):
            raise CacheMismatch(
                f"two teachers saw different pixels in {len(wrong)} of {len(rows)} views",
                where=_named(steps, view, wrong),
                expected=f"the digests stored in {first.path}",
                got=f"those in {other.path}",
                fix="cache both teachers from the same images; where only the decoder of JPEG files was another "
                f"version, {VERIFY_BYTES_HINT} does not compare pixels",
            )


def _named(steps: Steps, view: int, rows: NDArray[np.int64]) -> str:
    return f"view {view}, samples {', '.join(steps.samples.ids(rows[:5]))}{', ...' if len(rows) > 5 else ''}"
