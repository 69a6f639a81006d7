"""Where an objective asks the student to be the teacher, such a student is what it is least for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts.objective_cases import CONTEXT, NAMES, as_leaves, batch, shapes, signals

from pipeline.objectives import Objective, build_objective
from pipeline.objectives.maps import Connector
from pipeline.objectives.methods.cc import CC
from pipeline.signals import Signals

ELSEWHERE = {
    "angular": "heads on the teacher's embedding have their say beside the teacher's logits",
    "ckd": "a contrast: other samples are pushed away, further than the teacher has them",
    "hard-label": "labels say what is best, not the teacher",
    "ic-kd": "what the teacher says of neighbours is followed, not what it says of the sample",
    "msdcrd": "contrasts: other local samples are pushed away, further than the teacher has them",
    "nd": "embeddings grow towards the mean of their class, where the teacher's are not",
    "nkd": "the target's likelihood is weighted by the teacher's, not matched with it",
    "wkd-logits": "the target's likelihood is weighted, and a few of Sinkhorn's iterations prefer even probabilities",
    "rld": "where the teacher is wrong, the label is to be as likely as its favourite",
}
"""Methods that learn nothing of their own, and are not least at the teacher."""

TRANSPARENT = ("cc", "ctkd", "fitnet", "fsp", "ickd", "ofd", "srrl", "wkd-features")
"""Methods that learn something of their own between both networks, where it can be made to change nothing.

With the others either this cannot be done, or a student equal to the teacher is still not the least; what is, their own
tests say.
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "ofd": {"margin": 0},  # else a cell of 0 is to fall to the margin
    "ttm": {"power": 1.0},  # else it is the teacher's transformed probabilities that are to be matched
    "wttm": {"power": 1.0},
}


def build(name: str) -> Objective:
    """For two networks of one shape, in float64; connectors change nothing."""
    torch.default_generator.manual_seed(0)
    both = shapes("teacher")
    objective = build_objective(name, OPTIONS.get(name, {}), both, both, CONTEXT).double()
    if isinstance(objective, CC):
        objective.teacher.load_state_dict(objective.student.state_dict())
    for module in objective.modules():
        if isinstance(module, Connector):
            module.eval()  # the running mean is 0, the running variance 1
            torch.nn.init.eye_(module.linear.weight)
            torch.nn.init.constant_(module.norm.weight, (1 + module.norm.eps) ** 0.5)
    return objective


COMPARED = [
    name for name in NAMES if name not in ELSEWHERE and (name in TRANSPARENT or not [*build(name).parameters()])
]


def teacher() -> Signals:
    """In float64, maps after an activation."""
    said = signals("teacher", 8, 2)
    maps = {block: x.double().relu() for block, x in said.features.items()}
    assert said.head is not None
    head = replace(said.head, weight=said.head.weight.double(), bias=said.head.bias.double())
    embedding = maps["block2"].mean((2, 3))
    return Signals(head(embedding), embedding, maps, head)


def asked(objective: Objective, by: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The value for a student that differs from the teacher by random numbers of this size, and its gradient."""
    generator, rows = torch.Generator().manual_seed(3), batch(8, objective.needs.views)
    student, of_student = as_leaves(teacher())
    with torch.no_grad():
        for leaf in of_student.values():
            leaf += by * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
    value = torch.stack([*objective(student, teacher(), rows, 0.0).values()]).sum()
    found = torch.autograd.grad(value, list(of_student.values()), allow_unused=True)
    return value.detach(), torch.cat([gradient.flatten() for gradient in found if gradient is not None])


@pytest.mark.parametrize("name", COMPARED)
def test_a_student_like_the_teacher_is_what_it_is_least_for(name: str):
    objective = build(name)
    least, gradient = asked(objective, 0.0)
    for by in (1e-3, 0.1, 1.0):
        value, _ = asked(objective, by)
        assert value > least
    _, away = asked(objective, 0.1)
    assert gradient.abs().max() < 1e-4 * away.abs().max()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_others_are_less_elsewhere(name: str):
    """So that none is left out for no reason: from the teacher, a step downhill leads on."""
    objective = build(name)
    _, gradient = asked(objective, 0.0)
    _, away = asked(objective, 0.1)
    assert gradient.abs().max() > 1e-2 * away.abs().max()


def test_it_is_most_of_what_compares_both_networks():
    assert {"kd", "dkd", "sdd", "dist", "rkd", "pkt", "sp", "at", "nst", "icd", "cat-kd"} <= set(COMPARED)
    assert set(TRANSPARENT) <= set(COMPARED)
