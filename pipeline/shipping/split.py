"""Opens what a configuration has at hand for an export: the split that is reported, and views to calibrate with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Samples
from pipeline.errors import DataError
from pipeline.experiment.data import one_view
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.model_file import ModelInput
from pipeline.experiment.section_sets import LearningSections
from pipeline.views import SampleViews, Views, sizes_of

SPLIT_BATCH = 64
CALIBRATION = 256
"""Views on which ranges of values are measured."""


@dataclass(frozen=True)
class EvaluatedSplit:
    """Reads the split that is reported, as evaluation sees it.

    Args:
        samples: its images.
        views: the one view of each.
        labels: int64 [N].
    """

    samples: Samples
    views: Views
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, experiment: Experiment[LearningSections]) -> EvaluatedSplit | None:
        """Return the split that an experiment names; None if its data set is not here, or has no labels.

        Args:
            experiment: names it.
        """
        if not experiment.config.data.path.exists():
            return None
        samples, views, _ = experiment.evaluation_cache("evaluation")
        if samples.labels is None or samples.labels.min() < 0:
            return None
        return cls(samples, views, samples.labels)

    def batches(self) -> Iterator[tuple[list[NDArray[np.uint8]], Tensor]]:
        """Yield images uint8 [H, W, C], as they are stored, and their views uint8 [B, C, h, w], batch by batch."""
        number = self.views.numbers[0]
        for start in range(0, self.samples.count, SPLIT_BATCH):
            rows = np.arange(start, min(start + SPLIT_BATCH, self.samples.count), dtype=np.int64)
            images = self.samples.read(rows)
            drawn = self.views.parameters(number, self.samples.positions[rows], sizes_of(images))
            pixels = self.views.apply(images, drawn)
            yield [np.ascontiguousarray(each.permute(1, 2, 0).numpy()) for each in images], pixels


def calibration_views(experiment: Experiment[LearningSections], seen: ModelInput) -> Tensor | None:
    """Return views of samples that are learnt from, as the cache has them: uint8 [N, C, h, w], at most `CALIBRATION`.

    Returns None if the data set is not here.

    Args:
        experiment: names data and views.
        seen: the size that the student is given in evaluation: where views have another one, the view that evaluation
            makes of the same samples takes their place.
    """
    if not experiment.config.data.path.exists():
        return None
    samples, views = experiment.data.training, experiment.data.views
    if views.output_size != seen.size:
        views = one_view(samples, experiment.config.evaluate.operations)
    if views.output_size != seen.size:
        what = "the images that are learnt from do not have the size that the student is given"
        raise DataError(what, where=Path(experiment.config.data.path), expected=seen.size, got=views.output_size)
    rows = np.unique(np.linspace(0, samples.count - 1, min(CALIBRATION, samples.count)).astype(np.int64))
    drawn = SampleViews(samples, views)
    number = views.numbers[0]
    return torch.cat([drawn.draw(number, some).pixels for some in np.array_split(rows, -(-len(rows) // SPLIT_BATCH))])
