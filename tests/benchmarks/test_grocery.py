"""The study on photographs fits together: every part with its teacher, its students and their objective sets."""

from __future__ import annotations

from pathlib import Path

import grocery
import grocery_halves
import h5py
import numpy as np
import pytest

from pipeline.experiment.source import ConfigFile
from pipeline.models import build_network
from pipeline.planning.binding import bind_experiment

CLASSES = 81


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of two photographs of each class in every split, and its two halves."""
    folder = tmp_path_factory.mktemp("grocery")
    packed = folder / "grocery.h5"
    with h5py.File(packed, "w") as data:
        data.attrs["packed_from"] = "{}"
        for split in ("train", "val", "test"):
            group = data.create_group(split)
            count = 2 * CLASSES + (split == "train")  # the last class has a third image
            group["images"] = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
            group["labels"] = np.minimum(np.arange(count) // 2, CLASSES - 1)
            group["ids"] = [f"{split}-{i}" for i in range(count)]
    grocery_halves.write_halves(packed, folder / "half.h5", folder / "labeled.h5")
    return folder


def test_half_of_the_labels_of_each_class_go(folder: Path) -> None:
    first = [*range(0, 2 * CLASSES, 2), 2 * CLASSES]  # of three images of the last class two keep theirs
    with h5py.File(folder / "grocery.h5") as whole, h5py.File(folder / "half.h5") as half:
        assert np.flatnonzero(half["train/labels"][:] >= 0).tolist() == first
        assert set(half["train/labels"][:][1:-1:2]) == {-1}
        assert np.array_equal(half["train/labels"][:][first], whole["train/labels"][:][first])
        assert np.array_equal(half["train/images"], whole["train/images"])
        assert np.array_equal(half["test/labels"], whole["test/labels"])
        assert "packed_from" not in half.attrs
        with h5py.File(folder / "labeled.h5") as labeled:
            for name in ("images", "labels", "ids"):
                assert np.array_equal(labeled[f"train/{name}"], whole[f"train/{name}"][:][first])
                assert np.array_equal(labeled[f"val/{name}"], whole[f"val/{name}"])


FAST = "small"


@pytest.mark.parametrize(
    "part", [part if part == FAST else pytest.param(part, marks=pytest.mark.long) for part in grocery.PARTS]
)
def test_a_part_fits_together(part: str, folder: Path) -> None:
    files = {str(grocery_halves.HALF): "half.h5", str(grocery_halves.LABELED): "labeled.h5"}
    changes = grocery.changes_of(part)
    own = [change.removeprefix("data.path=") for change in changes if change.startswith("data.path=")]
    given = [f"data.path={folder / (files[own[0]] if own else 'grocery.h5')}", "data.source=null"]
    if not grocery.PARTS[part].trains:
        weights = folder / "teacher.safetensors"
        build_network("tf_efficientnet_lite0", CLASSES, input_size=128).save(weights)
        given.append(f"teacher.weights={weights}")
    else:
        given.append("teacher_training.start=null")
    bound = bind_experiment(ConfigFile(grocery.CONFIG, (*changes, *given)))
    assert tuple(bound.students) == grocery.PARTS[part].students
    assert bound.data is not None
    assert bound.data.classes == CLASSES
    wanted = grocery.PARTS[part].objectives
    assert not wanted or tuple(bound.experiment.objectives) == wanted


def test_parts_that_are_needed_make_caches() -> None:
    """In the order of the list, so that they are there before."""
    for name, part in grocery.PARTS.items():
        for needed in part.needs:
            assert list(grocery.PARTS).index(needed) < list(grocery.PARTS).index(name)
            assert grocery.PARTS[needed].caches
