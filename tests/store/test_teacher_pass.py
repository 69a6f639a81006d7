"""How a teacher is run on a GPU, on a machine without one."""

from __future__ import annotations

import pytest
import torch
from active_devices import ActiveDevices
from store_standins import teachers
from torch import nn

from pipeline.measuring.prediction import inference

CPU, SECOND = torch.device("cpu"), torch.device("cuda:1")


class RecordedEvent:
    """Stands in for `torch.cuda.Event`: says which stream it waits for."""

    stream: object = "of the current device"

    def record(self, stream: object = "of the current device") -> None:
        self.stream = stream


def test_outputs_have_arrived_when_the_device_of_the_teacher_has_copied_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current device of a thread is the first one, and has nothing to do with a teacher on the second."""
    teacher = teachers()["tiny"]
    with teacher.inference_mode():
        rendered = teacher.render(0, range(4))
        signals = teacher.signals(rendered.images)
    monkeypatch.setattr(torch.cuda, "Event", RecordedEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("stream of", device))
    monkeypatch.setattr(teacher, "device", SECOND)
    monkeypatch.setattr(teacher, "signals", lambda images: signals)
    outputs = teacher.infer(rendered, ["logits"])
    assert isinstance(outputs.arrived, RecordedEvent)
    assert outputs.arrived.stream == ("stream of", SECOND)


def test_teachers_and_scores_are_computed_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is training: tests/training/test_loop.py. What that means: tests/models/test_device.py."""
    active = ActiveDevices(monkeypatch, "pipeline.store.making.teacher_pass", "pipeline.measuring.prediction")
    for running in (teachers()["tiny"].inference_mode(), inference(nn.Linear(1, 1), "float32", "cpu")):
        with running:
            assert active.now == [CPU]
        assert active.now == []
