"""Values and gradients of the authors' public code, computed once in float64: `../shared/golden`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shared import shared_file
from torch import Tensor, nn

from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.signals import LinearHead, Signals
from pipeline.signals.lowpass import lowpass

FILES = ("objectives.json", "objectives_2026.json")


@dataclass(frozen=True)
class Case:
    """One method on one set of random maps. The student's signals hang on `student_map`, which has a gradient."""

    arrays: Mapping[str, NDArray[Any]]
    options: Mapping[str, Any]
    value: float
    gradient: NDArray[np.float64]
    student_map: Tensor
    terms: Mapping[str, float] = field(default_factory=dict)
    """The parts of `value`, where there are several: each with its weight."""

    def tensor(self, name: str) -> Tensor:
        return torch.tensor(self.arrays[name])

    def signals(self, who: str, grid: int | None = None) -> Signals:
        """Of `student` or `teacher`, with the last map as `block1`; low-passed to a grid if one is given."""
        maps = self.student_map if who == "student" else self.tensor("teacher_map")
        head = LinearHead(self.tensor(f"{who}_head_weight"), self.tensor(f"{who}_head_bias"))
        embedding = maps.mean((2, 3))
        kept = maps if grid is None else lowpass(maps, grid)
        return Signals(head(embedding), embedding, {"block1": kept}, head)

    def batch(self) -> Batch:
        labels = self.tensor("labels").long()
        rows = torch.arange(len(labels))
        return Batch(labels=labels, sample=rows, view=torch.zeros_like(rows))

    def objective(self, name: str, options: Mapping[str, Any], grid: int | None = 4) -> Objective:
        """Built for the networks of this case; the teacher's map is cached on a grid."""
        student, teacher = self.signals("student"), self.signals("teacher", grid)
        labels = self.tensor("labels").long()
        context = Context(len(labels), student.logits.shape[1], labels, class_means=self._class_means)
        return build_objective(name, options, student.shapes(), teacher.shapes(), context)

    def load(self, layer: nn.Module, prefix: str) -> None:
        """Give a layer between both networks the case's arrays `prefix/...`; without any, one that changes nothing."""
        known = any(name.startswith(f"{prefix}/") for name in self.arrays)
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if (array := f"{prefix}/{name}") in self.arrays:
                    parameter.copy_(self.tensor(array).reshape(parameter.shape))
                elif name == "bias":
                    parameter.zero_()
                else:
                    assert not known, f"the case has no {array}"
                    parameter.copy_(torch.eye(*parameter.shape[:2]).reshape(parameter.shape))

    def _class_means(self) -> Tensor:
        return self.tensor("teacher_class_means")

    def check(self, value: Tensor, *, rel: float = 1e-9) -> None:
        """The value and its gradient with respect to the student's map are the reference's."""
        assert value.item() == pytest.approx(self.value, rel=rel)
        (gradient,) = torch.autograd.grad(value, self.student_map)
        largest = float(np.abs(self.gradient).max())
        np.testing.assert_allclose(gradient.numpy(), self.gradient, rtol=rel, atol=rel * largest)

    def check_objective(self, name: str, options: Mapping[str, Any], grid: int | None = 4, rel: float = 1e-9) -> None:
        """The sum of an objective's terms from a cached grid is the reference's value."""
        objective = self.objective(name, options, grid).double()
        terms = objective(self.signals("student"), self.signals("teacher", grid), self.batch(), 0.5)
        self.check(torch.stack(list(terms.values())).sum(), rel=rel)


def golden(method: str) -> Iterator[Case]:
    """Every case that has the method, at least one; skips the test where `../shared` is not there."""
    found = 0
    for entry in (each for file in FILES for each in json.loads(shared_file(f"golden/{file}").read_text())):
        if method in entry["methods"]:
            arrays = dict(np.load(shared_file(f"golden/{entry['file']}")))
            wanted = entry["methods"][method]
            student_map = torch.tensor(arrays["student_map"], requires_grad=True)
            gradient = arrays[f"grad_student_map/{method}"]
            terms = wanted.get("terms", {})
            yield Case(arrays, wanted["options"], wanted["value"], gradient, student_map, terms)
            found += 1
    assert found, f"there are no golden values of {method}"
