"""Times work in rounds that take turns, and counts what a step asks of a device."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from gpu_parts.record import Note

TESTS = Path(__file__).resolve().parents[2] / "tests"
LEAST = 3
"""Rounds at least, however little time is left."""

LAUNCHES = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"}
WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}
"""What CUDA calls what starts a kernel, and what waits for one."""

Work = Callable[[], object]


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Work, device: torch.device, times: int = 1) -> float:
    """Elapsed seconds of a call, the mean of several."""
    finish(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    finish(device)
    return (time.perf_counter() - start) / times


def in_turn(
    works: Mapping[str, Work], device: torch.device, rounds: int, note: Note, times: int = 1
) -> dict[str, list[float]]:
    """Seconds of every work in every round, after one call of each that is not counted.

    Every round times each in turn, so that a drift of the machine's speed hits all alike.
    """
    for work in works.values():
        work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        if number >= LEAST and note.left < 0:
            break
        for name, work in works.items():
            found[name].append(seconds_of(work, device, times))
    return found


def asked_of(step: Work) -> tuple[int, list[str]]:
    """Operations of a step that start a kernel, and those of them whose value the host waits for."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from contracts.step_costs import Launches

    with Launches() as seen:
        step()
    return seen.count, seen.waits


def kernels_of(step: Work, times: int) -> dict[str, float]:
    """Of a step on a GPU: kernels that are launched, times that the host waits, and the chip's share of its time."""
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        start = time.perf_counter()
        for _ in range(times):
            step()
        torch.cuda.synchronize()
        passed = time.perf_counter() - start
    events: Any = seen.events()
    on_device = [each for each in events if each.device_type == torch.autograd.DeviceType.CUDA]
    if not on_device:
        raise RuntimeError("the profiler sees nothing of the device")
    busy = sum(each.time_range.elapsed_us() for each in on_device) / 1e6
    launches = sum(each.name in LAUNCHES for each in events)
    waits = sum(each.name in WAITS for each in events) - 1  # the one at the end
    return {"launches": launches / times, "waits": waits / times, "busy": busy / passed}
