"""Stands in for `reproducible`: notes for which devices it is in force."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


class ActiveDevices:
    """The devices for which some modules compute reproducibly at the moment."""

    def __init__(self, patch: pytest.MonkeyPatch, *modules: str) -> None:
        self.now: list[torch.device] = []
        for module in modules:
            patch.setattr(f"{module}.reproducible", self._entered)

    @contextmanager
    def _entered(self, device: torch.device) -> Iterator[None]:
        self.now.append(device)
        yield
        self.now.pop()
