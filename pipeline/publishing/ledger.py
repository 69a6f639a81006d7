"""Keeps the ledger of a store: one line of JSON for every finished unit, with the checksums of its files.

A line is appended, and made durable, only after the files are durable: so the files that it names are there. Each line
has a checksum of itself. A process that dies may leave an incomplete last line, and a power cut one with wrong bytes:
the last line counts only if its checksum is right.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import CacheCorrupt
from pipeline.files import durable, sync_directory
from pipeline.publishing.checksum import crc32c
from pipeline.publishing.fingerprint import canonical
from pipeline.publishing.folder_files import Files
from pipeline.untrusted import NOT_READ, parse_json, read_file

LEDGER_FILE = "ledger.jsonl"
LEDGER_MAX_BYTES = 256 << 20
LONGEST_LINE = 1 << 20

ROOT = "zarr.json"
"""The name of the metadata of a store's arrays and groups, which no ledger lists. That of the root is the manifest."""


def encode_line(unit: str, files: Mapping[str, int]) -> bytes:
    """Write the line of a finished unit.

    Args:
        files: CRC-32C of the content of every file, by path in the store.
    """
    record: dict[str, Any] = {"unit": unit, "files": {name: f"{crc:08x}" for name, crc in files.items()}}
    record["check"] = f"{crc32c(canonical(record).encode()):08x}"
    return canonical(record).encode() + b"\n"


def decode_line(line: bytes) -> tuple[str, dict[str, int]] | None:
    """Read unit and checksums from a whole line; None if it is not what `encode_line` wrote."""
    try:
        record = parse_json(line)
        files = {str(name): int(crc, 16) & 0xFFFFFFFF for name, crc in record["files"].items()}
        unit = str(record["unit"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return (unit, files) if encode_line(unit, files) == line else None


def whole(units: Mapping[str, Mapping[str, int]], order: Iterable[str]) -> bytes:
    """Return the ledger of a published store: each of `units` once, in a fixed `order`."""
    return b"".join(encode_line(unit, units[unit]) for unit in order)


def decode_ledger(content: bytes, where: object) -> tuple[dict[str, dict[str, int]], int]:
    """Read the units of a ledger, and count the bytes of its complete lines: the last line may be incomplete.

    Args:
        content: of the file.
        where: the file, for errors.

    Raises CacheCorrupt for a damaged line that is not the last.
    """
    units: dict[str, dict[str, int]] = {}
    end = 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        entry = decode_line(line) if len(line) <= LONGEST_LINE else None
        if entry is None and end + len(line) < len(content):
            raise CacheCorrupt(
                "a line of the ledger is damaged",
                where=f"{where}, line {number}",
                fix="delete the line to have its unit computed again",
            )
        if entry is not None:
            units[entry[0]] = entry[1]
            end += len(line)
    return units, end


def checksums(units: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return the CRC-32C of every file of `units`, by path in the store."""
    return {name: checksum for files in units.values() for name, checksum in files.items()}


def listed_files(files: Files) -> set[str]:
    """Return the names of the chunks in a store's ledger, and of the metadata of their arrays and groups.

    Args:
        files: of the store.
    """
    try:
        content = files.read(LEDGER_FILE, LEDGER_MAX_BYTES)
    except OSError:
        return set()
    chunks = {name for line in io.BytesIO(content) if (entry := decode_line(line)) for name in entry[1]}
    folders = {folder.as_posix() for name in chunks for folder in PurePosixPath(name).parents}
    return chunks | {f"{folder}/{ROOT}" for folder in folders}


class Ledger:
    """Records the finished units of the store in `folder`: those read when it was opened, and those appended since."""

    def __init__(self, folder: Path) -> None:
        """Read the ledger, if there is one. Raises CacheCorrupt for a damaged line that is not the last."""
        self.path = folder / LEDGER_FILE
        content = self._content()
        self.units, self._end = decode_ledger(content, self.path)
        self._torn = self._end < len(content)

    def _content(self) -> bytes:
        try:
            return read_file(self.path, LEDGER_MAX_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            if error.errno not in NOT_READ:
                raise
            raise CacheCorrupt("the ledger cannot be read", where=self.path, got=error.strerror) from None

    def append(self, unit: str, files: Mapping[str, int]) -> None:
        """Record a unit, durably. Its files must be durable already."""
        line = encode_line(unit, files)
        with durable(self.path, "ab") as file:
            if self._torn:
                file.truncate(self._end)
            self._torn = True  # until the line is whole: a full disk may take half of it
            file.write(line)
        if not self._end:
            sync_directory(self.path.parent)  # the file is new
        self._torn = False
        self._end += len(line)
        self.units[unit] = dict(files)
