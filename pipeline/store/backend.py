"""What holds stores, behind one protocol: a folder, or object storage. Each backend is a folder of code here."""

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
    """What a store costs that is not on a disk here.

    puts: requests that making it takes, about; gets: of an epoch that reads all signals. held: bytes of the store that
    are in memory in training.
    """

    puts: int
    gets: int
    held: int


@dataclass(frozen=True)
class UnfinishedCache:
    """What is known of a cache that was begun and is not published.

    path: where its files lie; notes: where the notes about it lie. fingerprint: as much of it as is known. units: the
    names of the finished ones. identity, runs: the content of these notes, None if there are none.
    running: whether somebody works on it, None if that cannot be told from this machine. holder: the process that does,
    in a folder. claim: who does, when that was renewed (ISO 8601) and after how many seconds without it another may
    go on, on object storage.
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
    """Reads the chunks of one published store, each checked when it is first read. Pickles without what it holds."""

    @property
    def remote(self) -> bool:
        """Whether chunks are fetched and held in memory, so that it helps to know what is read next."""

    @property
    def at_once(self) -> int:
        """Chunks that are best asked for together."""

    def get(self, spec: ArraySpec, unit: Unit | None, soon: Sequence[Unit] = ()) -> NDArray[Any]:
        """Return the elements of a chunk: [1, R, ...], or the whole of an array of one chunk, whose `unit` is None.

        soon: units of the same array that are asked for right after. Raises CacheCorrupt, and CacheError if a server
        cannot be reached.
        """

    def narrowed(self, arrays: int) -> ChunkReader:
        """Return a reader of fewer arrays in turn, which shares what is held and what is known to be sound."""

    def expect(self, keys: Iterable[tuple[ArraySpec, Unit | None]]) -> None:
        """Take note of the chunks that are read next, in this order, until others are expected."""

    def held_bytes(self, specs: Iterable[ArraySpec], views: int, rows_per_block: int | None) -> int:
        """Return the most bytes of some arrays that are in memory while a student is trained from them.

        views: of each sample in a step. rows_per_block: of the store that decides the order of samples, if that is
        another.
        """


class Backend(Protocol):
    """Holds the store at one path.

    backend = backend_of(store_path("s3://bucket/caches/name.zarr"))
    backend.published(), backend.files.sizes()
    """

    @property
    def folder(self) -> Path | None:
        """The folder on this machine that the store is; None if it is nowhere on its disks."""

    @property
    def in_place(self) -> bool:
        """Whether the files of an unfinished store lie at the path itself."""

    @property
    def files(self) -> Files:
        """The files of the store, by their names in it."""

    def exists(self) -> bool:
        """Tell whether something is published at the path. Raises CacheError if nobody can tell."""

    def published(self) -> str | None:
        """Return the fingerprint of the store; None if there is none, or nothing that Decant published."""

    def unfinished(self) -> Sequence[StorePath]:
        """Return where lies what is known of unfinished stores for this path."""

    def unfinished_caches(self) -> list[UnfinishedCache]:
        """Return what is known of them. Raises CacheCorrupt if a file about one cannot be read."""

    def finished_bytes(self, layout: StoreLayout) -> int:
        """Return the bytes of finished units of an unfinished store with this layout; of several the most."""

    def cost(self, layout: StoreLayout, views: int = 1) -> RemoteCost | None:
        """Return what a store with this layout costs here; None if it costs nothing but room on a disk.

        views: of each sample that an epoch reads.
        """

    def workspace(
        self, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> Workspace:
        """Return where the store with this fingerprint and layout is made.

        wait: for another process that makes it; else CacheError. notify: takes messages for people.
        """

    def chunks(self, layout: StoreLayout, arrays: int) -> ChunkReader:
        """Return the reader of the published store. arrays: how many arrays are read in turn."""


def backend_of(path: StorePath) -> Backend:
    """Return the backend that holds the store at `path`: the only place that looks at the kind of a path.

    The code of a backend is imported when a path asks for it.
    """
    if isinstance(path, RemotePath):
        from pipeline.store.remote.backend import RemoteBackend

        return RemoteBackend(path)
    from pipeline.store.local.backend import LocalBackend

    return LocalBackend(path)
