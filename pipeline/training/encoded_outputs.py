"""Holds the teachers' outputs for a batch as they are stored: of one teacher, of an ensemble, or of several by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.signals import LinearHead, Mean, Signals, combine
from pipeline.store.format.encoded import EncodedSignals


@dataclass(frozen=True)
class EncodedEnsemble:
    """Holds the signals of several teachers for a batch as they are stored; `decode` combines them.

    Args:
        members: the signals of each teacher, the primary one first.
        mean: how their logits are combined.
    """

    members: tuple[EncodedSignals, ...]
    mean: Mean

    def map(self, change: Callable[[EncodedSignals], EncodedSignals]) -> EncodedEnsemble:
        """Return the same with the signals of every teacher changed.

        Args:
            change: what is done to them.
        """
        return replace(self, members=tuple(change(member) for member in self.members))

    def to(self, device: torch.device | str) -> EncodedEnsemble:
        """Return a copy on `device`. Does not wait for the transfer if the tensors are in page-locked memory."""
        return self.map(lambda member: member.to(device))

    def pin_memory(self) -> EncodedEnsemble:
        """Return a copy in page-locked memory."""
        return self.map(lambda member: member.pin_memory())

    def decode(self, head: LinearHead | None = None) -> Signals:
        """Return the signals in float32, on the tensors' device: mean logits, and all else of the primary teacher.

        Args:
            head: the primary teacher's, on that device; None leaves it out.
        """
        primary, *others = (member.decode(head) for member in self.members)
        return replace(primary, logits=combine([primary.logits, *(other.logits for other in others)], self.mean))


@dataclass(frozen=True)
class EncodedTeachers:
    """Holds the signals of several teachers for a batch as they are stored, each teacher for itself.

    Args:
        own: of the teacher, or the ensemble, that objectives read which name none.
        others: of those that they name.
    """

    own: EncodedSignals | EncodedEnsemble
    others: Mapping[str, EncodedSignals]

    def map(self, change: Callable[[EncodedSignals], EncodedSignals]) -> EncodedTeachers:
        """Return the same with the signals of every teacher changed.

        Args:
            change: what is done to them.
        """
        own = self.own.map(change) if isinstance(self.own, EncodedEnsemble) else change(self.own)
        return EncodedTeachers(own, {name: change(each) for name, each in self.others.items()})

    def to(self, device: torch.device | str) -> EncodedTeachers:
        """Return a copy on `device`. Does not wait for the transfer if the tensors are in page-locked memory."""
        return self.map(lambda each: each.to(device))

    def pin_memory(self) -> EncodedTeachers:
        """Return a copy in page-locked memory."""
        return self.map(lambda each: each.pin_memory())

    def decode(self, head: LinearHead | None = None) -> Signals:
        """Return the signals that objectives read which name no teacher.

        Args:
            head: as of `EncodedEnsemble.decode`.
        """
        return self.own.decode(head)


TeacherOutputs = EncodedSignals | EncodedEnsemble | EncodedTeachers
"""The teacher's signals for a batch as they are stored; `decode()` turns them into `Signals`."""


def decode_others(outputs: TeacherOutputs, heads: Mapping[str, LinearHead] | None = None) -> dict[str, Signals]:
    """Return the signals of the teachers that objectives name, by their names.

    Args:
        outputs: of a batch.
        heads: those of these teachers that are read, by name, on the tensors' device.
    """
    others = outputs.others if isinstance(outputs, EncodedTeachers) else {}
    return {name: each.decode((heads or {}).get(name)) for name, each in others.items()}


def join_views(outputs: Sequence[TeacherOutputs]) -> TeacherOutputs:
    """Join the outputs for several views of the same samples: the views of a sample become adjacent rows.

    Args:
        outputs: one for each view, at least one.

    All come from one source, so they are stored in the same form.
    """
    first = outputs[0]
    if len(outputs) == 1:
        return first
    if isinstance(first, EncodedTeachers):
        each = [view for view in outputs if isinstance(view, EncodedTeachers)]
        own = join_views([view.own for view in each])
        assert not isinstance(own, EncodedTeachers)
        return EncodedTeachers(own, {name: _join_views([view.others[name] for view in each]) for name in first.others})
    if isinstance(first, EncodedEnsemble):
        teachers = zip(*(view.members for view in outputs if isinstance(view, EncodedEnsemble)), strict=True)
        return replace(first, members=tuple(_join_views(views) for views in teachers))
    return _join_views([view for view in outputs if isinstance(view, EncodedSignals)])


def join_batches(outputs: Sequence[TeacherOutputs], order: Tensor) -> TeacherOutputs:
    """Join the outputs of several batches, of teachers that are stored in the same form.

    Args:
        outputs: at least one.
        order: of the rows of all batches in the result, int64 [B].
    """
    several = [each for each in outputs if isinstance(each, EncodedTeachers)]
    if several:
        own = join_batches([each.own for each in several], order)
        assert not isinstance(own, EncodedTeachers)
        names = several[0].others
        return EncodedTeachers(own, {name: _joined([each.others[name] for each in several], order) for name in names})
    if isinstance(first := outputs[0], EncodedEnsemble):
        teachers = zip(*(each.members for each in outputs if isinstance(each, EncodedEnsemble)), strict=True)
        return replace(first, members=tuple(_joined(batches, order) for batches in teachers))
    return _joined([each for each in outputs if isinstance(each, EncodedSignals)], order)


def _joined(batches: Sequence[EncodedSignals], order: Tensor) -> EncodedSignals:
    parts = {name: torch.cat([each.arrays[name] for each in batches])[order] for name in batches[0].arrays}
    return EncodedSignals(batches[0].specs, parts)


def _join_views(views: Sequence[EncodedSignals]) -> EncodedSignals:
    parts = {name: torch.stack([view.arrays[name] for view in views], 1) for name in views[0].arrays}
    return EncodedSignals(views[0].specs, {name: part.flatten(0, 1) for name, part in parts.items()})


def select_rows(outputs: TeacherOutputs, rows: slice) -> TeacherOutputs:
    """Return the outputs for some rows of a batch."""
    return with_tensors(outputs, lambda each: each[rows])


def tensors_of(outputs: TeacherOutputs) -> list[Tensor]:
    """Return every stored tensor of the outputs for a batch, those of equal outputs in the same order."""
    found: list[Tensor] = []

    def seen(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with_tensors(outputs, seen)
    return found


def with_tensors(outputs: TeacherOutputs, change: Callable[[Tensor], Tensor]) -> TeacherOutputs:
    """Return the outputs with every stored tensor changed.

    Args:
        outputs: of a batch.
        change: what is done to each tensor.
    """

    def changed(signals: EncodedSignals) -> EncodedSignals:
        return EncodedSignals(signals.specs, {name: change(part) for name, part in signals.arrays.items()})

    return changed(outputs) if isinstance(outputs, EncodedSignals) else outputs.map(changed)
