from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import case
from contracts.claimed import moved, on_cuda
from contracts.step_costs import Launches
from torch import Tensor
from training_pieces import (
    HARD,
    KD,
    Interrupting,
    Unreadable,
    cache,
    drawn,
    network,
    objectives,
    same,
    samples,
    steps,
    whole,
)

from pipeline.errors import CacheCorrupt, CacheMismatch, DataError
from pipeline.progress import Silent
from pipeline.store.reader import TeacherCache
from pipeline.training import FreshViews, FromCaches, Step, Steps, loader, train
from pipeline.training.encoded_outputs import tensors_of
from pipeline.training.renderer import require_same_pixels
from pipeline.training.resident import ResidentEpochs, resident_steps
from pipeline.training.room import fits
from pipeline.training.whole_view import read_whole
from pipeline.views import ViewsConfig, build_views

CPU, META = torch.device("cpu"), torch.device("meta")
FEW: dict[str, Any] = {"batch_size": 11, "epochs": 4}  # of 48 samples: 10, 10, 10, 9 and 9 in an epoch


def tensors(step: Step) -> Iterator[Tensor]:
    yield from (step.images, step.labels, step.sample, step.view)
    yield from tensors_of(step.teacher_outputs) if step.teacher_outputs is not None else []
    yield from (step.mixed.labels, step.mixed.share) if step.mixed is not None else []


def equal(one: Step, other: Step) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    alike = all(a.dtype == b.dtype and torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs)
    return alike and one.index == other.index


def lying(run: Steps, start: int = 0) -> Iterator[Step]:
    found = resident_steps(run, start, CPU)
    assert found is not None
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the views that were read as a whole."""
    found: list[int] = []
    import pipeline.training.resident as module

    original = module.read_whole
    monkeypatch.setattr(module, "read_whole", lambda run, view, *rest: found.append(view) or original(run, view, *rest))
    return found


def test_batches_that_lie_on_the_device_are_those_of_the_loader(road: Path, read: list[int]) -> None:
    """From any step on: one teacher, several, none; several views in a step; classes balanced; views that mix."""
    stored = cache(road)
    two = FromCaches([dict.fromkeys((0, 1), stored)] * 2, "mean-logits")
    named = whole(stored).beside("first", {"second": whole(stored)})
    runs = [
        steps(road, **FEW),
        steps(road, **(FEW | {"views_per_step": 2, "batch_size": 22})),
        steps(road, two, **(FEW | {"sampling": "balanced", "view_offset": 1})),
        steps(road, named, **(FEW | {"accumulate": 2})),
        drawn(road, **FEW),
    ]
    for number, run in enumerate(runs):
        start = (0, 3, 7, 5, 0)[number]
        with case(run=number, start=start):
            expected = (run[index] for index in range(start, len(run)))
            assert all(equal(*pair) for pair in zip(lying(run, start), expected, strict=True))


def test_views_that_mix_are_mixed_there(road: Path) -> None:
    operations = [{"name": "pad-crop", "padding": 1}, {"name": "mixup"}, {"name": "horizontal-flip"}]
    data = samples(road)
    mixing = build_views(ViewsConfig.model_validate({"operations": operations}), (8, 8), among=data.positions)
    for per_step in (1, 2):
        config = steps(road, views_per_step=per_step, batch_size=22).config
        run = Steps(data, mixing, FreshViews(), range(4), config, 0, 20)
        expected = [run[index] for index in range(len(run))]
        assert expected[0].mixed is not None
        assert all(equal(*pair) for pair in zip(lying(run), expected, strict=True))


def test_a_view_is_read_once_while_it_is_one_of_the_last_two(road: Path, read: list[int]) -> None:
    assert len(list(lying(steps(road, **FEW)))) == 20
    assert sorted(read) == [0, 1]
    read.clear()
    run = steps(road, **(FEW | {"views_per_step": 2, "batch_size": 22}))
    run.numbers = [0, 1]
    assert len(list(lying(run))) == 20
    assert read == [0, 1]
    read.clear()
    fresh = drawn(road, **FEW)
    fresh.numbers = range(3)
    assert len(list(lying(fresh))) == 20
    assert read == [0, 1, 2, 0]


def test_the_next_epoch_is_read_while_this_one_is_used_and_no_further(road: Path, read: list[int]) -> None:
    run = drawn(road, **FEW)
    batches = lying(run)
    next(batches)
    for thread in (each for each in threading.enumerate() if each.name.startswith("next-epoch")):
        assert thread.is_alive()
    for _ in range(4):
        next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert read == [0, 1]
    assert not any(each.name.startswith("next-epoch") for each in threading.enumerate())


def test_a_run_ends_the_same_interrupted_or_not(road: Path, tmp_path: Path) -> None:
    def trained(resident: bool, folder: Path | None = None, progress: Any = None) -> dict[str, Tensor]:
        student = network()
        run = steps(road, resident=resident, **(FEW | {"epochs": 2}))
        train(student, objectives(student, HARD, KD), run, seed=0, folder=folder, progress=progress or Silent())
        return student.model.state_dict()

    expected = trained(resident=False)
    with pytest.raises(KeyboardInterrupt):
        trained(resident=True, folder=tmp_path, progress=Interrupting(6))
    assert same(trained(resident=True, folder=tmp_path), expected)


def test_where_the_switch_is_off_or_left_alone_a_cpu_reads_as_before(road: Path, read: list[int]) -> None:
    for value in ("auto", False, True):
        list(loader(steps(road, resident=value, **FEW), 0, CPU))
        assert sorted(read) == ([0, 1] if value is True else [])
    with pytest.raises(ValueError, match="resident"):
        steps(road, resident="sometimes")
    assert steps(road, resident=True).config.identity() == steps(road).config.identity()


def test_an_error_of_reading_is_raised_in_place_of_its_step_in_the_loaders_words(road: Path) -> None:
    source = Unreadable(whole(cache(road)).teachers)
    run = steps(road, source, **FEW)
    source.sample = int(steps(road, **FEW)[7].sample[3])
    batches = lying(run)
    assert [next(batches).index for _ in range(7)] == list(range(7))
    with pytest.raises(DataError) as error:
        next(batches)
    with pytest.raises(DataError) as expected:
        run[7]
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize("view", [0, 1])
def test_a_flipped_byte_of_the_cache_is_refused_in_the_loaders_words(road: Path, tmp_path: Path, view: int) -> None:
    """In a later view, and in the first, with which it is reckoned how much room is needed."""
    copied = tmp_path / "tiny.zarr"
    shutil.copytree(cache(road).path, copied, copy_function=shutil.copyfile)
    file = next(iter(sorted(copied.glob(f"logits/**/c/{view}/1*"))))
    content = bytearray(file.read_bytes() if file.is_file() else (file := next(file.iterdir())).read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    errors = []
    for resident in (True, False):
        with pytest.raises(CacheCorrupt) as error:
            list(loader(steps(road, whole(TeacherCache.open(copied)), resident=resident), 0, CPU))
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert file.name in errors[0]


def test_a_stored_parameter_out_of_range_is_refused_in_the_loaders_words(road: Path) -> None:
    """They are looked at once, where a view is read: on a device nobody does."""
    source = Shifted(whole(cache(road)).teachers)
    run = steps(road, source, **FEW)
    batches = lying(run)
    assert [next(batches).index for _ in range(5)] == list(range(5))
    with pytest.raises(DataError, match="a parameter of a view is outside its range") as error:
        list(batches)
    failing = next(index for index in range(5, 10) if 17 in run.read_by(index)[1])
    with pytest.raises(DataError) as expected:
        run[failing]
    assert str(error.value) == str(expected.value)
    mixing = build_views(
        ViewsConfig.model_validate({"operations": [{"name": "cutmix"}, {"name": "horizontal-flip"}]}),
        (8, 8),
        among=np.arange(9),
    )
    drawn_well = mixing.parameters(0, np.arange(9))
    mixing.refuse_outside(drawn_well, (8, 8))
    for column in (1, -1):
        wrong = drawn_well.copy()
        wrong[3, column] = 77
        with pytest.raises(DataError, match=mixing.parameter_names[column]):
            mixing.refuse_outside(wrong, (8, 8))


class Shifted(FromCaches):
    """One sample is cropped far outside, in its second view."""

    def parameters(self, view: int, samples: Any) -> Any:
        """The stored ones, but for one."""
        found = super().parameters(view, samples)
        found[(samples == 17) & (view == 1), 0] = 100
        return found


def test_without_room_or_without_images_in_memory_the_loader_stays(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = steps(road)
    assert resident_steps(run, 0, CPU) is not None
    assert resident_steps(run, len(run), CPU) is None
    assert resident_steps(run, 0, META) is None
    assert resident_steps(steps(road, resident_gigabytes=0), 0, CPU) is None
    afar = steps(road, Afar(whole(cache(road)).teachers))
    assert resident_steps(afar, 0, CPU) is None
    assert not fits(1 << 60, CPU)
    needed: list[int] = []
    monkeypatch.setattr("pipeline.training.resident.fits", lambda amount, device: needed.append(amount))
    assert resident_steps(run, 0, CPU) is None
    assert run.source.teacher_outputs(0, np.zeros(1, np.int64), torch.empty(0)) is not None
    found = run.source.teacher_outputs(0, np.zeros(1, np.int64), torch.empty(0))
    assert found is not None
    row = sum(each.nbytes for each in tensors_of(found)) + 4 * len(run.views.parameter_names)
    assert needed == [48 * (2 * row + 24)]  # two views; labels, order and places


class Afar(FromCaches):
    """A source that only the process that trains may read."""

    remote = True


def test_a_device_that_renders_other_pixels_is_refused(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the CPU plays the device; one that cannot render at all leaves it to the loader."""
    run = steps(road)
    assert require_same_pixels(run, 1, CPU)
    apply, called = run.views.apply, []

    def wrong(images: Tensor, parameters: Any, partners: Any = None) -> Tensor:
        called.append(len(images))
        pixels = apply(images, parameters, partners).clone()
        if len(called) == 2:
            pixels[7, 0, 0, 0] ^= 1
        return pixels

    monkeypatch.setattr(run.views, "apply", wrong)
    with pytest.raises(CacheMismatch, match="1 of 48 views that cpu renders") as error:
        require_same_pixels(run, 1, CPU)
    assert run.samples.ids(np.array([7]))[0] in str(error.value)
    assert "train.resident: false" in str(error.value)
    assert not require_same_pixels(steps(road), 1, torch.device("cuda:99"))


def test_a_step_is_made_on_a_gpu_without_a_copy_and_without_a_wait(road: Path) -> None:
    """On tensors that only claim to be there."""
    run = steps(road, **(FEW | {"views_per_step": 2, "batch_size": 22}))
    epochs = ResidentEpochs(run, CPU)
    lie = [read_whole(run, number, epochs.placing, threading.Event()) for number in (0, 1)]
    expected = run[1]
    _, rows = run.read_by(1)
    with on_cuda() as devices:
        epochs.device = torch.device("cuda")
        epochs.images, epochs.labels = moved(epochs.images), moved(epochs.labels)
        lie = [moved(each) for each in lie]
        launches = Launches()
        with launches:
            step = epochs.step(1, lie, rows, moved(torch.from_numpy(rows)), moved(torch.arange(2)))
    assert devices.copies == 0
    assert launches.waits == []
    assert {each.device.type for each in tensors(step)} == {"cuda"}
    assert [each.shape for each in tensors(step)] == [each.shape for each in tensors(expected)]
    assert [each.dtype for each in tensors(step)] == [each.dtype for each in tensors(expected)]
    host = step.host
    assert host is not None
    assert host.sample.device.type == "cpu"
    assert host.sample.shape == expected.sample.shape
