"""cache-teacher: writes what the teacher says about every view to Zarr stores."""

from __future__ import annotations

from typing import Literal

from pipeline.config import Section
from pipeline.data import DataConfig
from pipeline.errors import ConfigError, Problem
from pipeline.models import TeacherConfig
from pipeline.models.device import choose_device
from pipeline.progress import Lines
from pipeline.signals import SignalsConfig
from pipeline.store import StoreConfig, TeacherCache, cache_teacher
from pipeline.views import ViewsConfig
from stages.caches import cache_paths, caches_of
from stages.inputs import Source
from stages.parts import Data, EvaluateConfig, build

Part = Literal["all", "training", "evaluation"]


class Inputs(Section):
    """What this stage reads."""

    data: DataConfig
    teacher: TeacherConfig
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    store: StoreConfig
    evaluate: EvaluateConfig = EvaluateConfig()


def run(source: Source, *, part: Part = "all", replace: bool, wait: bool) -> None:
    """Write the cache of the training samples, and beside it those of the holdout and of the evaluated split.

    part: only the first, or only the others: two DVC stages, so that another `evaluate` keeps the first.
    """
    inputs = source.read(Inputs)
    teacher = inputs.teacher
    if teacher.weights is None:
        fix = "name a file, `pretrained`, or the file that `pipeline train-teacher` shall write"
        raise ConfigError([Problem("teacher.weights", "a teacher needs weights", fix=fix)])
    data = Data.open(inputs.data, inputs.views)
    network, device = build(teacher, data.classes), choose_device(teacher.device)
    jobs = caches_of(data, inputs.signals, inputs.evaluate)
    if part != "all":
        jobs = {name: job for name, job in jobs.items() if (name == "training") == (part == "training")}
    for name, (samples, views, signals) in jobs.items():
        path = cache_teacher(
            network,
            samples,
            views,
            signals,
            target=cache_paths(inputs.store.path)[name],
            precision=teacher.precision,
            micro_batch=teacher.micro_batch,
            device=device,
            rows_per_block=inputs.store.rows_per_block,
            compression=inputs.store.compression,
            progress=Lines(),
            replace=replace,
            wait=wait,
        )
        cache = TeacherCache.open(path)
        print(f"{path}: {len(cache.views)} views of {cache.count:,} samples ({name})")
