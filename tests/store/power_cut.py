"""What a disk may hold after the power went: a small model of a file system that keeps only what was synced.

It promises what POSIX does, and no more:

- The content of a file is what it was at its last `fsync`. What was written since may be there, in part, as zeros, or
  not at all; the length may be new while the content is not.
- The names in a directory are those at the directory's last `fsync`. Names made, changed and removed since may be
  there or not, each by itself, but for changes of one name, which keep their order.
- A rename is one change. Between two directories it may leave both names, never neither.

`Recorder` follows a real run. `states` are the disks that may be found after a number of its calls.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from watched_disk import Call, Observer

Tree = dict[str, bytes | None]
"""The content of every file, by path below the root; None for a directory."""


@dataclass(eq=False)
class File:
    """What it holds, and what it held when it was synced."""

    now: bytes = b""
    durable: bytes = b""


@dataclass(eq=False)
class Change:
    """Of names in one directory: what each is afterwards, None for nothing. needs: another that must be there too."""

    names: dict[str, File | Directory | None]
    needs: Change | None = None
    durable: bool = False


@dataclass(eq=False)
class Directory:
    """The names that were synced, and the changes since."""

    durable: dict[str, File | Directory] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    @property
    def now(self) -> dict[str, File | Directory]:
        """The names as programs see them."""
        names = dict(self.durable)
        for change in self.changes:
            _apply(names, change)
        return names


def _apply(names: dict[str, File | Directory], change: Change) -> None:
    for name, entry in change.names.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry


class Disk:
    """The model. Paths are relative to its root, which is durable."""

    def __init__(self) -> None:
        self.root = Directory()

    def at(self, path: str) -> File | Directory:
        """What programs see at a path."""
        entry: File | Directory = self.root
        for part in path.split("/") if path else ():
            assert isinstance(entry, Directory)
            entry = entry.now[part]
        return entry

    def _parent(self, path: str) -> tuple[Directory, str]:
        above, _, name = path.rpartition("/")
        parent = self.at(above)
        assert isinstance(parent, Directory)
        return parent, name

    def make(self, path: str, entry: File | Directory) -> None:
        """A new file or directory."""
        parent, name = self._parent(path)
        parent.changes.append(Change({name: entry}))

    def write(self, path: str, content: bytes) -> None:
        """A file holds this now."""
        file = self.at(path)
        assert isinstance(file, File)
        file.now = content

    def sync(self, path: str) -> None:
        """Until here everything about a file, or the names in a directory, lasts."""
        entry = self.at(path)
        if isinstance(entry, File):
            entry.durable = entry.now
            return
        waiting: list[Change] = []
        for change in entry.changes:
            held = {name for other in waiting for name in other.names}
            if held & set(change.names) or (change.needs is not None and not change.needs.durable):
                waiting.append(change)
            else:
                _apply(entry.durable, change)
                change.durable = True
        entry.changes = waiting

    def remove(self, path: str) -> None:
        """A name is gone."""
        parent, name = self._parent(path)
        parent.changes.append(Change({name: None}))

    def rename(self, path: str, to: str) -> None:
        """One change, or two of which the second needs the first."""
        entry, (source, old), (target, new) = self.at(path), self._parent(path), self._parent(to)
        if source is target:
            source.changes.append(Change({old: None, new: entry}))
            return
        added = Change({new: entry})
        target.changes.append(added)
        source.changes.append(Change({old: None}, needs=added))

    def found(self, choose: Choice) -> Tree:
        """The disk after a power cut, at the choice of what was lucky."""
        tree: Tree = {}
        made: set[int] = set()

        def visit(directory: Directory, prefix: str) -> None:
            names, held = directory.durable, set[str]()
            if directory.changes:
                names = dict(names)
            for change in directory.changes:
                lacking = change.needs is not None and not change.needs.durable and id(change.needs) not in made
                if held & set(change.names) or lacking or not choose.change():
                    held |= set(change.names)
                else:
                    made.add(id(change))
                    _apply(names, change)
            for name, entry in names.items():
                path = f"{prefix}{name}"
                if isinstance(entry, File):
                    tree[path] = choose.content(entry)
                else:
                    tree[path] = None
                    visit(entry, f"{path}/")

        visit(self.root, "")
        return tree


class Choice:
    """Who is lucky: nothing that was not synced."""

    def change(self) -> bool:
        """Whether a change of names that was not synced is there."""
        return False

    def content(self, file: File) -> bytes:
        """What a file holds."""
        return file.durable


class Everything(Choice):
    """All that was not synced is there nevertheless."""

    def change(self) -> bool:
        return True

    def content(self, file: File) -> bytes:
        return file.now


class NamesOnly(Choice):
    """Names are there, contents are not: what file systems that write names early leave behind."""

    def change(self) -> bool:
        return True


class Chance(Choice):
    """Each by itself, contents in part too."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def change(self) -> bool:
        return self._random.random() < 0.5

    def content(self, file: File) -> bytes:
        old, new = file.durable, file.now
        if old == new:
            return old
        kept = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        place = self._random.randint(kept, max(kept, len(new)))
        return self._random.choice(
            [
                old,
                new,
                new[:place],
                new[:kept] + bytes(len(new) - kept),
                new[:kept] + bytes(place - kept) + new[place:],
                old[:kept],
            ]
        )


class Recorder(Observer):
    """Follows the calls of a run, each as a step that can be made again on a `Disk`.

    deaf: calls that are not followed, to see that their absence is noticed.
    """

    def __init__(self, root: Path, deaf: Callable[[Call], bool] = lambda call: False) -> None:
        self._root, self._deaf = os.path.realpath(root), deaf
        self.steps: list[tuple[Call, bytes]] = []

    def after(self, call: Call) -> None:
        """Write a call down, with what the file holds then."""
        content = b""
        if call.kind in ("write", "truncate", "open"):
            content = Path(call.path).read_bytes()
        if not self._deaf(call):
            short = [os.path.relpath(path, self._root) if path else "" for path in (call.path, call.to)]
            self.steps.append((call._replace(path=short[0], to=short[1]), content))

    def disks(self, disk: Disk | None = None) -> Iterator[Disk]:
        """The disk before the first step and after every one. disk: as it was then; None: empty."""
        disk = disk or Disk()
        yield disk
        for call, content in self.steps:
            _step(disk, call, content)
            yield disk


def _step(disk: Disk, call: Call, content: bytes) -> None:
    match call.kind:
        case "open" if call.new:
            disk.make(call.path, File(content))
        case "mkdir":
            disk.make(call.path, Directory())
        case "open" | "write" | "truncate":
            disk.write(call.path, content)
        case "fsync":
            disk.sync("" if call.path == "." else call.path)
        case "unlink" | "rmdir":
            disk.remove(call.path)
        case "rename":
            disk.rename(call.path, call.to)
        case _:
            raise AssertionError(f"no model of {call}")


def lay_out(tree: Tree, folder: Path) -> None:
    """Make the files of a state below a folder."""
    folder.mkdir(parents=True)
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).write_bytes(content)
