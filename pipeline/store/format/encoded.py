"""Holds a batch of signals as they are stored, so that little is copied to a device and decoding happens there."""

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
    """Holds the signals of a batch as they are stored; `decode` turns them into `Signals`.

    Args:
        specs: the signals.
        arrays: the parts of their encodings [B, ...] by the names of arrays, as `part_tensor` returns them.

    The head is not part of it, since it is the same for every batch (`TeacherCache.head`).
    """

    specs: tuple[SignalSpec, ...]
    arrays: Mapping[str, Tensor]

    def to(self, device: torch.device | str) -> EncodedSignals:
        """Return a copy on `device`. Does not wait for the transfer if the tensors are in page-locked memory."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.arrays.items()}
        return EncodedSignals(self.specs, moved)

    def pin_memory(self) -> EncodedSignals:
        """Return a copy in page-locked memory."""
        return EncodedSignals(self.specs, {name: tensor.pin_memory() for name, tensor in self.arrays.items()})

    def values(self) -> dict[str, Tensor]:
        """Return every signal by its name: float32 [B, ...] on the tensors' device, even under autocast."""
        device = next(iter(self.arrays.values())).device.type
        autocast = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            return {
                spec.name: spec.codec.decode({part: self.arrays[name] for part, name in spec.arrays.items()})
                for spec in self.specs
            }

    def decode(self, head: LinearHead | None = None) -> Signals:
        """Return the signals in float32, on the tensors' device. The logits are [B, 0] where there are none.

        Args:
            head: of the cache, on that device; None leaves it out.
        """
        values = self.values()
        some = next(iter(values.values()))  # a cache is never read without any signal
        return Signals(
            logits=values["logits"] if "logits" in values else some.new_zeros(len(some), 0),
            embedding=values.get("embedding"),
            features=_below("features/", values),
            head=head,
            extras=_below("extras/", values),
        )


def part_tensor(array: NDArray[Any]) -> Tensor:
    """Return a part of an encoding as a tensor that shares the memory of `array`.

    Unsigned integers, which torch cannot pickle, become signed ones with the same bits.
    """
    return torch.from_numpy(array.view(f"i{array.itemsize}") if array.dtype.kind == "u" else array)


def _below(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
