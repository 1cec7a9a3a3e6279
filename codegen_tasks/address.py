"""Where a remote cache is: its URL, checked, and as it may be shown; pure, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import DeclarationError, nearest

if TYPE_CHECKING:
    from urllib.parse import SplitResult

#: Schemes that need no more than a folder, a host, or a bucket.
_FOLDER, HOSTS, _BUCKETS = "file", ("http", "https"), ("s3", "gs", "az")
SCHEMES = (_FOLDER, *HOSTS, *_BUCKETS)
_LIKE = {
    "file": "file:///srv/cache",
    "http": "http://cache.example.org:8080/codegen",
    "https": "https://cache.example.org/codegen",
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "az": "az://container/prefix",
}


@dataclass(frozen=True, slots=True)
class Address:
    """A remote cache's URL, its credentials apart.

    Args:
        url: without credentials, so that it may be shown.
        login: what the URL said before the host, as HTTP's basic authentication sends it; "" if
            it said nothing.
    """

    url: str
    login: str = ""

    @property
    def scheme(self) -> str:
        """What kind of store it is."""
        return self.url.partition(":")[0]


def parsed(where: str, url: str) -> Address:
    """Return the address that a URL tells.

    Args:
        where: the setting that it comes from.
        url: as it was given.

    Raises:
        DeclarationError: it is none that leads to a store.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
    except ValueError:
        raise DeclarationError(where, "is no URL", f"like {_LIKE['https']}") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        hint = nearest(scheme, SCHEMES) or f"one of {', '.join(f'{s}://' for s in SCHEMES)}"
        what = f"unknown scheme '{scheme}'" if scheme else "must be a URL"
        raise DeclarationError(where, what, hint)
    what = _lack(parts, scheme)
    if what:
        raise DeclarationError(where, what, f"like {_LIKE[scheme]}")
    host = parts.netloc.rpartition("@")[2]
    url = f"{scheme}://{host}{parts.path.rstrip('/')}"
    return Address(url, _login(parts) if scheme in HOSTS else "")


def _lack(parts: SplitResult, scheme: str) -> str:
    """Return what is wrong with the URL of a scheme; "" if nothing is."""
    if parts.query or parts.fragment:
        return "must end with a path, without '?' and '#'"
    if scheme == _FOLDER:
        absolute = not parts.netloc and parts.path.startswith("/") and parts.path.strip("/")
        return "" if absolute else "must name a folder from the root"
    if not parts.hostname:
        return f"must name a {'host' if scheme in HOSTS else 'bucket'}"
    if scheme in _BUCKETS and "@" in parts.netloc:
        return "must not hold credentials: the store's own environment variables do"
    return ""


def _login(parts: SplitResult) -> str:
    import base64
    from urllib.parse import unquote

    if parts.username is None:
        return ""
    said = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return base64.b64encode(said.encode()).decode()
