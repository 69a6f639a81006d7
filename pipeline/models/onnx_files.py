"""Finds which files an ONNX model is made of: large ones keep their weights in files beside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ModelError

_WHERE_TENSORS_ARE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""The fields of each message of ONNX's protobuf, by number, that lead to the names of other files."""

_BYTES_AT_ONCE = 1 << 22


def files_beside(file: Path) -> tuple[Path, ...]:
    """Return the files that hold tensors of an ONNX file, in the order of their names; none for most.

    Args:
        file: what is no ONNX file names none.

    Raises OSError if it cannot be read, and ModelError if it names a file outside its folder, which onnxruntime would
    not read either.
    """
    try:
        locations = sorted(set(_locations(memoryview(file.read_bytes()), "model")))
    except (IndexError, ValueError):  # no protobuf, or one that was cut off
        return ()
    for location in locations:
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise ModelError("weights lie outside the folder of their model", where=file, got=repr(location))
    return tuple(file.parent / location for location in locations)


def digest_of_files(file: Path) -> str:
    """Return "sha256:..." of a file's bytes; where tensors lie in files beside it, of the digests of all.

    Args:
        file: of ONNX.

    Raises ModelError if one of them cannot be read.
    """
    try:
        beside = files_beside(file)
        found = _digest(file)
        if beside:
            lines = [found, *(f"{each.relative_to(file.parent)} {_digest(each)}" for each in beside)]
            found = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    except OSError as error:
        fix = "copy the files of its weights, too" if error.filename != str(file) else None
        raise ModelError("the file cannot be read", where=error.filename, got=error.strerror, fix=fix) from None
    return f"sha256:{found}"


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(_BYTES_AT_ONCE):
            found.update(part)
    return found.hexdigest()


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    """The files that tensors below a message lie in, as it names them."""
    if kind == "entry":
        fields = {number: bytes(value) for number, value in _parts(message)}
        if fields.get(1) == b"location":
            yield fields.get(2, b"").decode()
        return
    for number, value in _parts(message):
        if (below := _WHERE_TENSORS_ARE[kind].get(number)) is not None:
            yield from _locations(value, below)


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message that have a length, by their numbers. Raises IndexError where it is cut off."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _number(message, at)
        elif kind == 2:
            length, at = _number(message, at)
            if at + length > len(message):
                raise IndexError
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(kind)


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
