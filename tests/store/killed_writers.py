"""Makes tiny caches in processes that are killed, or two at once: run in a process that may be forked."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from store_standins import TinySamples, cache, content, mixing_views
from watched_disk import KINDS, Killing, watch


def run(folder: Path, mode: str, count: int) -> None:
    """Print how many were killed, and how often the rest was computed after that and every byte was right.

    mode: `times`, so many at random moments; `calls`, at every so many-th call that changes the disk; `mixing`, the
    same with views that mix samples; `two`, so many times two at once.
    """
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    if mode == "two":
        two_at_once(folder, count)
        return
    make = partial(cache, views=mixing_views()) if mode == "mixing" else cache
    with pytest.MonkeyPatch.context() as patch:
        seen = Killing(0)  # never
        watch(patch, folder, seen)
        whole = content(make(folder / "whole"))
    assert {call.kind for call in seen.calls} >= set(KINDS)
    print(*(at_times(folder, count, whole) if mode == "times" else at_calls(folder, count, whole, make)))


def forked(before: Callable[[], object], make: Callable[[], object]) -> int:
    """A process that does the one, then the other; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            make()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def killed(child: int) -> bool:
    """Whether a process was, once it has ended."""
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def two_at_once(folder: Path, times: int) -> None:
    """Both begin to wait for a folder, and go when it is there."""

    def wait(place: Path) -> None:
        while not (place / "go").exists():
            time.sleep(0.001)

    def make(place: Path, samples: int, number: int) -> None:
        messages: list[str] = []
        cache(place / "shared", samples=TinySamples(samples), notify=messages.append)
        (place / f"said-{number}").write_text("".join(messages))

    for samples in range(400, 400 - times, -1):
        place = folder / str(samples)
        place.mkdir()
        children = [forked(partial(wait, place), partial(make, place, samples, number)) for number in range(2)]
        (place / "go").mkdir()
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def at_times(folder: Path, count: int, whole: dict[str, bytes]) -> tuple[int, int]:
    """Twice at random moments, then to the end; until so many were killed."""
    generator = random.Random(0)
    longest = 10.0
    for number in range(3):
        start = time.perf_counter()
        killed(forked(list, partial(cache, folder / f"timed-{number}")))
        longest = min(longest, time.perf_counter() - start)
    kills = survived = number = 0
    while kills < count:
        number += 1
        target, before = folder / f"time-{number}", kills
        for _ in range(2):
            child = forked(list, partial(cache, target))
            time.sleep(generator.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            if not killed(child):  # it was done by then: the machine is less busy than it was
                longest *= 0.9
                break
            kills += 1
        cache(target, wait=False)
        if content(target) == whole:
            survived += kills - before
            shutil.rmtree(target)
    return kills, survived


def at_calls(folder: Path, step: int, whole: dict[str, bytes], make: Callable[..., Path] = cache) -> tuple[int, int]:
    """At every `step`-th of its calls that change the disk, until it makes fewer calls than that."""

    def kill_at(number: int) -> None:
        watch(pytest.MonkeyPatch(), folder, Killing(number))

    kills = survived = 0
    number = 1
    while True:
        target = folder / f"call-{number}"
        if not killed(forked(partial(kill_at, number), partial(make, target))):
            return kills, survived
        kills += 1
        if kills % 2:  # and once more on the way back
            killed(forked(partial(kill_at, 7), partial(make, target)))
        make(target, wait=False)
        if content(target) == whole and not [path for path in folder.iterdir() if "partial" in path.name]:
            survived += 1
            shutil.rmtree(target)
        number += step
