"""Random maps of networks with several blocks, of any sizes, and their values: for the methods on maps."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.signals import Signals
from pipeline.signals.lowpass import lowpass

SIZE = 5
CONTEXT = Context(SIZE, 3)


def network(seed: int, *blocks: tuple[int, int], grid: int | None = None, batch: int = SIZE) -> Signals:
    """Signals in float64 with maps `block1`, ...; blocks: channels and size. Low-passed if a grid is given."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(batch, c, size, size, generator=generator, dtype=torch.float64) for c, size in blocks]
    kept = {f"block{i + 1}": x if grid is None else lowpass(x, grid) for i, x in enumerate(maps)}
    return Signals(torch.zeros(batch, 3, dtype=torch.float64), features=kept)


def rows(size: int = SIZE) -> Batch:
    """A batch without labels."""
    samples = torch.arange(size)
    return Batch(torch.full((size,), -1), samples, torch.zeros_like(samples))


def built(name: str, student: Signals, teacher: Signals, **options: object) -> Objective:
    """An objective for these networks, in float64; its weights are always the same."""
    torch.default_generator.manual_seed(0)
    return build_objective(name, options, student.shapes(), teacher.shapes(), CONTEXT).double()


def value(objective: Objective, student: Signals, teacher: Signals, progress: float = 0.5) -> torch.Tensor:
    """The sum of an objective's terms."""
    terms = objective(student, teacher, rows(len(student.logits)), progress)
    return torch.stack(list(terms.values())).sum()


def gradients_agree(objective: Objective, student: Signals, teacher: Signals, *blocks: str, **options: Any) -> bool:
    """`gradcheck` of an objective's value with respect to the student's maps."""

    def at(*maps: torch.Tensor) -> torch.Tensor:
        features = {**student.features, **dict(zip(blocks, maps, strict=True))}
        return value(objective, Signals(student.logits, features=features), teacher)

    leaves = [student.features[block].clone().requires_grad_() for block in blocks]
    return bool(torch.autograd.gradcheck(at, leaves, fast_mode=True, **options))
