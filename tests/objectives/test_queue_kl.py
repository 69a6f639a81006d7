from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.bank import draw_samples
from pipeline.objectives.methods.queue_kl import QueueKL, queue_divergence
from pipeline.signals import Signals, SignalShapes

N, WIDTH = 20, 5
SAMPLES = torch.tensor([3, 9, 11, 17])


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BANK = [random(N, WIDTH, seed=view).float() for view in range(2)]


class Counted:
    """A bank that counts how often it is read."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def __call__(self, signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
        assert signal == "embedding"
        self.reads.append((len(samples), view))
        return BANK[view][samples]


def build(bank: Counted | None = None, **options: object) -> QueueKL:
    torch.manual_seed(0)
    context = Context(N, 3, bank=bank or Counted(), seed=5)
    built = build_objective("queue-kl", options, SignalShapes(3, 4), SignalShapes(3, WIDTH), context)
    assert isinstance(built, QueueKL)
    return built


def step(objective: Objective, student: torch.Tensor, number: int = 0, view: int = 0) -> torch.Tensor:
    batch = Batch(torch.full_like(SAMPLES, -1), SAMPLES, torch.full_like(SAMPLES, view), number)
    teacher = Signals(SAMPLES, BANK[view][SAMPLES])
    return objective(Signals(SAMPLES, student), teacher, batch, 0.0)["kl"]


def normed(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).sum())


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def divergence(student: np.ndarray, teacher: np.ndarray, rows: list[np.ndarray], temperature: float) -> float:
    p, q = (softmax(np.array([normed(x) @ normed(row) for row in rows]) / temperature) for x in (teacher, student))
    return float((p * np.log(p / q)).sum())


def test_equals_the_equation_in_float64_with_the_samples_that_are_drawn():
    objective, student = build(queue=8, temperature=0.2), random(4, 4, seed=7).float()
    value = step(objective, student)
    drawn = [i for i in draw_samples(N, 8, 5, 0).tolist() if i not in SAMPLES.tolist()]
    assert len(drawn) < 8  # one of the batch is among them, and counts once
    rows = [BANK[0][i].double().numpy() for i in (*SAMPLES.tolist(), *drawn)]
    projected = objective.projector(student).detach().double().numpy()
    expected = [divergence(projected[b], rows[b], rows, 0.2) for b in range(4)]
    assert value.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_two_samples_by_hand():
    # Teacher: two orthogonal samples, each sure of itself by 1/τ = log 3. The student has both at the same angle.
    teacher, temperature = torch.eye(2).double(), 1 / np.log(3)
    found = queue_divergence(
        torch.ones(2, 2).double(), teacher, teacher[:0], temperature, torch.zeros(0, dtype=torch.bool)
    )
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    torch.testing.assert_close(found, torch.full((2,), expected).double())


def test_it_vanishes_for_the_teachers_directions_whatever_their_lengths():
    teacher, queue, none = random(4, WIDTH, seed=1), random(6, WIDTH, seed=2), torch.zeros(6, dtype=torch.bool)
    assert queue_divergence(teacher * torch.arange(1, 5)[:, None], teacher, queue, 0.07, none).abs().max() < 1e-14


def test_what_is_left_out_is_as_if_it_were_not_there():
    student, teacher, queue = (random(n, WIDTH, seed=n) for n in (4, 5, 6))
    teacher, out = teacher[:4], torch.tensor([True, False, True, True, False, True])
    student.requires_grad_()
    values = [
        queue_divergence(student, teacher, queue, 0.1, out),
        queue_divergence(student, teacher, queue[~out], 0.1, out[~out]),
    ]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), student)[0] for value in values))


@pytest.mark.parametrize("method", ["queue_kl", "queue_kl_warm"])
def test_golden_values_of_the_reference(method: str):
    for case in golden(method):
        objective = case.objective("queue-kl", {"temperature": case.options["temperature"]}).double()
        assert isinstance(objective, QueueKL)
        case.load(objective.projector, "embedding_projector")
        others = case.tensor("teacher_queue")[len(case.batch().sample) :]  # before them, the batch's own rows
        objective.queue, objective.drawn = others, torch.full((len(others),), -1)
        terms = objective.compare(case.signals("student"), case.signals("teacher", 4), case.batch(), 0.5)
        case.check(terms["kl"])


def test_gradient():
    student, teacher, queue = (random(n, WIDTH, seed=n) for n in (3, 4, 6))
    out = torch.arange(6) == 2
    assert torch.autograd.gradcheck(
        lambda s: queue_divergence(s, teacher[:3], queue, 0.3, out), (student.requires_grad_(),)
    )


def test_samples_are_drawn_again_after_some_steps_and_by_the_step_alone():
    student, bank = random(4, 4, seed=7).float(), Counted()
    objective = build(bank, queue=8, refresh=10)
    values = [step(objective, student, number).item() for number in (0, 9, 10, 19, 20)]
    assert bank.reads == [(8, 0)] * 3
    assert values[0] == values[1] != values[2] == values[3] != values[4]
    resumed = build(queue=8, refresh=10)
    resumed.load_state_dict(objective.state_dict())
    assert step(resumed, student, 15).item() == values[2]
    assert set(objective.state_dict()) == {"projector.weight", "projector.bias"}  # no queue is saved


def test_another_view_has_its_own_queue():
    bank = Counted()
    objective, student = build(bank, queue=8), random(4, 4, seed=7).float()
    step(objective, student, 0, 1)
    assert bank.reads == [(8, 1)]
    assert not torch.equal(objective.queue, step_queue(build(queue=8), student))


def test_a_batch_of_several_views_has_the_queue_of_the_lowest():
    bank = Counted()
    objective = build(bank, queue=8)
    batch = Batch(torch.full_like(SAMPLES, -1), SAMPLES, torch.tensor([1, 0, 1, 0]))
    objective.prepare(batch, 0.0)
    objective.prepare(batch, 0.0)
    assert bank.reads == [(8, 0)]


def step_queue(objective: QueueKL, student: torch.Tensor) -> torch.Tensor:
    step(objective, student)
    return objective.queue


def test_a_queue_of_more_than_there_are_is_every_sample_once():
    objective = build()
    step(objective, random(4, 4, seed=7).float())
    assert sorted(objective.drawn.tolist()) == list(range(N))


@pytest.mark.parametrize("zero", ["student", "teacher"])
def test_an_embedding_of_zeros_has_finite_values_and_gradients(zero: str):
    student, teacher = random(2, WIDTH, seed=1), random(2, WIDTH, seed=2)
    (student if zero == "student" else teacher)[0] = 0
    student.requires_grad_()
    value = queue_divergence(student, teacher, random(3, WIDTH, seed=3), 0.07, torch.zeros(3, dtype=torch.bool))
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="student's embedding"):
        build_objective("queue-kl", {}, SignalShapes(3), SignalShapes(3, 4), replace(Context(3, 3)))
