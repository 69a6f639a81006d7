from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_pieces import drawn, steps

from pipeline.training import Step, Steps, TrainConfig
from pipeline.training.loading import loader, worker_count
from pipeline.training.share import Share
from pipeline.views import ViewsConfig, build_views


def test_shares_are_slices_whose_sizes_differ_by_one() -> None:
    assert [list(Share(rank, 3).of(5)) for rank in range(3)] == [[0, 1], [2, 3], [4]]
    assert [list(Share(rank, 2).of_step(7, 2)) for rank in range(2)] == [[0, 1, 4, 5], [2, 3, 6]]  # of 4 and of 3
    whole = np.arange(7)
    assert whole[Share().of_step(7, 2)].tolist() == [*range(7)]


MIXED: Any = [{"name": "mixup", "probability": 1.0}]


@pytest.mark.parametrize("kind", ["of a teacher", "mixed", "fresh"])
def test_a_process_renders_its_slice_of_the_same_batches(road: Path, kind: str) -> None:
    """All else of a batch is whole, and so are its parts."""
    settings: dict[str, Any] = {"accumulate": 2, "batch_size": 10, "views_per_step": 2}
    whole = steps(road, **settings) if kind == "of a teacher" else drawn(road, **settings)
    if kind == "mixed":
        views = build_views(
            ViewsConfig.model_validate({"count": 2, "operations": MIXED}), (8, 8), among=whole.samples.positions
        )
        whole = Steps(whole.samples, views, whole.source, range(2), whole.config, 0, 20)
    expected = whole[4]
    got: list[Step] = []
    for rank in range(3):
        whole.share = Share(rank, 3)
        got.append(whole[4])
    for step in got:
        assert torch.equal(step.sample, expected.sample)
        assert torch.equal(step.labels, expected.labels)
        assert (step.mixed is None) == (expected.mixed is None) == (kind != "mixed")
        if step.mixed is not None and expected.mixed is not None:
            assert torch.equal(step.mixed.labels, expected.mixed.labels)
            assert torch.equal(step.mixed.share, expected.mixed.share)
        if step.teacher_outputs is not None and expected.teacher_outputs is not None:
            assert torch.equal(step.teacher_outputs.decode().logits, expected.teacher_outputs.decode().logits)
    run = loader(whole, 4, torch.device("cpu"))
    assert torch.equal(next(run).images, got[2].images)
    for number, part in enumerate(expected.parts(2, 2)):
        own = [step.to("cpu").parts(2, 2)[number] for step in got]
        assert torch.equal(torch.cat([each.images for each in own]), part.images)
        assert all(torch.equal(each.sample, part.sample) for each in own)


def test_processes_of_a_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    config = TrainConfig()
    assert [worker_count(config, False, count) for count in (1, 2, 16)] == [15, 7, 1]
