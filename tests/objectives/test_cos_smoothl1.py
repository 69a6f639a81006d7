from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.cos_smoothl1 import CosSmoothL1, distances
from pipeline.signals import Signals, SignalShapes

B, MAPS = 3, {"block1": (2, 4, 4), "block2": (4, 4, 4)}
ROWS = torch.arange(B)


def random(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signals(width: int, seed: int) -> Signals:
    maps = {"block1": random(B, 2, 4, 4, seed=seed), "block2": random(B, width, 4, 4, seed=seed + 1)}
    return Signals(random(B, 3, seed=seed), maps["block2"].mean((2, 3)), maps)


def build(teacher: int = 5, **options: Any) -> CosSmoothL1:
    torch.manual_seed(0)
    shapes = SignalShapes(3, 4, MAPS), SignalShapes(3, teacher, {**MAPS, "block2": (teacher, 4, 4)})
    built = build_objective("cos-smoothl1", options, *shapes, Context(B, 3)).double()
    assert isinstance(built, CosSmoothL1)
    return built


def step(objective: CosSmoothL1, student: Signals, teacher: Signals) -> dict[str, torch.Tensor]:
    return objective(student, teacher, Batch(ROWS, ROWS, ROWS), 0.0)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def smooth(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([e * e / 2 if e < 1 else e - 0.5 for e in np.abs(x - y).flatten()]))


def test_embeddings_equal_the_equation_in_float64():
    objective, student, teacher = build(cosine=0.3, smooth_l1=0.6), signals(4, 1), signals(5, 3)
    weight, bias = (each.detach().numpy() for each in objective.embedding.parameters())
    pairs = [(weight @ s + bias, t) for s, t in zip(student.embedding.numpy(), teacher.embedding.numpy(), strict=True)]
    terms = step(objective, student, teacher)
    assert terms["cosine"].item() == pytest.approx(0.3 * np.mean([1 - cosine(*pair) for pair in pairs]), rel=1e-12)
    assert terms["smooth_l1"].item() == pytest.approx(0.6 * np.mean([smooth(*pair) for pair in pairs]), rel=1e-12)


@pytest.mark.parametrize("angle", ["place", "map"])
def test_maps_equal_the_equation_in_float64(angle: str):
    objective, student, teacher = build(compare="map", angle=angle), signals(4, 1), signals(5, 3)
    weight, bias = (each.detach().numpy() for each in objective.maps[0].parameters())
    angles, apart = [], []
    for b in range(B):
        s, t = student.features["block2"][b].numpy(), teacher.features["block2"][b].numpy()
        s = np.einsum("dc,cij->dij", weight, s) + bias[:, None, None]
        apart.append(smooth(s, t))
        if angle == "map":
            angles.append(1 - cosine(s, t))
        else:
            angles += [1 - cosine(s[:, i, j], t[:, i, j]) for i in range(4) for j in range(4)]
    terms = step(objective, student, teacher)
    assert terms["cosine"].item() == pytest.approx(0.5 * np.mean(angles), rel=1e-12)
    assert terms["smooth_l1"].item() == pytest.approx(0.5 * np.mean(apart), rel=1e-12)


def test_both_are_the_mean_of_embedding_and_map_and_several_blocks_are_one_map():
    student, teacher, both = signals(4, 1), signals(5, 3), build(compare="both", blocks=["block1", "block2"])
    values = []
    for options in ({}, {"compare": "map", "blocks": ["block1"]}, {"compare": "map"}):
        alone = build(**options)
        if alone.embedding is not None:
            alone.embedding.load_state_dict(both.embedding.state_dict())
        else:
            alone.maps[0].load_state_dict(both.maps[len(values) - 1].state_dict())
        values.append(step(alone, student, teacher))
    for term, value in step(both, student, teacher).items():
        torch.testing.assert_close(value, (values[0][term] + (values[1][term] + values[2][term]) / 2) / 2)


def test_one_vector_by_hand():
    # A right angle; differences of 3 and 4, or of 0.6 and 0.8, which are within the square's reach.
    for scale, apart in ((1.0, (2.5 + 3.5) / 2), (0.2, (0.6**2 + 0.8**2) / 4)):
        student, teacher = torch.tensor([[3.0, 0.0]]).double() * scale, torch.tensor([[0.0, 4.0]]).double() * scale
        found = distances(student, teacher)
        assert [each.item() for each in found] == pytest.approx([1, apart])


def test_both_vanish_for_the_teachers_own_vectors_and_the_cosine_for_any_length_of_them():
    x = random(B, 6, 4, seed=1)
    for whole in (False, True):
        assert all(each.abs().max() < 1e-14 for each in distances(x, x, whole=whole))
        angle, apart = distances(3 * x, x, whole=whole)
        assert angle.abs().max() < 1e-14
        assert apart.min() > 0.1


@pytest.mark.parametrize("whole", [False, True])
def test_gradient(whole: bool):
    student, teacher = random(2, 3, 4, seed=1).requires_grad_(), random(2, 3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: distances(s, teacher, whole=whole), (student,))


@pytest.mark.parametrize(
    "method", ["cos_smoothl1_unic", "cos_smoothl1_unic_both", "cos_smoothl1_theia", "cos_smoothl1_theia_embedding"]
)
def test_golden_values_of_the_reference(method: str):
    for case in golden(method):
        compared = case.options["signals"]
        options = {term: case.options[term] for term in ("cosine", "smooth_l1")}
        options["compare"] = compared[0] if len(compared) == 1 else "both"
        if case.terms and options["compare"] == "map":
            options["angle"] = "map"
        objective = case.objective("cos-smoothl1", options, None).double()
        assert isinstance(objective, CosSmoothL1)
        for layer in objective.maps:
            case.load(layer, "map_projector")
        if objective.embedding is not None:
            case.load(objective.embedding, "embedding_projector")
        terms = objective(case.signals("student"), case.signals("teacher"), case.batch(), 0.5)
        for term, value in case.terms.items():
            assert terms[term].item() == pytest.approx(value, rel=1e-9)
        case.check(torch.stack([*terms.values()]).sum())


@pytest.mark.parametrize("zero", ["student", "teacher"])
@pytest.mark.parametrize("whole", [False, True])
def test_vectors_of_zeros_have_finite_gradients(zero: str, whole: bool):
    student, teacher = random(2, 3, 4, seed=1), random(2, 3, 4, seed=2)
    (student if zero == "student" else teacher)[0] = 0
    student.requires_grad_()
    angle, apart = distances(student, teacher, whole=whole)
    assert angle[0] == 1  # a right angle
    (angle + apart).sum().backward()
    assert student.grad.abs().max() < 10


def test_a_weight_of_0_leaves_its_term_out():
    student, teacher = signals(4, 1), signals(5, 3)
    assert set(step(build(cosine=0), student, teacher)) == {"smooth_l1"}
    assert set(step(build(smooth_l1=0), student, teacher)) == {"cosine"}


def test_refusals():
    for options, match in (
        ({"cosine": 0, "smooth_l1": 0}, "nothing is compared"),
        ({"angle": "map"}, "does not read angle"),
        ({"blocks": ["block2"]}, "does not read blocks"),
        ({"compare": "map", "blocks": ["block7"]}, "block7"),
    ):
        with pytest.raises(ConfigError, match=match):
            build(**options)
    for compare, match in (("embedding", "student's embedding"), ("map", "cached features")):
        with pytest.raises(ConfigError, match=match):
            build_objective("cos-smoothl1", {"compare": compare}, SignalShapes(3), SignalShapes(3, 4), Context(B, 3))
