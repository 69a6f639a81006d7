"""Declares what a backend of stores does, and chooses the backend of a path: a folder, or object storage.

The code of each backend is a folder beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from numpy.typing import NDArray

from pipeline.publishing.folder_files import Files
from pipeline.store.location import RemotePath, StorePath
from pipeline.store.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.store.format.arrays import ArraySpec, Unit
    from pipeline.store.format.layout import StoreLayout


class RemoteCost(NamedTuple):
    """Holds the cost of a store that is not on a disk of this machine.

    Args:
        puts: requests to make it, about.
        gets: requests of an epoch that reads all signals.
        held: bytes of the store that are in memory during training.
    """

    puts: int
    gets: int
    held: int


@dataclass(frozen=True)
class UnfinishedCache:
    """Describes a cache that was begun and is not published.

    Args:
        path: where its files lie.
        notes: where the notes about it lie.
        fingerprint: as much of it as is known.
        units: the names of the finished units.
        identity, runs: the content of these notes; None if they do not exist.
        running: whether a process works on it; None if this machine cannot tell.
        holder: that process, of a cache in a folder.
        claim: of a cache on object storage, who works on it (`who`), when the claim was renewed (`renewed`, ISO 8601),
            and after how many seconds without renewal another process may go on (`stale_seconds`).
    """

    path: StorePath
    notes: StorePath
    fingerprint: str | None
    units: frozenset[str]
    identity: bytes | None
    runs: bytes | None
    running: bool | None
    holder: Mapping[str, Any] | None = None
    claim: Mapping[str, Any] | None = None


class ChunkReader(Protocol):
    """Reads the chunks of one published store; each is checked when it is first read.

    A pickled reader has no chunks in it.
    """

    @property
    def remote(self) -> bool:
        """Tell whether chunks are fetched and held in memory, so that it helps to announce what is read next."""

    @property
    def at_once(self) -> int:
        """Return how many chunks are best requested together."""

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """Return the elements of a chunk: [1, R, ...], or those of a whole array that has only one chunk.

        Args:
            spec: the array.
            unit: whose chunk it is; None for an array of one chunk.
            soon: units of the same array that are requested right after.

        Raises CacheCorrupt for a damaged chunk, and CacheError if a server cannot be reached.
        """

    def narrowed(self, arrays: int) -> ChunkReader:
        """Return a reader for fewer arrays, which shares the chunks in memory and the results of checks.

        Args:
            arrays: how many arrays are read in turn.
        """

    def expect(self, keys: Iterable[tuple[ArraySpec, Unit | None]]) -> None:
        """Announce the chunks that are read next, so that a remote reader fetches and keeps them.

        Args:
            keys: array and unit of each, in the order of reading. They replace those that were announced before.
        """

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """Return how many bytes of some arrays are in memory, at most, while a student is trained from them.

        Args:
            specs: the arrays.
            views: views of each sample in a step.
            rows_per_block: of the store whose row blocks decide the order of samples; None for this one.
        """


class Backend(Protocol):
    """Holds the store at one path.

    backend = backend_of(store_path("s3://bucket/caches/name.zarr"))
    backend.published(), backend.files.sizes()
    """

    @property
    def folder(self) -> Path | None:
        """Return the folder that the store is; None if the store is not on a disk of this machine."""

    @property
    def in_place(self) -> bool:
        """Tell whether the files of an unfinished store lie at the path itself, and not beside it."""

    @property
    def files(self) -> Files:
        """Return access to the files of the store, by their names in it."""

    def exists(self) -> bool:
        """Tell whether something is published at the path. Raises CacheError if the server cannot be reached."""

    def published(self) -> str | None:
        """Return the fingerprint of the published store; None if nothing is there that Decant published."""

    def unfinished(self) -> Sequence[StorePath]:
        """Return the folders or prefixes with the notes about unfinished stores for this path."""

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """Return the unfinished stores for this path. Raises CacheCorrupt if a file about one cannot be read."""

    def finished_bytes(self, layout: StoreLayout) -> int:
        """Return the bytes of finished units of an unfinished store with this `layout`; of several the most."""

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """Return what a store with this `layout` costs here; None if it costs nothing but disk space.

        Args:
            views: views of each sample that an epoch reads.
        """

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """Return the workspace in which the store with this `fingerprint` and `layout` is made.

        Args:
            wait: whether to wait for another process that makes it; if not, CacheError is raised.
            notify: takes messages for the user.
        """

    def chunks(self, layout: StoreLayout, arrays: int) -> ChunkReader:
        """Return a reader of the published store, which has this `layout`.

        Args:
            arrays: how many arrays are read in turn.
        """


def backend_of(path: StorePath) -> Backend:
    """Return the backend that holds the store at `path`. No other code looks at the kind of a path.

    The code of a backend is imported when a path needs it.
    """
    if isinstance(path, RemotePath):
        from pipeline.store.remote.backend import RemoteBackend

        return RemoteBackend(path)
    from pipeline.store.local.backend import LocalBackend

    return LocalBackend(path)
