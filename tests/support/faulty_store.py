"""A failing object store: a proxy on loopback in front of an S3 server that breaks chosen requests."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Fault = Literal["", "error", "cut", "stall"]
"""Fault of a request: none; status 503; cut off after a kilobyte of its body was passed on; never answered."""

Judge = Callable[[bytes], Fault]
"""Returns the fault of a request, from its head (request line and headers)."""

_CUT_BYTES = 1000
_UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyStore(socketserver.ThreadingTCPServer):
    """Proxy that passes each request to ``upstream`` over a connection of its own, with the fault ``judge`` returns."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.upstream = upstream
        self.judge: Judge = lambda head: ""
        self.num_faults = 0
        self.stalled = threading.Event()  # set at the end, so that stalled requests return

    @property
    def options(self) -> str:
        """Options of S3 URIs on this proxy."""
        host, port = self.server_address[:2]
        return f"?endpoint_override={host!s}:{port}&scheme=http&region=us-east-1"


class _Request(socketserver.BaseRequestHandler):
    server: FaultyStore

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.request.recv(1 << 16)
            if not piece:
                return
            head += piece
        fault = self.server.judge(head.partition(b"\r\n\r\n")[0])
        if fault:
            self.server.num_faults += 1
        if fault == "error":
            self.request.sendall(_UNAVAILABLE)
        elif fault == "stall":
            self.server.stalled.wait()
        else:
            with socket.create_connection(self.server.upstream) as store:
                store.sendall(_asking_to_close(head))
                if fault == "cut":
                    store.sendall(self.request.recv(_CUT_BYTES))
                    return
                threading.Thread(target=_pump, args=(self.request, store), daemon=True).start()
                _pump(store, self.request)


def _asking_to_close(head: bytes) -> bytes:
    """Return the request with ``Connection: close``, so that the next request opens a connection and is judged too."""
    line, _, rest = head.partition(b"\r\n")
    headers, end, body = rest.partition(b"\r\n\r\n")
    kept = [one for one in headers.split(b"\r\n") if not one.lower().startswith(b"connection:")]
    return b"\r\n".join([line, b"Connection: close", *kept]) + end + body


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until either side closes."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)


@contextmanager
def faulty_store(upstream: tuple[str, int]) -> Iterator[FaultyStore]:
    """Run a proxy in front of the S3 server at ``upstream``; it begins without faults."""
    with FaultyStore(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield proxy
        proxy.stalled.set()
        proxy.shutdown()
