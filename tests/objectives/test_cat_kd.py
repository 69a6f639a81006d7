from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden
from objectives.local import CLASSES, network

from pipeline.errors import ConfigError
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.cat_kd import activation_maps, attention_loss
from pipeline.signals import Signals, SignalShapes

CONTEXT = Context(6, CLASSES)


def batch(size: int = 6) -> Batch:
    rows = torch.arange(size)
    return Batch(torch.full((size,), -1), rows, torch.zeros_like(rows))


def cat_kd(student: Signals, teacher: Signals, **options: object):
    return build_objective("cat-kd", options, student.shapes(), teacher.shapes(), CONTEXT)


def attention(signals: Signals, resolution: int, normalize: bool) -> np.ndarray:
    """The class activation maps by loops: pixels first, then means of cells, then lengths."""
    maps, weight = signals.features["block1"].numpy(), signals.head.weight.numpy()
    b, _, size, _ = maps.shape
    step, found = size // resolution, np.zeros((b, CLASSES, resolution, resolution))
    for sample in range(b):
        for k in range(CLASSES):
            pixels = sum(weight[k, c] * maps[sample, c] for c in range(maps.shape[1]))
            for row in range(resolution):
                for column in range(resolution):
                    found[sample, k, row, column] = pixels[
                        row * step : (row + 1) * step, column * step : (column + 1) * step
                    ].mean()
            if normalize:
                found[sample, k] /= np.sqrt((found[sample, k] ** 2).sum())
    return found


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("resolution", [2, 4])
def test_equals_the_equation_in_float64_over_full_maps(resolution: int, normalize: bool):
    # The oracle sees the teacher's full map, the objective its 4 x 4 means: low-passing changes nothing.
    student, full, cached = network(1, 3, 8), network(2, 7, 16), network(2, 7, 16, grid=4)
    expected = ((attention(student, resolution, normalize) - attention(full, resolution, normalize)) ** 2).mean()
    objective = cat_kd(student, cached, resolution=resolution, normalize=normalize)
    assert objective(student, cached, batch(), 0.0)["attention"].item() == pytest.approx(expected, rel=1e-10)


def test_one_cell_and_one_class_by_hand():
    # Two channels with means 3 and 1 under weights (1, -2): 1. The teacher's map says 4: a squared difference of 9.
    maps = torch.tensor([[[[2.0, 4.0]], [[1.0, 1.0]]]])
    found = activation_maps(maps.expand(-1, -1, 2, -1), torch.tensor([[1.0, -2.0]]), 1)
    assert found.tolist() == [[[[1.0]]]]
    assert attention_loss(found, torch.full((1, 1, 1, 1), 4.0), normalize=False).item() == pytest.approx(9)


def test_of_one_cell_it_is_the_squared_difference_of_logits_without_bias():
    student, teacher = network(1, 3, 8), network(2, 7, 8, grid=4)
    value = cat_kd(student, teacher, resolution=1)(student, teacher, batch(), 0.0)["attention"]
    s, t = (each.logits - each.head.bias for each in (student, teacher))
    torch.testing.assert_close(value, (s - t).square().mean())


def test_normalised_maps_have_no_size():
    cell = torch.randn(2, 4, 5, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sizes = torch.rand(4, 5, 1, 1, generator=torch.Generator().manual_seed(1)).double() + 0.1
    one, scaled = (attention_loss(cell[0] * size, cell[1], normalize=True) for size in (1, sizes))
    torch.testing.assert_close(one, scaled, rtol=1e-10, atol=0)


@pytest.mark.parametrize("method", ["cat_kd", "cat_kd_unnormalised"])
def test_golden_values_of_the_reference(method: str):
    for case in golden(method):
        case.check_objective("cat-kd", case.options)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradient(normalize: bool):
    student, teacher = network(1, 2, 4, batch=3), network(2, 3, 4, batch=3)
    objective = cat_kd(student, teacher, normalize=normalize)

    def value(maps: torch.Tensor) -> torch.Tensor:
        return objective(Signals(student.logits, None, {"block1": maps}, student.head), teacher, batch(3), 0.0)[
            "attention"
        ]

    assert torch.autograd.gradcheck(value, (student.features["block1"].requires_grad_(),))


def test_a_student_whose_end_is_not_linear_says_what_it_makes_of_every_cell():
    # A ViT with a norm behind its mean; of one cell, its logits without the bias.
    options = {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 12, "num_heads": 2, "global_pool": "avg"}
    vit = build_network("vit_tiny_patch16_224", CLASSES, input_size=16, options=options, seed=0).eval().double()
    vit.keep_taps(["final"])
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    signals, teacher = vit(images), network(2, 7, 8, grid=4)
    shapes = SignalShapes(CLASSES, 12, {"block1": (12, 4, 4), "final": (12, 4, 4)}, linear=False, local=True)
    for resolution in (1, 2):
        objective = build_objective("cat-kd", {"resolution": resolution}, shapes, teacher.shapes(), CONTEXT)
        assert objective.needs.student == {"features/final"}
        step, expected = 4 // resolution, np.zeros((6, CLASSES, resolution, resolution))
        for row in range(resolution):
            for column in range(resolution):
                part = signals.features["final"][
                    :, :, row * step : (row + 1) * step, column * step : (column + 1) * step
                ]
                made = vit.model.head(vit.model.fc_norm(part.mean((2, 3)))) - vit.model.head.bias
                expected[:, :, row, column] = made.detach().numpy()
        value = objective(signals, teacher, batch(), 0.0)["attention"].item()
        assert value == pytest.approx(((expected - attention(teacher, resolution, False)) ** 2).mean(), rel=1e-10)


def test_nothing_to_see_has_a_finite_gradient():
    maps = torch.zeros(2, 3, 2, 2, requires_grad=True)
    attention_loss(maps, torch.randn(2, 3, 2, 2), normalize=True).sum().backward()
    assert maps.grad.isfinite().all()


def test_what_has_no_class_activation_maps_is_refused_with_the_reason():
    good = SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=True)

    def refused(match: str, student: SignalShapes = good, teacher: SignalShapes = good, **options: object) -> None:
        with pytest.raises(ConfigError, match=match):
            build_objective("cat-kd", options, student, teacher, CONTEXT)

    refused(
        "student's are no function of the mean", student=SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=False)
    )
    refused("same classes", teacher=SignalShapes(7, 8, {"block1": (8, 4, 4)}, linear=True))
    refused(r"cat-kd\.resolution: .* too few for a scale of 8", resolution=8)
    refused("low-passed by 'dct'", teacher=SignalShapes(CLASSES, 8, {"block1": (8, 4, 4)}, linear=True, filter="dct"))
