"""Names where a store lies: a path on this machine, or an address on object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from pipeline.config import from_home

SCHEMES = ("s3", "gs", "az")
"""The schemes of addresses. Only s3 is tested; the others are opened in the same way."""

_SEGMENT = re.compile(r"[A-Za-z0-9_.=+-]+")


@dataclass(frozen=True)
class RemotePath:
    """Names an address on object storage, such as `s3://bucket/caches/name.zarr`.

    It has the part of the interface of `pathlib.Path` that stores need.

    Args:
        url: the address; `parse` checks it.
    """

    url: str

    @classmethod
    def parse(cls, text: str) -> RemotePath:
        """Return the address in a text. Raises ValueError, which says what is wrong and what to do."""
        scheme, _, rest = text.partition("://")
        bucket, *segments = rest.rstrip("/").split("/")
        if scheme not in SCHEMES:
            raise ValueError(f"addresses begin with {', '.join(f'{name}://' for name in SCHEMES)}, or are plain paths")
        if not bucket or not segments:
            raise ValueError(f"the address needs a bucket and a name in it, such as {scheme}://bucket/caches/name.zarr")
        if wrong := [part for part in (bucket, *segments) if not _SEGMENT.fullmatch(part) or set(part) == {"."}]:
            raise ValueError(f"{wrong[0]!r} is no part of an address: use letters, digits and _ . = + -")
        return cls(f"{scheme}://{bucket}/{'/'.join(segments)}")

    @property
    def name(self) -> str:
        """Return what follows the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Return the name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """Return the last dot of the name and what follows it."""
        return Path(self.name).suffix

    def with_name(self, name: str) -> RemotePath:
        """Return the address beside this one that has another name."""
        return RemotePath(f"{self.url.rpartition('/')[0]}/{name}")

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def as_posix(self) -> str:
        """Return the address as text."""
        return self.url


def store_path(value: str | Path | RemotePath) -> StorePath:
    """Return the location of a store from the form in which users write it.

    Args:
        value: a path, in which `~` is the home folder, or an address.

    Raises ValueError for an address that is not valid.
    """
    if isinstance(value, RemotePath):
        return value
    text = str(value)
    if "://" in text:
        return RemotePath.parse(text)
    if re.match(rf"({'|'.join(SCHEMES)}):/", text):
        raise ValueError(f"an address has two slashes: {text.replace(':/', '://', 1)}")
    return from_home(Path(value))


def _validated(value: Any) -> StorePath:
    if not isinstance(value, str | Path | RemotePath):
        raise ValueError("is not a path")
    return store_path(value)


StorePath = Annotated[
    Path | RemotePath, PlainValidator(_validated), PlainSerializer(str, return_type=str, when_used="json")
]
"""The location of a store, as a type for fields of the configuration."""
