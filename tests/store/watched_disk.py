"""The calls by which Python changes a disk, seen one after the other: to let one fail, or to write them down.

`watch` replaces what `open`, `os` and `pathlib` call, for paths below a folder. Every change goes to an observer
before it is made, which may raise OSError instead, and after it was made. Files are written through at once, so that
a write is a write. Threads take turns.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Call(NamedTuple):
    """A change: `open` (for writing), `write`, `truncate`, `fsync`, `rename`, `unlink`, `mkdir`, `rmdir`, `link`.

    path: what it is about; to: the second path of a rename or link. new: whether `open` or `mkdir` made something.
    """

    kind: str
    path: str
    to: str = ""
    new: bool = False


class Observer:
    """Told of every call. The standard one lets all pass."""

    def before(self, call: Call) -> None:
        """May raise OSError."""

    def after(self, call: Call) -> None:
        """The change was made."""

    def failed(self, call: Call) -> None:
        """It was not, because `before` raised: of a `write`, half was written."""


@dataclass
class Killing(Observer):
    """Kills the process (SIGKILL) at the `number`-th call, counted from 1: before it, or when half is written."""

    number: int
    calls: list[Call] = field(default_factory=list)

    def before(self, call: Call) -> None:
        self.calls.append(call)
        if len(self.calls) == self.number:
            if call.kind == "write":
                raise InterruptedError
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, call: Call) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Failing(Observer):
    """Lets a call fail: the `number`-th, counted from 1, of those whose kind is in `kinds`.

    lasting: all that follow fail too, of those that need what is lacking: room, if the disk is full.
    """

    kinds: tuple[str, ...]
    number: int
    code: int
    lasting: bool
    calls: list[Call] = field(default_factory=list)
    hit: Call | None = None

    def before(self, call: Call) -> None:
        if self.hit is None and call.kind in self.kinds:
            self.calls.append(call)
            if len(self.calls) == self.number:
                self.hit = call
                self._fail(call)
        elif self.hit is not None and self.lasting and (self.code != errno.ENOSPC or call.kind in NEED_ROOM):
            self._fail(call)

    def _fail(self, call: Call) -> None:
        if call.kind in NAMELESS:
            raise OSError(self.code, os.strerror(self.code))
        raise OSError(self.code, os.strerror(self.code), call.path)


NAMELESS = ("write", "fsync", "truncate")
"""Calls about an open file, whose errors do not say which."""

NEED_ROOM = ("open", "write", "mkdir", "fsync")
KINDS = ("open", "write", "fsync", "rename", "mkdir", "unlink")
"""That making a cache makes."""


class _Written:
    """A file open for writing, whose writes are seen; half of one that fails is written."""

    def __init__(self, file: Any, path: str, see: Callable[..., Any]) -> None:
        self._file, self._path, self._see = file, path, see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *arguments: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        def whole() -> int:
            count = self._file.write(data)
            self._file.flush()
            return int(count)

        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return int(self._see(Call("write", self._path), whole, half))

    def truncate(self, size: int | None = None) -> int:
        return int(self._see(Call("truncate", self._path), lambda: self._file.truncate(size)))


def watch(patch: pytest.MonkeyPatch, folder: Path, observer: Observer) -> None:
    """Show the observer every change below a folder, until the patch is undone. Nothing is waited for (`fsync`)."""
    root, lock = f"{os.path.realpath(folder)}/", threading.RLock()

    def see(call: Call, change: Callable[[], Any], failing: Callable[[], object] = lambda: None) -> Any:
        if not f"{call.path}/".startswith(root):
            return change()
        with lock:
            try:
                observer.before(call)
            except OSError:
                failing()
                observer.failed(call)
                raise
            result = change()
            observer.after(call)
            return result

    def absolute(path: Any, dir_fd: int | None = None) -> str:
        base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")  # noqa: PTH109, PTH115
        name = os.path.join(base, os.fsdecode(path))  # noqa: PTH118
        return os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))  # noqa: PTH118, PTH119, PTH120

    open_file, open_descriptor, fsync = io.open, os.open, os.fsync

    def watched_open(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return open_file(file, mode, *arguments, **options)
        path = absolute(file)
        call = Call("open", path, new=not os.path.lexists(path))
        opened = see(call, lambda: open_file(file, mode, *arguments, **options))
        return _Written(opened, path, see) if f"{path}/".startswith(root) else opened

    def watched_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        def change() -> int:
            return open_descriptor(path, flags, mode, dir_fd=dir_fd)

        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return change()
        full = absolute(path, dir_fd)
        return int(see(Call("open", full, new=not os.path.lexists(full)), change))

    def watched_fsync(descriptor: int) -> None:
        see(Call("fsync", os.readlink(f"/proc/self/fd/{descriptor}")), lambda: None)  # noqa: PTH115

    def one(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
            more = options if dir_fd is None else {**options, "dir_fd": dir_fd}
            full = absolute(path, dir_fd)
            call = Call(kind, full, new=kind == "mkdir" and not os.path.lexists(full))
            return see(call, lambda: real(path, *arguments, **more))

        return watched

    def two(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(source: Any, target: Any, **options: Any) -> Any:
            call = Call(kind, absolute(source), absolute(target))
            return see(call, lambda: real(source, target, **options))

        return watched

    patch.setattr(io, "open", watched_open)
    patch.setattr(builtins, "open", watched_open)
    patch.setattr(os, "open", watched_descriptor)
    patch.setattr(os, "fsync", watched_fsync)
    patch.setattr(os, "fdatasync", watched_fsync)
    for kind, name in (("mkdir", "mkdir"), ("unlink", "unlink"), ("unlink", "remove"), ("rmdir", "rmdir")):
        patch.setattr(os, name, one(kind, getattr(os, name)))
    for kind, name in (("rename", "rename"), ("rename", "replace"), ("link", "link")):
        patch.setattr(os, name, two(kind, getattr(os, name)))
    for name in ("write", "pwrite", "writev", "ftruncate", "truncate", "symlink", "sendfile", "copy_file_range"):
        patch.setattr(os, name, _unexpected(name, getattr(os, name)))
    assert fsync is not watched_fsync


def _unexpected(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A way to write that nothing here watches: it would make the tests blind."""

    def watched(*arguments: Any, **options: Any) -> Any:
        target = arguments[0]
        where = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)  # noqa: PTH115
        assert not os.path.isfile(where), f"os.{name} writes to {where}: let watched_disk see it"  # noqa: PTH113
        return real(*arguments, **options)

    return watched
