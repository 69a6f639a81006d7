"""Threads for the images of a batch: the same results, in their order, and errors as from one thread."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from pipeline.data.threads import Threads


@pytest.fixture(autouse=True)
def _three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_each_thread_has_one_of_torch() -> None:
    seen: set[tuple[int, int]] = set()
    together = threading.Barrier(3)

    def work(part: slice) -> list[int]:
        if part.start < 3:  # three parts wait for each other: there are three threads
            together.wait(120)
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return list(range(part.start, part.stop))

    threads = Threads()
    for count in (17, 3):
        assert [each for part in threads.map(work, count) for each in part] == list(range(count))
    assert {number for _, number in seen} == {1}
    assert len(seen) == 3
    assert threading.get_ident() not in {thread for thread, _ in seen}
    assert torch.get_num_threads() == 3
    counts: list[int] = []
    later = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert counts == [3]


def test_one_thread_of_torch_and_a_single_image_need_no_others() -> None:
    here = threading.get_ident()
    assert Threads().map(lambda part: (part, threading.get_ident()), 1) == [(slice(0, 1), here)]
    torch.set_num_threads(1)
    assert Threads().map(lambda part: (part, threading.get_ident()), 9) == [(slice(0, 9), here)]
    assert Threads().map(lambda part: part, 0) == []


def test_the_first_error_is_raised_and_work_that_waits_is_left_undone() -> None:
    begun: list[int] = []
    slow = threading.Event()

    def work(part: slice) -> int:
        begun.append(part.start)
        if part.start == 1:
            raise ValueError("the first")
        if part.start in (0, 2):
            slow.wait(0.05)
            if part.start == 2:
                raise ValueError("the second")
        else:
            time.sleep(0.01)
        return part.start

    with pytest.raises(ValueError, match="the first"):
        Threads().map(work, 12)


@pytest.fixture
def _heard() -> Iterator[None]:
    """Ctrl-C is heard, even where the shell has started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_ctrl_c_leaves_undone_what_has_not_begun() -> None:
    begun: list[int] = []
    pressed, go = threading.Event(), threading.Event()

    def work(part: slice) -> None:
        begun.append(part.start)
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            pressed.set()
        # The first part ends: a thread that was about to wait when the signal came sees it when it has waited.
        (go if part.start else pressed).wait(120)

    with pytest.raises(KeyboardInterrupt):
        Threads().map(work, 12)
    go.set()
    assert len(begun) <= 6


def test_ctrl_c_while_threads_begin_lets_them_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second cannot begin: the first does not wait for it for ever, as it would when Python ends."""
    before = set(threading.enumerate())
    start, count = threading.Thread.start, iter(range(9))

    def started(thread: threading.Thread) -> None:
        if next(count) == 1:
            raise KeyboardInterrupt
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", started)
        with pytest.raises(KeyboardInterrupt):
            Threads().map(lambda part: part, 9)
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_it_travels_without_its_threads() -> None:
    threads = Threads()
    threads.map(lambda part: part, 9)
    assert pickle.loads(pickle.dumps(threads)).map(len_of, 9) == [1] * 9


def len_of(part: slice) -> int:
    return part.stop - part.start
