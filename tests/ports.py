"""Ports for servers that tests start: no other test is given one, nor is any connection."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

#: Ports from here to those that the system gives to whoever asks for any.
_FIRST = 10_000
#: Whoever holds one of these files has the port of that name until its process ends.
_FOLDER = Path(tempfile.gettempdir(), f"codegen-tests-ports-{os.getuid()}")


@functools.cache
def _held() -> list[IO[str]]:
    return []


def free_port() -> int:
    """Return a port at which nobody listens, and that no other test will have."""
    _FOLDER.mkdir(exist_ok=True)
    # Anew in each process: a fork would else try the ports of its parent.
    some = random.Random(os.urandom(8)).sample(range(_FIRST, _end()), 1000)
    return next(port for port in some if _has(port) and not listens(port))


def _end() -> int:
    """Return the first of the ports that the system gives to whoever asks for any."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32_768
    return max(first, _FIRST + 2000)


def _has(port: int) -> bool:
    """Take a port, if no other test has it and it can be bound."""
    file = (_FOLDER / str(port)).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        file.close()
        return False
    _held().append(file)
    return True


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
