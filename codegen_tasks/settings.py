"""Settings of a machine or a moment: `[tool.codegen]` in pyproject.toml, then `CODEGEN_*`.

What a project *is* stands in dodo.py; what is here may change speed, never an output.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from . import address, disk, texts
from .errors import (
    DeclarationError,
    StepError,
    cause,
    known_or_nearest,
    nearest,
    refuse_unknown,
)

PREFIX = "CODEGEN_"
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[^\s/]+:\d+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be switched, and its default.

    Args:
        template_cache: keep compiled templates between runs.
        incremental: skip targets that are up to date; off, everything is made again.
        key_tracking: note which keys of a pattern a render reads; off, each counts whole.
        parallel: obey `doit -n`; off, every run is serial.
        batch: give a compiler many files at once; off, one process per file.
        cache_generations: how many versions of each template the cache keeps.
        maps: write the source map of each generated file when it is rendered, not only when
            somebody asks.
        sandbox_bytes: how much one render may make where `sandbox=True`.
        sandbox_seconds: how long a render may take at most with `sandbox=True`.
        output_cache: take outputs from earlier builds, of other checkouts too, and keep new ones.
        output_cache_folder: where they are kept; "" for the user's cache folder.
        output_cache_bytes: how much is kept there at most.
        output_cache_days: how long something is kept that nobody asks for.
        output_cache_milliseconds: what took less is not kept, since it is made as soon.
        remote_cache: URL of a store behind the user's, where others' outputs are; "" for none.
        remote_cache_write: whether ours are sent there: "true", "false", or "auto" for what CI
            with a key makes.
        remote_cache_seconds: how long one transfer may take.
        dask_scheduler: address of the Dask scheduler that `doit -P dask` uses.
        dask_wait: so many seconds `doit -P dask` waits for workers before it goes on here.
    """

    template_cache: bool = True
    incremental: bool = True
    key_tracking: bool = True
    parallel: bool = True
    batch: bool = True
    cache_generations: int = 5
    maps: bool = False
    sandbox_bytes: int = 50_000_000
    sandbox_seconds: int = 10
    output_cache: bool = True
    output_cache_folder: str = ""
    output_cache_bytes: int = 5_000_000_000
    output_cache_days: int = 30
    output_cache_milliseconds: int = 5
    remote_cache: str = ""
    remote_cache_write: str = "auto"
    remote_cache_seconds: int = 5
    dask_scheduler: str = ""
    dask_wait: int = 60

    @property
    def asks_afar(self) -> bool:
        """Whether there is a remote cache: it is behind the user's, and off with that."""
        return self.output_cache and bool(self.remote_cache)


#: The least that a number may be, where that is not 1.
_LEAST = {"output_cache_milliseconds": 0}
#: Which words a string may be, where it is not any.
_WORDS = {"remote_cache_write": ("auto", "true", "false")}
#: What only the environment tells, for everybody reads pyproject.toml.
_SECRETS = ("remote_cache_key", "remote_cache_token")
_REMOTE = "pyproject.toml [tool.codegen] remote_cache"


def load(folder: str, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in force for the project in `folder`.

    Raises:
        DeclarationError: an unknown key, or a value of the wrong type.
    """
    table = _table(os.path.join(folder, "pyproject.toml"))
    known = {field.name: type(field.default) for field in fields(Settings)}
    _refuse_secrets(table)
    refuse_unknown("pyproject.toml [tool.codegen]", table, known, "key")
    values = {
        name: _checked(f"pyproject.toml [tool.codegen] {name}", name, value, known[name])
        for name, value in table.items()
    }
    for variable, text in (os.environ if environ is None else environ).items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name in known:
                values[name] = _parsed(variable, name, text, known[name])
            elif name not in _SECRETS:
                _warn_of(variable, known)
    return Settings(**values)


def check_address(where: str, address: str) -> None:
    """Refuse what no scheduler's address can be.

    Raises:
        DeclarationError: it is none.
    """
    if not _ADDRESS.fullmatch(address):
        hint = "like tcp://host:8786, as the scheduler tells when it starts"
        raise DeclarationError(where, f"'{address}' is no address of a scheduler", hint)


def _table(path: str) -> dict[str, Any]:
    try:
        text = texts.decoded("pyproject.toml", disk.read(path))
        document = texts.parsed("pyproject.toml", text, tomllib.loads)
    except FileNotFoundError:
        return {}
    except OSError as error:
        what = f"cannot read: {cause(error)}"
        raise DeclarationError("pyproject.toml", what) from None
    except StepError as error:
        raise DeclarationError(error.where, error.what, error.hint, error.details) from None
    tools = document.get("tool", {})
    table = tools.get("codegen", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise DeclarationError("pyproject.toml", "[tool.codegen] must be a table")
    return table


def _refuse_secrets(table: Mapping[str, Any]) -> None:
    for name in _SECRETS:
        if name in table:
            hint = f"it is a secret, and everybody reads this file; set {PREFIX}{name.upper()}"
            raise DeclarationError(
                f"pyproject.toml [tool.codegen] {name}", "does not belong here", hint
            )
    url = table.get("remote_cache", "")
    if isinstance(url, str) and url and address.parsed(_REMOTE, url).login:
        hint = f"everybody reads this file; set {PREFIX}REMOTE_CACHE"
        raise DeclarationError(_REMOTE, "must not hold a password here", hint)


def _checked(where: str, name: str, value: Any, kind: type) -> Any:
    if name in _WORDS and isinstance(value, bool):
        value = str(value).lower()  # as TOML has it
    small = isinstance(value, int) and kind is int and value < _LEAST.get(name, 1)
    if type(value) is not kind or small:
        given = "" if name == "remote_cache" else f", not {value!r}"  # it may hold a password
        raise DeclarationError(where, f"must be {_words(name, kind)}{given}")
    return _worded(where, name, value) if isinstance(value, str) else value


def _worded(where: str, name: str, value: str) -> str:
    if name in _WORDS and value not in _WORDS[name]:
        hint = known_or_nearest(value, _WORDS[name])
        raise DeclarationError(where, f"unknown value '{value}'", hint)
    if name == "remote_cache" and value:
        address.parsed(where, value)
    return value


def _parsed(variable: str, name: str, text: str, kind: type) -> Any:
    if kind is str:
        on = switch(text) if name in _WORDS else None
        return _worded(variable, name, text if on is None else str(on).lower())
    if kind is bool:
        on = switch(text)
        if on is not None:
            return on
    elif text.strip().isdigit() and int(text) >= _LEAST.get(name, 1):
        return int(text)
    raise DeclarationError(variable, f"must be {_words(name, kind)}, not {text!r}")


def switch(text: str) -> bool | None:
    """Return what a variable says that is for true or false; None if it says something else."""
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    return False if lowered in ("0", "false", "no", "off") else None


def _words(name: str, kind: type) -> str:
    if name in _WORDS:
        return f"one of {', '.join(_WORDS[name])}"
    if kind is int:
        return f"a whole number from {_LEAST.get(name, 1)}"
    return "true or false" if kind is bool else "a string"


def _warn_of(variable: str, known: Mapping[str, type]) -> None:
    """Say so if a variable looks like a misspelt setting; others may be someone else's."""
    # Without the prefix, which would make everything look alike.
    hint = nearest(variable.removeprefix(PREFIX), [n.upper() for n in (*known, *_SECRETS)])
    if hint:
        hint = hint.replace("'", f"'{PREFIX}", 1)
        print(f"{variable}: no such setting, {hint}", file=sys.stderr)
