"""What a sweep is of: whatever decides a try and its score, but for the constants that vary. Nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import pytest
from experiment import one_thread, source

import pipeline.commands.on_workers
from pipeline.commands import sweep
from pipeline.commands.children import ChildFailure, Ended
from pipeline.errors import CacheCorrupt, CacheMismatch, ConfigError, PipelineError
from pipeline.experiment.runs import RunName
from pipeline.models import build_network
from pipeline.publishing import differences
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.sweep import Sweep
from pipeline.sweeping.tries import Try


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def sweep_of(
    objectives: str,
    *overrides: str,
    student: str = "small",
    seed: int = 0,
    vary: str = "hard-label.weight=1",
    stops: bool = True,
    **options: Any,
) -> Sweep:
    made, name = source(*overrides), RunName(student, objectives, seed)
    return Sweep.of(made, name, SearchSpace.of([vary], objectives, made), None, stops=stops, **options)


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
    begun = sweep_of("kd")
    assert begun.begin(replace_other=False) == []
    file = begun.folder / "sweep.json"
    facts = json.loads(file.read_text())
    del facts["definition"]["conditions"], facts["definition"]["precision"]
    file.write_text(json.dumps(facts))
    assert begun.begin(replace_other=False) == []
    with pytest.raises(CacheMismatch, match=r"train\.epochs: expected 3, got 2"):
        sweep_of("kd", "train.epochs=3").begin(replace_other=False)
    for broken in ("{", "[]", "{}", '{"definition": 3}'):
        file.write_text(broken)
        with pytest.raises(CacheCorrupt, match="this is no sweep") as error:
            begun.begin(replace_other=False)
        assert "--replace" in str(error.value)
    assert begun.begin(replace_other=True) == []
    assert json.loads(file.read_text())["definition"]["conditions"]


def test_tries_without_the_file_that_says_of_which_sweep_are_nobodys(here: Path):
    begun = sweep_of("kd")
    begun.begin(replace_other=False)
    begun.tries.write(Try(0, {"kd.temperature": 3}, "finished", (0.9,), 0.9))
    (begun.folder / "sweep.json").unlink()
    with pytest.raises(CacheCorrupt, match=r"there are tries, and no sweep\.json") as error:
        begun.begin(replace_other=False)
    assert "--replace" in str(error.value)
    assert begun.begin(replace_other=True) == []
    assert begun.tries.files() == []


def test_what_is_fixed_is_part_of_a_sweep(here: Path):
    """Whether tries are stopped, the other constants, the student, the set and the seed."""
    before = sweep_of("kd")
    assert differing(before, sweep_of("kd", stops=False)) == {"stops"}
    other = sweep_of("kd", "objectives.kd=[hard-label, {name: kd, temperature: 3}]")
    assert any(key.startswith("objectives_of") for key in differing(before, other))
    assert "seed" in differing(before, sweep_of("kd", seed=1))
    assert {"student"} <= differing(before, sweep_of("kd", student="vit"))


def test_what_is_wrong_is_told_before_what_varies(here: Path):
    with pytest.raises(ConfigError) as error:
        sweep.run(source(), RunName("smal", "k"), ["kd.temperatur=1,2"], verify="none")
    assert len(error.value.problems) == 2  # an unknown student and an unknown set
    with pytest.raises(ConfigError, match=r"data\.holdout: is missing"):
        sweep.run(source("data.holdout=null"), RunName("small", "kd"), ["kd.temperature=1,2"], count=9, verify="none")


def test_on_a_cluster_a_worker_tells_what_decides_the_tries(here: Path, monkeypatch: pytest.MonkeyPatch):
    """It may have another device, and compute in another precision, than the machine of the command."""
    asked: list[object] = []

    def cluster(*given: object) -> AbstractContextManager[str]:
        asked.append(given)
        return nullcontext("a client")

    def on_workers(client: str, names: list[str], function: Any) -> Iterator[Ended]:
        asked.append(client)
        yield Ended(0, 0.0, function(0)() if len(asked) < 3 else ChildFailure("no such device", 2))

    def run(count: int | None = None) -> None:
        name, vary = RunName("small", "kd"), ["kd.temperature=1,2"]
        sweep.run(source(), name, vary, count=count, verify="none", scheduler="tcp://a:1")

    def begun(sweep: Sweep, *, replace_other: bool) -> None:
        raise PipelineError(f"begun in {sweep.definition['precision']}")

    monkeypatch.setattr(pipeline.commands.on_workers, "cluster_of", cluster)
    monkeypatch.setattr(pipeline.commands.on_workers, "run_on_workers", on_workers)
    monkeypatch.setattr(Sweep, "begin", begun)
    with pytest.raises(PipelineError, match="the listed values make 2 tries"):
        run(count=3)
    assert asked == []  # before any work
    with pytest.raises(PipelineError, match="begun in float32"):
        run()
    assert asked == [("tcp://a:1", 0, "cpu"), "a client"]
    with pytest.raises(PipelineError, match="no such device") as error:
        run()
    assert error.value.exit_code == 2
