from __future__ import annotations

import math

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, MixedLabels, ObjectiveEntry, build_objective
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=3)


def term(logits: torch.Tensor, batch: Batch, **options: float) -> torch.Tensor:
    objective = build_objective("hard-label", options, SHAPES, SHAPES, Context(num_samples=9, classes=3))
    return objective(Signals(logits), Signals(logits), batch, 0.0)["cross-entropy"]


def batch(labels: list[int], **more: MixedLabels) -> Batch:
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
    mixed = batch([0], mixed=MixedLabels(torch.tensor([1]), torch.tensor([0.25], dtype=torch.float64)))
    assert term(logits, mixed).item() == pytest.approx(0.25 * math.log(2) + 0.75 * math.log(4), rel=1e-12)


def test_a_mixed_target_is_that_of_cross_entropy_with_probabilities():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    first, second = torch.tensor([0, 1, 2, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 2, 0])
    share = torch.rand(6, dtype=torch.float64, generator=generator)
    one_hot = torch.eye(3, dtype=torch.float64)
    target = share[:, None] * one_hot[first] + (1 - share[:, None]) * one_hot[second]
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)
        mixed = batch(first.tolist(), mixed=MixedLabels(second, share))
        assert term(logits, mixed, label_smoothing=smoothing).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_view_counts_if_every_part_of_it_has_a_label():
    logits = torch.log(torch.tensor([[2.0, 1.0, 1.0]] * 4, dtype=torch.float64))
    share = torch.tensor([0.5, 1.0, 0.0, 0.5], dtype=torch.float64)
    mixed = batch([0, 0, -1, -1], mixed=MixedLabels(torch.tensor([-1, -1, 1, -1]), share))
    assert term(logits, mixed).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-12)


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


def weighted(chosen: object, labels: list[int], logits: torch.Tensor, of: list[int], **options: object) -> float:
    """The term of a batch, where the training samples have these labels."""
    context = Context(num_samples=len(labels), classes=3, labels=torch.tensor(labels))
    objective = build_objective("hard-label", {"class_weights": chosen, **options}, SHAPES, SHAPES, context)
    return float(objective(Signals(logits), Signals(logits), batch(of), 0.0)["cross-entropy"])


LOGITS = torch.log(torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
TWO, FOUR = math.log(2), math.log(4)
"""Cross-entropies of label 0 and of any other."""


def test_balanced_weights_by_hand():
    # Six labels, of classes 0, 0, 0, 0, 1, 2: a class of a third counts 6 / (3 n) = 1/2, 2, 2; unlabeled ones nothing.
    labels = [0, 0, -1, 0, 0, 1, 2]
    assert weighted("balanced", labels, LOGITS, [0, 1]) == pytest.approx((TWO / 2 + 2 * FOUR) / 2, rel=1e-6)
    assert weighted("balanced", labels, LOGITS, [0, -1]) == pytest.approx(TWO / 2, rel=1e-6)


def test_balanced_weights_of_a_balanced_set_are_none():
    assert weighted("balanced", [0, 1, 2], LOGITS, [0, 2]) == pytest.approx((TWO + FOUR) / 2, rel=1e-6)


def test_given_weights_are_scaled_to_a_mean_of_one():
    # 3, 1 and 1 for labels 0, 0, 1, 2 have the mean 2.
    for weights in ([3, 1, 1], [30, 10, 10]):
        assert weighted(weights, [0, 0, 1, 2], LOGITS, [0, 1]) == pytest.approx((1.5 * TWO + 0.5 * FOUR) / 2, rel=1e-6)


def test_smoothing_keeps_its_closed_form_under_class_weights():
    # (1 - ε) CE + ε times the mean over classes, and the weight of the label before both.
    smooth = 0.9 * TWO + 0.1 * (TWO + 2 * FOUR) / 3
    value = weighted("balanced", [0, 0, 0, 0, 1, 2], LOGITS[:1], [0], label_smoothing=0.1)
    assert value == pytest.approx(smooth / 2, rel=1e-6)


def test_a_batch_is_worth_the_mean_of_its_halves_under_class_weights():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 3, generator=generator), [0, 0, 0, 0, 1, 2]
    context = Context(num_samples=6, classes=3, labels=torch.tensor(labels))
    objective = build_objective("hard-label", {"class_weights": "balanced"}, SHAPES, SHAPES, context)
    values = [
        float(objective(Signals(logits[s]), Signals(logits[s]), batch(labels[s]), 0.0)["cross-entropy"])
        for s in (slice(0, 6), slice(0, 3), slice(3, 6))
    ]
    assert values[0] == pytest.approx((values[1] + values[2]) / 2, rel=1e-6)


def test_weights_of_another_number_of_classes_are_refused():
    with pytest.raises(ConfigError, match=r"class_weights: does not fit the classes") as error:
        weighted([1, 2], [0, 1, 2], LOGITS, [0, 1])
    assert "expected: a weight of each of 3 classes" in str(error.value)


def test_an_entry_without_class_weights_says_what_it_said_before_there_were_any():
    entry = ObjectiveEntry.model_validate({"name": "hard-label", "label_smoothing": 0.1})
    assert "class_weights" not in entry.model_dump()
    other = ObjectiveEntry.model_validate({"name": "hard-label", "class_weights": "balanced"})
    assert other.model_dump()["class_weights"] == "balanced"
