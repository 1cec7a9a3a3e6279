"""What travels between a run and the processes that run its steps on Dask workers.

Between two Dask processes it is tables of plain values, so that whoever has another version
of this package can still say so; the rest is pickled, and read once versions are known to agree.
"""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import TypeAlias

from ..model import Result, Step
from ..remote.parcels import Blob
from ..settings import Settings

#: Files by path: digest, and whether it can be executed; a digest of "" says there is none.
Files: TypeAlias = Mapping[str, tuple[str, bool]]
#: Contents by digest.
Contents: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Shared:
    """The remote cache of a run: nothing that is secret.

    Args:
        url: of the store, without credentials.
        seconds: that one transfer may take.
        writes: whether what steps come to is sent there.
        proof: what only who has the run's key can say of `said`; "" if it has none.
        said: see there.
    """

    url: str
    seconds: float
    writes: bool
    proof: str
    said: str


@dataclass(frozen=True, slots=True)
class Access:
    """How a worker uses a remote cache, secrets included: this stays on its machine.

    Args:
        url: as `address.parsed` takes it.
        seconds, writes: see `Shared`.
        secret, token: see `RemoteCache`.
    """

    url: str
    seconds: float
    writes: bool
    secret: bytes
    token: str


@dataclass(frozen=True, slots=True)
class Load:
    """What a process that is to run steps begins with.

    Args:
        dodo: the file's name, below the project.
        settings: those of the run; the worker's own do not count.
        shared: its remote cache, if it has one.
    """

    dodo: str
    settings: Settings
    shared: Shared | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Steps of one Codegen to run, one after the other or `together`.

    Args:
        name: of the Codegen.
        steps: these.
        together: they share a compiler.
        seconds: after so many, no further step is begun: they take longer than was thought.
        engines: digest of what every render of an engine hangs on, by its name.
        tools: digest of each compiler's version and command, by kind and name.
        stored: the remote cache may be used: it is asked, and given what steps come to.
        anew: it is only given.
    """

    name: str
    steps: tuple[Step, ...]
    together: bool = False
    seconds: float = math.inf
    engines: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[tuple[str, str], str] = field(default_factory=dict)
    stored: bool = False
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Afar:
    """A content that is in the remote cache: digest and size (bytes), and how it travels."""

    digest: str
    size: int
    blob: Blob


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result that the remote cache has.

    Args:
        result: what a step came to, without the contents that are to be fetched there.
        afar: these, by path.
        found: it was there before: nobody has run the step.
    """

    result: Result
    afar: Mapping[str, Afar]
    found: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What a process may read: files as they are in the run's project, or known not to be there.

    Args:
        paths: of files.
        whole: folders of which all else that lies there is known too.
        but: paths in these of which that is not so.
    """

    paths: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    but: frozenset[str] = frozenset()


def facts() -> dict[str, str]:
    """Return what must be the same in both processes, whatever they run."""
    return {
        "python": sys.implementation.cache_tag or sys.version,
        "codegen-tasks": _version("codegen-tasks"),
        "jinja2": _version("jinja2"),
        "tomli": _version("tomli"),
    }


def machine() -> dict[str, str]:
    """Return what must be the same where programs are started, which may not tell it."""
    return {"system": sys.platform, "machine": platform.machine()}


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return the first of our facts that is another there, in words; "" if none is."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            return f"{name} is {theirs.get(name) or 'unknown'} there, {value} here"
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
