from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden
from objectives.layers import STUDENT, TEACHER, Array, array, batch, built, cell_means, maps, projected
from objectives.maps import gradients_agree
from scipy.fft import dctn, idctn

from pipeline.errors import ConfigError
from pipeline.objectives.methods.ufd import TERMS, frequency_errors
from pipeline.signals import SignalShapes


def parts(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """What the coefficient 0 of a cosine transform gives back, and what all others give: as the authors have it."""
    coefficients = dctn(x, axes=axes, norm="ortho")
    first = np.zeros_like(coefficients)
    zero = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    first[zero] = coefficients[zero]
    return idctn(first, axes=axes, norm="ortho"), idctn(coefficients - first, axes=axes, norm="ortho")


def apart(s: Array, t: Array, axes: tuple[int, ...]) -> float:
    """The squared distance of directions along `axes`, summed over all others: the mean over samples."""
    s, t = (x / np.sqrt((x**2).sum(axes, keepdims=True)) for x in (s, t))
    return float(((s - t) ** 2).sum() / len(s))


def by_transforms(s: Array, t: Array) -> list[float]:
    spatial = [apart(*both, (1,)) for both in zip(parts(s, (2, 3)), parts(t, (2, 3)), strict=True)]
    return spatial + [apart(*both, (2, 3)) for both in zip(parts(s, (1,)), parts(t, (1,)), strict=True)]


def test_by_hand():
    # Two channels and two places. Student: channel 0 is (2, 0), channel 1 nothing; teacher: all 1 but one 0.
    s = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)[None, :, None, :]
    t = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)[None, :, None, :]
    # means over places: (1, 0) and (1, 1/2); what is left: student ±(1, 0), teacher ±(0, 1/2)
    # means over channels: (1, 0) and (1, 1/2); what is left: student channel 0 (1, 0), teacher (0, 1/2), and minus both
    expected = [2 * (2 - 4 * 0.2**0.5), 4.0, 2 * (2 - 4 * 0.2**0.5), 4.0]
    assert [value.item() for value in frequency_errors(s, t)] == pytest.approx(expected)


def test_equals_the_transforms_in_float64():
    objective, s, t = built("ufd"), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    sums = np.zeros(4)
    for block, layer in zip(("block1", "block2"), objective.projectors, strict=True):
        sums += by_transforms(projected(cell_means(s.features[block], 4), layer), array(t.features[block]))
    found = objective(s, t, batch(3), 0.0)
    weights = (0.03, 0.065, 0.003, 0.0065)
    for term, value, weight in zip(TERMS, sums, weights, strict=True):
        assert found[term].item() == pytest.approx(weight * value, rel=1e-9)


def test_only_directions_count():
    """A number times the teacher's map is as good as it; what is added to all places of a channel changes DC alone."""
    t = torch.randn(2, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert all(value.abs().max() < 1e-20 for value in frequency_errors(2.5 * t, t))
    shifted = t + torch.randn(2, 5, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    dc, ac, *_ = frequency_errors(shifted, t)
    assert dc.min() > 0.1
    assert ac.abs().max() < 1e-20


def test_gradient():
    objective, student, teacher = built("ufd"), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_authors_values_and_gradients():
    for case in golden("ufd"):
        maps_ = case.student_map
        if case.options["projector"]:
            maps_ = torch.einsum("dc,bchw->bdhw", case.tensor("map_projector/weight"), maps_)
        errors = frequency_errors(maps_, case.tensor("teacher_map"))
        terms = [weight * error.mean() for weight, error in zip(case.options["weights"], errors, strict=True)]
        assert [term.item() for term in terms] == pytest.approx([case.terms[name] for name in TERMS], rel=1e-9)
        case.check(torch.stack(terms).sum())


def test_maps_of_zeros_have_usual_gradients():
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    value = torch.stack(frequency_errors(student, teacher))
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.abs().max() < 1e2


def test_maps_that_are_the_same_everywhere_have_usual_gradients():
    """Their mean is rounded, so something is left of them without it."""
    student = torch.full((2, 3, 7, 7), 0.1)
    student[:, 1] = 0.7
    assert (student - student.mean((2, 3), keepdim=True)).any()
    student.requires_grad_()
    teacher = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.stack(frequency_errors(student, teacher)).sum().backward()
    assert student.grad.abs().max() < 1e2


def test_the_last_two_blocks_and_refusals():
    deep = SignalShapes(5, 8, {f"block{i}": (8, 4, 4) for i in (1, 2, 3)})
    assert built("ufd", student=deep, teacher=deep).needs.teacher == {"features/block2", "features/block3"}
    assert built("ufd", {"blocks": ["block1"]}, student=deep, teacher=deep).needs.teacher == {"features/block1"}
    with pytest.raises(ConfigError, match="compares 2 places of a map or more"):
        built("ufd", teacher=SignalShapes(5, 8, {"block2": (8, 1, 1)}))
    with pytest.raises(ConfigError, match="weights"):
        built("ufd", {"weights": [1, 1, 1, -1]})
