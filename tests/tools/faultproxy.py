"""An HTTP proxy before an S3 server that injects the faults a real network has.

Behind it stands moto, which checks no signature, so requests may be changed on their way.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ERRORS = {"unavailable": (503, "SlowDown"), "forbidden": (403, "AccessDenied")}
ERROR_BODY = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"


@dataclass
class Fault:
    """What goes wrong, for which requests, and how often.

    Attributes
    ----------
    kind
        ``unavailable`` (503), ``lost_reply`` (applied, but the connection breaks), ``truncate`` (half the
        body), ``shorten`` (the same, and the head of the reply announces no more), ``empty`` (200, and not a
        byte), ``twice`` (applied twice), ``ignore_condition`` (``If-None-Match`` is dropped, as by servers
        that do not know it), or ``forbidden`` (403).
    times
        How many requests it hits; all by default.
    """

    kind: str
    method: str = "PUT"
    path: str = ".*"
    times: int = 2**31


class FaultProxy:
    """Context manager; ``faults`` may be changed while it runs.

    Attributes
    ----------
    hits
        Counts what was injected.
    asked
        Counts requests by method and path.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.hits: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _pick(self, method: str, path: str) -> str | None:
        with self._lock:
            self.asked[method, unquote(path)] += 1
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    self.hits[fault.kind] += 1
                    return fault.kind
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                kind = proxy._pick(self.command, self.path)
                body = self._body()
                if kind in ERRORS:
                    status, code = ERRORS[kind]
                    self._answer(
                        status, {"Content-Type": "application/xml"}, ERROR_BODY.format(code).encode()
                    )
                    return
                headers = {
                    k: v for k, v in self.headers.items() if k.lower() not in ("expect", "transfer-encoding")
                }
                if kind == "ignore_condition":
                    headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
                for _ in range(2 if kind == "twice" else 1):
                    address = urlsplit(proxy.upstream).netloc
                    with closing(http.client.HTTPConnection(address, timeout=60)) as upstream:
                        upstream.request(self.command, self.path, body=body, headers=headers)
                        with closing(upstream.getresponse()) as reply:
                            data = reply.read()
                if kind == "lost_reply":
                    self.close_connection = True
                    return
                kept = {
                    k: v
                    for k, v in reply.getheaders()
                    if k.lower() not in ("connection", "transfer-encoding")
                }
                if kind == "truncate":
                    self.close_connection = True
                    data = data[: len(data) // 2]
                if kind in ("shorten", "empty"):
                    kept = {k: v for k, v in kept.items() if k.lower() != "content-length"}
                    data = data[: len(data) // 2] if kind == "shorten" else b""
                self._answer(200 if kind == "empty" else reply.status, kept, data)

            def _body(self) -> bytes:
                if self.headers.get("Expect", "").lower() == "100-continue":
                    self.send_response_only(100)
                    self.end_headers()
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "content-length" not in {name.lower() for name in headers}:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay  # noqa: N815, the names http.server calls

        return Handler
