"""What is wrong with a store is told with its cause, and what may help: it really fails."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from ports import free_port
from stores import nginx

pytest.importorskip("obstore")

from codegen_tasks.address import parsed
from codegen_tasks.remote.faults import Fault
from codegen_tasks.remote.transfers import Transfers

AWS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "mine"}
AZURE = {"AZURE_STORAGE_ACCOUNT_NAME": "me"}
NAMES = "GOOGLE_APPLICATION_CREDENTIALS names it"


def asked(url: str) -> Fault | None:
    """Return what is wrong with a store when it is asked."""
    return Transfers(parsed("url", url), 5).trouble()


def told(url: str) -> tuple[str, str]:
    """Return what a run says of a store that did not take something, and the hint."""
    link = Transfers(parsed("url", url), 5, writes=True)
    assert not link.put("ac/0", b"x" * 5000)
    return link.traffic.slip or link.traffic.fault, link.traffic.hint


@pytest.mark.parametrize(
    ("url", "environ", "what", "hint"),
    [
        (
            "http://127.0.0.1:9/cache",
            {},
            "cannot be reached (connection refused)",
            "does it run, and is the port right?",
        ),
        (
            f"http://{'x' * 64}.invalid/",  # no name at all: nobody is asked, who may be slow
            {},
            "cannot be reached (no such host)",
            "is the host's name right?",
        ),
        (
            "file:///no/such/folder",
            {},
            "cannot be used (no such file or directory)",
            "is the path right? who writes makes the folder",
        ),
        (f"file://{__file__}", {}, "cannot be used (not a directory)", ""),
        (
            "s3://team/x",
            AWS | {"AWS_ENDPOINT_URL": "127.0.0.1:9000"},
            "needs AWS_ENDPOINT_URL to be a URL",
            "like AWS_ENDPOINT_URL=http://minio.example.org:9000",
        ),
        (
            "s3://team/x",
            AWS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            "cannot be reached (connection refused)",
            "does it run, and is the port right?",
        ),
        (
            "gs://team/x",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such.json"},
            "needs credentials, whose file cannot be read (no such file or directory)",
            NAMES,
        ),
        (
            "gs://team/x",
            {"GOOGLE_APPLICATION_CREDENTIALS": __file__},
            "needs credentials, whose file holds none",
            NAMES,
        ),
        (
            "az://team/x",
            AZURE | {"AZURE_STORAGE_ACCOUNT_KEY": "no key!"},
            "needs AZURE_STORAGE_ACCOUNT_KEY to be a key",
            "",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_cause_and_what_may_help(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    url: str,
    environ: dict[str, str],
    what: str,
    hint: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert asked(url) == (what, hint)
    assert capfd.readouterr().err == ""  # no panic of the library's, either


@pytest.mark.parametrize(
    ("more", "path", "what", "hint"),
    [
        (
            "limit_except GET { deny all; }",
            "",
            "answers with status 403",
            "user and password stand in CODEGEN_REMOTE_CACHE, https://user:password@…; "
            "a token in CODEGEN_REMOTE_CACHE_TOKEN",
        ),
        (
            "} location /plain {",
            "/plain",
            "answers with status 405",
            "does the path lead to where it takes PUT?",
        ),
        (
            "client_max_body_size 1k;",
            "",
            "answers with status 413",
            "it takes no files so large; nginx: client_max_body_size",
        ),
    ],
)
def test_what_a_server_does_not_take_is_told_with_what_may_help(
    tmp_path: Path, more: str, path: str, what: str, hint: str
) -> None:
    with nginx(tmp_path, more) as web:
        assert told(web.url + path) == (what, hint)


def test_what_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            with server.accept()[0] as caller:
                caller.recv(10_000)
                caller.sendall(b"220 mail ready\r\n")
                caller.recv(1)  # until it goes

        threading.Thread(target=serve, daemon=True).start()
        assert asked(url) == ("answers with something else", "does the URL lead to a store?")


def test_a_certificate_that_is_not_trusted_and_the_wrong_scheme_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    authority, leaf, key = certified(tmp_path)
    secure = f"listen 127.0.0.1:{port} ssl; ssl_certificate {leaf}; ssl_certificate_key {key};"
    with nginx(tmp_path / "nginx", f"}} {secure} location /other {{") as web:
        assert asked(f"https://127.0.0.1:{port}") == (
            "has a certificate that is not trusted",
            "SSL_CERT_FILE names a file of authorities to trust; is the host's name right?",
        )
        monkeypatch.setenv("SSL_CERT_FILE", authority)
        assert asked(f"https://127.0.0.1:{port}") is None
        assert asked(f"http://127.0.0.1:{port}") == ("answers with status 400", "is it https://?")
        assert asked(web.url.replace("http", "https")) == (
            "cannot be reached (it does not speak TLS)",
            "is it http://?",
        )


def certified(folder: Path) -> tuple[str, str, str]:
    """Return an authority's certificate, one for this machine that it has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=cache",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem "
        "-extfile names",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=folder)
    return str(folder / "ca.pem"), str(folder / "leaf.pem"), str(folder / "leaf.key")
