"""The configurations that come with Decant fit together: every set of objectives with every student and the teacher."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from timm.data.auto_augment import rand_augment_transform

from pipeline.experiment.source import ConfigFile
from pipeline.models import build_network
from pipeline.planning.binding import bind_experiment

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("cifar100*.yaml"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each of CIFAR-100's classes, in every split."""
    file = tmp_path_factory.mktemp("packed") / "cifar100.h5"
    with h5py.File(file, "w") as data:
        for split in ("train", "test"):
            group = data.create_group(split)
            group["images"] = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
            group["labels"] = np.arange(200) % 100
            group["ids"] = [f"{split}-{i}" for i in range(200)]
    return file


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_fits_together(config: Path, packed: Path) -> None:
    given = [f"data.path={packed}", "data.limit=null", "data.holdout=null"]
    if "\nteacher_training:" not in config.read_text():  # its teacher is one that another configuration trains
        weights = packed.parent / "teacher.safetensors"
        build_network("cifar_resnet56", 100, input_size=32).save(weights)
        given.append(f"teacher.weights={weights}")
    bound = bind_experiment(ConfigFile(config, tuple(given)))
    assert bound.data is not None
    assert bound.data.classes == 100
    assert bound.students
    assert bound.teacher.name == ("cifar_wrn16_2" if config.stem == "cifar100-families" else "cifar_resnet56")


def test_the_students_of_many_families_fit_the_other_teacher_too(packed: Path) -> None:
    config, given = Path(__file__).parents[2] / "configs/cifar100-families.yaml", [f"data.path={packed}"]
    bound = bind_experiment(ConfigFile(config, (*given, "data.limit=null", "teacher.model=cifar_resnet56")))
    assert len(bound.students) == 8


def test_the_augmentations_of_deit(tmp_path: Path) -> None:
    """Every method that is named there learns from views that are mixed; more than one label is no obstacle."""
    file = tmp_path / "imagenet.h5"
    with h5py.File(file, "w") as data:
        for split in ("train", "val"):
            group = data.create_group(split)
            group["images"] = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 3), dtype=np.uint8)
            group["labels"] = np.arange(1000)
            group["ids"] = [f"{split}-{i}" for i in range(1000)]
    config = Path(__file__).parents[2] / "configs/imagenet-deit.yaml"
    bound = bind_experiment(ConfigFile(config, (f"data.path={file}",)))
    assert bound.data is not None
    assert bound.data.views.mixing == "mixup-or-cutmix"
    assert [name.partition(".")[0] for name in bound.data.views.parameter_names].count("partner") > 10
    (drawn,) = (each for each in bound.experiment.views.operations if each.name == "randaugment")
    theirs = rand_augment_transform("rand-m9-inc1", {})  # of timm, whose levels are tenths
    (rotate,) = (each for each in theirs.ops if each.name == "Rotate")
    degrees = abs(rotate.level_fn(rotate.magnitude, rotate.hparams)[0])
    assert 30 * drawn.magnitude / (drawn.num_magnitude_bins - 1) == degrees  # type: ignore[attr-defined]
    assert drawn.num_ops == theirs.num_layers * rotate.prob  # type: ignore[attr-defined]  # on average


def test_the_experiment_of_the_page_on_images_without_labels(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/label-free.md").read_text()
    config = tmp_path / "config.yaml"
    config.write_text(page.split("```yaml\n")[1].partition("```")[0])
    with h5py.File(tmp_path / "images.h5", "w") as data:
        for split in ("train", "test"):
            data[f"{split}/images"] = np.zeros((8, 16, 16, 3), np.uint8)
            data[f"{split}/ids"] = [f"{split}-{i}" for i in range(8)]
    shallow = "teacher.options.depth=2"  # the rest of the teacher's options is the page's
    bound = bind_experiment(ConfigFile(config, (f"data.path={tmp_path / 'images.h5'}", shallow)))
    assert bound.teacher.num_classes == bound.students["small"].num_classes == 0
