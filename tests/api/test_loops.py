"""One student, three loops: a plain one, Lightning's and Accelerate's see the same batches, and end alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_pieces import cached, network, opened
from torch import Tensor

from pipeline import CachedViews, ModuleNetwork, objective
from pipeline.training.step import Step

EPOCHS, BATCH = 3, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CachedViews:
    return opened(cached(tmp_path_factory.mktemp("loops")))


def pieces(data: CachedViews) -> tuple[ModuleNetwork, Any, torch.optim.Optimizer]:
    student = network(seed=3)
    loss = objective([("hard-label", 0.1), ("kd", 0.9), ("lfcc", 1, {"scales": [1, 2]})], student, data)
    return student, loss, torch.optim.SGD([*student.parameters(), *loss.parameters()], lr=0.1)


def weights(student: ModuleNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in student.model.state_dict().items()}


@pytest.fixture(scope="module")
def plain(data: CachedViews) -> dict[str, Tensor]:
    """The weights that a plain loop ends with."""
    student, loss, optimizer = pieces(data)
    loader = data.loader(BATCH, seed=5)
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            loss(student, batch).backward()
            optimizer.step()
    return weights(student)


def test_a_plain_loop_learns(data: CachedViews, plain: dict[str, Tensor]) -> None:
    untrained = weights(network(seed=3))
    assert not torch.equal(plain["fc.weight"], untrained["fc.weight"])
    assert all(bool(value.isfinite().all()) for value in plain.values())


@pytest.mark.filterwarnings("ignore")
def test_lightning(data: CachedViews, plain: dict[str, Tensor], tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")
    student, loss, optimizer = pieces(data)
    seen: list[int] = []

    class Distilled(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.student, self.loss = student, loss

        def training_step(self, batch: Step, index: int) -> Tensor:
            seen.append(batch.index)
            value: Tensor = self.loss(self.student, batch)
            return value

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(Distilled(), data.loader(BATCH, seed=5))
    assert seen == list(range(EPOCHS * 3))
    torch.testing.assert_close(weights(student), plain)


@pytest.mark.filterwarnings("ignore")
def test_accelerate(data: CachedViews, plain: dict[str, Tensor]) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    student, loss, optimizer = pieces(data)
    model, loss, optimizer, loader = accelerator.prepare(student, loss, optimizer, data.loader(BATCH, seed=5))
    seen: list[int] = []
    for _ in range(EPOCHS):
        for batch in loader:
            seen.append(batch.index)
            optimizer.zero_grad()
            accelerator.backward(loss(model, batch))
            optimizer.step()
    assert seen == list(range(EPOCHS * 3))
    torch.testing.assert_close(weights(student), plain)
