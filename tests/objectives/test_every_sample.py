"""Methods that are means over images: the value of an image is that of the image alone."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from contracts.objective_cases import batch, build, signals

from pipeline.objectives import Objective
from pipeline.objectives.methods.diffkd import Diffusion
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("vid", "nst", "ft", "icd", "reviewkd", "ab")),
    *((name, {"signal": signal}) for name in ("fsp", "ickd") for signal in ("features", "extra")),
    ("ofd", {"margin": 0}),  # other margins are estimated from the batch
    *((name, {}) for name in ("hard-label", "hcd", "diffkd", "crd")),
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
    """In float64, where batch normalisation takes what it has learnt: its statistics would be of the one image.

    The first batch fixes the normalisers of `crd`, whose bank changes with each batch.
    """
    objective = build(name, options).double().eval()
    student, teacher = signals("student", SAMPLES, 1), signals("teacher", SAMPLES, 2)
    computed(objective, student, teacher, slice(None), progress)
    together = computed(deepcopy(objective), student, teacher, slice(None), progress)
    for i in range(SAMPLES):
        alone = computed(deepcopy(objective), student, teacher, slice(i, i + 1), progress)
        assert set(alone) == set(together)
        for term, value in alone.items():
            torch.testing.assert_close(together[term][i], value[0], rtol=1e-12, atol=1e-15)
    whole = objective(doubled(student, slice(None)), doubled(teacher, slice(None)), batch(SAMPLES), progress)
    for term, value in together.items():
        assert value.shape == (SAMPLES,)
        assert len(set(value.tolist())) == SAMPLES
        if name != "crd":
            torch.testing.assert_close(whole[term], value.mean(), rtol=1e-12, atol=0)


def computed(
    objective: Objective, student: Signals, teacher: Signals, rows: slice, progress: float
) -> dict[str, torch.Tensor]:
    """The terms of some samples of a batch, of all of which it was called before."""
    assert isinstance(objective, SampleObjective)
    every = batch(SAMPLES)
    given = replace(every, labels=every.labels[rows], sample=every.sample[rows], view=every.view[rows])
    diffusions = [each for each in objective.modules() if isinstance(each, Diffusion)]
    if rows == slice(None) or not diffusions:
        objective.prepare(given, progress)
    for diffusion in diffusions:
        for drawn in ("start", "noise", "left", "times"):  # what was drawn for these samples
            setattr(diffusion, drawn, getattr(diffusion, drawn)[rows])
    with torch.no_grad():
        return objective.of_samples(doubled(student, rows), doubled(teacher, rows), given, progress)
