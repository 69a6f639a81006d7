"""An S3 server on loopback, and a bucket on it, whose objects tests look at and change without a client.

`bucket` is a new one for every test, with credentials and endpoint in the environment. What the server answers is in
`objects.py`. With OBJECT_SERVER=moto in the environment, moto answers: all these tests hold of it too, and take longer.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

import pytest
from objects import Answer, Objects

Request = tuple[str, str]
"""Method and path of a request."""

Gate = Callable[[str, str, dict[str, Any]], tuple[str, bytes] | None]
"""Given method, path and environment of a request, as WSGI has it, the status and body to answer with, or None."""


class ObjectServer:
    """A server behind a gate: every request is logged, and may be answered by `gate` instead.

    clock: the server's, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gate: Gate = lambda *request: None
        self.clock: Callable[[], float] = time.time
        self._objects = Objects(lambda: self.clock())
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.address = "http://{}:{}".format(*self._server.server_address)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def open(self, method: str, path: str, data: bytes | None = None, query: str = "") -> bytes:
        """Ask the server, around the gate and the log."""
        answer = self._objects.answer(method, f"/{path}", query, {}, data or b"")
        assert answer.status[0] == "2", answer
        return answer.body

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """What the gate or the server answers."""
        path, _, query = target.partition("?")
        path = urllib.parse.unquote(path)
        self.requests.append((method, path))
        environment = {"QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        if (said := self.gate(method, path, environment)) is not None:
            return Answer(said[0], {"Content-Type": "application/xml"}, said[1])
        return self._objects.answer(method, path, query, headers, body)


class _Server(ThreadingTCPServer):
    daemon_threads, block_on_close, request_queue_size, allow_reuse_address = True, False, 128, True

    def __init__(self, server: ObjectServer) -> None:
        self.of = server
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(StreamRequestHandler):
    """HTTP/1.1, with a length of everything: connections stay open."""

    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that was killed
            while first := self.rfile.readline():
                method, target, _ = first.decode("latin-1").split(" ", 2)
                headers = {}
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                length = int(headers.get("content-length", 0))
                body = self.rfile.read(length)
                if len(body) < length:
                    return
                self._write(method, self.server.of.answer(method, target, headers, body))

    def _write(self, method: str, answer: Answer) -> None:
        known = {**answer.headers, "Content-Length": str(len(answer.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in known.items())
        body = answer.body if method != "HEAD" else b""
        self.wfile.write(f"HTTP/1.1 {answer.status}\r\n{head}\r\n".encode("latin-1") + body)


class Bucket:
    """A bucket: its objects by key, as a dictionary would have them."""

    def __init__(self, server: ObjectServer) -> None:
        self.server, self.name = server, f"bucket-{uuid4().hex[:12]}"
        server.open("PUT", self.name)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know."""
        return {
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.server.address,
            "AWS_ALLOW_HTTP": "true",
        }

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Of all objects whose keys begin so; the server lists a thousand at a time."""
        found: dict[str, int] = {}
        query = {"list-type": "2", "prefix": prefix}
        while True:
            tree = ElementTree.fromstring(self.server.open("GET", self.name, query=urllib.parse.urlencode(query)))
            for entry in (each for each in tree.iter() if each.tag.endswith("}Contents")):
                found[str(entry.findtext("{*}Key"))] = int(entry.findtext("{*}Size") or 0)
            if tree.findtext("{*}IsTruncated") == "false":
                return found
            query["continuation-token"] = str(tree.findtext("{*}NextContinuationToken"))

    def __getitem__(self, key: str) -> bytes:
        return self.server.open("GET", f"{self.name}/{key}")

    def __setitem__(self, key: str, content: bytes) -> None:
        self.server.open("PUT", f"{self.name}/{key}", content)

    def __delitem__(self, key: str) -> None:
        self.server.open("DELETE", f"{self.name}/{key}")

    def below(self, prefix: str) -> dict[str, bytes]:
        """Every object whose key begins so, by the rest of its key."""
        return {key.removeprefix(prefix): self[key] for key in self.sizes(prefix)}

    def upload(self, folder: Path, prefix: str) -> None:
        """The files below a folder, as objects."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self[f"{prefix}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

    def requests(self, method: str, pattern: str = "") -> list[str]:
        """The keys that were asked for so far."""
        start = f"/{self.name}/"
        paths = [path.removeprefix(start) for how, path in self.server.requests if how == method]
        return [path for path in paths if re.search(pattern, path)]


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    if os.environ.get("OBJECT_SERVER") == "moto":
        from moto_server import MotoServer

        server: ObjectServer = MotoServer()
    else:
        server = ObjectServer()
    yield server
    server.stop()


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket(object_server)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    object_server.requests.clear()
    yield made
    object_server.gate, object_server.clock = (lambda *request: None), time.time
