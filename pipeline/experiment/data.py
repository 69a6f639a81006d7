"""Opens the packed data set of an experiment: the samples that are used of it, and their views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import Section
from pipeline.data import DataConfig, PackedDataset, Samples, Split, select
from pipeline.errors import ConfigError, DataError, Problem, unknown_name
from pipeline.experiment.sections import EvaluateConfig
from pipeline.views import Views, ViewsConfig, build_views


@dataclass(frozen=True)
class Data:
    """A packed data set, the samples that a run uses of it, and their views."""

    dataset: PackedDataset
    training: Samples
    holdout: Samples | None
    views: Views

    @property
    def classes(self) -> int:
        """K."""
        return len(self.dataset.class_names)

    @property
    def scored(self) -> bool:
        """Whether there are samples with labels that are held out, to score networks on while they learn."""
        return self.holdout is not None and self.holdout.labels is not None

    @classmethod
    def open(cls, config: DataConfig, views: ViewsConfig | None) -> Data:
        """views: None for the images as they are, even of differing sizes.

        Raises DataError if the file is not what the configuration says.
        """
        if not config.path.exists() and config.source is not None:
            raise DataError("there is no packed data set yet", where=config.path, fix="run `pipeline prepare-data`")
        dataset = PackedDataset.of(config)
        if not dataset.class_names:
            fix = "say how many classes the teacher knows: data.classes: N, or the file of their names"
            raise DataError("the packed data set has neither labels nor class names", where=config.path, fix=fix)
        training, holdout = select(dataset, config)
        drawn = build_views(ViewsConfig()) if views is None else views_of(training, views, "views")
        return cls(dataset, training, holdout, drawn)


_APART = "keep some labeled images apart for it, such as a folder test: those that were learnt from tell nothing"


def evaluated_split(dataset: PackedDataset, evaluate: EvaluateConfig) -> Split:
    """The split that is reported. Raises ConfigError, naming the nearest, if there is none of that name."""
    if evaluate.split not in dataset.splits:
        problem = unknown_name("evaluate.split", evaluate.split, dataset.splits)
        raise ConfigError([problem if problem.fix else replace(problem, fix=_APART)])
    return dataset.split(evaluate.split)


def one_view(samples: Samples, operations: Sequence[Section] = ()) -> Views:
    """The view that evaluation sees: of the operations, or the images as they are."""
    config = ViewsConfig.model_validate({"operations": [operation.model_dump() for operation in operations]})
    return views_of(samples, config, "evaluate")


def views_of(samples: Samples, config: ViewsConfig, key: str) -> Views:
    """The views of samples. Raises ConfigError at the section `key` if they would not all have one size."""
    shape = samples.split.image_shape
    views = build_views(config, shape[:2] if shape else None, key)
    if views.output_size is None:
        what = f"the images of split {samples.split.name!r} differ in size, and no operation gives them one"
        fix = "add {name: resize, size: [224, 224]} or {name: resized-crop, size: 224} to the operations"
        raise ConfigError([Problem(f"{key}.operations", what, fix=fix)])
    return views
