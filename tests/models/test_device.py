"""How a device computes: on this machine's CPU, and on a GPU that is only said to be there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from pipeline.models.device import chance_operations, reproducible

GPU, CPU = torch.device("cuda:1"), torch.device("cpu")
NO_FORM = "scatter_add_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_determ..."


def settings() -> dict[str, object]:
    """What belongs to the process and decides the last bits on a GPU."""
    cudnn = torch.backends.cudnn
    return {
        "by rule": cudnn.deterministic,
        "by a race": cudnn.benchmark,
        "tf32 in convolutions": cudnn.allow_tf32,
        "in any order": torch.get_deterministic_debug_mode(),
        "memory is filled": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    }


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that are current, the last one for this thread; the first is what a thread begins with."""
    devices = [torch.device("cuda:0")]

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        devices.append(chosen)
        yield
        devices.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    return devices


def test_a_gpu_computes_the_same_each_time_and_is_left_as_it_was(current: list[torch.device]) -> None:
    before = settings()
    with reproducible(GPU):
        inside = settings()
        assert inside == {
            "by rule": True,
            "by a race": False,
            "tf32 in convolutions": False,
            "in any order": 1,  # deterministic, and a warning where there is no such form
            "memory is filled": False,
        }
        assert current[-1] == GPU
        with reproducible(GPU):  # a score of the holdout, in the middle of training
            pass
        assert settings() == inside
    assert settings() == before
    assert before["in any order"] == 0
    assert current == [torch.device("cuda:0")]


def test_who_refuses_operations_without_such_a_form_goes_on_to(current: list[torch.device]) -> None:
    torch.set_deterministic_debug_mode("error")
    try:
        with reproducible(GPU):
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.set_deterministic_debug_mode("default")


def test_nothing_is_changed_for_a_cpu() -> None:
    before, filters = settings(), list(warnings.filters)
    with reproducible(CPU), chance_operations(CPU) as found:
        assert settings() == before
        assert warnings.filters == filters
    assert found == []


def test_operations_that_do_not_repeat_themselves_are_noted_each_time(recwarn: pytest.WarningsRecorder) -> None:
    """Each time: a process trains many students, and Python shows a warning once for each place in the code."""
    filters = list(warnings.filters)
    for _ in range(2):
        with chance_operations(GPU) as found:
            warnings.simplefilter("default", append=True)
            for message in (NO_FORM, "something else"):
                warnings.warn(message, stacklevel=1)
        assert found == [NO_FORM]
    assert [str(each.message) for each in recwarn].count(NO_FORM) == 2  # and shown
    assert warnings.filters == filters
