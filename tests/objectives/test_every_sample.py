"""Methods that are means over images: the value of an image is that of the image alone."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from contracts.objective_cases import batch, build, signals

from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("vid", "nst", "ft", "icd", "reviewkd", "ab")),
    *((name, {"signal": signal}) for name in ("fsp", "ickd") for signal in ("features", "extra")),
    ("ofd", {"margin": 0}),  # other margins are estimated from the batch
]
SAMPLES = 6


def doubled(value: Any, rows: slice) -> Any:
    """Some samples of signals, in float64. What every sample shares, the head, stays whole."""
    if isinstance(value, Signals):
        head = None if value.head is None else doubled(value.head, slice(None))
        own = {field.name: doubled(getattr(value, field.name), rows) for field in fields(value) if field.name != "head"}
        return Signals(**own, head=head)
    if isinstance(value, torch.Tensor):
        return value[rows].double()
    if isinstance(value, dict):
        return {key: doubled(each, rows) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: doubled(getattr(value, field.name), rows) for field in fields(value)})
    return value


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_the_value_of_an_image_is_that_of_the_image_alone(name: str, options: dict[str, Any], progress: float) -> None:
    """In float64, where batch normalisation takes what it has learnt: its statistics would be of the one image."""
    objective = build(name, options).double().eval()
    assert isinstance(objective, SampleObjective)
    student, teacher = signals("student", SAMPLES, 1), signals("teacher", SAMPLES, 2)
    every = slice(None)
    together = objective.of_samples(doubled(student, every), doubled(teacher, every), batch(SAMPLES), progress)
    (term,) = together
    assert together[term].shape == (SAMPLES,)
    assert len(set(together[term].tolist())) == SAMPLES
    for i in range(SAMPLES):
        one = slice(i, i + 1)
        alone = objective(doubled(student, one), doubled(teacher, one), batch(1), progress)[term]
        torch.testing.assert_close(together[term][i], alone, rtol=1e-12, atol=1e-15)
    whole = objective(doubled(student, every), doubled(teacher, every), batch(SAMPLES), progress)[term]
    torch.testing.assert_close(whole, together[term].mean(), rtol=1e-12, atol=0)
