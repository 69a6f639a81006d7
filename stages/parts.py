"""The pieces that stages share: a packed data set opened, a network built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline import plugins
from pipeline.config import Section, parse_yaml
from pipeline.data import DataConfig, PackedDataset, Samples, Split, select
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


def trained_network(folder: Path, student: str) -> StudentConfig:
    """The network in a student's folder, as it was trained, whatever the configuration says by now.

    Raises DataError if the folder's own configuration cannot be read.
    """
    path = folder / "config.yaml"
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        teacher = NetworkConfig(model="teacher", mean=raw["teacher"]["mean"], std=raw["teacher"]["std"])
        return StudentConfig.model_validate(raw["students"][student]).preprocessed_as(teacher)
    except (OSError, KeyError, TypeError, ValueError, ConfigError) as error:
        fix = "train the student again with --replace"
        raise DataError("cannot read how a student was trained", where=path, got=error, fix=fix) from None


def evaluated_split(dataset: PackedDataset, evaluate: EvaluateConfig) -> Split:
    """The split that is reported. Raises ConfigError, naming the nearest, if there is none of that name."""
    if evaluate.split not in dataset.splits:
        raise ConfigError([plugins.unknown("evaluate.split", evaluate.split, dataset.splits)])
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
