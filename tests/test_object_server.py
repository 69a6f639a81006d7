"""Our server of objects answers as moto's does, which knows all of S3."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from moto_server import MotoServer
from object_server import ObjectServer
from objects import PAGE

AUTHORIZATION = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, "
    "Signature=0"
}
COMPARED = {"Code", "ETag", "IsTruncated", "Key", "KeyCount", "Size"}
"""Elements of answers in XML."""

Ask = Callable[..., Any]


def asking(server: ObjectServer) -> Iterator[Ask]:
    """A client, of one connection: status, the headers and elements that a client reads, and the content."""
    connection = http.client.HTTPConnection(server.address.removeprefix("http://"))

    def ask(method: str, target: str, body: bytes = b"", **headers: str) -> tuple[Any, ...]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body, AUTHORIZATION | named)
        answer = connection.getresponse()
        content = answer.read()
        found = [answer.getheader(name) for name in ("ETag", "Content-Range")]
        if changed := answer.getheader("Last-Modified"):
            assert parsedate_to_datetime(changed).year >= 2025
        if content.lstrip().startswith(b"<"):
            tree = [(each.tag.rpartition("}")[2], each.text) for each in ElementTree.fromstring(content).iter()]
            upload.extend(str(text) for tag, text in tree if tag == "UploadId")
            compared = COMPARED if tree[0][0] != "Error" else {"Code"}
            return answer.status, found, sorted((tag, text) for tag, text in tree if tag in compared)
        return answer.status, found, content

    upload: list[str] = []
    ask.upload = lambda: upload[-1]  # type: ignore[attr-defined]
    yield ask
    connection.close()


def conversation(ask: Any) -> Iterator[Any]:
    """Every kind of request that Decant's client makes, with every answer that it tells apart."""
    yield ask("GET", "/none/a")
    yield ask("GET", "/none?list-type=2&prefix=a")
    yield ask("PUT", "/none/a", b"x")
    yield ask("PUT", "/bucket")[0]
    yield ask("GET", "/bucket/some/a")
    yield ask("HEAD", "/bucket/some/a")
    yield ask("PUT", "/bucket/some/a", b"0123456789")
    yield ask("PUT", "/bucket/some/a%20b%2Bc%26%C3%A9%3C", b"")
    yield ask("GET", "/bucket/some/a")
    yield ask("HEAD", "/bucket/some/a")
    yield ask("GET", "/bucket/some/a", Range="bytes=6-9")
    yield ask("GET", "/bucket/some/a", Range="bytes=6-99")
    yield ask("GET", "/bucket/some/a", Range="bytes=-3")
    yield ask("GET", "/bucket/some/a", Range="bytes=10-12")[0]
    yield ask("PUT", "/bucket/some/a", b"other", If_None_Match="*")
    yield ask("PUT", "/bucket/some/new", b"other", If_None_Match="*")
    (tag, _) = ask("HEAD", "/bucket/some/a")[1]
    yield ask("PUT", "/bucket/some/a", b"mine", If_Match=tag)
    yield ask("PUT", "/bucket/some/a", b"too late", If_Match=tag)
    yield ask("PUT", "/bucket/some/gone", b"x", If_Match=tag)
    yield ask("GET", "/bucket?list-type=2&prefix=some%2F")
    yield ask("GET", "/bucket?list-type=2&prefix=some%2Fa%20")
    yield ask("GET", "/bucket?list-type=2&prefix=other%2F")
    yield ask("DELETE", "/bucket/some/a")
    yield ask("DELETE", "/bucket/some/a")
    yield ask("POST", "/bucket/some/large?uploads")[0]
    parts = [bytes([number]) * (5 << 20) for number in range(2)]
    tags = []
    for number, part in enumerate(parts, 1):
        answer = ask("PUT", f"/bucket/some/large?partNumber={number}&uploadId={ask.upload()}", part)
        tags.append(answer[1][0])
        yield answer
    body = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
    whole = f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>".encode()
    yield ask("POST", f"/bucket/some/large?uploadId={ask.upload()}", whole)[2]
    yield ask("GET", "/bucket/some/large")
    keys = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("some/large", "some/none", "some/new"))
    yield ask("POST", "/bucket?delete", f"<Delete>{keys}</Delete>".encode())
    yield ask("GET", "/bucket?list-type=2&prefix=")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ObjectServer]]:
    made = [ObjectServer(), MotoServer()]
    yield made
    for server in made:
        server.stop()


def test_every_request_is_answered_as_by_moto(servers: list[ObjectServer]) -> None:
    ours, theirs = ([*conversation(ask)] for server in servers for ask in asking(server))
    assert {n: (one, other) for n, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other} == {}
    assert ours[0][0] == 404
    assert ours[-1][0] == 200


def test_long_lists_come_in_pages() -> None:
    """As S3 documents them: a thousand keys each, in their order."""
    server = ObjectServer()
    server.open("PUT", "bucket")
    names = [f"x/{number:04}" for number in range(2 * PAGE + 1)]
    for name in reversed(names):
        server.open("PUT", f"bucket/{name}", b"")
    found, query = [], "list-type=2&prefix=x/"
    for more in ("true", "true", "false"):
        tree = ElementTree.fromstring(server.open("GET", "bucket", query=query))
        assert tree.findtext("{*}IsTruncated") == more
        found += [str(each.text) for each in tree.findall("{*}Contents/{*}Key")]
        query = f"list-type=2&prefix=x/&continuation-token={tree.findtext('{*}NextContinuationToken')}"
    assert found == names
    server.stop()


def test_what_the_server_does_not_know_it_refuses() -> None:
    server = ObjectServer()
    server.open("PUT", "bucket")
    for method, target in (("GET", "/bucket?list-type=2&delimiter=/"), ("GET", "/bucket/a?acl"), ("POST", "/bucket/a")):
        assert server.answer(method, target, {}, b"").status == "501 Not Implemented"
    server.stop()
