"""Measures exported students: whether they say what the student says, how often they are right, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.measuring.metrics import measure
from pipeline.shipping.format import Exported, ExportRunner
from pipeline.shipping.split import EvaluatedSplit

ROUNDING = 1e-4
"""By how much logits may differ, as a share of the largest of them (at least 1): a few hundred times float32's step."""

REPEATS, WARM_UP = 5, 2
LATENCY_BATCHES = (1, 32)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute in so many threads.

    Args:
        count: of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refuse_other_logits(name: str, exported: Exported, runner: ExportRunner) -> None:
    """Raise ModelError unless an export says what the student does, of one view and of several, up to rounding.

    Args:
        name: of the format.
        exported: has the student and views.
        runner: of the export.
    """
    for views in (exported.views, exported.views[:1]):
        expected = exported.student.logits(views)
        got = runner.run(runner.from_views(views))
        most = ROUNDING * max(1.0, float(expected.abs().max()))
        apart = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
        if not apart <= most:
            raise ModelError(
                f"the student written as {name} does not say what the student says, so it is not kept",
                where=exported.student.folder,
                expected=f"logits {list(expected.shape)} that differ by at most {most:.1g}",
                got=f"logits {list(got.shape)} that differ by {apart:.3g}",
                fix="choose another --format, and report this with the model's name",
            )


def exported_top1(runner: ExportRunner, split: EvaluatedSplit) -> float:
    """Return the share of a split that is classified rightly, in [0, 1], with the inputs that a format's users make.

    Args:
        runner: of the export.
        split: with labels.
    """
    found: list[Tensor] = []
    for images, views in split.batches():
        if runner.from_image is None:
            found.append(runner.run(runner.from_views(views)))
            continue
        given = images if runner.whole else [view.permute(1, 2, 0).contiguous().numpy() for view in views]
        found.append(runner.run(torch.cat([runner.from_image(image) for image in given])))
    accuracy = measure(torch.cat(found), split.labels).top1
    assert accuracy is not None
    return accuracy


def latency(runner: ExportRunner, views: Tensor, batch: int, seconds: float = 0.5) -> float:
    """Return the median time of a pass in milliseconds, of inputs that are made already.

    Args:
        runner: of the export.
        views: of which the inputs are made.
        batch: images in a pass.
        seconds: that it takes, about.
    """
    inputs = runner.from_views(views[torch.arange(batch) % len(views)])
    for _ in range(WARM_UP):
        once = _timed(runner, inputs, 1)
    passes = max(1, round(seconds / REPEATS / once))
    return 1e3 * statistics.median(_timed(runner, inputs, passes) / passes for _ in range(REPEATS))


def _timed(runner: ExportRunner, inputs: Tensor, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        runner.run(inputs)
    return time.perf_counter() - start
