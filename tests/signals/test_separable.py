"""Filters by matrices: what is made once, and for whom."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from device_counts import META, DeviceCounts
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.signals.filters import dct, gaussian, mean

FILTERS = pytest.mark.parametrize("module", [dct, gaussian, mean], ids=lambda each: each.__name__.rpartition(".")[2])


@FILTERS
def test_matrices_go_to_a_device_once(module: ModuleType) -> None:
    x = torch.empty(2, 4, 11, 13, device=META)
    with DeviceCounts() as counts:
        module.lowpass(x, 3, 2)
    assert counts.copies == 2  # for rows and for columns
    with DeviceCounts() as counts:
        module.lowpass(x, 3, 2)
    assert counts.copies == 0
    computed = {
        name for name in counts.operations if name not in ("aten.promote_types.default", "aten._unsafe_view.default")
    }
    assert computed <= {"aten.bmm.default", "aten.clone.default"}


@FILTERS
def test_what_a_trace_makes_is_not_kept(module: ModuleType) -> None:
    """Tensors of another kind, of a tracer or under inference, leave nothing that others would trip over."""
    with FakeTensorMode():
        module.lowpass(torch.ones(2, 4, 10, 7), 3, 2)
    with torch.inference_mode():
        before = module.lowpass(torch.ones(2, 4, 10, 7), 3, 2)
    x = torch.ones(2, 4, 10, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(module.lowpass(x, 3, 2).square().sum(), x, create_graph=True)
    gradient.sum().backward()
    assert torch.equal(module.lowpass(x, 3, 2), before)
    torch.testing.assert_close(before, torch.ones(2, 4, 3, 2))
