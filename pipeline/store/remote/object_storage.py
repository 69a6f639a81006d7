"""Reads and writes objects below an address. Only this file uses obstore, its client and its errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt, CacheError
from pipeline.store.location import RemotePath

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore, RetryConfig

PART_BYTES, PARTS_AT_ONCE = 8 << 20, 4
"""Larger objects are put in parts of this size, and so many parts at once: obstore gives a request half a minute."""

REQUESTS = 16
"""Small requests that are made at once, since each mostly waits for the network."""

MOST_OBJECTS = 5_000_000
"""The most objects that are listed: no store has more."""

RETRIES: RetryConfig = {}
"""The retries of obstore: its defaults are ten, for up to three minutes."""

ACCESS_HINT = (
    "these credentials need GetObject and ListBucket there, to write also PutObject and DeleteObject; AWS_REGION and "
    "AWS_ENDPOINT_URL must be the bucket's"
)
CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; from a profile: "
    'eval "$(aws configure export-credentials --format env)"; for public buckets AWS_SKIP_SIGNATURE=true'
)
NETWORK_HINT = "check the network and AWS_ENDPOINT_URL, and run the same command again: what is finished is kept"


_T = TypeVar("_T")


class Conflict(Exception):  # noqa: N818 - not shown to people
    """Reports that a conditional put failed: another process was quicker."""


class Unconditional(Exception):  # noqa: N818
    """Reports that the server does not support conditional puts."""


ABSENT: UpdateVersion = {}
"""The version of an object that does not exist."""


class ObjectStat(NamedTuple):
    """Describes an object.

    Args:
        version: for conditional puts.
        modified: by the server's clock.
    """

    version: UpdateVersion
    modified: datetime


class ObjectStorage:
    """Reads and writes objects below an address, which are named by the rest of their path.

    Only the address is pickled. The client is opened at the first use, with credentials and endpoint from the
    environment. Every method raises CacheError if the server cannot be reached or refuses.

    Args:
        path: the address.
        retries: how often a request is repeated; None for `RETRIES`.
    """

    def __init__(self, path: RemotePath, retries: RetryConfig | None = None) -> None:
        self.path, self._retries = path, retries
        self._client: ObjectStore | None = None

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[RemotePath, RetryConfig | None]]:
        return ObjectStorage, (self.path, self._retries)

    def open(self) -> ObjectStore:
        """Return obstore's client. Raises CacheError without obstore, and in a process that cannot use it."""
        if _process() != os.getpid():
            raise CacheError(
                "this process was forked from one that had used object storage, and cannot use it itself",
                where=self.path,
                fix="start processes by spawn or forkserver, or use object storage only after the fork",
            )
        if self._client is None:
            retries = tuple((self._retries or RETRIES).items())
            self._client = _client(self.path.url, retries, frozenset(os.environ.items()))
        return self._client

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the object `name`. Raises FileNotFoundError, and OSError for more than `most` bytes."""
        return self.fetch(name, most)[0].tobytes()

    def fetch(self, name: str, most: int) -> tuple[NDArray[np.uint8], ObjectStat]:
        """Return the content of the object `name` as bytes [L] without a further copy, and what is known of it.

        Args:
            most: as for `read`, and raises as it does.
        """
        with self._request(name) as client:
            got = client.get(name)
            if got.meta["size"] > most:
                what = f"{got.meta['size']:,} bytes, where {most:,} are the most that is read"
                raise OSError(errno.EFBIG, what, str(self.path / name))
            return np.frombuffer(memoryview(got.bytes()), np.uint8), _stat(got.meta)

    def ends(self, sizes: Mapping[str, int], count: int) -> dict[str, bytes]:
        """Return the last `count` bytes of objects.

        Args:
            sizes: the bytes of each, by its name.
        """

        def end(name: str) -> tuple[str, bytes]:
            with self._request(name) as client:
                start = max(0, sizes[name] - count)
                return name, client.get_range(name, start=start, end=sizes[name]).to_bytes()

        return dict(at_once(end, [name for name in sizes if sizes[name]]))

    def has(self, name: str) -> bool:
        """Tell whether the object `name` exists."""
        try:
            with self._request(name) as client:
                client.get(name)  # unlike `head` it reports a bucket that does not exist
        except FileNotFoundError:
            return False
        return True

    def stat(self, name: str) -> ObjectStat:
        """Return what is known of the object `name`. Raises FileNotFoundError."""
        with self._request(name) as client:
            return _stat(client.head(name))

    def sizes(self) -> dict[str, int]:
        """Return the size of every object, by name, with one request per thousand. Raises CacheCorrupt for millions."""
        found: dict[str, int] = {}
        with self._request("") as client:
            for metas in client.list(chunk_size=1000):
                # Consoles mark what they call folders by an object without a name.
                found |= {meta["path"]: meta["size"] for meta in metas if meta["path"]}
                if len(found) > MOST_OBJECTS:
                    raise CacheCorrupt("there are more objects than any store has", where=self.path)
        return found

    def put(self, name: str, *content: bytes | memoryview) -> None:
        """Put the object `name`, as a whole or not at all.

        Args:
            content: pieces of it.
        """
        with self._request(name) as client:
            if sum(len(piece) for piece in content) > PART_BYTES:
                options: Any = {"use_multipart": True, "chunk_size": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
                client.put(name, _parts(content), **options)
            else:
                client.put(name, b"".join(content), use_multipart=False)

    def replace(self, name: str, content: bytes, expected: UpdateVersion | None) -> UpdateVersion:
        """Put the object `name` if the present one has the version `expected`; return the new version.

        Args:
            content: the new bytes.
            expected: `ABSENT` for no object; None replaces any.

        Raises Conflict if the present one has another version, and Unconditional if the server does not support this.
        """
        with self._request(name) as client:
            mode: Any = "overwrite" if expected is None else expected or "create"
            try:
                return _version(client.put(name, content, mode=mode, use_multipart=False))
            except FileNotFoundError as error:
                if not expected or "NoSuchBucket" in str(error):
                    raise
                raise Conflict from None  # it is gone

    def delete(self, names: Sequence[str]) -> None:
        """Delete the objects `names`, as far as they exist."""
        with self._request("") as client:
            if names:
                client.delete(list(names))

    @contextmanager
    def _request(self, name: str) -> Iterator[ObjectStore]:
        """Yield the client for a request about an object, or about all; turn obstore's errors into Decant's."""
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
                fix = "make the bucket, or name another one in the path (`store.path`)"
                raise CacheError("there is no such bucket", where=where, fix=fix) from None
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", str(where)) from None
            if "501 Not Implemented" in text:
                raise Unconditional from None
            if "169.254.169.254" in text:  # tried last, if the environment has no credentials
                raise CacheError(
                    "there are no credentials for object storage", where=where, fix=CREDENTIALS_HINT
                ) from None
            if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
                raise CacheError("access to object storage is denied", where=where, got=got, fix=ACCESS_HINT) from None
            if "builder error" in text:
                fix = "for an endpoint without TLS set AWS_ALLOW_HTTP=true"
                raise CacheError("the endpoint cannot be used", where=where, got=got, fix=fix) from None
            raise CacheError("the object storage failed", where=where, got=got, fix=NETWORK_HINT) from None


def at_once(call: Callable[[str], _T], names: Iterable[str]) -> list[_T]:
    """Return the results of calling a function with each name, in some threads.

    Args:
        names: of objects.

    After an error or Ctrl-C no further call is begun.
    """
    pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="requests")
    try:
        return list(pool.map(call, names))
    finally:
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=64)
def _client(url: str, retries: tuple[tuple[str, Any], ...], environment: frozenset[tuple[str, str]]) -> ObjectStore:
    """Return obstore's client, the same for the same address and environment: each reads the system's certificates."""
    from obstore.store import from_url

    return from_url(url, retry_config=cast("RetryConfig", dict(retries)))


@cache
def _process() -> int:
    """Return the process that used obstore first: its threads do not survive a fork, and waiting for them hangs."""
    return os.getpid()


def _exceptions(path: RemotePath) -> Any:
    """Return the module of obstore's exceptions. Raises CacheError if obstore is not installed."""
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
    """Return the part of obstore's message that helps users: the server's message, or the first line."""
    text = str(error).partition("Debug source")[0]
    found = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    text = " ".join((f"{found[1]}: {found[2]}" if found else text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
