"""What S3 answers to the requests that Decant's client makes, and to no others.

moto knows all of S3, and takes several milliseconds for a request. `test_object_server.py` holds these answers to its.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import parse_qsl
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 1000
"""Objects in a list."""


class Answer(NamedTuple):
    """Status, headers and body."""

    status: str
    headers: Mapping[str, str]
    body: bytes = b""


class Stored(NamedTuple):
    """An object. changed: seconds since 1970, by the server's clock."""

    content: bytes
    tag: str
    changed: float


class Refused(Exception):  # noqa: N818 - an answer
    """An error, with its code."""

    def __init__(self, status: str, code: str, message: str) -> None:
        self.answer = xml(f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", status)


@dataclass
class Bucket:
    """Its objects and, of each upload in parts that is under way, the parts by number."""

    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)


class Objects:
    """Buckets and the objects in them. clock: seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._lock, self._buckets, self._numbers = threading.Lock(), dict[str, Bucket](), itertools.count(1)

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What is answered to a request. headers: names in lower case. path: without escapes."""
        asked = dict(parse_qsl(query, keep_blank_values=True))
        bucket, _, key = path.removeprefix("/").partition("/")
        try:
            with self._lock:
                return self._answer(method, bucket, key, asked, headers, body)
        except Refused as refused:
            return refused.answer

    def _answer(
        self, method: str, name: str, key: str, asked: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        if method == "PUT" and not key and not asked:
            self._buckets.setdefault(name, Bucket())
            return Answer("200 OK", {})
        if name not in self._buckets:
            raise Refused("404 Not Found", "NoSuchBucket", "The specified bucket does not exist")
        bucket = self._buckets[name]
        match method, sorted(asked):
            case "GET", kinds if not key and "list-type" in kinds:
                return self._list(bucket, asked)
            case "GET" | "HEAD", kinds if key and not kinds:
                return read(bucket, key, headers)
            case "PUT", kinds if key and not kinds:
                return self._put(bucket, key, headers, body)
            case "DELETE", kinds if key and not kinds:
                bucket.objects.pop(key, None)
                return Answer("204 No Content", {})
            case "POST", ["delete"]:
                keys = [str(each.text) for each in named(body, "Key")]
                for each in keys:
                    bucket.objects.pop(each, None)
                deleted = "".join(f"<Deleted><Key>{escape(each)}</Key></Deleted>" for each in keys)
                return xml(f"<DeleteResult>{deleted}</DeleteResult>")
            case "POST", ["uploads"]:
                upload = f"upload-{next(self._numbers)}"
                bucket.uploads[upload] = {}
                return xml(
                    f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                )
            case "PUT", ["partNumber", "uploadId"]:
                bucket.uploads[asked["uploadId"]][int(asked["partNumber"])] = body
                return Answer("200 OK", {"ETag": tag_of(body)})
            case "POST", ["uploadId"]:
                return self._complete(bucket, key, bucket.uploads.pop(asked["uploadId"]), body)
        raise Refused("501 Not Implemented", "NotImplemented", f"{method} {sorted(asked)}")

    def _put(self, bucket: Bucket, key: str, headers: Mapping[str, str], body: bytes) -> Answer:
        there = bucket.objects.get(key)
        wanted = headers.get("if-match")
        if wanted is not None and there is None:
            raise Refused("404 Not Found", "NoSuchKey", "The specified key does not exist.")
        if (wanted is not None and there is not None and wanted != there.tag) or (
            headers.get("if-none-match") == "*" and there is not None
        ):
            message = "At least one of the pre-conditions you specified did not hold"
            raise Refused("412 Precondition Failed", "PreconditionFailed", message)
        bucket.objects[key] = Stored(body, tag_of(body), self.clock())
        return Answer("200 OK", {"ETag": bucket.objects[key].tag})

    def _complete(self, bucket: Bucket, key: str, parts: Mapping[int, bytes], body: bytes) -> Answer:
        contents = [parts[int(str(each.text))] for each in named(body, "PartNumber")]
        digests = b"".join(hashlib.md5(content).digest() for content in contents)
        tag = f'"{hashlib.md5(digests).hexdigest()}-{len(contents)}"'
        bucket.objects[key] = Stored(b"".join(contents), tag, self.clock())
        return xml(
            f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{escape(tag)}</ETag>"
            "</CompleteMultipartUploadResult>"
        )

    def _list(self, bucket: Bucket, asked: Mapping[str, str]) -> Answer:
        """A page of a list, in the order of the keys."""
        if unknown := set(asked) - {"list-type", "prefix", "continuation-token"}:
            raise Refused("501 Not Implemented", "NotImplemented", f"a list by {sorted(unknown)}")
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", "")
        keys = sorted(key for key in bucket.objects if key.startswith(prefix) and key > after)
        more = len(keys) > PAGE
        return xml("".join(listed(bucket, keys[:PAGE], more)))


def listed(bucket: Bucket, keys: list[str], more: bool) -> Iterator[str]:
    """The pieces of a list in XML. more: it is not the last."""
    yield f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><KeyCount>{len(keys)}</KeyCount>'
    yield f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    for key in keys:
        stored = bucket.objects[key]
        changed = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.changed))
        yield f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified>"
        yield f"<ETag>{escape(stored.tag)}</ETag><Size>{len(stored.content)}</Size></Contents>"
    if more:
        yield f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>"
    yield "</ListBucketResult>"


def read(bucket: Bucket, key: str, headers: Mapping[str, str]) -> Answer:
    """An object, or bytes of it."""
    stored = bucket.objects.get(key)
    if stored is None:
        raise Refused("404 Not Found", "NoSuchKey", "The specified key does not exist.")
    known = {"ETag": stored.tag, "Last-Modified": formatdate(int(stored.changed), usegmt=True)}
    if "range" not in headers:
        return Answer("200 OK", known, stored.content)
    first, _, last = headers["range"].removeprefix("bytes=").partition("-")
    size = len(stored.content)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        raise Refused("416 Requested Range Not Satisfiable", "InvalidRange", "The requested range cannot be satisfied.")
    known["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Answer("206 Partial Content", known, stored.content[start : end + 1])


def tag_of(content: bytes) -> str:
    """The tag of an object that was put at once."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def xml(text: str, status: str = "200 OK") -> Answer:
    """An answer in XML."""
    return Answer(status, {"Content-Type": "application/xml"}, f'<?xml version="1.0"?>{text}'.encode())


def named(body: bytes, name: str) -> Iterator[ElementTree.Element]:
    """The elements of this name in a request, in whatever namespace."""
    yield from (each for each in ElementTree.fromstring(body).iter() if each.tag.rpartition("}")[2] == name)
