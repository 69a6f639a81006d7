"""Every objective with students of every kind, by what real networks say in bfloat16."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from cases import case
from contracts.objective_cases import VARIANTS, as_leaves, total

from pipeline.errors import ConfigError
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, build_objective
from pipeline.signals import Signals, SignalShapes, extract, taps_read
from pipeline.signals.lowpass import lowpass

CLASSES, ROWS = 3, 6
EXTRAS = ("attention-map/block3", "channel-gram/block3", "channel-std/block3", "fsp-matrix/block2")
STUDENTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "cnn": ("cifar_resnet8", 32, {"widths": [8, 12, 20]}),
    "vit with a class token": (
        "vit_tiny_patch16_224",
        24,
        {"img_size": 24, "patch_size": 2, "embed_dim": 24, "depth": 4, "num_heads": 3},
    ),
    "vit": (
        "vit_tiny_patch16_224",
        32,
        {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3, "global_pool": "avg"},
    ),
    "mixer": ("gmlp_ti16_224", 128, {"img_size": 128}),
}
"""Widths, and grids of 8 x 8, 12 x 12, 8 x 8 and 8 x 8 at the end, other than the teacher's 64 and 4 x 4."""

REFUSED = {(name, "vit with a class token"): "class token" for name in ("cat-kd", "icd", "sdd")}
"""Methods that read classes off places of the last map, which such a network's classifier does not read."""


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (ROWS, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def teacher() -> Signals:
    """As a cache has it: maps of 4 x 4, and extra signals of the whole ones."""
    with torch.no_grad():
        said = build_network("cifar_resnet8", CLASSES, input_size=32, seed=1).eval()(pixels())
    taps = list(said.features)
    extras = {name: extract(name, *(said.features[tap] for tap in taps_read(name, taps))) for name in EXTRAS}
    return replace(said, features={tap: lowpass(maps, 4) for tap, maps in said.features.items()}, extras=extras)


@dataclass
class Student:
    """A kind of network in `STUDENTS`, what objectives are built from, and what it says."""

    kind: str
    shapes: SignalShapes
    said: Signals


@pytest.fixture(scope="module")
def students() -> list[Student]:
    return [student_of(kind) for kind in STUDENTS]


def student_of(kind: str) -> Student:
    model, size, options = STUDENTS[kind]
    network = build_network(model, CLASSES, input_size=size, options=options, seed=2)
    shapes = shapes_of(network)
    network.keep_taps([*shapes.features])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for parameter in network.model.get_classifier().parameters():
            parameter.normal_()  # as after some steps: a mixer's begins with zeros
        return Student(kind, shapes, network(pixels()))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_student_of_any_kind_learns(name: str, options: dict[str, Any], students: list[Student], teacher: Signals):
    """Or the objective refuses it, and says why."""
    for student in students:
        with case(student=student.kind):
            learns_or_is_refused(name, options, student, teacher)


def learns_or_is_refused(name: str, options: dict[str, Any], student: Student, teacher: Signals) -> None:
    labels = torch.arange(2 * ROWS) // 2 % CLASSES
    assert teacher.embedding is not None
    said = {"logits": teacher.logits, "embedding": teacher.embedding}

    def bank(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
        return said[signal][samples % ROWS]

    def means() -> torch.Tensor:
        return said["embedding"][:CLASSES]

    def nearest(count: int, same: bool) -> torch.Tensor:
        near = labels[None] == labels[:, None] if same else labels[None] != labels[:, None]
        return near.int().argsort(dim=1, descending=True, stable=True)[:, : min(count, 2)]

    context = Context(2 * ROWS, CLASSES, labels, bank=bank, class_means=means, views_per_step=2, nearest=nearest)
    if reason := REFUSED.get((name, student.kind)):
        with pytest.raises(ConfigError, match=reason):
            build_objective(name, options, student.shapes, teacher.shapes(), context)
        return
    objective = build_objective(name, options, student.shapes, teacher.shapes(), context)
    rows = torch.arange(ROWS)
    sample = rows // objective.needs.views
    outputs, leaves = as_leaves(student.said)
    batch = Batch(labels[sample], sample, rows % objective.needs.views)
    for progress in (0.0, 0.5):  # some read embeddings at one time, and logits at another
        with torch.autocast("cpu", torch.bfloat16):
            value = total(objective(outputs, teacher, batch, progress))
        assert value.dtype == torch.float32
        assert value.isfinite()
        value.backward()
    reached = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    assert all(gradient.isfinite().all() and gradient.any() for gradient in reached.values())
    declared = {signal.removeprefix("features/") for signal in objective.needs.student}
    assert declared == reached.keys() - {"weight", "bias"}, "a map that is not asked for is not kept in training"
    assert reached
