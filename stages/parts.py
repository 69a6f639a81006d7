"""The pieces that stages share: a packed data set opened, a network built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from pipeline.config import Section
from pipeline.data import DataConfig, PackedDataset, Samples, select
from pipeline.errors import ConfigError, DataError, Problem
from pipeline.models import Network, NetworkConfig, build_network
from pipeline.views import Operations, Views, ViewsConfig, build_views


class StudentConfig(NetworkConfig):
    """A student: a network, and the keys of `train` that differ for it."""

    train: Mapping[str, Any] = Field(default_factory=dict)

    def preprocessed_as(self, teacher: NetworkConfig) -> StudentConfig:
        """The same, normalised as the teacher where it does not say how."""
        return self.model_copy(update={"mean": self.mean or teacher.mean, "std": self.std or teacher.std})


class EvaluateConfig(Section):
    """The split that is reported, and the operations of its one view (none: the images as they are)."""

    split: str = "test"
    operations: Operations = ()


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

    @classmethod
    def open(cls, config: DataConfig, views: ViewsConfig) -> Data:
        """Raises DataError if the file is not what the configuration says."""
        if not config.path.exists() and config.source is not None:
            raise DataError("there is no packed data set yet", where=config.path, fix="run `pipeline prepare-data`")
        dataset = PackedDataset.open(config.path)
        split = dataset.split(config.split)
        training, holdout = select(split, config)
        return cls(dataset, training, holdout, views_of(training, views, "views"))


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


def build(config: NetworkConfig, classes: int, *, seed: int | None = None) -> Network:
    """The network of a section, with its weights; without any, random ones from the seed."""
    return build_network(
        config.model,
        classes,
        weights=config.weights,
        input_size=config.input_size,
        mean=config.mean,
        std=config.std,
        options=config.options,
        seed=seed,
    )
