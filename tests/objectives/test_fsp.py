from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.layers import Array, cell_means
from objectives.maps import CONTEXT, built, gradients_agree, network, value
from torch.nn.functional import mse_loss

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.fsp import FSP
from pipeline.signals import Signals, SignalShapes, extract
from pipeline.signals.lowpass import lowpass

STUDENT, TEACHER = ((3, 16), (5, 8), (6, 8)), ((4, 32), (5, 16), (7, 8))
BLOCKS = ("block1", "block2", "block3")


def remembered(full: Signals, *blocks: str) -> Signals:
    """What a cache holds with FSP matrices as extra signals, and no features."""
    maps, taps = full.features, list(full.features)
    flows = {b: extract("fsp-matrix", maps[b], maps[taps[taps.index(b) + 1]]) for b in blocks}
    return replace(full, features={}, extras={f"fsp-matrix/{block}": flow for block, flow in flows.items()})


def flow(shallow: Array, deep: Array) -> Array:
    """G of maps [B, C, h, w] by loops over channels; the larger map is brought to the smaller one's size by means."""
    size = min(shallow.shape[2], deep.shape[2])
    shallow, deep = (cell_means(x, size) for x in (shallow, deep))
    found = np.empty((len(shallow), shallow.shape[1], deep.shape[1]))
    for b, c, d in np.ndindex(found.shape):
        found[b, c, d] = (shallow[b, c] * deep[b, d]).mean()
    return found


def distance(
    objective: FSP, student: dict[str, Array], teacher: dict[str, Array], pairs: list[tuple[str, str]]
) -> float:
    """The equation, with 1 x 1 convolutions on the student's maps where there are adapters."""
    total = 0.0
    mapped = dict(student)
    for block, adapter in objective.adapters.items():
        mapped[block] = np.einsum("oc,bchw->bohw", adapter.weight.detach().numpy(), student[block])
    for shallow, deep in pairs:
        total += float(((flow(mapped[shallow], mapped[deep]) - flow(teacher[shallow], teacher[deep])) ** 2).mean())
    return total


def arrays(signals: Signals) -> dict[str, Array]:
    return {block: maps.numpy() for block, maps in signals.features.items()}


def test_two_places_by_hand():
    # G = (1·2 + 3·4)/2 = 7 of the student, (1·1 + 1·1)/2 = 1 of the teacher.
    def one(*values: float) -> torch.Tensor:
        return torch.tensor(values).reshape(1, 1, 1, 2)

    student, teacher = (one(1, 3), one(2, 4)), (one(1, 1), one(1, 1))
    assert mse_loss(extract("fsp-matrix", *student), extract("fsp-matrix", *teacher)).item() == pytest.approx(36)


def test_equals_the_equation_in_float64_on_means():
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    objective = built("fsp", student, cached)
    assert isinstance(objective, FSP)
    assert set(objective.adapters) == {"block1", "block3"}  # block2 is as wide in both
    s, t = ({block: cell_means(x.features[block], 4) for block in BLOCKS} for x in (student, full))
    expected = distance(objective, s, t, [("block1", "block2"), ("block2", "block3")])
    assert value(objective, student, cached).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("blocks", [("block1", "block2"), ("block2",)])
def test_with_the_extra_signal_it_is_exact(blocks: tuple[str, ...]):
    # The oracle sees full maps of both networks, of different sizes.
    student, full = network(1, *STUDENT), network(2, *TEACHER)
    cached = remembered(full, *blocks)
    objective = built("fsp", student, cached, signal="extra")
    assert objective.needs.teacher == {f"extras/fsp-matrix/{block}" for block in blocks}
    pairs = [(block, BLOCKS[BLOCKS.index(block) + 1]) for block in blocks]
    exact = distance(objective, arrays(student), arrays(full), pairs)
    assert value(objective, student, cached).item() == pytest.approx(exact, rel=1e-10)


def test_means_are_another_objective():
    student, full = network(1, (4, 16), (5, 8)), network(2, (4, 16), (5, 8))
    cached = remembered(full, "block1")
    exact = value(built("fsp", student, cached, signal="extra"), student, cached).item()
    low = replace(full, features={block: lowpass(maps, 2) for block, maps in full.features.items()})
    assert value(built("fsp", student, low), student, low).item() < 0.5 * exact


def test_the_same_networks_have_the_same_flow():
    shapes = network(1, *STUDENT)
    assert value(built("fsp", shapes, shapes), shapes, shapes).item() == 0
    cached = remembered(shapes, "block1", "block2")
    assert value(built("fsp", shapes, cached, signal="extra"), shapes, cached).item() == 0


def test_matrices_of_projected_maps_are_projected_matrices():
    student, cached = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("fsp", student, cached)
    shallow, deep = student.features["block1"], student.features["block2"]
    behind = objective.adapters["block1"](shallow.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    adapted = objective._adapted(extract("fsp-matrix", shallow, deep), "block1", "block2")
    torch.testing.assert_close(adapted, extract("fsp-matrix", behind, deep))


@pytest.mark.parametrize("signal", ["features", "extra"])
def test_gradient(signal: str):
    student, full = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    teacher = full if signal == "features" else remembered(full, "block1", "block2")
    assert gradients_agree(built("fsp", student, teacher, signal=signal), student, teacher, *BLOCKS)


def test_refusals():
    student = SignalShapes(3, features={"block1": (4, 8, 8), "block2": (4, 4, 4)})
    teacher = SignalShapes(3, features={"block2": (4, 4, 4), "block3": (4, 4, 4)})

    def refused(match: str, teacher: SignalShapes = teacher, **options: object) -> None:
        with pytest.raises(ConfigError, match=match):
            build_objective("fsp", options, student, teacher, CONTEXT)

    refused("between two blocks or more, and there is one\n  got: block3", blocks=["block3"])
    refused(r"do: add `extras: \[fsp-matrix/block2\]` to `signals`", signal="extra")
    far = replace(teacher, extras={"fsp-matrix/block1": (4, 4), "fsp-matrix/block2": (4, 4)})
    refused("the student has too few blocks for fsp-matrix/block1", far, signal="extra", blocks=["block1"])
    assert len(build_objective("fsp", {"signal": "extra"}, student, far, CONTEXT).flows) == 1
