"""moto's S3 server, which knows all of S3, in the place of ours."""

from __future__ import annotations

import logging
import time
import urllib.parse
import urllib.request
from typing import Any

from object_server import ObjectServer


class MotoServer(ObjectServer):
    """As `ObjectServer`, but for the clock, which is the machine's."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
        self.requests, self.gate, self.clock = [], (lambda *request: None), time.time
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self.address = "http://{}:{}".format(*self._moto.get_host_and_port())
        application = self._moto._server.app  # type: ignore[union-attr]

        def gated(environment: dict[str, Any], start: Any) -> Any:
            method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
            self.requests.append((method, path))
            if (answer := self.gate(method, path, environment)) is not None:
                environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
                start(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
                return [answer[1]]
            return application(environment, start)

        self._moto._server.app = gated  # type: ignore[union-attr]

    def stop(self) -> None:
        self._moto.stop()

    def open(self, method: str, path: str, data: bytes | None = None, query: str = "") -> bytes:
        gate, self.gate = self.gate, lambda *request: None
        try:
            headers = {"Authorization": "AWS someone:signature", "Content-Type": "binary/octet-stream"}
            url = f"{self.address}/{urllib.parse.quote(path)}{'?' * bool(query)}{query}"
            request = urllib.request.Request(url, data, headers, method=method)
            with urllib.request.urlopen(request) as answer:
                self.requests.pop()
                return bytes(answer.read())
        finally:
            self.gate = gate
