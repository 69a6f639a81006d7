"""Objects below an address: the one file that knows obstore, its client and its errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt, CacheError
from pipeline.store.location import RemotePath

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore, RetryConfig

PART_BYTES, PARTS_AT_ONCE = 8 << 20, 4
"""Larger objects are put in parts of this size, so many at once: obstore allows a request half a minute."""

REQUESTS = 16
"""Small requests that are made at once: each waits for the network longer than for anything else."""

MOST_OBJECTS = 5_000_000
"""More than any store has: no longer list is read."""

RETRIES: RetryConfig = {}
"""obstore's own: ten, for up to three minutes."""

ACCESS = (
    "these credentials need GetObject and ListBucket there, to write also PutObject and DeleteObject; AWS_REGION and "
    "AWS_ENDPOINT_URL must be the bucket's"
)
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; from a profile: "
    'eval "$(aws configure export-credentials --format env)"; for public buckets AWS_SKIP_SIGNATURE=true'
)
NETWORK_HINT = "check the network and AWS_ENDPOINT_URL, and run the same command again: what is finished is kept"


_T = TypeVar("_T")


class Conflict(Exception):  # noqa: N818 - not shown to people
    """An object is not as a conditional put wants it: another process was quicker."""


class Unconditional(Exception):  # noqa: N818
    """The server knows no conditional puts."""


ABSENT: UpdateVersion = {}
"""The version of an object that is not there."""


class ObjectStat(NamedTuple):
    """What is known of an object. version: for conditional puts; modified: by the server's clock."""

    version: UpdateVersion
    modified: datetime


class ObjectStorage:
    """The objects below an address, by the rest of their names.

    Pickles as its address; the client is opened where it is first used, with credentials and endpoint from the
    environment. Every method raises CacheError if the server cannot be reached or refuses.
    """

    def __init__(self, path: RemotePath, retries: RetryConfig | None = None) -> None:
        """Nothing is opened yet. retries: how patient to be, if not as obstore is."""
        self.path, self._retries = path, retries
        self._client: ObjectStore | None = None

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[RemotePath, RetryConfig | None]]:
        return ObjectStorage, (self.path, self._retries)

    def open(self) -> ObjectStore:
        """obstore's client. Raises CacheError without obstore, and in a process that cannot use it."""
        if _process() != os.getpid():
            raise CacheError(
                "this process was forked off one that had used object storage, and cannot use it itself",
                where=self.path,
                fix="start processes by spawn or forkserver, or use object storage only after the fork",
            )
        if self._client is None:
            from obstore.store import from_url

            self._client = from_url(self.path.url, retry_config=self._retries or RETRIES)
        return self._client

    def read(self, name: str, most: int) -> bytes:
        """The content of an object. Raises FileNotFoundError, and OSError if it has more than `most` bytes."""
        return self.fetch(name, most)[0].tobytes()

    def fetch(self, name: str, most: int) -> tuple[NDArray[np.uint8], ObjectStat]:
        """As `read`, without another copy, and what is known of the object."""
        with self._asked(name) as client:
            got = client.get(name)
            if got.meta["size"] > most:
                what = f"{got.meta['size']:,} bytes, where {most:,} are the most that is read"
                raise OSError(errno.EFBIG, what, str(self.path / name))
            return np.frombuffer(memoryview(got.bytes()), np.uint8), _stat(got.meta)

    def ends(self, sizes: Mapping[str, int], count: int) -> dict[str, bytes]:
        """The last `count` bytes of objects of known sizes."""

        def end(name: str) -> tuple[str, bytes]:
            with self._asked(name) as client:
                start = max(0, sizes[name] - count)
                return name, client.get_range(name, start=start, end=sizes[name]).to_bytes()

        return dict(at_once(end, [name for name in sizes if sizes[name]]))

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            with self._asked(name) as client:
                client.get(name)  # unlike `head` it is told of a bucket that is not there
        except FileNotFoundError:
            return False
        return True

    def stat(self, name: str) -> ObjectStat:
        """What is known of an object. Raises FileNotFoundError."""
        with self._asked(name) as client:
            return _stat(client.head(name))

    def sizes(self) -> dict[str, int]:
        """Every object with its size, in one request per thousand. Raises CacheCorrupt if there is no end of them."""
        found: dict[str, int] = {}
        with self._asked("") as client:
            for metas in client.list(chunk_size=1000):
                # Consoles mark what they call folders by an object without a name.
                found |= {meta["path"]: meta["size"] for meta in metas if meta["path"]}
                if len(found) > MOST_OBJECTS:
                    raise CacheCorrupt("there are more objects than any store has", where=self.path)
        return found

    def put(self, name: str, *content: bytes | memoryview) -> None:
        """Put an object, whole or not at all. content: pieces of it."""
        with self._asked(name) as client:
            if sum(len(piece) for piece in content) > PART_BYTES:
                options: Any = {"use_multipart": True, "chunk_size": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
                client.put(name, _parts(content), **options)
            else:
                client.put(name, b"".join(content), use_multipart=False)

    def replace(self, name: str, content: bytes, expected: UpdateVersion | None) -> UpdateVersion:
        """Put an object where one of this version lies, or none, or (None) whatever lies there; returns its version.

        Raises Conflict if another lies there, and Unconditional if the server cannot tell.
        """
        with self._asked(name) as client:
            mode: Any = "overwrite" if expected is None else expected or "create"
            try:
                return _version(client.put(name, content, mode=mode, use_multipart=False))
            except FileNotFoundError as error:
                if not expected or "NoSuchBucket" in str(error):
                    raise
                raise Conflict from None  # it is gone

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        with self._asked("") as client:
            if names:
                client.delete(list(names))

    @contextmanager
    def _asked(self, name: str) -> Iterator[ObjectStore]:
        """The client, for something about an object or about all; turns obstore's errors into ours."""
        where = self.path / name if name else self.path
        exceptions = _exceptions(self.path)
        try:
            yield self.open()
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise Conflict from None
        except (exceptions.NotSupportedError, NotImplementedError):
            raise Unconditional from None
        except (exceptions.InvalidPathError, ValueError) as error:
            fix = "delete the object: no file of a teacher cache has such a name"
            raise CacheCorrupt("an object has no sensible name", where=where, got=_short(error), fix=fix) from None
        except (exceptions.BaseError, FileNotFoundError) as error:
            text, got = str(error), _short(error)
            if "NoSuchBucket" in text:
                fix = "make the bucket, or name another one in store.path"
                raise CacheError("there is no such bucket", where=where, fix=fix) from None
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", str(where)) from None
            if "501 Not Implemented" in text:
                raise Unconditional from None
            if "169.254.169.254" in text:  # asked last, where the environment has no credentials
                raise CacheError("there are no credentials for object storage", where=where, fix=CREDENTIALS) from None
            if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
                raise CacheError("access to object storage is denied", where=where, got=got, fix=ACCESS) from None
            if "builder error" in text:
                fix = "for an endpoint without TLS set AWS_ALLOW_HTTP=true"
                raise CacheError("the endpoint cannot be used", where=where, got=got, fix=fix) from None
            raise CacheError("the object storage failed", where=where, got=got, fix=NETWORK_HINT) from None


def at_once(call: Callable[[str], _T], names: Iterable[str]) -> list[_T]:
    """The result of a call for each name, made by some threads; none is begun after an error or Ctrl-C."""
    pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="requests")
    try:
        return list(pool.map(call, names))
    finally:
        pool.shutdown(cancel_futures=True)


@cache
def _process() -> int:
    """The process that used obstore first: its threads do not survive a fork, and whoever waits for them hangs."""
    return os.getpid()


def _exceptions(path: RemotePath) -> Any:
    """obstore's. Raises CacheError if it is not installed."""
    try:
        from obstore import exceptions
    except ImportError:
        fix = "pip install 'decant-kd[s3]'"
        raise CacheError("stores on object storage need the package obstore", where=path, fix=fix) from None
    return exceptions


def _stat(meta: Any) -> ObjectStat:
    return ObjectStat(_version(meta), meta["last_modified"])


def _version(meta: Any) -> UpdateVersion:
    known: Any = {key: meta[key] for key in ("e_tag", "version") if meta[key] is not None}
    return known  # type: ignore[no-any-return]


def _parts(content: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    for piece in content:
        for start in range(0, len(piece), PART_BYTES):
            yield memoryview(piece)[start : start + PART_BYTES]


def _short(error: Exception, limit: int = 300) -> str:
    """The part of obstore's message that is for people: what the server says, or its first line."""
    text = str(error).partition("Debug source")[0]
    said = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    text = " ".join((f"{said[1]}: {said[2]}" if said else text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
