from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.methods.ic_kd import aggregated, separation
from pipeline.signals import Signals, SignalShapes

K, N = 4, 9
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3])
SHAPES = SignalShapes(K, 4), SignalShapes(K, 5)
SAME = torch.tensor([[1, 2], [0, 2], [1, 0], [4, 5], [3, 6], [6, 4], [5, 4], [-1, -1], [-1, -1]])
OTHERS = torch.tensor(
    [[3, 8, 7], [4, 3, 5], [8, 7, 6], [0, 1, 2], [8, 0, 1], [7, 2, 0], [2, 1, 8], [0, 3, 8], [7, 6, 0]]
)


def random(*shape: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BANK = [random(N, K, seed=view) for view in range(2)]


def bank(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    assert signal == "logits"
    return BANK[view][samples]


def nearest(count: int, same: bool) -> torch.Tensor:
    return (SAME if same else OTHERS)[:, :count]


CONTEXT = Context(N, K, LABELS, bank=bank, nearest=nearest)


def build(**options: object) -> Objective:
    return build_objective("ic-kd", {"positives": 2, "negatives": 3, **options}, *SHAPES, CONTEXT)


def step(objective: Objective, samples: torch.Tensor, student: torch.Tensor, view: int = 0) -> dict[str, torch.Tensor]:
    batch = Batch(LABELS[samples], samples, torch.full_like(samples, view))
    return objective(Signals(student), Signals(BANK[view][samples], random(len(samples), 5, seed=9)), batch, 0.0)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum())


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("view", [0, 1])
def test_equals_the_equations_in_float64(view: int):
    samples, student = torch.tensor([5, 0, 7]), random(3, K, seed=7)
    said, positive, negative = BANK[view].numpy(), [], []
    for z, i in zip(student.numpy(), samples.tolist(), strict=True):
        same = [j for j in SAME[i].tolist() if j >= 0]
        mean = np.mean([said[j] for j in same], axis=0) if same else said[i]
        p, q = log_softmax(mean / 2.0), log_softmax(z / 2.0)
        positive.append(4.0 * (np.exp(p) * (p - q)).sum())
        ratios = [np.exp((cosine(z, said[j]) - cosine(z, mean)) / 0.3) for j in OTHERS[i].tolist()]
        negative.append(np.log(1 + sum(ratios)))
    options = {"temperature": 2.0, "contrast_temperature": 0.3, "positive_weight": 0.7, "negative_weight": 5.0}
    terms = step(build(**options), samples, student, view)
    assert terms["positive"].item() == pytest.approx(0.7 * np.mean(positive), rel=1e-12)
    assert terms["negative"].item() == pytest.approx(5.0 * np.mean(negative), rel=1e-12)


def test_two_classes_by_hand():
    # The student says class 0 as its neighbours do, one other says so too and one the opposite: 1 + 1 + exp(-2).
    sure = torch.tensor([[1.0, -1.0]]).double()
    others = torch.stack((3 * sure, -2 * sure), dim=1)
    found = separation(5 * sure, sure, others, torch.ones(1, 2, dtype=torch.bool), 1.0)
    assert found.item() == pytest.approx(np.log(2 + np.exp(-2)))
    nobody = separation(5 * sure, sure, others, torch.zeros(1, 2, dtype=torch.bool), 1.0)
    assert nobody.item() == 0


def test_only_those_that_are_present_are_aggregated():
    logits, own = random(3, 2, K, seed=1), random(3, K, seed=2)
    present = torch.tensor([[True, True], [False, True], [False, False]])
    expected = torch.stack((logits[0].mean(0), logits[1, 1], own[2]))
    torch.testing.assert_close(aggregated(logits, present, own), expected)


def test_a_student_that_says_what_the_neighbours_do_has_no_positive_loss_and_constants_do_not_matter():
    samples = torch.tensor([0, 3])
    mean = torch.stack([BANK[0][SAME[i]].mean(0) for i in samples.tolist()])
    objective = build()
    assert step(objective, samples, mean)["positive"].item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(step(objective, samples, mean + 5), step(objective, samples, mean))


def test_the_nearest_are_asked_for_once_and_the_teacher_of_their_view():
    asked: list[tuple[int, bool]] = []
    read: list[tuple[list[int], int]] = []

    def counted(count: int, same: bool) -> torch.Tensor:
        asked.append((count, same))
        return nearest(count, same)

    def noted(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
        read.append((samples.tolist(), view))
        return bank(signal, samples, view)

    context = replace(CONTEXT, bank=noted, nearest=counted)
    objective = build_objective("ic-kd", {"positives": 2, "negatives": 1}, *SHAPES, context)
    for view in (0, 1):
        step(objective, torch.tensor([3]), random(1, K, seed=1), view)
    assert asked == [(2, True), (1, False)]
    assert read == [([4, 5, 0], 0), ([4, 5, 0], 1)]


def test_gradient():
    near, others, student = random(2, K, seed=1), random(2, 3, K, seed=2), random(2, K, seed=3).requires_grad_()
    present = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda z: separation(z, near, others, present, 0.3), (student,))


def test_a_weight_of_0_leaves_its_term_out():
    samples, student = torch.tensor([0, 3]), random(2, K, seed=1)
    assert set(step(build(positive_weight=0), samples, student)) == {"negative"}
    assert set(step(build(negative_weight=0), samples, student)) == {"positive"}


def test_refusals():
    for context, shapes, match in (
        (replace(CONTEXT, labels=None), SHAPES, "a label for every sample"),
        (replace(CONTEXT, labels=torch.zeros(N, dtype=torch.long)), SHAPES, "all samples have one label"),
        (CONTEXT, (SHAPES[0], SignalShapes(K)), "teacher's embedding"),
        (CONTEXT, (SHAPES[0], SignalShapes(K + 1, 5)), "the same classes"),
    ):
        with pytest.raises(ConfigError, match=match):
            build_objective("ic-kd", {}, *shapes, context)
