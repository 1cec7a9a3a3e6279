"""A way to a server on which everything can go wrong, at any byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Bytes that are passed on at once.
_CHUNK = 1 << 16
_PAGE = b"<html><body>Please log in to the network.</body></html>"
_ANSWERS = {
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE),
    "redirects": b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
    "an error": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "no login": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    "a huge one": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "junk": bytes(range(256)),
}


@dataclass
class Proxy:
    """Passes on what clients and a server say to each other, and how often it was called.

    Args:
        server: its port.
        fault: what goes wrong: "cut request", "cut answer" or "reset answer" after `at` bytes,
            "garble" from there on, "silent", "slow", "drip", "flood", "endless", or one of
            `_ANSWERS`.  "listen" is none: what clients said is then in `heard`.
        at: a place in the first answer or request of a connection, in bytes; negative for as
            many before its end.
    """

    server: int
    fault: str
    at: int = 0
    pause: float = 0.4  # seconds that "slow" takes for an answer
    calls: int = 0
    sent: int = 0  # bytes of endless answers
    heard: bytes = b""
    _sockets: list[socket.socket] = field(default_factory=list)
    _over: bool = False

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def open(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._sockets.append(listening)
        threading.Thread(target=self._listen, args=(listening,), daemon=True).start()

    def close(self) -> None:
        self._over = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                self.calls += 1
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.fault == "reset at once":
                _reset(client)
            elif self.fault == "silent":
                self._wait()
            elif self.fault in _ANSWERS:
                while client.recv(_CHUNK):
                    client.sendall(_ANSWERS[self.fault])
            elif self.fault == "flood":
                client.recv(_CHUNK)
                client.sendall(b"HTTP/1.1 200 OK\r\n")
                while not self._over:
                    client.sendall(b"X-More: and more\r\n" * 1000)
            elif self.fault == "endless":
                client.recv(_CHUNK)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n")
                client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
                while not self._over:
                    client.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                    self.sent += 0x10000
            else:
                self._pass_on(client)
        client.close()

    def _wait(self) -> None:
        while not self._over:
            time.sleep(0.05)

    def _pass_on(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self.server))
        self._sockets.append(server)
        back = threading.Thread(target=self._answers, args=(server, client), daemon=True)
        back.start()
        passed = 0
        while data := client.recv(_CHUNK):
            if self.fault == "cut request" and passed + len(data) > self.at:
                server.sendall(data[: max(0, self.at - passed)])
                break
            server.sendall(data)
            passed += len(data)
            if self.fault == "listen":
                self.heard += data
        server.close()
        _close(client)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            passed = 0
            while data := server.recv(_CHUNK):
                at = (self.at if self.at >= 0 else len(data) + self.at) - passed
                if self.fault in ("cut answer", "reset answer") and len(data) > at:
                    client.sendall(data[: max(0, at)])
                    _reset(client) if self.fault == "reset answer" else _close(client)
                    return
                if self.fault == "garble" and len(data) > at:
                    at = max(0, at)
                    data = data[:at] + bytes(byte ^ 0x55 for byte in data[at:])
                if self.fault == "slow":
                    time.sleep(self.pause)
                if self.fault == "drip":
                    for byte in data:
                        client.sendall(bytes([byte]))
                        time.sleep(0.1)
                        if self._over:
                            return
                else:
                    client.sendall(data)
                passed += len(data)
        _close(client)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _reset(one: socket.socket) -> None:
    """Close a connection as a host does that knows nothing of it."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


@contextlib.contextmanager
def proxy(server: int, fault: str, at: int = 0, pause: float = 0.4) -> Iterator[Proxy]:
    """Open a way to a server until it is no longer needed."""
    found = Proxy(server, fault, at, pause)
    found.open()
    try:
        yield found
    finally:
        found.close()
