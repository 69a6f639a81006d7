"""Runs the teacher again on a sample of a cache, and measures how far its signals lie from the stored ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CacheMismatch
from pipeline.inspection.static import HeadReport, compare_heads
from pipeline.progress import Progress, Silent
from pipeline.store.encodings import EncodingOverflow
from pipeline.store.format.arrays import MicroBatch, SignalSpec
from pipeline.store.format.encoded import part_tensor
from pipeline.store.format.provenance import device_name, versions
from pipeline.store.making.teacher_pass import TeacherPass, signal_of
from pipeline.store.reader import TeacherCache

COMPUTING_PACKAGES = ("torch", "timm", "torchvision")
"""The packages whose version may change the last bits of an output."""


@dataclass(frozen=True)
class Limits:
    """Says what is let pass where another device, or another version of torch, computes the signals.

    Args:
        cosine: the least similarity of a view's stored and new signal.
        agreement: the least share of views with the same top-1 class.
    """

    cosine: float = 0.98
    agreement: float = 0.95


@dataclass
class Deviation:
    """Measures how far a stored signal lies from what the teacher computes today, over `views` views.

    Args:
        largest: of the absolute differences.
        typical: the root mean square of the stored signal.
        rounding: how far, at most, the encoding may change any value of today's outputs.
        beyond: by how much, at most, a difference exceeds twice what the encoding may change that very value; 0 if none
            does.
        equal: the share of values that are the same bit for bit.
        cosine, least_cosine: between the stored and the new signal of a view, mean and least.
        agreement: the share of views with the same top-1 class; None but for logits.
    """

    signal: str
    views: int = 0
    largest: float = 0.0
    typical: float = 0.0
    rounding: float = 0.0
    beyond: float = 0.0
    equal: float = 0.0
    cosine: float = 0.0
    least_cosine: float = 1.0
    agreement: float | None = None

    def add(self, stored: Tensor, now: Tensor, bound: Tensor) -> None:
        """Take in more views; everything is a running mean or extreme, so that no view is kept.

        Args:
            stored, now: the signal [B, ...] as the cache holds it, and as it is read back after storing today's.
            bound: how far the encoding may change each value, [B, ...].
        """
        count = len(stored)
        stored, now = stored.double().flatten(1), now.double().flatten(1)
        difference = (stored - now).abs().nan_to_num(nan=math.inf)
        cosine = _cosine(stored, now)
        self.largest = max(self.largest, difference.max().item())
        self.rounding = max(self.rounding, bound.max().item())
        self.beyond = max(self.beyond, (difference - 2 * bound.double().flatten(1)).max().item())
        self.least_cosine = min(self.least_cosine, cosine.min().item())
        self.typical = math.sqrt(self._mean(self.typical**2, stored.square().mean().item(), count))
        self.equal = self._mean(self.equal, (difference == 0).double().mean().item(), count)
        self.cosine = self._mean(self.cosine, cosine.mean().item(), count)
        if self.signal == "logits":
            same = (stored.argmax(1) == now.argmax(1)).double().mean().item()
            self.agreement = self._mean(self.agreement or 0.0, same, count)
        self.views += count

    def _mean(self, before: float, more: float, count: int) -> float:
        return before + (more - before) * count / (self.views + count)

    def problems(self, limits: Limits, alike: bool) -> list[str]:
        """List what is too far away, for people.

        Args:
            limits: what is let pass.
            alike: whether the same device and versions computed both, so that only rounding differs.

        Then two outputs that round differently lie at most two errors of the encoding apart, value by value: an exact
        encoding must give the same bits.
        """
        lines = []
        if alike and self.beyond > 0:
            allowed = f"the encoding's rounding, exceeded by {self.beyond:.3g}" if self.rounding else "none"
            lines.append(f"{self.signal} differ by {self.largest:.3g}; allowed on the same device: {allowed}")
        if not self.least_cosine >= limits.cosine:
            lines.append(f"{self.signal}: least cosine of a view {self.least_cosine:.4f}, allowed {limits.cosine:g}")
        if self.agreement is not None and not self.agreement >= limits.agreement:
            lines.append(f"{self.signal}: top-1 agreement {self.agreement:.2%}, allowed {limits.agreement:.2%}")
        return lines


@dataclass(frozen=True)
class TeacherReport:
    """Holds how far the signals of a sample of a cache lie from what the teacher computes today.

    Args:
        deviations: one for each signal.
        head: None if neither the cache nor the network has one.
        made_on, run_on: devices and versions of the runs that made the cache, and of this check.
        limits: what is let pass.
    """

    deviations: tuple[Deviation, ...]
    head: HeadReport | None
    made_on: tuple[str, ...]
    run_on: str
    limits: Limits = field(default_factory=Limits)

    @property
    def alike(self) -> bool:
        """Tell whether all of the cache was made on this kind of device with these versions: then bits are the same."""
        return set(self.made_on) == {self.run_on}

    @property
    def problems(self) -> list[str]:
        """List what deviates too much, for people."""
        lines = [line for each in self.deviations for line in each.problems(self.limits, self.alike)]
        return lines + (self.head.problems if self.head else [])


def verify_teacher(
    cache: TeacherCache,
    teacher: TeacherPass,
    sample: Sequence[MicroBatch],
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> TeacherReport:
    """Run the teacher again on the micro-batches of a sample, one at a time, and compare; its head, once.

    Args:
        cache: the open cache.
        teacher: the network that made it.
        sample: the micro-batches.
        limits: what is let pass; None takes the defaults.
        progress: shows how far the work is; None shows nothing.

    Raises CacheMismatch if the rendered views are not those that the teacher saw.
    """
    progress, numbers = progress or Silent(), cache.views
    deviations = {spec.name: Deviation(spec.name) for spec in cache.manifest.layout.signals}
    progress.begin("running the teacher", sum(len(block) for _, block in sample), "views")
    with teacher.inference_mode():
        for unit, block in sample:
            rows = np.arange(block.start, block.stop, dtype=np.int64)
            rendered = teacher.render(numbers[unit.view], block)
            if wrong := int(np.sum(cache.view_digests(numbers[unit.view], rows) != rendered.digests)):
                raise CacheMismatch(
                    f"{wrong} of {len(rows)} rendered views are not the pixels that the teacher saw",
                    where=f"{cache.path}, view {numbers[unit.view]}, samples {rows[0]} to {rows[-1]}",
                    fix="the data set or the view operations changed since: restore them, or make the cache again",
                )
            stored = cache.read(numbers[unit.view], rows)
            outputs = teacher.infer(rendered, list(deviations))
            values = outputs.arrays()
            for spec in cache.manifest.layout.signals:
                now, bound = _as_stored(spec, values[spec.name])
                deviations[spec.name].add(signal_of(stored, spec.name), now, bound)
            progress.advance(len(block))
    progress.end()
    return TeacherReport(
        tuple(deviations.values()),
        head=compare_heads(cache.head, outputs.head),
        made_on=tuple(dict.fromkeys(_computed_by(run) for run in cache.manifest.provenance.get("runs", []))),
        run_on=_computed_by({"device": device_name(teacher.device), "versions": versions()}),
        limits=limits or Limits(),
    )


def _as_stored(spec: SignalSpec, values: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return outputs [B, ...] as they are read back after storing, and how far the encoding may change each value."""
    values = np.ascontiguousarray(values)
    exact = torch.from_numpy(values)
    nothing = torch.zeros(exact.shape, dtype=torch.float64)
    if not bool(exact.isfinite().all()):
        return exact, nothing
    try:
        parts = spec.codec.encode(values)
    except EncodingOverflow:
        return exact, nothing
    now = spec.codec.decode({part: part_tensor(np.ascontiguousarray(array)) for part, array in parts.items()})
    return now, torch.from_numpy(spec.codec.error_bound(values).copy())


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """The cosine similarity of rows [B, D]; 1 where both are zero, 0 where it is not a number."""
    norms = one.norm(dim=1) * other.norm(dim=1)
    cosine = torch.where(norms > 0, (one * other).sum(1) / norms, (one == other).all(1).double())
    return cosine.nan_to_num(nan=0.0).clamp(-1, 1)


def _computed_by(run: dict[str, Any]) -> str:
    """The device and the versions of a run, for people."""
    found = run.get("versions") or {}
    names = [f"{package} {found[package]}" for package in COMPUTING_PACKAGES if package in found]
    return ", ".join([str(run.get("device")), *names])
