"""Makes two small networks' random signals, a bank and batches: what the contract of objectives is tried on."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from pipeline.objectives import Batch, Context
from pipeline.signals import LinearHead, Signals, SignalShapes, extract

TRIED_CLASSES, TRIED_SAMPLES = 5, 96
TRIED_WIDTH = {"student": 12, "teacher": 16}
TRIED_MAPS = {"student": (8, 8), "teacher": (4, 4)}
TRIED_EXTRAS = {
    "attention-map/block1": ("block1",),
    "attention-map/block2": ("block2",),
    "channel-gram/block1": ("block1",),
    "channel-gram/block2": ("block2",),
    "channel-std/block1": ("block1",),
    "channel-std/block2": ("block2",),
    "fsp-matrix/block1": ("block1", "block2"),
}
"""The extra signals of the teacher, with the blocks that each is computed from."""


def _remembered(signal: str, samples: torch.Tensor, view: int) -> torch.Tensor:
    """A bank: random numbers by signal, sample and view."""
    width = TRIED_CLASSES if signal == "logits" else TRIED_WIDTH["teacher"]
    generator = torch.Generator().manual_seed(len(signal) + 100 * view)
    return torch.randn(TRIED_SAMPLES, width, generator=generator)[samples]


def _nearest(count: int, same: bool) -> torch.Tensor:
    """Samples of the same class, or of the others: those that come next, as if all lay on a circle."""
    behind = torch.arange(1, TRIED_SAMPLES)
    fitting = behind[(behind % TRIED_CLASSES == 0) == same][:count]
    found = (torch.arange(TRIED_SAMPLES)[:, None] + fitting) % TRIED_SAMPLES
    labels = torch.arange(TRIED_SAMPLES) % TRIED_CLASSES
    return torch.where((labels[found] == labels[:, None]) == same, found, -1)  # the circle closes amid a class


TRIED_CONTEXT = Context(
    num_samples=TRIED_SAMPLES,
    classes=TRIED_CLASSES,
    labels=torch.arange(TRIED_SAMPLES) % TRIED_CLASSES,
    bank=_remembered,
    class_means=lambda: torch.randn(TRIED_CLASSES, TRIED_WIDTH["teacher"], generator=torch.Generator().manual_seed(7)),
    nearest=_nearest,
    views_per_step=2,  # as many as any objective needs; the batches have those that each one needs
)


@functools.cache
def tried_shapes(who: str) -> SignalShapes:
    """Return the shapes of `tried_signals`.

    Args:
        who: `student` or `teacher`.
    """
    return tried_signals(who, 1, 0).shapes()


def tried_signals(
    who: str, size: int, seed: int, *, scale: float = 1.0, grad: bool = False, maps: torch.dtype = torch.float32
) -> Signals:
    """Return random maps, and what follows from them: embedding, logits, a teacher's extra signals.

    Args:
        who: `student` or `teacher`.
        size: B.
        seed: of the numbers.
        scale: their standard deviation.
        grad: whether the maps are leaves that want a gradient.
        maps: how they are handed over; bfloat16 under autocast, where pooling and head are in float32.
    """
    return (_signals if grad else _kept_signals)(who, size, seed, scale, grad, maps)


def _signals(who: str, size: int, seed: int, scale: float, grad: bool, maps: torch.dtype) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    channels, grid = TRIED_WIDTH[who], TRIED_MAPS[who]

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(size, *shape, generator=generator) * scale).to(maps).requires_grad_(grad)

    features = {"block2": random(channels, *grid)}
    head = LinearHead(
        torch.randn(TRIED_CLASSES, channels, generator=generator), torch.randn(TRIED_CLASSES, generator=generator)
    )
    features = {"block1": random(channels // 2, *grid), **features}
    embedding = features["block2"].float().mean((2, 3))
    extras = {}
    if who == "teacher":
        extras = {name: extract(name, *(features[block] for block in blocks)) for name, blocks in TRIED_EXTRAS.items()}
    return Signals(head(embedding), embedding, features, head, extras)


_kept_signals = functools.cache(_signals)  # many tests want the same


def maps_of(student: Signals) -> list[torch.Tensor]:
    """Return the maps of a `student`: it learns by them."""
    return [student.features["block1"], student.features["block2"]]


def as_leaves(given: Signals) -> tuple[Signals, dict[str, torch.Tensor]]:
    """Return signals of the values of those that are `given`, each a leaf with a gradient, and these leaves by name."""

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


def tried_batch(rows: int, views: int = 1) -> Batch:
    """Return a batch of so many `rows`, of which each `views` adjacent ones are of one sample."""
    row = torch.arange(rows)
    sample = row // views
    return Batch(labels=sample % TRIED_CLASSES, sample=sample, view=row % views, step=3)


def sum_of_terms(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the value of an objective from its `terms`."""
    assert terms, "an objective returns at least one term"
    for name, term in terms.items():
        assert term.shape == (), f"{name} is no scalar"
    return torch.stack([term.float() for term in terms.values()]).sum()
