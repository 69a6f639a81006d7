from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from training_pieces import cache, config, drawn, samples, steps, views

from pipeline.data import Samples
from pipeline.errors import ConfigError
from pipeline.objectives import MixedLabels
from pipeline.store.format.encoded import EncodedSignals
from pipeline.training import FreshViews, FromCaches, Step, Steps, loader
from pipeline.training.prefetch import pinned_ahead
from pipeline.views import ViewsConfig, build_views


@pytest.mark.parametrize("batch_size", [1, 7, 16, 47, 48, 1000])
def test_every_epoch_covers_every_sample_once_in_batches_that_differ_by_one_at_most(road: Path, batch_size: int):
    run = drawn(road, batch_size=batch_size, epochs=2)
    per_epoch = run.steps_per_epoch
    assert len(run) == 2 * per_epoch
    for epoch in range(2):
        batches = [run[epoch * per_epoch + i].sample for i in range(per_epoch)]
        sizes = {len(batch) for batch in batches}
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert sorted(torch.cat(batches).tolist()) == list(range(48))


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_epoch_e_uses_view_e_plus_offset_modulo_v(road: Path, offset: int):
    run = drawn(road, view_offset=offset, epochs=5)
    run.numbers = range(3, 6)
    for epoch in range(5):
        assert run.views_of(epoch) == [3 + (epoch + offset) % 3]
        assert run[epoch * run.steps_per_epoch].view.unique().tolist() == run.views_of(epoch)


def test_a_step_is_the_replayed_view_its_labels_and_the_stored_outputs(road: Path):
    run, stored, data, rendering = steps(road), cache(road), samples(road), views()
    step = run[4]
    rows = step.sample.numpy()
    view = int(step.view[0])
    assert view == 1
    assert data.labels is not None
    assert step.labels.tolist() == data.labels[rows].tolist()
    parameters = rendering.parameters(view, data.positions[rows])
    assert np.array_equal(run.source.parameters(view, rows), parameters)
    assert torch.equal(step.images, rendering.apply(data.read(rows), parameters))
    assert step.teacher_outputs is not None
    expected = stored.read(view, rows)
    got = step.teacher_outputs.decode()
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.features["block2"], expected.features["block2"])


@pytest.mark.parametrize("batch_size", [2, 15, 32, 1000])
def test_several_views_of_a_sample_are_in_adjacent_rows(road: Path, batch_size: int):
    run = steps(road, batch_size=batch_size, views_per_step=2, epochs=2)
    per_epoch = run.steps_per_epoch
    assert per_epoch == -(-48 // (batch_size // 2))
    assert len(run) == 2 * per_epoch
    assert run.rows_per_epoch == 96
    for epoch in range(2):
        batches = [run[epoch * per_epoch + i] for i in range(per_epoch)]
        sizes = {len(batch.sample) for batch in batches}
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) in (0, 2)
        for batch in batches:
            assert torch.equal(batch.sample[::2], batch.sample[1::2])
            assert batch.view.tolist() == run.views_of(epoch) * (len(batch.view) // 2)
        assert sorted(torch.cat([batch.sample[::2] for batch in batches]).tolist()) == list(range(48))


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_every_epoch_has_different_views_and_in_time_all_as_often(road: Path, count: int, offset: int):
    run = drawn(road, batch_size=16, views_per_step=2, view_offset=offset, epochs=count)
    run.numbers = range(5, 5 + count)
    seen = [run.views_of(epoch) for epoch in range(count)]
    assert seen[0] == [5 + offset % count, 5 + (offset + 1) % count]
    assert all(len(set(views)) == 2 for views in seen)
    assert sorted(view for views in seen for view in views) == sorted([*run.numbers] * 2)


def test_a_row_of_several_views_is_what_it_would_be_alone(road: Path):
    for source in (
        None,
        FromCaches([dict.fromkeys((0, 1), cache(road))] * 2, "mean-logits"),
        FreshViews(),
    ):
        run = steps(road, source, batch_size=32, views_per_step=2)
        step = run[5]
        rows = step.sample[::2].numpy()
        for i, view in enumerate(run.views_of(1)):
            images = run.render(view, rows).pixels
            assert torch.equal(step.images[i::2], images)
            said = run.source.teacher_outputs(view, rows, images)
            assert (said is None) == (step.teacher_outputs is None)
            if said is not None and step.teacher_outputs is not None:
                alone, together = said.decode(), step.teacher_outputs.decode()
                assert torch.equal(together.logits[i::2], alone.logits)
                assert torch.equal(together.features["block2"][i::2], alone.features["block2"])
                assert together.embedding is not None
                assert alone.embedding is not None
                assert torch.equal(together.embedding[i::2], alone.embedding)
        assert step.labels.tolist() == run.labels[rows].repeat(2).tolist()


def test_more_views_of_a_sample_than_there_are_and_than_a_batch_holds_are_refused(road: Path):
    assert len(steps(road, batch_size=2, views_per_step=2)) == 3 * 48
    with pytest.raises(ConfigError, match="the views of a sample in a batch are different ones") as error:
        steps(road, views_per_step=3)
    assert "expected: at most 2\n  got: 3" in str(error.value)
    with pytest.raises(ValidationError, match="batch_size must hold the 3 views"):
        config(batch_size=2, views_per_step=3)


def test_steps_do_not_depend_on_earlier_steps(road: Path):
    run, again = steps(road), steps(road)
    backwards = {index: run[index] for index in reversed(range(len(run)))}
    for index in range(len(again)):
        assert torch.equal(backwards[index].images, again[index].images)
        assert torch.equal(backwards[index].sample, again[index].sample)


def test_unlabeled_samples_have_label_minus_one(road: Path):
    data = samples(road)
    data.labels = None
    unlabeled = drawn(road)
    plain = type(unlabeled)(data, unlabeled.views, unlabeled.source, range(2), unlabeled.config, 0, 20)
    assert plain[0].labels.tolist() == [-1] * 16
    assert plain[0].teacher_outputs is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views_per_step", [1, 2])
def test_the_loader_starts_anywhere_and_worker_processes_change_nothing(road: Path, workers: int, views_per_step: int):
    together = {"views_per_step": views_per_step, "batch_size": 16 * views_per_step}
    run = steps(road, resident_gigabytes=0.0, workers=workers, **together)
    assert run.resident is None
    resident = steps(road, **together)
    assert resident.resident is not None
    got = list(loader(run, 4, torch.device("cpu")))
    assert [step.index for step in got] == list(range(4, 9))
    for step in got:
        expected = resident[step.index]
        assert torch.equal(step.images, expected.images)
        assert torch.equal(step.sample, expected.sample)
        assert step.teacher_outputs is not None
        assert expected.teacher_outputs is not None
        assert torch.equal(step.teacher_outputs.decode().logits, expected.teacher_outputs.decode().logits)


def test_a_step_on_the_cpu_is_itself(road: Path):
    step = steps(road)[0]
    assert step.to(torch.device("cpu")) is step


def test_moving_a_step_moves_all_of_it(road: Path):
    moved = steps(road)[0].to(torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4
    assert moved.teacher_outputs is not None
    assert {t.device.type for t in (*tensors, *moved.teacher_outputs.arrays.values())} == {"meta"}
    assert [f.name for f in dataclasses.fields(Step)] == [
        "index",
        "images",
        "labels",
        "sample",
        "view",
        "teacher_outputs",
        "mixed",
        "host",
        "share",
    ]


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.Tensor]]:
    """What was moved to page-locked memory, and by which thread; on a machine that has none."""
    found: list[tuple[str, torch.Tensor]] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        found.append((threading.current_thread().name, tensor.clone()))
        return found[-1][1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return found


def test_all_of_a_step_goes_to_page_locked_memory(road: Path, pinned: list[tuple[str, torch.Tensor]]) -> None:
    """What does not, is copied to a GPU while training waits."""
    step = steps(road)[0]
    step.mixed = MixedLabels(step.labels.flip(0), torch.rand(len(step.labels)))
    step = step.pin_memory()
    assert step.mixed is not None
    assert isinstance(step.teacher_outputs, EncodedSignals)
    held = [step.images, step.labels, step.sample, step.view, step.mixed.labels, step.mixed.share]
    held += step.teacher_outputs.arrays.values()
    assert {id(each) for each in held} == {id(tensor) for _, tensor in pinned}


def test_for_a_gpu_a_thread_makes_the_same_batches(road: Path, pinned: list[tuple[str, torch.Tensor]]) -> None:
    run = steps(road, epochs=2)
    got = list(loader(run, 1, torch.device("cuda")))
    assert [step.index for step in got] == list(range(1, len(run)))
    for step, expected in zip(got, loader(run, 1, torch.device("cpu")), strict=True):
        for name in ("images", "labels", "sample", "view"):
            assert torch.equal(getattr(step, name), getattr(expected, name))
    assert {name.partition("_")[0] for name, _ in pinned} == {"batches"}


def test_an_error_in_the_thread_is_raised_in_place_of_its_step_and_no_thread_stays(
    road: Path, pinned: list[tuple[str, torch.Tensor]]
) -> None:
    run, before = drawn(road), threading.active_count()

    def failing(number: int) -> Step:
        if number == 1:
            raise ConfigError(["the second step"])
        return run[number]

    batches = pinned_ahead(failing, range(5))
    assert next(batches).index == 0
    with pytest.raises(ConfigError, match="the second step"):
        next(batches)
    assert threading.active_count() == before
    stopped = loader(run, 0, torch.device("cuda"))
    assert next(stopped).index == 0
    assert threading.active_count() == before + 1
    stopped.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


class Photos:
    """Twelve images of differing sizes; it counts how often each is read."""

    name, count, labels, image_shape = "train", 12, None, None
    ids = tuple(map(str, range(12)))

    def __init__(self) -> None:
        self.reads = np.zeros(12, np.int64)

    def read(self, positions: np.ndarray) -> list[torch.Tensor]:
        np.add.at(self.reads, positions, 1)
        return [torch.full((3, 9 + i % 3, 10), 20 * i, dtype=torch.uint8) for i in positions.tolist()]


def test_images_are_decoded_once_for_all_views_of_a_step():
    photos: Any = Photos()
    crop = ViewsConfig.model_validate({"count": 4, "operations": [{"name": "resized-crop", "size": 8}]})
    run = Steps.fresh(Samples(photos), build_views(crop), config(batch_size=12, views_per_step=3), seed=0)
    step = run[1]
    assert len(step.images) == 12
    assert photos.reads.tolist() == np.bincount(step.sample[::3], minlength=12).tolist()
    assert photos.reads.max() == 1
    assert step.images[:, 0, 0, 0].tolist() == (20 * step.sample).tolist()


def test_what_objectives_look_at_stays_on_the_host_too(road: Path) -> None:
    """A device is not asked for what was sent there; and so for the batches of a step."""
    step = steps(road, views_per_step=2, batch_size=14)[0]
    assert step.known().on_cpu().sample is step.sample
    sent = step.to("meta")
    assert sent.known().sample.device.type == "meta"
    assert sent.known().on_cpu().labels is step.labels
    assert dataclasses.replace(sent.known(), step=77).on_cpu().step == 77
    parts = sent.parts(3, 2)
    assert torch.equal(torch.cat([part.known().on_cpu().view for part in parts]), step.view)
    assert {part.known().on_cpu().step for part in parts} == {step.index}
