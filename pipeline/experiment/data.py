"""Opens the packed data set of an experiment, selects the samples that are used of it, and draws their views."""

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
    """Holds a packed data set and what a run uses of it.

    Args:
        dataset: the packed file.
        training: the samples to learn from.
        holdout: those that are held out; None if none are.
        views: of the training samples.
    """

    dataset: PackedDataset
    training: Samples
    holdout: Samples | None
    views: Views

    @property
    def classes(self) -> int:
        """Return the number of classes K; 0 if the data set has neither labels nor class names."""
        return len(self.dataset.class_names)

    @property
    def channels(self) -> int:
        """Return the channels of the images: images stored as files have colours when they are read."""
        shape = self.training.split.image_shape
        return shape[2] if shape else 3

    @property
    def scored(self) -> bool:
        """Tell whether samples are held out, to score networks on while they learn."""
        return self.holdout is not None

    @classmethod
    def open(cls, config: DataConfig, views: ViewsConfig | None) -> Data:
        """Open the packed file.

        Args:
            config: the section `data`.
            views: the section; None for the images as they are, even of differing sizes.

        Raises DataError if the file does not fit the configuration.
        """
        if not config.path.exists() and config.source is not None:
            raise DataError("there is no packed data set yet", where=config.path, fix="run `pipeline prepare-data`")
        dataset = PackedDataset.of(config)
        training, holdout = select(dataset, config)
        drawn = build_views(ViewsConfig()) if views is None else views_of(training, views, "views")
        return cls(dataset, training, holdout, drawn)


_APART_HINT = "keep some labeled images apart for it, such as a folder test: those that were learnt from tell nothing"


def evaluated_split(dataset: PackedDataset, evaluate: EvaluateConfig) -> Split:
    """Return the split that is reported.

    Args:
        dataset: has the splits.
        evaluate: the section, which names one.

    Raises ConfigError, with the nearest name, if there is no such split.
    """
    if evaluate.split not in dataset.splits:
        problem = unknown_name("evaluate.split", evaluate.split, dataset.splits)
        raise ConfigError([problem if problem.fix else replace(problem, fix=_APART_HINT)])
    return dataset.split(evaluate.split)


def one_view(samples: Samples, operations: Sequence[Section] = ()) -> Views:
    """Return the one view of `samples` that evaluation sees.

    Args:
        operations: make it; none leave the images as they are.

    Raises ConfigError if one of them mixes images.
    """
    config = ViewsConfig.model_validate({"operations": [operation.model_dump() for operation in operations]})
    views = views_of(samples, config, "evaluate")
    if views.mixing is not None:
        place = [operation.name for operation in config.operations].index(views.mixing)
        what = f"{views.mixing} mixes each image with another one, and evaluation asks what is in one image"
        raise ConfigError([Problem(f"evaluate.operations.{place}", what, got=views.mixing, fix="leave it out")])
    return views


def views_of(samples: Samples, config: ViewsConfig, key: str) -> Views:
    """Return the views of samples.

    Args:
        samples: the images.
        config: the operations.
        key: the section that holds the operations, for messages.

    Raises ConfigError if the views would not all have one size.
    """
    shape = samples.split.image_shape
    views = build_views(config, shape[:2] if shape else None, key, among=samples.positions)
    if views.output_size is None:
        what = f"the images of split {samples.split.name!r} differ in size, and no operation gives them one"
        fix = "add {name: resize, size: [224, 224]} or {name: resized-crop, size: 224} to the operations"
        raise ConfigError([Problem(f"{key}.operations", what, fix=fix)])
    return views
