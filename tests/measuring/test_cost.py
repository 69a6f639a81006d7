from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pipeline.measuring.cost import images_per_second, macs, parameters
from pipeline.models import build_network


class Small(nn.Module):
    """Two convolutions, one of them grouped and strided, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.first(images.float() / 255)).relu()
        return self.head(self.second(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of 16 tokens of width 8 in 2 heads, without projections."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.float().reshape(1, 2, 16, 4)
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_macs_worked_by_hand() -> None:
    first = 10 * 6 * 8 * (3 * 9)
    second = 5 * 3 * 12 * (8 // 4 * 9)
    assert macs(Small(), (3, 10, 6)) == first + second + 12 * 5


def test_macs_of_attention_worked_by_hand() -> None:
    # Queries times keys, then weights times values: each 2 heads x 16 x 16 x 4.
    assert macs(Attention(), (2, 8, 8)) == 2 * (2 * 16 * 16 * 4)


def test_macs_leave_the_network_as_it_was() -> None:
    network = Small().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    macs(network, (3, 8, 8))
    assert network.training
    assert network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parameters_are_those_that_are_learned() -> None:
    network = Small()
    network.first.weight.requires_grad_(False)
    conv, norm, grouped, linear = 8 * 3 * 9, 2 * 8, 12 * 2 * 9 + 12, 12 * 5 + 5
    assert parameters(network) == conv + norm + grouped + linear


class Timed(nn.Module):
    """Takes five milliseconds a call, by a clock that nothing else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.calls = 0
        monkeypatch.setattr("pipeline.measuring.cost.time", SimpleNamespace(perf_counter=lambda: 0.005 * self.calls))

    def forward(self, images: Tensor) -> None:
        assert not self.training
        self.calls += 1


def test_rate_of_a_network_that_takes_a_known_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Timed(monkeypatch)
    rate = images_per_second(network, (3, 2, 2), batch_size=10, seconds=0.2)
    assert rate.repeats == 5
    assert network.calls == 2 + 5 * 8  # 0.2 s are five repeats of eight calls
    assert (rate.lowest, rate.median, rate.highest) == pytest.approx((10 / 0.005,) * 3)
    assert network.training


def test_a_slow_network_is_still_measured_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Timed(monkeypatch)
    rate = images_per_second(network, (1, 2, 2), batch_size=1, seconds=0.0)
    assert rate.repeats == 3
    assert network.calls == 2 + 3


def test_rate_in_bfloat16_leaves_random_numbers_alone() -> None:
    network, before = Small(), torch.get_rng_state()
    rate = images_per_second(network, (3, 8, 8), batch_size=4, precision="bfloat16", seconds=0.05)
    assert rate.median > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_macs_of_a_known_network_worked_by_hand() -> None:
    network = build_network("cifar_resnet20", 100, input_size=32, seed=0)
    stem, first = 3 * 16 * 9 * 32**2, 6 * (16 * 16 * 9) * 32**2
    second = (16 * 32 * 9 + 5 * (32 * 32 * 9) + 16 * 32) * 16**2
    third = (32 * 64 * 9 + 5 * (64 * 64 * 9) + 32 * 64) * 8**2
    assert macs(network, (3, 32, 32)) == stem + first + second + third + 64 * 100
    assert macs(network, (1, 28, 28)) == macs(network, (3, 32, 32))  # resizing is no product of matrices
