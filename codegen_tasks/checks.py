"""What `dodo.py` gives us, checked at once: options, folders, globs, toolchains, functions.

Each check raises DeclarationError, or returns its argument in the one form used from there on.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from . import toolchains
from .errors import DeclarationError, nearest, refuse_unknown
from .toolchains import Toolchain

#: Jinja2's environment options that a project may set; the others are ours to set.
_OPTIONS = (
    "autoescape",
    "block_end_string",
    "block_start_string",
    "comment_end_string",
    "comment_start_string",
    "extensions",
    "finalize",
    "keep_trailing_newline",
    "line_comment_prefix",
    "line_statement_prefix",
    "lstrip_blocks",
    "newline_sequence",
    "optimized",
    "trim_blocks",
    "undefined",
    "variable_end_string",
    "variable_start_string",
)
#: The delimiters that Jinja2 must be able to tell apart, and its defaults.
_STARTS = {
    "block_start_string": "{%",
    "variable_start_string": "{{",
    "comment_start_string": "{#",
}
#: The extensions that come with Jinja2 3.1.
_EXTENSIONS = tuple(
    f"jinja2.ext.{name}"
    for name in (
        *("debug", "do", "i18n", "loopcontrols"),
        *("DebugExtension", "ExprStmtExtension", "InternationalizationExtension"),
        "LoopControlExtension",
    )
)
_OUR_FUNCTIONS = ("read_text", "read_json", "read_toml")


def table(key: str, value: Any) -> dict[str, Any]:
    """Return a table of names as a dict of its own; None is empty."""
    if value is not None and not isinstance(value, Mapping):
        raise DeclarationError("Codegen", f"{key} must be a dict, not {value!r}")
    return dict(value or {})


def refuse_taken(names: Iterable[str]) -> None:
    """Refuse globals that would hide a function which every template has."""
    for name in names:
        if name in _OUR_FUNCTIONS:
            what = f"every template already has a function '{name}'"
            raise DeclarationError("Codegen globals", what)


def options(where: str, given: Mapping[str, Any]) -> None:
    """Refuse what Jinja2 would refuse, without importing it."""
    refuse_unknown(where, given, _OPTIONS, "option")
    starts = {key: given.get(key, default) for key, default in _STARTS.items()}
    for first, second in itertools.combinations(starts, 2):
        if starts[first] == starts[second]:
            what = f"{first} and {second} are both {starts[first]!r}"
            raise DeclarationError(where, what)
    newline = given.get("newline_sequence", "\n")
    if newline not in ("\n", "\r\n", "\r"):
        raise DeclarationError(where, f"newline_sequence cannot be {newline!r}")
    extensions = given.get("extensions", ())
    if isinstance(extensions, str):
        hint = f"extensions=[{extensions!r}]"
        raise DeclarationError(where, "extensions must be a list", hint)
    for extension in extensions:
        if isinstance(extension, str):
            _check_extension(where, extension)


def _check_extension(where: str, name: str) -> None:
    """Refuse one that Jinja2 does not have, or whose package is not installed."""
    package = name.partition(".")[0]
    if package == "jinja2":
        refuse_unknown(where, [name], _EXTENSIONS, "extension")
    elif importlib.util.find_spec(package) is None:
        raise DeclarationError(where, f"extension '{name}': there is no module '{package}'")


def folder(key: str, value: Any) -> str:
    """Return a folder inside the project, forward slashes, no trailing one."""
    if not isinstance(value, (str, os.PathLike)):
        raise DeclarationError("Codegen", f"{key} must be the name of a folder, not {value!r}")
    path = posixpath.normpath(os.fspath(value).replace(os.sep, "/"))
    if os.path.isabs(path) or path == "." or path.startswith(".."):
        what = f"{key} must be a folder inside the project, not {os.fspath(value)!r}"
        raise DeclarationError("Codegen", what)
    return path


def refuse_overlap(folders: Mapping[str, str]) -> None:
    """Refuse folders that lie in one another."""
    for first, path in folders.items():
        for second, other in folders.items():
            if first != second and (path + "/").startswith(other + "/"):
                what = f"{first} folder '{path}' lies in the {second} folder '{other}'"
                raise DeclarationError("Codegen", what)


def globs(where: str, patterns: Any) -> tuple[str, ...]:
    """Return the globs of a rule; () if it has none."""
    if patterns is None:
        return ()
    if isinstance(patterns, (str, os.PathLike)):
        patterns = (patterns,)
    listed = isinstance(patterns, Iterable) and not isinstance(patterns, (bytes, Mapping))
    given = tuple(patterns) if listed else ()
    if not given or not all(isinstance(glob, (str, os.PathLike)) for glob in given):
        what = f"patterns must be a glob or a list of globs, not {patterns!r}"
        raise DeclarationError(where, what)
    found = tuple(os.fspath(glob).replace(os.sep, "/") for glob in given)
    for glob in found:
        if os.path.isabs(glob) or ".." in glob.split("/"):
            raise DeclarationError(where, f"patterns '{glob}' lies outside of the project")
    return found


def chain(where: str, compile_: Any) -> tuple[Toolchain, ...]:
    """Return a rule's compile steps."""
    if compile_ is None:
        return ()
    links = compile_ if isinstance(compile_, (list, tuple)) else [compile_]
    found_all = []
    for link in links:
        found = link if isinstance(link, Toolchain) else toolchains.builtin(str(link))
        if found is None:
            hint = nearest(str(link), toolchains.names()) or (
                f"built in: {', '.join(toolchains.names())}; or pass a Toolchain"
            )
            raise DeclarationError(where, f"unknown toolchain '{link}'", hint)
        found_all.append(found)
    return tuple(found_all)


def context(where: str, given: Any) -> Any:
    """Return a rule's context: None, a table, or a module-level function."""
    if given is None or isinstance(given, Mapping):
        return given
    if not callable(given):
        raise DeclarationError(where, f"context must be a dict or a function, not {given!r}")
    if "<" in getattr(given, "__qualname__", ""):
        hint = "define it with def at the top of a module"
        raise DeclarationError(where, "context must be a module-level function", hint)
    return given


def function(kind: str, name: str, known: Mapping[str, Any], given: Any) -> Any:
    """Return a function that is to be a filter, test or function of the templates."""
    if not callable(given):
        raise DeclarationError(f"{kind} {name or given!r}", "is not a function")
    if not name or name == "<lambda>":
        hint = f'use @codegen.{kind}("name")'
        raise DeclarationError(kind, "a function without a name needs one", hint)
    if kind == "function" and name in _OUR_FUNCTIONS:
        raise DeclarationError(f"function {name}", "every template already has one of that name")
    if name in known:
        raise DeclarationError(f"{kind} {name}", "is declared twice")
    return given
