"""Students that keep a part of an objective: what is scored, averaged, resumed and returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_pieces import HARD, KD, Interrupting, cache, network, objectives, same, steps

from pipeline.errors import TrainingError
from pipeline.models import Network, WithReusedHead
from pipeline.progress import Progress, Silent
from pipeline.signals import LinearHead
from pipeline.training import TrainingResult, train
from pipeline.training.trainer import Trainer

SIMKD = {"name": "simkd"}


def teachers_head(road: Path) -> LinearHead:
    found = cache(road).head
    assert found is not None
    return found


def run(road: Path, folder: Path | None = None, progress: Progress | None = None, **changes: Any) -> TrainingResult:
    """A run of three epochs of three steps."""
    student = network()

    def score(scored: Network | WithReusedHead) -> float:
        assert isinstance(scored, WithReusedHead)
        return float(sum(value.double().sum() for value in scored.state_dict().values()))

    return train(
        student,
        objectives(student, HARD, KD, SIMKD),
        steps(road, **changes),
        seed=0,
        folder=folder,
        progress=progress or Silent(),
        head=teachers_head(road),
        score=score,
    )


def scores(result: TrainingResult) -> list[float]:
    return [row["holdout_top1"] for row in result.history.rows]


@pytest.mark.parametrize("ema", [None, 0.7])
@pytest.mark.parametrize("after", [4, 8])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(road: Path, tmp_path: Path, ema: float | None, after: int):
    whole = run(road, ema=ema)
    with pytest.raises(KeyboardInterrupt):
        run(road, tmp_path, Interrupting(after), ema=ema)
    resumed = run(road, tmp_path, ema=ema)
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert scores(resumed) == scores(whole)
    assert len(set(scores(whole))) == 3


def test_the_projection_that_was_trained_and_the_teachers_own_classifier_are_what_is_returned(road: Path):
    student = network()
    chosen = objectives(student, SIMKD)
    start = {name: value.clone() for name, value in chosen.state_dict().items()}
    teacher = teachers_head(road)
    before = (teacher.weight.clone(), teacher.bias.clone())
    result = train(student, chosen, steps(road), seed=0, folder=None, progress=Silent(), head=teacher).network
    assert isinstance(result, WithReusedHead)
    trained = {name.removeprefix("members.0."): value for name, value in chosen.state_dict().items()}
    assert same({f"projector.{name}": v for name, v in result.head.projector.state_dict().items()}, trained)
    assert not same(start, chosen.state_dict())
    assert torch.equal(result.head.classifier["weight"], before[0])
    assert torch.equal(result.head.classifier["bias"], before[1])
    assert same(result.network.state_dict(), student.state_dict())


def test_projections_are_averaged_as_weights_are(road: Path):
    student, decay = network(), 0.5
    chosen = objectives(student, SIMKD)
    trainer = Trainer(student, chosen, steps(road, ema=decay), 0, teachers_head(road))
    expected: dict[str, Tensor] = {}
    for index in range(5):
        trainer.update(trainer.steps[index])
        for name, value in chosen.state_dict().items():
            now = value.double()
            expected[name] = now if index < 2 else decay * expected[name] + (1 - decay) * now
    result = trainer.result()
    assert isinstance(result, WithReusedHead)
    for name, value in result.head.projector.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[f"members.0.projector.{name}"], rtol=1e-5, atol=1e-6)
    assert not same(result.head.projector.state_dict(), chosen.kept().state_dict())  # type: ignore[union-attr]


def test_without_the_teachers_head_there_is_nothing_to_reuse(road: Path):
    student = network()
    with pytest.raises(TrainingError, match="reuse the teacher's classifier, and there is none"):
        Trainer(student, objectives(student, SIMKD), steps(road), 0, None)
