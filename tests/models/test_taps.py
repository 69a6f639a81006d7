from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.taps import choose_blocks, disturbed_weights, examine


@pytest.mark.parametrize(
    ("reductions", "blocks"),
    [
        ((1, 2, 4), (0, 1, 2)),  # a CIFAR ResNet
        ((2, 4, 8, 16, 32), (1, 2, 3, 4)),  # a ResNet: the four deepest
        ((7, 14, 14, 14), (0, 3)),  # the deepest at each reduction
        ((16,) * 12, (2, 5, 8, 11)),  # a ViT: four parts of equal depth
        ((16,) * 6, (1, 2, 4, 5)),
        ((16,) * 3, (0, 1, 2)),
        ((16,), (0,)),
    ],
)
def test_blocks(reductions: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    assert choose_blocks(reductions) == blocks


class Tail(nn.Module):
    """A small model whose end is what the test says."""

    def __init__(self, behind_pool: nn.Module, head: nn.Module, after_head: nn.Module | None = None) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Conv2d(3, 4, 3)
        self.behind_pool, self.head, self.after_head = behind_pool, head, after_head or nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward_intermediates(self, x: torch.Tensor, output_fmt: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = self.stem(x)
        return x, [x]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.behind_pool(x.mean((2, 3)))
        result: torch.Tensor = x if pre_logits else self.after_head(self.head(x))
        return result


def zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


@pytest.mark.parametrize(
    ("model", "head", "linear"),
    [
        (Tail(nn.Identity(), nn.Linear(4, 5)), True, True),
        (Tail(nn.Identity(), nn.Linear(4, 5, bias=False)), True, True),
        (Tail(nn.LayerNorm(4), nn.Linear(4, 5)), True, False),
        # Fresh, this batch norm is the identity and these heads give zeros whatever comes after them.
        (Tail(nn.BatchNorm1d(4), nn.Linear(4, 5)), True, False),
        (Tail(nn.Identity(), zero(nn.Linear(4, 5)), nn.Tanh()), False, False),
        (Tail(nn.Identity(), nn.Sequential(nn.Linear(4, 5))), False, False),
    ],
)
def test_linear_is_measured(model: Tail, head: bool, linear: bool) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.head.train(False)
    anatomy = examine(model, torch.randn(2, 3, 8, 8))
    assert (anatomy.head, anatomy.linear) == (head, linear)
    assert anatomy.shapes == {"block1": (4, 6, 6), "final": (4, 6, 6), "embedding": (4,), "logits": (5,)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model.head.training


def test_deep_models_do_not_overflow_when_they_are_examined() -> None:
    model = Tail(nn.Identity(), nn.Linear(4, 5))
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3)]
    for _ in range(60):
        convolution = nn.Conv2d(64, 64, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight)
        layers += [convolution, nn.ReLU()]
    model.stem = nn.Sequential(*layers, nn.Conv2d(64, 4, 1))
    assert examine(model, torch.randn(2, 3, 8, 8)).linear


def test_all_weights_are_disturbed_each_by_its_own_noise_and_come_back() -> None:
    """Also where there are more than a million, and the noise repeats."""
    model = nn.Sequential(nn.Linear(1000, 1100), nn.Conv2d(2, 3, 5), nn.BatchNorm1d(7), nn.Linear(500, 400))
    nn.init.zeros_(model[3].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad(), disturbed_weights(model):
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            change = value - before[name]
            assert (change != 0).float().mean() > 0.99, name
            assert change.abs().max() <= 0.141, name
            rows = change[:, :7] if change.ndim > 1 else change[:, None]
            assert len(torch.unique(rows.flatten(1), dim=0)) == len(rows), name
        assert (model[2].running_var > 0).all()
        assert torch.linalg.matrix_rank(model[3].weight) == 400
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
