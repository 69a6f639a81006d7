"""Makes a store in a folder: its workspace is a scratch folder beside the target."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt, CacheError
from pipeline.files import sync_directory, write_atomic
from pipeline.publishing.folder_files import refuse_links
from pipeline.publishing.ledger import LEDGER_FILE, Ledger, whole
from pipeline.publishing.scratch import Scratch
from pipeline.store.format.arrays import STATIC
from pipeline.store.format.chunks import Compression, stored_checksum, write_chunk
from pipeline.store.format.identity import IDENTITY
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.provenance import RUNS
from pipeline.store.workspace import MOST_OF_NOTE, Chunks
from pipeline.untrusted import NOT_READ, read_file

SEEN_SECONDS = 10.0
"""The time limit until a file of a worker is visible here: network file systems remember absent files for a while."""


@dataclass(frozen=True)
class LocalPlace:
    """Takes the files of units in a folder that all workers see. Their content is durable, their names not yet.

    Args:
        folder: the scratch folder.
        compression: of the files.
    """

    folder: Path
    compression: Compression

    def write(self, chunks: Chunks, attempt: str) -> dict[str, int]:
        """Write the files of a unit under names of the attempt; return their checksums.

        Args:
            chunks: their content.
            attempt: as for `Place.write`.

        Raises CacheError if the folder is gone, or not visible here.
        """
        try:
            self.folder.stat()
            return {name: self._write(name, elements, attempt) for name, elements in chunks.items()}
        except FileNotFoundError:
            raise CacheError("the cache is finished, or its folder is not visible", where=self.folder) from None

    def _write(self, name: str, elements: NDArray[Any], attempt: str) -> int:
        path = self.folder / name
        if not path.parent.is_dir():
            # The scratch folder itself is not made: a worker that was given up may come back after the cache was
            # published, and must not begin another one.
            for parent in reversed(path.relative_to(self.folder).parents[:-1]):
                (self.folder / parent).mkdir(exist_ok=True)
        return write_chunk(attempted(path, attempt), elements, self.compression)


class LocalWorkspace:
    """Makes a store in a scratch folder with a ledger, and publishes it by renaming the folder.

    `Workspace` documents the methods.

    Args:
        target: where the store is published.
        fingerprint: of the cache.
        layout: of the store.
        wait: whether to wait for another process that makes it.
        notify: takes messages for the user.
    """

    def __init__(
        self, target: Path, fingerprint: str, layout: StoreLayout, *, wait: bool, notify: Callable[[str], None]
    ) -> None:
        self.layout = layout
        self._scratch = Scratch(target, fingerprint, wait=wait, notify=notify)
        self._stack = ExitStack()
        self._durable = {self.folder}
        self.done = False
        self.units: dict[str, dict[str, int]] = {}

    @property
    def folder(self) -> Path:
        """Return the scratch folder."""
        return self._scratch.folder

    @property
    def place(self) -> LocalPlace:
        """Return the scratch folder for workers."""
        return LocalPlace(self.folder.absolute(), self.layout.compression)

    def __enter__(self) -> Self:
        """Take the lock of the folder, and read its ledger."""
        with ExitStack() as stack:
            stack.enter_context(_explained(self))
            self.done = stack.enter_context(self._scratch).done
            if not self.done:
                self._sweep(self.folder)
                self._ledger = Ledger(self.folder)
                self.units = self._ledger.units
                self._refuse_foreign()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock of the folder."""
        self._stack.__exit__(kind, value, trace)

    def _refuse_foreign(self) -> None:
        foreign = self.units.keys() - {STATIC, *(unit.key for unit in self.layout.units)}
        if foreign:
            raise CacheCorrupt(
                "the ledger lists units that this cache does not have",
                where=self._ledger.path,
                got=", ".join(sorted(foreign)[:4]),
                fix="delete the ledger: all units are computed again",
            )

    def refuse_other(self, replace: bool) -> None:
        """Raise CacheMismatch if another artifact is at the target, unless `replace` permits it and Decant made it."""
        self._scratch.refuse_other(replace)

    def missing(self) -> dict[str, str]:
        """Return units whose files have wrong names, sizes or stored checksums, with what is wrong.

        The content is not read: `pipeline verify` does that.
        """
        refuse_links(self.folder)
        wrong = {}
        for unit, files in self.layout.chunk_files():
            recorded = self.units.get(unit)
            if recorded is None:
                wrong[unit] = f"unit {unit} is not in the ledger"
                continue
            for name, size in files.items():
                path = self.folder / name
                if not path.is_file():
                    wrong[unit] = f"{name} is absent"
                elif size is not None and path.stat().st_size != size:
                    wrong[unit] = f"{name} has {path.stat().st_size} bytes instead of {size}"
                elif recorded.get(name) != stored_checksum(path):
                    wrong[unit] = f"{name} has not the checksum in the ledger"
        return wrong

    def commit(self, unit: str, files: Mapping[str, int], attempt: str) -> None:
        """Rename the files of an attempt, make the names durable, and only then write the line of the ledger.

        Args:
            unit, files, attempt: as for `Workspace.commit`.
        """
        to_sync: set[Path] = set()
        for name in files:
            path = self.folder / name
            _rename(attempted(path, attempt), path)
            to_sync.add(path.parent)
            # Directories that an earlier process made may not be durable: each is synced once.
            for directory in path.relative_to(self.folder).parents:
                if self.folder / directory not in self._durable:
                    self._durable.add(self.folder / directory)
                    to_sync.add((self.folder / directory).parent)
        for directory in to_sync:
            sync_directory(directory)
        self._ledger.append(unit, files)

    def note(self, name: str) -> bytes | None:
        """Return the content of the note `name`; None if there is none. Raises CacheCorrupt if it cannot be read."""
        path = self.folder / name
        try:
            return read_file(path, MOST_OF_NOTE)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NOT_READ:
                raise
            fix = "delete the file: it is written again"
            raise CacheCorrupt("a note cannot be read", where=path, got=error.strerror, fix=fix) from None

    def keep_note(self, name: str, content: str) -> None:
        """Write `content` as the note `name`, a file beside the units."""
        write_atomic(self.folder / name, content)

    def publish(self, metadata: Mapping[str, bytes], replace: bool) -> None:
        """Write the metadata, delete notes and files of other attempts, and rename the folder to the target.

        Args:
            metadata, replace: as for `Workspace.publish`.
        """
        for name, content in metadata.items():
            write_atomic(self.folder / name, content)
        write_atomic(self.folder / LEDGER_FILE, whole(self.units, (unit for unit, _ in self.layout.chunk_files())))
        for note in (RUNS, IDENTITY):
            (self.folder / note).unlink(missing_ok=True)
        self._sweep(self.folder)
        self._scratch.publish(replace)
        # A worker that was given up may have written until the folder was renamed; from then on it finds nothing.
        self._sweep(self._scratch.target)

    def _sweep(self, folder: Path) -> None:
        """Delete the files of attempts that were never committed."""
        for path in folder.rglob(".*.new"):
            path.unlink(missing_ok=True)


def attempted(path: Path, attempt: str) -> Path:
    """Return the path at which an attempt writes what may become the file at `path`."""
    return path.with_name(f".{path.name}.{attempt}.new" if attempt else f".{path.name}.new")


def _rename(source: Path, target: Path) -> None:
    """Rename a file that another machine may have written just now. Raises FileNotFoundError after a time limit."""
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            source.replace(target)
            return
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
        with suppress(FileNotFoundError):
            list(source.parent.iterdir())  # makes NFS ask its server
        time.sleep(0.1)


FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
FAILED = {
    errno.EIO: ("the disk failed", "look at the disk (`dmesg`)"),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM),
        (
            "the folder of the teacher cache may not be written to",
            "get the permission, or name another path (`store.path`)",
        ),
    ),
}


@contextmanager
def _explained(workspace: LocalWorkspace) -> Iterator[None]:
    """Turn errors of the disk into a CacheError that says what is needed and how to go on."""
    try:
        yield
    except OSError as error:
        folder, goes_on = workspace.folder, "run the same command again: it goes on after the units that are finished"
        where, near = Path(error.filename or folder).absolute(), folder.parent.absolute()
        if error.errno in FULL:
            layout = workspace.layout
            needed = layout.total_bytes - sum(layout.unit_bytes(unit) for unit in workspace.units)
            free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
            raise CacheError(
                FULL[error.errno],
                where=where,
                expected=f"{needed / 1e9:,.3f} GB more for the teacher cache",
                got=f"{free / 1e9:,.3f} GB free",
                fix=f"make room and {goes_on}",
            ) from error
        # Errors of files elsewhere, such as the data, are explained by other code.
        ours = where.is_relative_to(near) or where in near.parents
        if error.errno in FAILED and error.filename and ours:
            what, fix = FAILED[error.errno]
            raise CacheError(what, where=where, got=error.strerror, fix=f"{fix} and {goes_on}") from error
        raise
