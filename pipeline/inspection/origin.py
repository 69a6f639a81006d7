"""Compares a cache with what it was made from: renders some of its views again, and runs the teacher on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch

from pipeline.data import Samples
from pipeline.inspection.report import CacheReport
from pipeline.inspection.sample import sampled_batches
from pipeline.inspection.static import verify_labels
from pipeline.inspection.teacher import Limits, verify_teacher
from pipeline.inspection.views import verify_views
from pipeline.models import Network
from pipeline.models.device import Precision
from pipeline.progress import Progress
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache
from pipeline.views import Views


@dataclass(frozen=True)
class SampleCheck:
    """Says which views of a cache are rendered again, and how far the teacher's outputs for them may deviate.

    Args:
        views: how many, about.
        seed: draws them.
        limits: what is let pass.
    """

    views: int = 1024
    seed: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class CacheOrigin:
    """Holds what a cache was made from, as far as it is on this machine.

    Args:
        samples, views: of the cache.
        network: the teacher; None if its weights are not here.
        device: where it runs.
    """

    samples: Samples
    views: Views
    network: Network | None
    device: torch.device


def check_sample(
    report: CacheReport, cache: TeacherCache, origin: CacheOrigin, check: SampleCheck, progress: Progress | None = None
) -> None:
    """Render some of a cache's views again, run the teacher on them, and compare; compare labels and head, too.

    Args:
        report: takes what is found.
        cache: the open cache, with all its signals.
        origin: what it was made from.
        check: which views, and what is let pass.
        progress: shows how far the work is; None shows nothing.
    """
    samples, views = origin.samples, origin.views
    identity = cache.manifest.identity
    sample = sampled_batches(cache.manifest.layout, identity.teacher.micro_batch, check.views, check.seed)
    report.labels = verify_labels(cache, samples)
    report.views = verify_views(cache, samples, views, sample, progress)
    if origin.network is None:
        return
    if report.views.problems:
        report.unchecked.append("the teacher was not run: it would see other pixels")
        return
    teacher = TeacherPass(
        origin.network,
        samples,
        views,
        identity.signals.config(),
        device=origin.device,
        precision=cast(Precision, identity.teacher.precision),
        micro_batch=identity.teacher.micro_batch,
    )
    report.teacher = verify_teacher(cache, teacher, sample, check.limits, progress)
