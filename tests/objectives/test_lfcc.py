from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.lfcc import NormedProjection, contrast
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

CONTEXT = Context(num_samples=16, classes=3)
TEACHER = SignalShapes(logits=3, features={"block2": (8, 4, 4), "block3": (16, 4, 4)})
STUDENT = SignalShapes(logits=3, features={"block1": (4, 16, 16), "block2": (6, 8, 8), "block3": (10, 4, 4)})


def none_same(size: int) -> torch.Tensor:
    return torch.zeros(size, size, dtype=torch.bool)


def maps(shapes: SignalShapes, size: int, seed: int, dtype: torch.dtype = torch.float64) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(size, *shape, generator=generator, dtype=dtype) for name, shape in shapes.features.items()
    }
    return Signals(torch.zeros(size, shapes.logits, dtype=dtype), features=features)


def batch(size: int, sample: list[int] | None = None) -> Batch:
    rows = torch.tensor(sample) if sample else torch.arange(size)
    return Batch(labels=torch.zeros(size, dtype=torch.long), sample=rows, view=torch.zeros(size, dtype=torch.long))


def test_orthogonal_pairs_by_hand():
    # Own pair at cosine 1, the other at 0: -log(e^(1/τ) / (e^(1/τ) + 1)).
    u = torch.eye(2)
    value = contrast([u], [u], none_same(2), 0.5, symmetric=False)
    assert value.tolist() == pytest.approx([math.log1p(math.exp(-2.0))] * 2, rel=1e-6)
    swapped = contrast([u], [u.flip(0)], none_same(2), 0.5, symmetric=True)
    assert swapped.tolist() == pytest.approx([2.0 + math.log1p(math.exp(-2.0))] * 2, rel=1e-6)


def test_views_of_one_sample_are_not_negatives_of_each_other():
    u = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = none_same(3)
    same[0, 1] = same[1, 0] = True
    alone = contrast([u[1:]], [u[1:]], none_same(2), 0.2, symmetric=False)
    both = contrast([u], [u], same, 0.2, symmetric=False)
    third = -math.log(math.exp(5) / (math.exp(5) + 2))
    first = -math.log(math.exp(5) / (math.exp(5) + 1))
    assert alone.tolist() == pytest.approx([first] * 2, rel=1e-5)
    assert both.tolist() == pytest.approx([first, first, third], rel=1e-5)


def cell_means(x: np.ndarray, grid: int) -> np.ndarray:
    b, c, h, w = x.shape
    return x.reshape(b, c, grid, h // grid, grid, w // grid).mean((3, 5))


def low_frequencies(x: np.ndarray, grid: int) -> np.ndarray:
    coefficients = scipy.fft.dctn(x, axes=(2, 3), norm="ortho")[:, :, :grid, :grid]
    return scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho") * grid / x.shape[2]


def gaussian_means(x: np.ndarray, grid: int) -> np.ndarray:
    return lowpass(torch.from_numpy(x), grid, "gaussian").numpy()


@pytest.mark.parametrize(
    ("name", "low"), [("mean", cell_means), ("dct", low_frequencies), ("gaussian", gaussian_means)]
)
@pytest.mark.parametrize("width", [7, None])
def test_equals_the_equation_in_float64(name: str, low: Callable[[np.ndarray, int], np.ndarray], width: int | None):
    size, tau = 5, 0.3
    cached = replace(TEACHER, filter=name)
    options = {"width": width, "temperature": tau}
    objective = build_objective("lfcc", options, STUDENT, cached, CONTEXT).double()
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    got = objective(student, teacher, batch(size), 0.0)["contrast"]

    def project(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        y = np.einsum("bchw,oc->bohw", x, weight)
        mean, variance = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
        return (y - mean) / np.sqrt(variance + 1e-5)

    values = []
    for index, (own, theirs) in enumerate([("block2", "block2"), ("block3", "block3")]):
        weights = [each.detach().numpy() for each in objective.student_projectors[index].parameters()]
        fixed = np.eye(teacher.features[theirs].shape[1])
        weights += [each.detach().numpy() for each in objective.teacher_projectors[index].parameters()] or [fixed]
        assert [len(weight) for weight in weights] == [width or len(fixed)] * 2
        s = project(low(student.features[own].numpy(), 4), weights[0])
        t = project(teacher.features[theirs].numpy(), weights[1])
        for grid in (1, 2, 4):
            u, v = (low(x, grid).reshape(size, -1) for x in (s, t))
            u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))
            scores = u @ v.T / tau
            for direction in (scores, scores.T):
                logs = direction.diagonal() - np.log(np.exp(direction).sum(1))
                values.append(-logs.mean())
    assert got.item() == pytest.approx(np.mean(values), rel=1e-10)


@pytest.mark.parametrize("name", ["mean", "dct"])
def test_projection_commutes_with_coarser_scales(name: str):
    # The reason why one cached 4 x 4 grid serves scales 1, 2 and 4 exactly: in eval mode φ is affine.
    projector = NormedProjection(8, 5).double().eval()
    x = torch.randn(3, 8, 16, 16, dtype=torch.float64)
    fine = projector(lowpass(x, 4, name))
    for scale in (1, 2):
        torch.testing.assert_close(lowpass(fine, scale, name), projector(lowpass(x, scale, name)))


def test_floor_is_near_zero_for_equal_maps_and_log_batch_for_empty_ones():
    shapes = SignalShapes(logits=3, features={"block1": (32, 4, 4)})
    objective = build_objective("lfcc", {"temperature": 0.05}, shapes, shapes, CONTEXT)
    torch.nn.init.eye_(objective.student_projectors[0].linear.weight)
    signals = maps(shapes, 16, 0, torch.float32)
    assert objective(signals, signals, batch(16), 0.0)["contrast"].item() < 0.05
    nothing = contrast([torch.zeros(16, 8)], [torch.randn(16, 8)], none_same(16), 0.05, symmetric=True)
    assert nothing.tolist() == pytest.approx([math.log(16)] * 16, rel=1e-6)


@pytest.mark.parametrize("width", [3, None])
def test_gradient(width: int | None):
    objective = build_objective("lfcc", {"width": width, "scales": [1, 2]}, STUDENT, TEACHER, CONTEXT).double().eval()
    teacher = maps(TEACHER, 3, 0)

    def value(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        signals = Signals(torch.zeros(3, 3).double(), features={"block1": a, "block2": a, "block3": b})
        return objective(signals, teacher, batch(3), 0.0)["contrast"]

    a = torch.randn(3, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, 10, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (a, b), fast_mode=True)


def test_deepest_blocks_are_paired_where_numbers_differ():
    vit = SignalShapes(logits=3, features={f"block{i}": (12, 8, 8) for i in range(1, 5)})
    objective = build_objective("lfcc", {}, vit, TEACHER, CONTEXT)
    assert [(pair.student, pair.teacher) for pair in objective.pairs] == [("block3", "block2"), ("block4", "block3")]
    assert objective.needs.teacher == {"features/block2", "features/block3"}
    assert objective.needs.student == {"features/block3", "features/block4"}


@pytest.mark.parametrize(
    ("options", "teacher", "message"),
    [
        (
            {"scales": [1, 8], "blocks": ["block2"]},
            TEACHER,
            "scales: a scale is finer than the cached map of block2, 4 x 4",
        ),
        ({"scales": [8]}, TEACHER, "scales: all are finer than the student's block3, 4 x 4"),
        ({"blocks": ["block4"]}, TEACHER, "lfcc.blocks: unknown name 'block4'"),
        ({"blocks": ["blok3"]}, TEACHER, "did you mean 'block3'?"),
        ({}, SignalShapes(logits=3), "needs cached features of the teacher"),
        ({"temperatur": 1}, TEACHER, "did you mean 'temperature'?"),
        ({"temperature": 0}, TEACHER, "lfcc.temperature: Input should be greater than 0"),
    ],
)
def test_refusals(options: dict, teacher: SignalShapes, message: str):
    with pytest.raises(ConfigError) as error:
        build_objective("lfcc", options, STUDENT, teacher, CONTEXT)
    assert message in str(error.value)


def test_only_blocks_are_paired():
    with_final = SignalShapes(logits=3, features={"block3": (16, 4, 4), "final": (16, 4, 4)})
    objective = build_objective("lfcc", {}, STUDENT, with_final, CONTEXT)
    assert [(pair.student, pair.teacher) for pair in objective.pairs] == [("block3", "block3")]


def test_a_batch_of_one_with_maps_of_one_cell_is_taken():
    """One value of a channel has no variance to be normalised by."""
    shapes = SignalShapes(5, None, {"block1": (3, 1, 1)})
    objective = build_objective("lfcc", {"scales": [1], "width": 4}, shapes, shapes, Context(1, 5))
    said = Signals(torch.zeros(1, 5), None, {"block1": torch.ones(1, 3, 1, 1)})
    zero = torch.zeros(1, dtype=torch.long)
    assert objective(said, said, Batch(zero, zero, zero), 0.0)["contrast"].isfinite()


def test_a_student_with_coarse_maps_learns_at_the_scales_that_fit():
    coarse = SignalShapes(logits=3, features={"block1": (6, 4, 4), "block2": (10, 2, 2)})
    student, teacher = maps(coarse, 5, 1), maps(TEACHER, 5, 2)

    def value(**options: object) -> tuple[float, tuple[str, ...]]:
        torch.manual_seed(0)
        objective = build_objective("lfcc", options, coarse, TEACHER, CONTEXT).double()
        return objective(student, teacher, batch(5), 0.0)["contrast"].item(), objective.notes

    assert value(scales=[1, 2, 4], blocks=["block2"])[1] == ()
    at_some, said = value(scales=[1, 2, 4], blocks=["block3"])
    assert at_some == value(scales=[1, 2], blocks=["block3"])[0] == value(scales=[1, 2, 8], blocks=["block3"])[0]
    assert said == ("leaves out scale 4 at the student's block2, whose map has only 2 x 2 places",)
    # Both pairs: the mean over their five scales, with the first projection and the second.
    both = build_objective("lfcc", {}, coarse, TEACHER, CONTEXT).double()
    alone = [build_objective("lfcc", {"blocks": [b]}, coarse, TEACHER, CONTEXT).double() for b in ("block2", "block3")]
    for index, one in enumerate(alone):
        one.student_projectors[0].load_state_dict(both.student_projectors[index].state_dict())
    first, second = (one(student, teacher, batch(5), 0.0)["contrast"].item() for one in alone)
    found = both(student, teacher, batch(5), 0.0)["contrast"].item()
    assert found == pytest.approx((3 * first + 2 * second) / 5, rel=1e-12)
