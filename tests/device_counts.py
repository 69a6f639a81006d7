"""Counts what a computation asks of a device, without one: on tensors of another kind, or of none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class DeviceCounts(TorchDispatchMode):
    """Counts, while it is entered, operations that compute something, and copies between devices.

    Views of tensors compute nothing. A copy from one device to another has this process wait.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.copies = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations[str(func)] += 1
            devices = {each.device for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)}
            self.copies += len(devices) > 1
        return result


META = torch.device("meta")
"""A device whose tensors have shapes and no values: what is asked of it costs nothing."""
