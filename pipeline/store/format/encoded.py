"""Signals as they are stored: small on their way to the device, decoded there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.signals import LinearHead, Signals
from pipeline.store.format.arrays import SignalSpec


@dataclass(frozen=True)
class EncodedSignals:
    """A batch of stored signals: `arrays` are the encodings' parts [B, ...] by array name, as `part_tensor` gives them.

    Pickles as plain tensors. The head is not in it: it is the same for every batch (`TeacherCache.head`).
    """

    specs: tuple[SignalSpec, ...]
    arrays: Mapping[str, Tensor]

    def to(self, device: torch.device | str) -> EncodedSignals:
        """The same on a device, without waiting if the tensors are pinned."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.arrays.items()}
        return EncodedSignals(self.specs, moved)

    def pin_memory(self) -> EncodedSignals:
        """The same in page-locked memory."""
        return EncodedSignals(self.specs, {name: tensor.pin_memory() for name, tensor in self.arrays.items()})

    def values(self) -> dict[str, Tensor]:
        """Every signal by its name, in float32, on the tensors' device, under autocast too."""
        device = next(iter(self.arrays.values())).device.type
        autocast = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            return {
                spec.name: spec.codec.decode({part: self.arrays[name] for part, name in spec.arrays.items()})
                for spec in self.specs
            }

    def decode(self, head: LinearHead | None = None) -> Signals:
        """The signals in float32, on the tensors' device. head: the cache's, on that device."""
        values = self.values()
        return Signals(
            logits=values["logits"],
            embedding=values.get("embedding"),
            features=_below("features/", values),
            head=head,
            extras=_below("extras/", values),
        )


def part_tensor(array: NDArray[Any]) -> Tensor:
    """A part as a tensor of the same memory; unsigned integers, which torch cannot even pickle, as signed ones."""
    return torch.from_numpy(array.view(f"i{array.itemsize}") if array.dtype.kind == "u" else array)


def _below(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
