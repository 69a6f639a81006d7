from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.layers import Array, cell_means, projected
from objectives.maps import CONTEXT, built, gradients_agree, network, value

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.ickd import ICKD, inter_channel_losses
from pipeline.signals import Signals, SignalShapes, extract

STUDENT, TEACHER = ((3, 16), (5, 8)), ((4, 16), (7, 16))


def remembered(full: Signals, *blocks: str) -> Signals:
    """What a cache holds with channel Gram matrices as extra signals, and no features."""
    grams = {f"channel-gram/{block}": extract("channel-gram", full.features[block]) for block in blocks}
    return replace(full, features={}, extras=grams)


def distance(student: Array, teacher: Array) -> float:
    """The equation, of maps [B, C, h, w] of one width, channel by channel."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for c in range(len(t)):
            rows = [np.array([(x[c] * x[d]).sum() for d in range(len(x))]) for x in (s, t)]
            s_row, t_row = (row / np.sqrt((row**2).sum()) for row in rows)
            total += ((s_row - t_row) ** 2).sum()
    return total / student.shape[0] / student.shape[1]


def test_two_channels_by_hand():
    # Orthogonal channels against equal ones: rows (1, 0), (0, 1) against (1, 1)/√2, twice.
    student, teacher = torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]]), torch.tensor([[[[1.0, 4.0]], [[1.0, 4.0]]]])
    half = 0.5**0.5
    loss = inter_channel_losses(extract("channel-gram", student), extract("channel-gram", teacher)).mean()
    assert loss.item() == pytest.approx((1 - half) ** 2 + half**2, rel=1e-6)


@pytest.mark.parametrize("blocks", [None, ("block1", "block2")])
def test_equals_the_equation_in_float64_on_means(blocks: tuple[str, ...] | None):
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    objective, expected = built("ickd", student, cached, blocks=blocks), 0.0
    assert isinstance(objective, ICKD)
    for connector, block in zip(objective.connectors, blocks or ("block2",), strict=True):
        s = projected(cell_means(student.features[block], 4), connector)
        expected += distance(s, cell_means(full.features[block], 4))
    assert value(objective, student, cached).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("blocks", [None, ("block1", "block2")])
def test_with_the_extra_signal_it_is_exact(blocks: tuple[str, ...] | None):
    # The oracle sees full maps of both networks, of different sizes.
    student, full = network(1, *STUDENT), network(2, *TEACHER)
    cached = remembered(full, "block1", "block2")
    objective, exact = built("ickd", student, cached, signal="extra", blocks=blocks), 0.0
    for connector, block in zip(objective.connectors, blocks or ("block2",), strict=True):
        exact += distance(projected(student.features[block].numpy(), connector), full.features[block].numpy())
    assert value(objective, student, cached).item() == pytest.approx(exact, rel=1e-10)
    low = network(2, *TEACHER, grid=4)
    assert value(built("ickd", student, low, blocks=blocks), student, low).item() > 1.1 * exact


def test_places_and_strength_do_not_count():
    maps = network(1, (4, 4)).features["block1"]
    shuffle = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = 7 * maps.flatten(2)[:, :, shuffle].reshape(maps.shape)
    assert inter_channel_losses(extract("channel-gram", moved), extract("channel-gram", maps)).mean().item() < 1e-28


@pytest.mark.parametrize("signal", ["features", "extra"])
def test_gradient(signal: str):
    student, full = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    teacher = full if signal == "features" else remembered(full, "block2")
    assert gradients_agree(built("ickd", student, teacher, signal=signal), student, teacher, "block2")


def test_half_precision_of_the_student_does_not_reach_the_gram_matrices():
    full = network(2, *TEACHER)
    student = network(1, *STUDENT)
    floats = replace(student, features={block: x.bfloat16() for block, x in student.features.items()})
    cached = remembered(full, "block2")
    objective = built("ickd", student, cached, signal="extra").float()
    with torch.autocast("cpu", torch.bfloat16):
        within = value(objective, floats, cached)
    same = replace(student, features={block: x.float() for block, x in floats.features.items()})
    torch.testing.assert_close(within, value(objective, same, cached), rtol=1e-5, atol=0)


def test_refusals():
    student = SignalShapes(3, features={"block1": (4, 8, 8), "block2": (4, 4, 4)})
    teacher = SignalShapes(3, features={"block2": (4, 4, 4), "block3": (4, 4, 4)})
    with pytest.raises(ConfigError, match=r"do: add `extras: \[channel-gram/block3\]` to `signals` and cache the tea"):
        build_objective("ickd", {"signal": "extra"}, student, teacher, CONTEXT)
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("ickd", {}, student, SignalShapes(3), CONTEXT)
