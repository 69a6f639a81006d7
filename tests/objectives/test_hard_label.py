from __future__ import annotations

import math

import pytest
import torch

from pipeline.objectives import Batch, Context, build_objective
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=3)


def term(logits: torch.Tensor, batch: Batch, **options: float) -> torch.Tensor:
    objective = build_objective("hard-label", options, SHAPES, SHAPES, Context(num_samples=9, classes=3))
    return objective(Signals(logits), Signals(logits), batch, 0.0)["cross-entropy"]


def batch(labels: list[int], **more: torch.Tensor) -> Batch:
    index = torch.arange(len(labels))
    return Batch(labels=torch.tensor(labels), sample=index, view=index * 0, **more)


def test_by_hand():
    # Probabilities (½, ¼, ¼): the label's share is ½, then ¼.
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    assert term(logits, batch([0, 1])).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)


def test_unlabeled_samples_count_neither_above_nor_below_the_line():
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0], [5.0, 1.0, 1.0]]))
    assert term(logits, batch([0, -1])).item() == pytest.approx(math.log(2), rel=1e-6)
    assert term(logits, batch([-1, -1])).item() == 0.0


def test_smoothing_spreads_a_share_over_all_classes():
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64))
    smooth = 0.7 * math.log(2) + 0.1 * (math.log(2) + 2 * math.log(4))
    assert term(logits, batch([0]), label_smoothing=0.3).item() == pytest.approx(smooth, rel=1e-12)


def test_mixed_labels_share_the_loss():
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64))
    mixed = batch([0], labels_mixed=torch.tensor([1]), mix=torch.tensor([0.25], dtype=torch.float64))
    assert term(logits, mixed).item() == pytest.approx(0.25 * math.log(2) + 0.75 * math.log(4), rel=1e-12)


def test_half_precision_logits_are_promoted():
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16)
    value = term(logits, batch([1]))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(2e4, rel=1e-2)


def test_gradient():
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for smoothing in (0.0, 0.1):
        assert torch.autograd.gradcheck(
            lambda z, smoothing=smoothing: term(z, batch([0, 2, -1, 1]), label_smoothing=smoothing), (logits,)
        )
