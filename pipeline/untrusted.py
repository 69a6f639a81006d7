"""Reads files that may come from anywhere: of bounded size, without following links, and plain values only."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

NOT_READ = (errno.ELOOP, errno.EINVAL, errno.EFBIG)
"""What `read_file` refuses: links, what is no file, what is too large."""

DEEPEST = 32
"""Lists and mappings inside one another; ours have at most eight."""

MOST_VALUES = 1_000_000


def read_file(path: Path, most: int, *, follow: bool = False) -> bytes:
    """Read the regular file `path`, of at most `most` bytes.

    Raises OSError, also for what is larger, for anything but a file, and (unless `follow`) for a symbolic link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed", str(path)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            what = f"{status.st_size:,} bytes, where {most:,} are the most that is read"
            raise OSError(errno.EFBIG, what, str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def parse_json(content: bytes) -> Any:
    """Parse a JSON text.

    Args:
        content: its bytes.

    Raises ValueError, which says why, for values that `require_plain` refuses, for keys that occur twice, and for bytes
    that are not UTF-8.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_distinct, parse_constant=_no_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("lists and mappings are nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    require_plain(value)
    return value


def require_plain(value: Any, most: int = MOST_VALUES) -> None:
    """Raise ValueError unless a value is plain, so that reading it ends and it can be written again.

    Plain values are None, booleans, text that UTF-8 can write, finite numbers, integers of 64 bits, lists and mappings
    with text as keys, nested at most `DEEPEST` deep, at most `most` values. Lists and mappings that occur in
    several places, as YAML's aliases make them, count as often.
    """
    waiting, count = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > most:
            raise ValueError(f"more than {most:,} values")
        if isinstance(value, str):
            _require_plain_text(value)
        elif isinstance(value, dict | list):
            if depth == DEEPEST:
                raise ValueError(f"lists and mappings are nested more than {DEEPEST} deep")
            if isinstance(value, dict):
                for key in value:
                    _require_plain_key(key)
                waiting += [(inner, depth + 1) for inner in value.values()]
            else:
                waiting += [(inner, depth + 1) for inner in value]
        elif isinstance(value, bool) or value is None:
            pass
        elif isinstance(value, int):
            if not -(2**63) <= value < 2**64:
                raise ValueError("an integer has more than 64 bits")
        elif not isinstance(value, float):
            raise ValueError(f"a value is a {type(value).__name__}: neither text, number, list nor mapping")
        elif not math.isfinite(value):
            raise ValueError("a number is not finite")


def _require_plain_key(key: object) -> None:
    if not isinstance(key, str):
        raise ValueError(f"the key {key!r:.40} is not text")
    _require_plain_text(key)


def _require_plain_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a surrogate pair, which UTF-8 cannot write") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.40} occurs twice")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _integer(text: str) -> int:
    if len(text) > 21:
        raise ValueError("an integer has more than 64 bits")
    return int(text)
