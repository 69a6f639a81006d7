"""Two small networks' random signals, a bank and batches: what the contract of objectives is tried on."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from pipeline import plugins
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.signals import LinearHead, Signals, SignalShapes, extract

NAMES = plugins.names("pipeline.objectives.methods")
CLASSES, WIDTH = 5, {"student": 12, "teacher": 16}
SIZE = {"student": (8, 8), "teacher": (4, 4)}
SAMPLES = 96
OF_EXTRAS = [
    name for name in NAMES if "signal" in plugins.load("pipeline.objectives.methods", name, "").Options.model_fields
]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *((name, {"signal": "extra"}) for name in OF_EXTRAS),
]
"""Every method with its defaults, and those that can read an extra signal also with that."""
EXTRAS = {
    "attention-map/block1": ("block1",),
    "attention-map/block2": ("block2",),
    "channel-gram/block1": ("block1",),
    "channel-gram/block2": ("block2",),
    "fsp-matrix/block1": ("block1", "block2"),
}
"""The extra signals of the teacher, with the blocks that each is computed from."""


def remembered(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    """A bank: random numbers by signal, sample and view."""
    width = CLASSES if signal == "logits" else WIDTH["teacher"]
    generator = torch.Generator().manual_seed(len(signal) + 100 * view)
    return torch.randn(SAMPLES, width, generator=generator)[samples]


CONTEXT = Context(
    num_samples=SAMPLES,
    classes=CLASSES,
    labels=torch.arange(SAMPLES) % CLASSES,
    bank=remembered,
    class_means=lambda: torch.randn(CLASSES, WIDTH["teacher"], generator=torch.Generator().manual_seed(7)),
    views_per_step=2,  # as many as any objective needs; the batches have those that each one needs
)


@functools.cache
def shapes(who: str) -> SignalShapes:
    """Of `signals`."""
    return signals(who, 1, 0).shapes()


def build(name: str, options: dict[str, Any] | None = None, context: Context = CONTEXT) -> Objective:
    """The objective with the weights of seed 0."""
    torch.default_generator.manual_seed(0)
    return build_objective(name, options or {}, shapes("student"), shapes("teacher"), context)


def signals(
    who: str, size: int, seed: int, *, scale: float = 1.0, grad: bool = False, maps: torch.dtype = torch.float32
) -> Signals:
    """Random maps, and what follows from them: embedding, logits, a teacher's extra signals.

    grad: the maps are computed from leaves (`leaves`). maps: how they are handed over; bfloat16 under autocast, where
    pooling and head are in float32.
    """
    return (_signals if grad else _kept_signals)(who, size, seed, scale, grad, maps)


def _signals(who: str, size: int, seed: int, scale: float, grad: bool, maps: torch.dtype) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    channels, grid = WIDTH[who], SIZE[who]

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(size, *shape, generator=generator) * scale).to(maps).requires_grad_(grad)

    features = {"block2": random(channels, *grid)}
    head = LinearHead(torch.randn(CLASSES, channels, generator=generator), torch.randn(CLASSES, generator=generator))
    features = {"block1": random(channels // 2, *grid), **features}
    embedding = features["block2"].float().mean((2, 3))
    extras = {}
    if who == "teacher":
        extras = {name: extract(name, *(features[block] for block in blocks)) for name, blocks in EXTRAS.items()}
    return Signals(head(embedding), embedding, features, head, extras)


_kept_signals = functools.cache(_signals)  # many tests want the same


def leaves(student: Signals) -> list[torch.Tensor]:
    """What the student learns by."""
    return [student.features["block1"], student.features["block2"]]


def as_leaves(given: Signals) -> tuple[Signals, dict[str, torch.Tensor]]:
    """Signals of the same values, each a leaf of its own that wants a gradient, and these leaves by name."""

    def leaf(x: torch.Tensor) -> torch.Tensor:
        return x.detach().clone().requires_grad_()

    assert given.embedding is not None
    assert given.head is not None
    head = replace(given.head, weight=leaf(given.head.weight), bias=leaf(given.head.bias))
    features = {tap: leaf(maps) for tap, maps in given.features.items()}
    extras = {name: leaf(x) for name, x in given.extras.items()}
    made = Signals(leaf(given.logits), leaf(given.embedding), features, head, extras, given.local)
    assert made.embedding is not None
    vectors = {"logits": made.logits, "embedding": made.embedding, "weight": head.weight, "bias": head.bias}
    return made, {**vectors, **features, **extras}


def batch(rows: int, views: int = 1) -> Batch:
    """Adjacent rows are views of one sample."""
    row = torch.arange(rows)
    sample = row // views
    return Batch(labels=sample % CLASSES, sample=sample, view=row % views, step=3)


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """The value of an objective."""
    assert terms, "an objective returns at least one term"
    for name, term in terms.items():
        assert term.shape == (), f"{name} is not a scalar"
    return torch.stack([term.float() for term in terms.values()]).sum()
