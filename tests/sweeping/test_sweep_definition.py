"""What a sweep is of: whatever decides a try and its score, but for the constants that vary. Nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from experiment import one_thread, source

from pipeline.errors import CacheCorrupt, CacheMismatch
from pipeline.experiment.runs import RunName
from pipeline.models import build_network
from pipeline.publishing import differences
from pipeline.sweeping.sweep import Sweep


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def sweep_of(objectives: str, *overrides: str, vary: str = "hard-label.weight=1", **options: Any) -> Sweep:
    return Sweep.of(source(*overrides), RunName("small", objectives), [vary], None, stops=True, **options)


def differing(one: Sweep, other: Sweep) -> set[str]:
    """The keys in which two definitions differ, as files have them."""
    lines = differences(*(json.loads(json.dumps(each.definition)) for each in (one, other)))
    return {line.partition(":")[0] for line in lines}


def test_of_fresh_views_the_pixels_count(here: Path):
    fresh = "objectives.hard={views: fresh, objectives: [hard-label]}"
    before = sweep_of("hard", fresh)
    assert before.definition["caches"] == []
    assert differing(before, sweep_of("hard", fresh, "runs.path=elsewhere", "students.vit.input_size=32")) == set()
    for override, keys in {
        "views.seed=7": {"conditions.answers.drawn.seed"},
        "views.operations=[{name: horizontal-flip}]": {"conditions.answers.drawn.operations"},
        "evaluate.operations=[{name: pad-crop, padding: 2}]": {"conditions.scored", "conditions.holdout.operations"},
        "teacher.mean=[0.1];teacher.std=[0.2]": {
            "conditions.student.mean",
            "conditions.student.std",
            "conditions.start",
        },
    }.items():
        assert differing(before, sweep_of("hard", fresh, *override.split(";"))) == keys
    with h5py.File("data.h5", "r+") as file:
        images = file["train/images"]
        images[...] = 255 - images[...]
    assert differing(before, sweep_of("hard", fresh)) == {"conditions.answers.pixels", "conditions.holdout.pixels"}


def test_of_caches_views_roles_labels_and_the_weights_to_start_with_count(here: Path):
    before = sweep_of("kd")
    read = "caches=[{path: artifacts/caches/tiny.zarr, views: [1]}]"
    views = {key for key in differing(before, sweep_of("kd", read)) if key.startswith("conditions.answers")}
    assert views
    ranges = {"vary": "kd.temperature=1..8"}
    assert differing(sweep_of("kd", **ranges), sweep_of("kd", **ranges, at_random=True)) == {"random"}

    def begun_with(seed: int) -> Sweep:
        widths = {"widths": [16, 16, 16]}
        build_network("cifar_resnet8", 4, input_size=8, options=widths, seed=seed).save(Path("begin.safetensors"))
        return sweep_of("kd", "students.small.start=begin.safetensors")

    assert differing(begun_with(1), begun_with(2)) == {"conditions.start"}
    with h5py.File("data.h5", "r+") as file:
        file["train/labels"][...] = file["train/labels"][...][::-1]
    assert differing(before, sweep_of("kd")) == {"conditions.labels", "conditions.holdout.labels"}


def test_sweeps_of_older_versions_go_on_and_broken_ones_are_told(here: Path):
    sweep = sweep_of("kd")
    assert sweep.begin(replace_other=False) == []
    file = sweep.folder / "sweep.json"
    facts = json.loads(file.read_text())
    del facts["definition"]["conditions"], facts["definition"]["precision"]
    file.write_text(json.dumps(facts))
    assert sweep.begin(replace_other=False) == []
    with pytest.raises(CacheMismatch, match=r"train\.epochs: expected 3, got 2"):
        sweep_of("kd", "train.epochs=3").begin(replace_other=False)
    for broken in ("{", "[]", "{}", '{"definition": 3}'):
        file.write_text(broken)
        with pytest.raises(CacheCorrupt, match="this is no sweep") as error:
            sweep.begin(replace_other=False)
        assert "delete the file" in str(error.value)
