"""Trainings that one thread advances in turn end as each does alone; on a GPU each has what is its own."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_pieces import HARD, KD, LFCC, SMALL, VIT, Interrupting, Poisoned, cache, network, objectives, same, steps
from training_pieces import whole as every_view

from pipeline.commands.children import ChildFailure
from pipeline.commands.side_by_side import NO_MEMORY, trained_in_turn
from pipeline.commands.students import MOST_SIDE_BY_SIDE
from pipeline.errors import ModelError
from pipeline.models.device import chance_operations
from pipeline.models.streams import STREAMS_OF_TORCH, own_stream
from pipeline.progress import Progress, Silent
from pipeline.stepwise import Stepwise, all_at_once
from pipeline.training import Checkpoint, TrainingResult
from pipeline.training.loop import train_by_steps
from pipeline.training.side_by_side import Lane

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")

STUDENTS: list[dict[str, Any]] = [
    {"entries": (HARD, LFCC), "clip_gradient": 1.0, "ema": 0.7},
    # Dropped paths and dropout are random numbers that the networks draw themselves.
    {"kind": VIT, "options": {"drop_path_rate": 0.3}, "entries": (HARD,), "optimizer": "adamw", "learning_rate": 1e-3},
    {"entries": (HARD, KD), "options": {"drop_rate": 0.5}, "seed": 1, "epochs": 5, "patience": 3},
    {"kind": VIT, "options": {"drop_path_rate": 0.3}, "entries": (HARD, KD), "seed": 1, "batch_size": 11, "epochs": 1},
]
"""Of differing networks, objectives, seeds, and numbers of steps."""


def drawn_score(network: object) -> float:
    """Draws, as a score of a user's own might."""
    return float(torch.rand(()))


def training(
    road: Path,
    *,
    kind: Any = SMALL,
    entries: tuple[dict[str, Any], ...],
    options: dict[str, Any] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
    source: Any = None,
    **changes: Any,
) -> Stepwise[TrainingResult]:
    """A run from the cache of `road`, which is built when it is begun, as a command does."""
    student = network(kind, seed, **(options or {}))
    return (
        yield from train_by_steps(
            student,
            objectives(student, *entries),
            steps(road, source, seed=seed, **changes),
            seed=seed,
            folder=folder,
            progress=progress or Silent(),
            score=drawn_score,
        )
    )


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    return result.network.state_dict()


@pytest.fixture(scope="module")
def alone(road: Path) -> list[dict[str, torch.Tensor]]:
    """The weights of each student, trained by itself."""
    torch.manual_seed(3)
    return [weights(all_at_once(training)(road, **each)) for each in STUDENTS]


@pytest.mark.parametrize("at_once", [1, 2, 4, 9])
def test_each_ends_as_it_does_alone(road: Path, alone: list[dict[str, torch.Tensor]], at_once: int) -> None:
    before = torch.get_rng_state()
    ended = list(trained_in_turn(len(STUDENTS), lambda number: training(road, **STUDENTS[number]), at_once, CPU))
    assert sorted(each.number for each in ended) == [0, 1, 2, 3]
    for each in ended:
        assert isinstance(each.value, TrainingResult)
        assert same(weights(each.value), alone[each.number])
    assert torch.equal(torch.get_rng_state(), before)


def test_they_are_trained_at_once_and_the_next_begins_when_one_has_ended() -> None:
    """Of five, three at a time."""
    lengths, done = [3, 1, 4, 2, 1], list[str]()

    def work(number: int) -> Stepwise[int]:
        for step in range(lengths[number]):
            done.append(f"{number}.{step}")
            yield
        return number

    ended = [each.number for each in trained_in_turn(5, work, 3, CPU)]
    assert done == ["0.0", "1.0", "2.0", "0.1", "2.1", "0.2", "2.2", "3.0", "2.3", "3.1", "4.0"]
    assert ended == [1, 0, 2, 3, 4]


def test_one_that_fails_ends_alone(road: Path, alone: list[dict[str, torch.Tensor]]) -> None:
    poisoned = {"entries": (HARD, KD), "source": Poisoned(every_view(cache(road)), 7)}

    def work(number: int) -> Stepwise[TrainingResult]:
        return training(road, **(poisoned if number == 1 else STUDENTS[number]))

    found = {each.number: each.value for each in trained_in_turn(3, work, 3, CPU)}
    failed = found.pop(1)
    assert isinstance(failed, ChildFailure)
    assert failed.message.startswith("the loss is not finite at step ")
    for number, value in found.items():
        assert isinstance(value, TrainingResult)
        assert same(weights(value), alone[number])


def test_after_an_interruption_each_goes_on_from_its_checkpoint(
    road: Path, tmp_path: Path, alone: list[dict[str, torch.Tensor]]
) -> None:
    """Ctrl-C in a step of the second: the first is let go, the third was not begun."""

    def work(number: int, progress: Progress | None = None) -> Stepwise[TrainingResult]:
        return training(road, **STUDENTS[number], folder=tmp_path / str(number), progress=progress)

    for number in range(3):
        (tmp_path / str(number)).mkdir()
    stopping = Interrupting(4)
    with pytest.raises(KeyboardInterrupt):
        list(trained_in_turn(3, lambda number: work(number, stopping if number == 1 else None), 2, CPU))
    kept = [Checkpoint.load(tmp_path / str(number)) for number in range(3)]
    assert [each and each.epoch for each in kept] == [1, 1, None]
    for each in trained_in_turn(3, work, 3, CPU):
        assert isinstance(each.value, TrainingResult)
        assert same(weights(each.value), alone[each.number])


def test_what_a_training_holds_is_let_go_when_it_is_left() -> None:
    held = list[int]()

    def work(number: int) -> Stepwise[None]:
        held.append(number)
        try:
            while True:
                yield
        finally:
            held.remove(number)

    def raising() -> Stepwise[None]:
        yield
        assert held == [0, 1]
        raise KeyboardInterrupt

    made = [work(0), work(1), raising()]  # kept here: nothing but the driver ends them
    with pytest.raises(KeyboardInterrupt):
        list(trained_in_turn(3, made.__getitem__, 3, CPU))
    assert held == []


def test_one_that_cannot_be_left_does_not_keep_the_others() -> None:
    held = list[int]()

    def work(number: int) -> Stepwise[None]:
        held.append(number)
        try:
            yield
        finally:
            held.remove(number)
            if number == 1:
                raise OSError("no room")

    def raising() -> Stepwise[None]:
        raise KeyboardInterrupt
        yield

    made = [work(0), work(1), work(2), raising()]
    with pytest.raises(OSError, match="no room"):
        list(trained_in_turn(4, made.__getitem__, 4, CPU))
    assert held == []


def test_what_returns_nothing_ends_too() -> None:
    def work() -> Stepwise[None]:
        yield

    assert [each.value for each in trained_in_turn(2, lambda number: work(), 2, CPU)] == [None, None]


def test_one_without_memory_is_begun_again_when_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    """Of five, four at a time, where the GPU has room for two."""
    at_work, most = set[int](), list[int]()

    def work(number: int) -> Stepwise[int]:
        try:
            at_work.add(number)
            if len(at_work) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            for _ in range(3 + number):
                most.append(len(at_work))
                yield
            return number
        finally:
            at_work.remove(number)

    ended = list(trained_in_turn(5, work, 4, CPU))
    assert [each.value for each in ended] == [0, 1, 2, 4, 3]
    assert max(most) == 2
    assert "2 at once from now on" in capsys.readouterr().out


def test_one_that_has_no_room_alone_fails() -> None:
    def work() -> Stepwise[None]:
        yield
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    assert [each.value for each in trained_in_turn(2, lambda number: work(), 2, CPU)] == [NO_MEMORY, NO_MEMORY]


class Generator:
    """Stands in for the default generator of a GPU: its state can be another one's."""

    def __init__(self, state: list[int]) -> None:
        self.state = state

    def clone_state(self) -> Generator:
        """A generator with a copy of the state."""
        return Generator([*self.state])

    def graphsafe_get_state(self) -> Generator:
        """A generator with this state, and no copy of it."""
        return Generator(self.state)

    def graphsafe_set_state(self, other: Generator) -> None:
        """Have the state of another one."""
        self.state = other.state


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for a GPU: its default generator, and the streams that kernels are launched on, the last one now; the
    default one is -1."""
    found = SimpleNamespace(generator=Generator([7]), streams=[-1], drawn=0)

    @contextmanager
    def stream(chosen: torch.cuda.Stream) -> Iterator[None]:
        found.streams.append(chosen.cuda_stream)
        try:
            yield
        finally:
            found.streams.pop()

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        yield

    class Stream:
        """One of those that torch hands out again and again, in turn."""

        def __init__(self, device: torch.device) -> None:
            self.device, self.cuda_stream = torch.device("cuda:0"), found.drawn % STREAMS_OF_TORCH
            found.drawn += 1

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # takes tenths of a second among all that tests have made
    monkeypatch.setattr(torch.cuda, "default_generators", (found.generator,))
    return found


def test_each_has_a_stream_and_a_state_of_the_generator_on_a_gpu(gpu: SimpleNamespace) -> None:
    """A record keeps the state that the generator has while it is made, and reads it where others draw by now."""
    seen, kept = list[tuple[int, int, list[int]]](), dict[int, list[int]]()

    def work(number: int) -> Stepwise[int]:
        for step in range(2):
            kept.setdefault(number, gpu.generator.state)
            assert gpu.generator.state is kept[number]
            gpu.generator.state[0] = 10 * number + step
            seen.append((number, gpu.streams[-1], [*gpu.generator.state]))
            yield
            assert gpu.generator.state == [10 * number + step]
        return number

    for _ in trained_in_turn(2, work, 2, GPU):
        assert gpu.streams == [-1]
        assert gpu.generator.state == [7]
    assert seen == [(0, 0, [0]), (1, 1, [10]), (0, 0, [1]), (1, 1, [11])]
    assert kept[0] is not kept[1]


def test_what_a_device_does_not_repeat_is_said_of_the_training_that_asked_for_it(gpu: SimpleNamespace) -> None:
    """Though both come through the same line of code, and end in the order in which they began."""

    warned = list[bool]()

    def warn() -> None:
        warnings.warn("scatter_add does not have a deterministic implementation", stacklevel=1)
        warned.append(True)

    def work(number: int) -> Stepwise[list[str]]:
        with chance_operations(GPU) as found:
            for _ in range(2 + number):
                if number != 1:  # from a thread, as where gradients are computed
                    threading.Thread(target=warn).start()
                    while not warned:
                        time.sleep(0)
                    warned.clear()
                yield
        return [*found]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        filters, shown = [*warnings.filters], warnings.showwarning
        found = {each.number: each.value for each in trained_in_turn(3, work, 3, GPU)}
        assert warnings.filters == filters
        assert warnings.showwarning is shown
    said = ["scatter_add does not have a deterministic implementation"]
    assert found == {0: said, 1: [], 2: said}
    assert len(told) == 2, "once of each"


@pytest.mark.parametrize("seed", range(3))
def test_no_two_have_a_stream_in_common_whenever_they_begin_and_end(gpu: SimpleNamespace, seed: int) -> None:
    """Twenty-four students of differing lengths, eight at once, each with the streams of a record and of copies beside
    its own: more than torch has, which hands them out in turn."""
    lengths = np.random.default_rng(seed).integers(1, 20, 24)
    held = dict[int, set[int]]()

    def work(number: int) -> Stepwise[int]:
        own = [own_stream(GPU), own_stream(GPU)]
        held[number] = {each.cuda_stream for each in own} | {gpu.streams[-1]}
        assert len(held[number]) == 3
        for _ in range(lengths[number]):
            assert len(set().union(*held.values())) == 3 * len(held)
            yield
        del held[number]
        return number

    ended = list(trained_in_turn(24, work, MOST_SIDE_BY_SIDE, GPU))
    assert sorted(each.value for each in ended) == [*range(24)]  # type: ignore[type-var]


def test_streams_that_are_all_in_use_are_told(gpu: SimpleNamespace) -> None:
    kept = [own_stream(GPU) for _ in range(STREAMS_OF_TORCH)]
    assert len({each.cuda_stream for each in kept}) == STREAMS_OF_TORCH
    with pytest.raises(ModelError, match="all streams of the GPU are in use"):
        own_stream(GPU)
    freed = kept.pop(5).cuda_stream
    assert own_stream(GPU).cuda_stream == freed


def test_an_error_of_a_lane_leaves_the_gpu_as_it_was(gpu: SimpleNamespace) -> None:
    def work() -> Stepwise[None]:
        gpu.generator.state[0] = 1
        yield
        raise ValueError("a")

    lane = Lane(work(), GPU)
    assert lane.advance()
    with pytest.raises(ValueError, match="a"):
        lane.advance()
    assert gpu.generator.state == [7]
    assert gpu.streams == [-1]
