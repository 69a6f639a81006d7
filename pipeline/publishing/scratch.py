"""Makes an artifact in a scratch folder beside the place where it will be published.

`.<name>.<fingerprint>.partial` lies on the same file system as its target and outside every DVC output: DVC
deletes a stage's outputs before it reruns it, and a killed `dvc repro` leaves its child running. The folder is
held by a lock (flock) on the folder itself, which is released when the process dies. A second process waits: no process
works in a folder that another holds, or deletes it. `publish` renames the folder to its target.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import REPLACE_HINT, CacheError, CacheMismatch, printable
from pipeline.files import sync_directory, write_atomic
from pipeline.publishing.artifacts import FINGERPRINT, published, scratch_folder, unfinished
from pipeline.publishing.ownership import foreign_files
from pipeline.untrusted import parse_json, read_file

HOLDER = "holder.json"
NAMED_FILES = 4


def read_holder(file: Path) -> dict[str, Any] | None:
    """Read from `file` which process holds or held a folder; None if it is not known.

    The process is described by `pid` and the texts `host`, `command` and `since`.
    """
    try:
        holder = parse_json(read_file(file, 1 << 20))
    except (OSError, ValueError):
        return None
    kinds = {"pid": int, "host": str, "command": str, "since": str}
    if not isinstance(holder, dict) or any(type(holder.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return holder if 0 < holder["pid"] < 2**31 else None


def print_message(text: str) -> None:
    """Print `text` to standard error as a line of its own, although a terminal may show progress there."""
    print(f"\r\x1b[2K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


class Scratch:
    """Holds the scratch folder of an artifact while it is made.

        with Scratch(target, fingerprint) as scratch:
            if not scratch.done:
                ...  # write into scratch.folder, going on from what is there
                scratch.publish()

    `done` is True if the artifact was published before the lock was had, for one by another process that was
    waited for. What is in the folder when the `with` block ends in another way stays there for the next run.
    """

    def __init__(
        self,
        target: Path,
        fingerprint: str,
        *,
        files: Collection[str] = (),
        wait: bool = True,
        notify: Callable[[str], None] = print_message,
    ) -> None:
        """files: the names of those that such an artifact consists of, for `foreign_files`.

        wait: for another process that makes the same, or raise CacheError naming it. notify: takes messages.
        """
        self.target, self.fingerprint = target, fingerprint
        self.folder = scratch_folder(target, fingerprint)
        self.done = False
        self._files = frozenset(files)
        self._wait, self._notify = wait, notify
        self._lock: int | None = None
        self._published = False

    def __enter__(self) -> Self:
        """Take the lock. Raises CacheError if it is held and not to be waited for."""
        while self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        try:
            self._begin()
        except BaseException:
            self._release()
            raise
        return self

    def _begin(self) -> None:
        """Say who holds the folder, and look around."""
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join(sys.argv),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomic(self.folder / HOLDER, json.dumps(holder))
        self.done = published(self.target) == self.fingerprint
        for other in unfinished(self.target):
            if other != self.folder and not self.done:
                self._notify(f"note: {other} holds unfinished work of other settings; delete it if unwanted")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock; a folder in which nothing was made is removed."""
        if self._lock is None:
            return
        with suppress(OSError):
            # After publishing, the name is free: a folder there is another process's.
            if not self._published and {path.name for path in self.folder.iterdir()} <= {HOLDER}:
                (self.folder / HOLDER).unlink(missing_ok=True)
                self.folder.rmdir()
        self._release()

    def _release(self) -> None:
        assert self._lock is not None
        # Not by closing alone: processes forked meanwhile share the descriptor, and with it the lock.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)
        self._lock = None

    def _locked(self) -> int | None:
        """A descriptor that holds the lock; None if the folder was published or removed meanwhile."""
        held = False
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._held()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = os.path.samestat(os.fstat(descriptor), self.folder.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise lock_error(error, self.folder.parent) from error
        finally:
            if not held:
                os.close(descriptor)
        return descriptor if held else None

    def _held(self) -> None:
        """Say who holds the folder; raises CacheError if that is not to be waited for."""
        holder = read_holder(self.folder / HOLDER)
        who = "another process"  # that has only just begun, or just ended
        if holder is not None:
            who = printable("process {pid} on {host}, since {since}: {command}".format(**holder))
        if not self._wait:
            raise CacheError(
                f"another process is making {self.target}",
                where=self.folder,
                got=who,
                fix="wait for it, or stop it: what it finished is kept",
            )
        self._notify(f"waiting for another process that is making {self.target}: {who}")

    def refuse_other(self, replace: bool = False) -> None:
        """Raise CacheMismatch if something is at the target that must not be replaced.

        Without `replace` that is anything but an empty folder or the same artifact; with it, what Decant did
        not publish, other files in the artifact's folder among it.
        """
        there = published(self.target)
        if there is None and os.path.lexists(self.target):
            if not self.target.is_dir() or foreign_files(self.target):
                raise CacheMismatch(
                    "what lies at the target is not something that Decant published",
                    where=self.target,
                    fix="move it away, or name another path",
                )
        elif there not in (None, self.fingerprint) and not replace:
            raise CacheMismatch(
                "another artifact is published at the target",
                where=self.target,
                expected=f"fingerprint {self.fingerprint[:16]}",
                got=f"fingerprint {str(there)[:16]}",
                fix=f"{REPLACE_HINT} to replace it, or name another path",
            )
        if there is not None and (foreign := foreign_files(self.target, self._files)):
            raise CacheMismatch(
                "beside what Decant published, other files lie at the target, so nothing is replaced",
                where=self.target,
                got=f"{len(foreign)}: {', '.join(foreign[:NAMED_FILES])}" + (", ..." if foreign[NAMED_FILES:] else ""),
                fix="move them away, or name another path; if they may go, delete them yourself",
            )

    def publish(self, replace: bool = False) -> None:
        """Make the folder the artifact at the target, durably and at once. Raises as `refuse_other` does.

        Args:
            replace: whether another artifact there makes way.

        Every file in it must be durable already. What it replaces is deleted only afterwards.
        """
        with _alone_in(self.target.parent):
            self.refuse_other(replace)
            write_atomic(self.folder / FINGERPRINT, self.fingerprint + "\n")
            (self.folder / HOLDER).unlink(missing_ok=True)
            sync_directory(self.folder)
            aside = self.target.with_name(f".{self.target.name}.replaced.partial")
            shutil.rmtree(aside, ignore_errors=True)
            if published(self.target) is not None or (self.target.is_dir() and any(self.target.iterdir())):
                self.target.rename(aside)
            self.folder.rename(self.target)
            self._published = True
            sync_directory(self.target.parent)
            shutil.rmtree(aside, ignore_errors=True)


def lock_error(error: OSError, folder: Path) -> OSError | CacheError:
    """Return what to raise for a lock that failed: for file systems that have none, what to do.

    Args:
        error: of `flock`.
        folder: that was to be locked, or the one around it.
    """
    if error.errno not in (errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP):
        return error
    what, fix = "the file system cannot lock folders", "write to a local disk"
    return CacheError(what, where=folder, got=error.strerror, fix=fix)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder, so that no other artifact is published in it meanwhile.

    The scratch folders of two settings do not exclude each other, so both may find the target free.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
