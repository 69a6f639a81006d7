from __future__ import annotations

import numpy as np
import pytest
import torch
from objectives.layers import cell_means, projected
from objectives.maps import CONTEXT, built, gradients_agree, network, value

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.ab import boundary_losses
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

STUDENT, TEACHER = ((3, 8), (5, 8)), ((4, 16), (7, 16))


def activated(*blocks: tuple[int, int], grid: int | None = None) -> Signals:
    """Of a teacher, after its ReLUs; most neurons are silent."""
    full = network(2, *blocks)
    maps = {block: (x - 1.5).relu() for block, x in full.features.items()}
    return Signals(full.logits, features={b: x if grid is None else lowpass(x, grid) for b, x in maps.items()})


def test_four_neurons_by_hand():
    # Active: 0.25 is 0.75 short of the margin, 3 is beyond it. Silent: 0.5 is 1.5 too far, -2 is beyond the margin.
    student = torch.tensor([0.25, 3.0, 0.5, -2.0])[None, :, None, None]
    teacher = torch.tensor([0.1, 7.0, 0.0, 0.0])[None, :, None, None]
    assert boundary_losses(student, teacher, 1.0).mean().item() == pytest.approx(0.75**2 + 1.5**2)


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_equals_the_equation_in_float64_on_cells_that_have_an_active_neuron(margin: float):
    student, full, cached = network(1, *STUDENT), activated(*TEACHER), activated(*TEACHER, grid=4)
    objective = built("ab", student, cached, margin=margin)
    expected = 0.0
    for k, (connector, block) in enumerate(zip(objective.connectors, ("block1", "block2"), strict=True), 1):
        outputs = projected(cell_means(student.features[block], 4), connector)
        teacher = full.features[block].numpy()
        for b, c, i, j in np.ndindex(outputs.shape):
            s, active = outputs[b, c, i, j], (teacher[b, c, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] > 0).any()
            loss = (s - margin) ** 2 * (s <= margin) if active else (s + margin) ** 2 * (s > -margin)
            expected += 2.0 ** (k - 2) * 3 / 1000 * loss / len(outputs)
    assert value(objective, student, cached).item() == pytest.approx(expected, rel=1e-10)
    shares = [float((x > 0).double().mean()) for x in cached.features.values()]
    assert all(0.2 < share < 0.8 for share in shares)  # both kinds of cells are there


def test_only_the_side_of_the_boundary_counts():
    teacher, student = activated((4, 4)).features["block1"], network(1, (4, 4)).features["block1"]
    louder = teacher * torch.linspace(0.1, 9, 4, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        boundary_losses(student, louder, 1.0).mean(), boundary_losses(student, teacher, 1.0).mean()
    )
    beyond = torch.where(teacher > 0, 1.0, -1.0)
    assert boundary_losses(beyond, teacher, 1.0).mean() == 0
    assert boundary_losses(-beyond, teacher, 1.0).mean().item() == pytest.approx(4 * 4 * 16)


def test_gradient():
    student, teacher = network(1, *STUDENT), activated(*TEACHER, grid=4)
    assert gradients_agree(built("ab", student, teacher), student, teacher, "block1", "block2")


def test_refusals():
    shapes = SignalShapes(3, features={"block1": (4, 4, 4)}, filter="dct")
    with pytest.raises(
        ConfigError, match=r"low-passed by 'dct' do not tell\n  do: set `signals.features.filter: mean`"
    ):
        build_objective("ab", {}, shapes, shapes, CONTEXT)
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("ab", {}, shapes, SignalShapes(3), CONTEXT)
