from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest
from training_pieces import OPERATIONS, cache, samples, steps, whole

from pipeline.errors import CacheMismatch
from pipeline.progress import Silent
from pipeline.training import Steps, Verify, check_views, replay
from pipeline.views import ViewsConfig, build_views


def check(run: Steps, road: Path, verify: Verify = "full") -> str:
    return check_views(run, whole(cache(road)), verify, Silent())


def test_the_views_of_training_are_those_of_the_teacher(road: Path):
    assert check(steps(road), road) == "all 2 views match the teacher's pixels"
    assert check(steps(road, epochs=1), road) == "the view matches the teacher's pixels"


@pytest.mark.parametrize("verify", ["full", "sample"])
def test_one_changed_pixel_is_found_and_its_sample_named(road: Path, tmp_path: Path, verify: Verify):
    shutil.copy(road / "data.h5", tmp_path / "data.h5")
    row = 17
    position = int(samples(road).positions[row])
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["train/images"][position, 4, 4, 0] ^= 1
    changed = steps(road)
    changed.samples = samples(road, path=tmp_path / "data.h5")
    changed.resident = changed.samples.resident(2**30)
    name = changed.samples.split.ids[position]
    with pytest.raises(CacheMismatch, match="1 of 48 rendered views are not the pixels") as error:
        check(changed, road, verify)
    assert f"where: view 0, samples {name}\n" in str(error.value)
    assert "do: the images or the view operations changed" in str(error.value)


def test_other_operations_on_the_stored_parameters_are_found(road: Path):
    changed = steps(road)
    operations = [{**OPERATIONS[0], "fill": 255}, OPERATIONS[1]]
    changed.views = build_views(ViewsConfig.model_validate({"count": 2, "operations": operations}), (8, 8))
    with pytest.raises(CacheMismatch, match="rendered views are not the pixels") as error:
        check(changed, road)
    assert ", ..." in str(error.value)  # five samples are named, of many


def test_nothing_is_rendered_where_nothing_is_asked_for(road: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Steps, "render", None)
    assert "not checked" in check(steps(road), road, "none")


def test_only_views_that_training_uses_are_checked(road: Path):
    run = steps(road, epochs=1, view_offset=1)
    seen: list[int] = []
    render = run.render
    run.render = lambda view, *rest: seen.append(view) or render(view, *rest)  # type: ignore[method-assign]
    check(run, road)
    assert set(seen) == {1}


def test_all_views_of_a_step_are_checked(road: Path):
    run = steps(road, epochs=1, views_per_step=2)
    seen: list[int] = []
    render = run.render
    run.render = lambda view, *rest: seen.append(view) or render(view, *rest)  # type: ignore[method-assign]
    assert check(run, road) == "all 2 views match the teacher's pixels"
    assert set(seen) == {0, 1}


def test_a_check_that_would_take_too_long_becomes_a_sample(road: Path, monkeypatch: pytest.MonkeyPatch):
    """Five samples are read in a second, and a view of them is rendered in another: two views of 48 need 28.8."""
    clock = itertools.count(0.0)
    monkeypatch.setattr(replay, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(replay, "SAMPLED_ROWS", 5)
    monkeypatch.setattr(replay, "REPLAYED_ROWS", 16)
    monkeypatch.setattr(replay, "LONGEST_SECONDS", 28.0)
    assert check(steps(road), road) == "5 of 48 samples of 2 views match the teacher's pixels"
    monkeypatch.setattr(replay, "LONGEST_SECONDS", 29.0)
    assert check(steps(road), road) == "all 2 views match the teacher's pixels"
    assert check(steps(road), road, "sample") == "5 of 48 samples of 2 views match the teacher's pixels"
