"""A real S3 server on loopback (moto's), and a bucket on it: what is there is looked at over plain HTTP.

`bucket` is a new one for every test, with credentials and endpoint in the environment.
"""

from __future__ import annotations

import logging
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

import pytest

Request = tuple[str, str]
"""Method and path of a request."""


class ObjectServer:
    """moto's server, behind a gate: every request is logged, and may be answered by `gate` instead.

    gate: given method, path and environment of a request, the status and body to answer with, or None.
    """

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.address = f"http://{host}:{port}"
        self.requests: list[Request] = []
        self.gate: Callable[[str, str, dict[str, Any]], tuple[str, bytes] | None] = lambda *request: None
        application = self._server._server.app  # type: ignore[union-attr]

        def gated(environment: dict[str, Any], start: Any) -> Any:
            method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
            self.requests.append((method, path))
            if (answer := self.gate(method, path, environment)) is not None:
                environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
                start(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
                return [answer[1]]
            return application(environment, start)

        self._server._server.app = gated  # type: ignore[union-attr]

    def stop(self) -> None:
        self._server.stop()

    def open(self, method: str, path: str, data: bytes | None = None) -> bytes:
        """Ask the server, around the gate."""
        gate, self.gate = self.gate, lambda *request: None
        try:
            headers = {"Authorization": "AWS someone:signature", "Content-Type": "binary/octet-stream"}
            request = urllib.request.Request(f"{self.address}/{path}", data, headers, method=method)
            with urllib.request.urlopen(request) as answer:
                self.requests.pop()
                return bytes(answer.read())
        finally:
            self.gate = gate


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
            tree = ElementTree.fromstring(self.server.open("GET", f"{self.name}?{urllib.parse.urlencode(query)}"))
            for entry in (each for each in tree.iter() if each.tag.endswith("}Contents")):
                found[str(entry.findtext("{*}Key"))] = int(entry.findtext("{*}Size") or 0)
            if tree.findtext("{*}IsTruncated") == "false":
                return found
            query["continuation-token"] = str(tree.findtext("{*}NextContinuationToken"))

    def __getitem__(self, key: str) -> bytes:
        return self.server.open("GET", f"{self.name}/{urllib.parse.quote(key)}")

    def __setitem__(self, key: str, content: bytes) -> None:
        self.server.open("PUT", f"{self.name}/{urllib.parse.quote(key)}", content)

    def __delitem__(self, key: str) -> None:
        self.server.open("DELETE", f"{self.name}/{urllib.parse.quote(key)}")

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
    object_server.gate = lambda *request: None
