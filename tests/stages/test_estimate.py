"""The arithmetic of how long things take, with costs that are given and a clock that is no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from experiment import COUNT, HOLDOUT, TEST, source, student

from pipeline.commands import check
from pipeline.experiment.data import Data
from pipeline.planning import time_lines
from pipeline.planning.artifacts import plan_experiment
from pipeline.planning.binding import bind_experiment
from pipeline.planning.bound import Bound
from pipeline.planning.estimate import Costs, Estimate, about
from pipeline.planning.plan import Plan
from pipeline.planning.remaining import estimates
from pipeline.planning.sample_views import TimedViews, timed
from pipeline.planning.time_lines import Times, imitated, shorter_side_hint
from pipeline.planning.timing import measure_costs, per_view

COSTS = Costs(decode=0.010, render=0.001, teacher=0.020, steps={"teacher": 0.100, "small": 0.003, "vit": 0.004})


class Ticks:
    """A clock that is a second later whenever it is looked at."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def bound_to(*overrides: str) -> tuple[Bound, Data, Plan]:
    bound = bind_experiment(source(*overrides))
    assert bound.data is not None
    return bound, bound.data, plan_experiment(bound, bound.data, None)


def of(costs: Costs, *overrides: str) -> dict[str, Estimate]:
    bound, _, plan = bound_to(*overrides)
    return {estimate.name: estimate for estimate in estimates(bound, plan, costs)}


FROM_NOTHING = ("store.path=new.zarr", "teacher.weights=new/teacher.safetensors", "runs={path: other, seeds: [0, 1]}")


def test_every_view_is_counted(here: Path):
    found = of(COSTS, *FROM_NOTHING, "train.epochs=5", "students.vit.train.views_per_step=2")
    assert list(found) == ["train-teacher", "cache-teacher", "train-student small", "train-student vit"]
    # Two epochs of images that stay in memory: nothing is decoded.
    assert found["train-teacher"].seconds == pytest.approx(2 * COUNT * (0.001 + 0.100))
    # Two views of what is learnt from, one of what is held out and of what is reported.
    assert found["cache-teacher"].views == 2 * COUNT + HOLDOUT + TEST
    assert found["cache-teacher"].seconds == pytest.approx(found["cache-teacher"].views * (0.010 + 0.001 + 0.020))
    assert found["train-student small"].seconds == pytest.approx(5 * COUNT * (0.001 + 0.003))
    assert found["train-student vit"].seconds == pytest.approx(5 * 2 * COUNT * (0.001 + 0.004))
    assert {found[f"train-student {name}"].runs for name in ("small", "vit")} == {3 * 2}


def test_a_linear_probe_looks_at_its_views_once(here: Path):
    start = ("teacher_training={start: some.safetensors, probe: 3, freeze: backbone}", *FROM_NOTHING)
    Path("artifacts/teacher/teacher.safetensors").rename("some.safetensors")
    found = of(COSTS, *start)
    assert found["train-teacher (its linear probe)"].seconds == pytest.approx(3 * COUNT * (0.010 + 0.001 + 0.020))
    assert "train-teacher" not in found
    assert "train-teacher" in of(COSTS, *start, "teacher_training.freeze=none")


def test_what_does_not_stay_in_memory_is_decoded_in_every_epoch(here: Path):
    found = of(COSTS, *FROM_NOTHING, "train.resident_gigabytes=0")
    assert found["train-student small"].seconds == pytest.approx(2 * COUNT * (0.010 + 0.001 + 0.003))
    assert found["train-student small"].slowest == "decode"
    assert found["train-teacher"].slowest == "train"


def test_what_is_there_takes_no_time(here: Path):
    assert list(of(COSTS)) == ["train-student small", "train-student vit"]
    student("small", "kd")
    found = of(COSTS)
    assert (found["train-student small"].runs, found["train-student vit"].runs) == (2, 3)
    assert not of(COSTS, "students={}", "objectives={}")
    Path("artifacts/caches/tiny.holdout.zarr").rename("elsewhere")
    assert of(COSTS)["cache-teacher"].views == HOLDOUT


def test_an_accelerator_computes_while_the_processor_decodes():
    parts = {"decode": 0.02, "render": 0.01, "train": 0.05}
    assert Estimate("x", 100, parts).seconds == pytest.approx(8.0)
    assert Estimate("x", 100, parts, apart=True).seconds == pytest.approx(5.0)
    assert Estimate("x", 100, {**parts, "decode": 0.09}, apart=True).seconds == pytest.approx(10.0)


def test_the_words():
    slow = Estimate("train-student mobile", 60_000, {"decode": 0.02, "render": 0.001, "train": 0.004}, runs=9)
    assert slow.text() == (
        "train-student mobile about 25 min a run, 3 h 45 min for 9 runs "
        "(decode 20 ms, render 1 ms, train 4 ms a view; most of it to decode)"
    )
    quick = Estimate("cache-teacher", 1000, {"decode": 0.0031, "render": 0.001, "teacher": 0.024})
    assert quick.text() == "cache-teacher about 28 s (decode 3.1 ms, render 1 ms, teacher 24 ms a view)"


@pytest.mark.parametrize(
    ("cost", "text"), [(1.46, "1.5 s"), (0.1234, "120 ms"), (0.0031, "3.1 ms"), (0.00002, "0.02 ms")]
)
def test_costs_of_a_view_have_two_digits(cost: float, text: str):
    assert f"(train {text} a view)" in Estimate("x", 1, {"train": cost}).text()


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (1.9, 9.0, 9.0))
    assert not time_lines.busy()
    monkeypatch.setattr("os.getloadavg", lambda: (2.1, 0.0, 0.0))
    assert time_lines.busy()
    few, something = TimedViews(torch.zeros(0), (8, 8), 0.5, 0.01), [Estimate("cache-teacher", 1, {"x": 1.0})]
    for found, disturbed, said in ((something, True, True), (something, False, False), ([], True, False)):
        assert ("busy with other work" in "\n".join(Times(found, few, busy=disturbed).lines())) == said


def test_a_precision_that_the_device_imitates_is_told(here: Path, monkeypatch: pytest.MonkeyPatch):
    teacher = bound_to("store.path=new.zarr")[0].experiment.teacher
    half = teacher.model_copy(update={"precision": "bfloat16"})
    monkeypatch.setattr(time_lines, "choose_precision", lambda asked, device: "float32")
    assert imitated(half)
    assert not imitated(teacher)
    monkeypatch.setattr(time_lines, "choose_precision", lambda asked, device: "bfloat16")
    assert not imitated(half)
    few = TimedViews(torch.zeros(0), (8, 8), 0.5, 0.01)
    text = "`teacher.precision: float32` makes the cache sooner"
    for name, said in (("cache-teacher", True), ("train-student small", False)):
        assert (text in "\n".join(Times([Estimate(name, 1, {"x": 1.0})], few, slow_precision=True).lines())) == said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (40.4, "40 s"),
        (89, "89 s"),
        (720, "12 min"),
        (5399, "1 h 30 min"),
        (13500, "3 h 45 min"),
        (165_000, "45 h 50 min"),
        (187_200, "2 days 4 h"),
    ],
)
def test_an_estimate_is_no_more_exact_than_it_can_be(seconds: float, text: str):
    assert about(seconds) == text


def test_the_quickest_of_several_times_counts():
    now, done = 0.0, 0

    def took(*spans: float, seconds: float) -> tuple[float, int]:
        """What is said of work that takes so long, one time after the other, and how often it was done."""
        nonlocal done
        each, done = iter(spans), 0

        def work() -> None:
            nonlocal now, done
            now, done = now + next(each), done + 1

        return timed(work, seconds, lambda: now), done

    assert took(3, 1, 2, seconds=6) == (1, 3)
    assert took(1, 1, 1, 0.5, 1, seconds=4.5) == (0.5, 5)
    assert took(7, seconds=0) == (7, 1)
    # One that was disturbed is done again, beyond its time; what takes for ever is not.
    assert took(9, 1, 1, seconds=4) == (1, 3)
    assert took(13, seconds=4) == (13, 1)


def test_reading_is_timed_without_what_is_done_once(here: Path, monkeypatch: pytest.MonkeyPatch):
    """The first time opens files: it would be multiplied by all views to come."""
    _, data, _ = bound_to()
    now, slow = 0.0, 100.0
    read, apply = type(data.training).read, type(data.views).apply

    def reading(self: Any, rows: Any) -> Any:
        nonlocal now, slow
        now, slow = now + slow + 0.25 * len(rows), 0.0
        return read(self, rows)

    def applied(self: Any, *arguments: Any) -> Any:
        nonlocal now
        now += 1000.0
        return apply(self, *arguments)

    monkeypatch.setattr(type(data.training), "read", reading)
    monkeypatch.setattr(type(data.views), "apply", applied)
    few = TimedViews.measure(data, 1000.0, lambda: now)
    assert (few.decode, few.render) == pytest.approx((0.25, 1000 / COUNT))


def test_batches_are_as_large_as_the_time_allows():
    now, sizes = 0.0, []

    def work(pixels: torch.Tensor) -> None:
        nonlocal now
        sizes.append(len(pixels))
        now += 0.5 + 0.25 * len(pixels)  # half a second for a batch of any size

    pixels = torch.zeros((3, 1, 2, 2), dtype=torch.uint8)
    assert per_view(work, pixels, 100, 20.0, lambda: now) == pytest.approx(0.25 + 0.5 / 20)
    assert sizes[:6] == [2] * 6  # once to warm up, then a quarter of the time
    assert set(sizes[6:]) == {20}  # half of the time at half a second a view
    sizes.clear()
    assert per_view(work, pixels, 100, 0.0, lambda: now) == pytest.approx(0.25 + 0.5 / 2)
    assert sizes == [2, 2]
    sizes.clear()
    per_view(work, pixels, 7, 20.0, lambda: now)
    assert max(sizes) == 7


def test_measured_of_the_real_thing_with_a_clock_of_ours(here: Path):
    bound, data, plan = bound_to(*FROM_NOTHING)
    before = {name: network.weights_digest() for name, network in bound.students.items()}
    few = TimedViews.measure(data, 1000.0, Ticks())
    assert len(few.pixels) == COUNT
    assert few.size == (8, 8)
    costs = measure_costs(bound, data, few, 0.0, Ticks())
    assert costs.steps.keys() == {"teacher", "small", "vit"}
    # Work takes one tick, of two views.
    assert [costs.teacher, *costs.steps.values()] == [0.5] * 4
    assert not costs.apart
    assert {name: network.weights_digest() for name, network in bound.students.items()} == before
    assert len(list(estimates(bound, plan, costs))) == 4


def test_reading_ends_when_its_time_is_over(here: Path):
    torch_threads = torch.get_num_threads()
    few = TimedViews.measure(bound_to()[1], 0.0, Ticks())
    assert len(few.pixels) <= max(1, torch_threads)


def test_the_first_views_are_those_of_training(here: Path):
    _, data, _ = bound_to()
    few = TimedViews.measure(data, 1000.0, Ticks())
    rows = np.arange(COUNT)
    drawn = data.views.parameters(0, data.training.positions[rows])
    assert torch.equal(few.pixels, data.views.apply(data.training.read(rows), drawn))


def test_large_images_are_better_packed_small(here: Path):
    bound, data, _ = bound_to()
    slow = [Estimate("cache-teacher", 1, {"decode": 0.5, "render": 0.01, "teacher": 0.1})]
    quick = [Estimate("cache-teacher", 1, {"decode": 0.05, "render": 0.01, "teacher": 0.1})]

    class Options:
        model_fields: ClassVar[dict[str, Any]] = {"shorter_side": None}

    def hint(height: int, width: int, found: list[Estimate], view: int = 224, options: Callable[[], Any] = Options):
        experiment = SimpleNamespace(data=SimpleNamespace(source=options()))
        files = SimpleNamespace(
            training=SimpleNamespace(split=SimpleNamespace(image_shape=None)),
            views=SimpleNamespace(output_size=(view, view)),
        )
        few = TimedViews(torch.zeros(0), (height, width), 0.5, 0.01)
        bound: Any = SimpleNamespace(experiment=experiment)
        chosen: Any = shorter_side_hint(bound, files, few, found)  # type: ignore[arg-type]
        return chosen

    assert hint(3000, 4000, slow) == 256
    assert hint(3000, 4000, slow, view=384) == 439
    assert hint(3000, 4000, quick) is None
    assert hint(300, 500, slow) is None
    assert hint(3000, 4000, slow, options=lambda: None) is None
    assert (
        shorter_side_hint(bound, data, TimedViews(torch.zeros(0), (3000, 4000), 0.5, 0.01), slow) is None
    )  # arrays of one size
    text = "\n".join(Times(slow, TimedViews(torch.zeros(0), (3000, 4000), 0.5, 0.01), 256).lines())
    assert "images are up to 4000 x 3000" in text
    assert "`shorter_side: 256` in data.source packs about 137 times fewer pixels" in text  # (3000 / 256)²


def test_check_prints_times_where_it_is_asked_to(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time_lines, "measure_costs", lambda *arguments: COSTS)
    check.run(source(), as_json=False, timed=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "train-student" in line]
    assert len(lines) == 2
    # 2 epochs of 48 views, 4 ms each.
    assert lines[0] == "time      train-student small about 1 s a run, 1 s for 3 runs (render 1 ms, train 3 ms a view)"
    check.run(source(), as_json=True, timed=True)
    first, _ = json.loads(capsys.readouterr().out)["times"]
    a_view = {"render": 0.001, "train": 0.003}
    assert first == {"name": "train-student small", "seconds": 1.152, "runs": 3, "seconds_per_view": a_view}
    check.run(source(), as_json=False)
    assert "train-student small about" not in capsys.readouterr().out


def test_a_teacher_that_is_not_there_is_timed_all_the_same(here: Path):
    Path("artifacts/teacher/teacher.safetensors").unlink()
    bound, data, _ = bound_to()
    assert measure_costs(bound, data, TimedViews.measure(data, 1.0, Ticks()), 0.0, Ticks()).teacher == 0.5
