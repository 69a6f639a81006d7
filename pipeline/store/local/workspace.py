"""A workspace on a file system: the scratch folder beside the target."""

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
"""After which what a worker wrote is to be seen here: network file systems remember for a while what was not there."""


@dataclass(frozen=True)
class LocalPlace:
    """Takes files of units in a folder that all workers see; they are durable but for their names."""

    folder: Path
    compression: Compression

    def write(self, chunks: Chunks, attempt: str) -> dict[str, int]:
        """Write files under the attempt's own names. Raises CacheError if the folder is gone, or not seen here."""
        try:
            self.folder.stat()
            return {name: self._write(name, elements, attempt) for name, elements in chunks.items()}
        except FileNotFoundError:
            raise CacheError("the cache is finished, or its folder is not to be seen", where=self.folder) from None

    def _write(self, name: str, elements: NDArray[Any], attempt: str) -> int:
        path = self.folder / name
        if not path.parent.is_dir():
            # Without the folder itself: a worker that was given up may come back after the cache was published, and
            # must not begin another.
            for parent in reversed(path.relative_to(self.folder).parents[:-1]):
                (self.folder / parent).mkdir(exist_ok=True)
        return write_chunk(attempted(path, attempt), elements, self.compression)


class LocalWorkspace:
    """A scratch folder with a ledger, published by renaming it."""

    def __init__(self, target: Path, fingerprint: str, plan: StoreLayout, *, wait: bool, notify: Callable[[str], None]):
        """As `Scratch`. plan: what the cache consists of."""
        self.plan = plan
        self._scratch = Scratch(target, fingerprint, wait=wait, notify=notify)
        self._stack = ExitStack()
        self._durable = {self.folder}
        self.done = False
        self.units: dict[str, dict[str, int]] = {}

    @property
    def folder(self) -> Path:
        """Where the cache is made."""
        return self._scratch.folder

    @property
    def place(self) -> LocalPlace:
        """The folder, for workers."""
        return LocalPlace(self.folder.absolute(), self.plan.compression)

    def __enter__(self) -> Self:
        """Take the folder's lock and read its ledger."""
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
        """Release the lock."""
        self._stack.__exit__(kind, value, trace)

    def _refuse_foreign(self) -> None:
        foreign = self.units.keys() - {STATIC, *(unit.key for unit in self.plan.units)}
        if foreign:
            raise CacheCorrupt(
                "the ledger lists units that this cache does not have",
                where=self._ledger.path,
                got=", ".join(sorted(foreign)[:4]),
                fix="delete the ledger: all units are computed again",
            )

    def refuse_other(self, replace: bool) -> None:
        """As `Scratch.refuse_other`."""
        self._scratch.refuse_other(replace)

    def missing(self) -> dict[str, str]:
        """Looks at names, sizes and stored checksums; `verify` reads the content."""
        refuse_links(self.folder)
        wrong = {}
        for unit, files in self.plan.chunk_files():
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
        """Rename the attempt's files, make the names durable, and only then write the ledger's line."""
        to_sync: set[Path] = set()
        for name in files:
            path = self.folder / name
            _rename(attempted(path, attempt), path)
            to_sync.add(path.parent)
            # Directories that an earlier process made may not be durable: nothing is taken for known.
            for directory in path.relative_to(self.folder).parents:
                if self.folder / directory not in self._durable:
                    self._durable.add(self.folder / directory)
                    to_sync.add((self.folder / directory).parent)
        for directory in to_sync:
            sync_directory(directory)
        self._ledger.append(unit, files)

    def note(self, name: str) -> bytes | None:
        """The content of a file beside the units."""
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
        """Write such a file."""
        write_atomic(self.folder / name, content)

    def publish(self, metadata: Mapping[str, bytes], replace: bool) -> None:
        """Rename the folder to the target."""
        for name, content in metadata.items():
            write_atomic(self.folder / name, content)
        write_atomic(self.folder / LEDGER_FILE, whole(self.units, (unit for unit, _ in self.plan.chunk_files())))
        for note in (RUNS, IDENTITY):
            (self.folder / note).unlink(missing_ok=True)
        self._sweep(self.folder)
        self._scratch.publish(replace)
        # A worker that was given up may have written until the folder was renamed; from then on it finds nothing.
        self._sweep(self._scratch.target)

    def _sweep(self, folder: Path) -> None:
        """Delete what is left of attempts that were never committed."""
        for path in folder.rglob(".*.new"):
            path.unlink(missing_ok=True)


def attempted(path: Path, attempt: str) -> Path:
    """Where an attempt writes what may become the file at `path`."""
    return path.with_name(f".{path.name}.{attempt}.new" if attempt else f".{path.name}.new")


def _rename(source: Path, target: Path) -> None:
    """Rename a file that another machine may have written a moment ago. Raises FileNotFoundError."""
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
        ("the folder of the teacher cache may not be written to", "get the permission, or name another store.path"),
    ),
}


@contextmanager
def _explained(workspace: LocalWorkspace) -> Iterator[None]:
    """Turn what a disk refuses into a CacheError that says what is needed and how to go on."""
    try:
        yield
    except OSError as error:
        folder, goes_on = workspace.folder, "run the same command again: it goes on after the units that are finished"
        where, near = Path(error.filename or folder).absolute(), folder.parent.absolute()
        if error.errno in FULL:
            plan = workspace.plan
            needed = plan.total_bytes - sum(plan.unit_bytes(unit) for unit in workspace.units)
            free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
            raise CacheError(
                FULL[error.errno],
                where=where,
                expected=f"{needed / 1e9:,.3f} GB more for the teacher cache",
                got=f"{free / 1e9:,.3f} GB free",
                fix=f"make room and {goes_on}",
            ) from error
        # What cannot be read elsewhere, of the data say, is somebody else's to explain.
        ours = where.is_relative_to(near) or where in near.parents
        if error.errno in FAILED and error.filename and ours:
            what, fix = FAILED[error.errno]
            raise CacheError(what, where=where, got=error.strerror, fix=f"{fix} and {goes_on}") from error
        raise
