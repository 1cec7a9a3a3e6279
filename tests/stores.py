"""Stores that remote caches can be in: real servers, each a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/dav;
        location / {{ dav_methods PUT DELETE; create_full_put_path on; {more} }}
    }}
}}
"""


@dataclass(frozen=True)
class Web:
    """An nginx with dav: its URL, the folder that it serves, and the log of its requests."""

    url: str
    port: int
    folder: Path
    log: Path

    def asked(self) -> list[str]:
        """Return the requests so far, as `GET /ac/01ab 404`."""
        if not self.log.exists():
            return []
        lines = [line.split('"') for line in self.log.read_text().splitlines()]
        return [f"{' '.join(parts[1].split()[:2])} {parts[2].split()[0]}" for parts in lines]


@contextlib.contextmanager
def nginx(folder: Path, more: str = "") -> Iterator[Web]:
    """Start an nginx; `more` are further lines for its one location."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (folder / "dav").mkdir(parents=True)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, more=more))
    log = folder / "error.log"
    command = [program, "-c", str(config), "-e", str(log), "-p", str(folder)]
    with served(command, port, log):
        yield Web(f"http://127.0.0.1:{port}", port, folder / "dav", folder / "access.log")


@contextlib.contextmanager
def served(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until it is no longer needed."""
    with log.open("ab") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            if _listens(port):
                break
            time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as any_one:
        any_one.bind(("127.0.0.1", 0))
        return int(any_one.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[dict[str, str]]:
    """Start a server that speaks S3; yield the environment in which its bucket `team` is found."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("moto's server is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with served([program, "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log"):
        made = urllib.request.Request(f"{url}/team", method="PUT")
        urllib.request.urlopen(made, timeout=30).close()
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-s3",
        }
