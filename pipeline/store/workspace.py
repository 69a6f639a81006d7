"""Declares the workspace in which a teacher cache is made: workers write units, one process commits and publishes."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

Chunks = Mapping[str, NDArray[Any]]
"""The content of a unit's chunk files, by path in the store."""

MOST_OF_NOTE = 4 << 20
"""The most bytes of a note that are read."""


class Place(Protocol):
    """Takes the files of units, from any number of processes at once. It can be pickled.

    A unit may be computed more than once: if a worker seemed to be lost, another one computes its units again. So each
    attempt has a name of its own, and no two attempts write to one file. Only on object storage, where objects are put
    as a whole, attempts share names. The files of an attempt are not used before it is committed.
    """

    def write(self, chunks: Chunks, attempt: str) -> dict[str, int]:
        """Write the files of a unit durably; return the CRC-32C of each.

        Args:
            chunks: their content.
            attempt: a name that no other attempt has; empty for the process that commits.
        """


class Workspace(Protocol):
    """Lets one process commit the units of a cache and publish it. It is a context manager: the process holds it."""

    done: bool
    """Whether the cache was published before this process got the workspace."""

    units: dict[str, dict[str, int]]
    """The committed units, with the CRC-32C of their files."""

    @property
    def place(self) -> Place:
        """Return the place where workers write."""

    def __enter__(self) -> Self:
        """Take the workspace, so that no other process does."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the workspace. What is committed stays for the next run."""

    def refuse_other(self, replace: bool) -> None:
        """Raise CacheMismatch if something is at the target that must not be replaced.

        Args:
            replace: whether another artifact of Decant may be replaced.
        """

    def missing(self) -> dict[str, str]:
        """Return the units whose files are not there as they were committed, each with what is wrong."""

    def commit(self, unit: str, files: Mapping[str, int], attempt: str) -> None:
        """Make the files of an attempt those of a unit, durably and all at once: from now on the unit is finished.

        Args:
            unit: its name in the ledger.
            files: the CRC-32C of each file.
            attempt: as for `Place.write`.
        """

    def note(self, name: str) -> bytes | None:
        """Return the note with this name, of this run or an earlier one; None if there is none."""

    def keep_note(self, name: str, content: str) -> None:
        """Write `content` as the note `name`, which is not part of the cache."""

    def publish(self, metadata: Mapping[str, bytes], replace: bool) -> None:
        """Add the metadata files, delete notes and files of other attempts, and make the cache visible all at once.

        Args:
            metadata: content by name.
            replace: as for `refuse_other`, and raises as it does.

        Every unit must be committed.
        """
