"""Where a teacher cache is made, whatever holds it: workers write units, one process commits them and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

Chunks = Mapping[str, NDArray[Any]]
"""The content of a unit's chunk files, by path in the store."""

MOST_OF_NOTE = 4 << 20
"""Bytes."""


class Place(Protocol):
    """Takes the files of units, from any number of processes at once; pickles.

    A unit may be computed more than once: where a worker seemed to be lost, another does its work again. So each
    attempt has a name of its own, and no two write to one file. Nothing of an attempt counts until it is committed.
    Only on object storage, where files are put whole, attempts share names.
    """

    def write(self, chunks: Chunks, attempt: str) -> dict[str, int]:
        """Write the files of a unit durably; returns the CRC-32C of each."""


class Workspace(Protocol):
    """Held by one process, which alone commits units and publishes. A context manager."""

    done: bool
    """Whether the cache was published before the workspace was had."""

    units: dict[str, dict[str, int]]
    """The committed units, with the CRC-32C of their files."""

    @property
    def place(self) -> Place:
        """Where workers write."""

    def __enter__(self) -> Self:
        """Hold the workspace."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it; what is committed stays for the next run."""

    def refuse_other(self, replace: bool) -> None:
        """Raise CacheMismatch if something is at the target that must not be replaced."""

    def missing(self) -> dict[str, str]:
        """What is wrong, by unit, with those whose files are not there as they were committed."""

    def commit(self, unit: str, files: Mapping[str, int], attempt: str) -> None:
        """Make an attempt the unit, durably and at once: from now on it is finished."""

    def note(self, name: str) -> bytes | None:
        """What was noted under a name, by this run or an earlier one."""

    def keep_note(self, name: str, content: str) -> None:
        """Note something that is not part of the cache."""

    def publish(self, metadata: Mapping[str, bytes], replace: bool) -> None:
        """Add the metadata files, drop notes and what is left of attempts, and make the cache visible at once.

        Every unit must be committed. Raises as `refuse_other` does.
        """
