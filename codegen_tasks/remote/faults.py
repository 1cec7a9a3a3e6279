"""What is wrong with a store, in words of ours: the library's may tell what is secret; pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from ..address import HOSTS


class Fault(NamedTuple):
    """What a store does or is, and what may help; "" if nobody knows."""

    what: str
    hint: str = ""


#: What obstore says where it has found no credentials, and nobody that would give it some.
_UNKNOWN = re.compile(r"169\.254\.169\.254|token request|must be specified|MissingAccount")
#: The first of the variables that tell a store's credentials.
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME",
}
#: Variables that lead to other servers than the provider's; obstore panics at what is no URL.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_STATUS = re.compile(r"status code: (\d+)")
#: What obstore's errors call the ways in which a request can fail.
_KIND = re.compile(r"HttpError \{\s+kind: (\w+)")
_KINDS = {
    "Connect": "cannot be reached",
    "Timeout": "does not answer in time",
    "Interrupted": "breaks off",
}
_SYSTEM = re.compile(r"os error (\d{1,3})\b|code: (\d{1,3})\b")
_FILE = "GOOGLE_APPLICATION_CREDENTIALS names it"
#: What is told better than by its kind: a mark of it, and what it is.
_MARKS = (
    (
        re.compile(r"InvalidCertificate"),
        Fault(
            "has a certificate that is not trusted",
            "SSL_CERT_FILE names a file of authorities to trust; is the host's name right?",
        ),
    ),
    (
        re.compile(r"InvalidContentType|CorruptMessage"),
        Fault("cannot be reached (it does not speak TLS)", "is it http://?"),
    ),
    (
        re.compile(r"dns error"),
        Fault("cannot be reached (no such host)", "is the host's name right?"),
    ),
    (
        re.compile(r"ConnectionRefused"),
        Fault("cannot be reached (connection refused)", "does it run, and is the port right?"),
    ),
    (
        re.compile(r"DecodeCredentials"),
        Fault("needs credentials, whose file holds none", _FILE),
    ),
    (
        re.compile(r"Error\(\s*(Parse\(|UnexpectedMessage)"),
        Fault("answers with something else", "does the URL lead to a store?"),
    ),
    (re.compile(r"InvalidAccessKey"), Fault("needs AZURE_STORAGE_ACCOUNT_KEY to be a key")),
    (
        re.compile(r"configured region"),
        Fault("is in another region", "AWS_REGION tells which"),
    ),
)
_LOGIN = (
    "user and password stand in CODEGEN_REMOTE_CACHE, https://user:password@…; "
    "a token in CODEGEN_REMOTE_CACHE_TOKEN"
)
_PUT = "does the path lead to where it takes PUT?"


def of(error: BaseException, scheme: str, what: str) -> Fault:
    """Return what is wrong.

    Args:
        error: as obstore has raised it.
        scheme: of the store's URL.
        what: "get" or "put".
    """
    said = str(error)
    if scheme in _CREDENTIALS and _UNKNOWN.search(said):
        return Fault(f"needs credentials ({_CREDENTIALS[scheme]}, …)")
    status = _STATUS.search(said)
    if status is not None:  # what follows it, anybody may have written
        plain = status[1] == "400" and scheme == "http" and "HTTPS port" in said
        hint = "is it https://?" if plain else _advice(scheme, what, int(status[1]))
        return Fault(f"answers with status {status[1]}", hint)
    if "OpenCredentials" in said:
        return Fault(f"needs credentials, whose file cannot be read{_cause(said)}", _FILE)
    for mark, fault in _MARKS:
        if mark.search(said):
            return fault
    kind = _KIND.search(said)
    if kind is not None and kind[1] in _KINDS:
        return Fault(_KINDS[kind[1]])
    hint = "is the path right? who writes makes the folder" if "Canonicalize" in said else ""
    return Fault(f"cannot be used{_cause(said)}", hint if scheme == "file" else "")


def of_endpoint(scheme: str, environ: Mapping[str, str]) -> Fault | None:
    """Return what is wrong with where a store is said to be; None if nothing is."""
    for name in _ENDPOINTS.get(scheme, ()):
        if environ.get(name) and not _is_url(environ[name]):
            return Fault(f"needs {name} to be a URL", f"like {name}=http://minio.example.org:9000")
    return None


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        return parts.scheme in HOSTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _cause(said: str) -> str:
    """Return what the system says of it, in brackets; "" if that is not known."""
    found = _SYSTEM.search(said)
    return f" ({os.strerror(int(found[1] or found[2])).lower()})" if found is not None else ""


def _advice(scheme: str, what: str, status: int) -> str:
    """Return what may help against a status."""
    if status in (401, 403):
        if scheme in HOSTS:
            return _LOGIN
        return f"may these credentials {'write' if what == 'put' else 'read'} there?"
    if status == 413:
        return "it takes no files so large; nginx: client_max_body_size"
    if what == "put" and status in (404, 405, 409):
        return _PUT if scheme in HOSTS else "is there such a bucket?"
    return ""
