"""What `dodo.py` gives us, checked at once: options, folders, globs, toolchains, functions.

Each check raises DeclarationError, or returns its argument in the one form used from there on.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import posixpath
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import toolchains
from .errors import DeclarationError, nearest, refuse_unknown
from .toolchains import Toolchain


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_prefix(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_autoescape(value: Any) -> bool:
    return isinstance(value, bool) or callable(value)


def _is_finalize(value: Any) -> bool:
    return value is None or callable(value)


def _is_undefined(value: Any) -> bool:
    """Tell whether it is a class derived from jinja2.Undefined, without importing that."""
    bases = value.__mro__ if isinstance(value, type) else ()
    return any((c.__module__, c.__name__) == ("jinja2.runtime", "Undefined") for c in bases)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(it, (str, type)) for it in value)


_Kind = tuple[Callable[[Any], bool], str]
_TEXT: _Kind = (_is_text, "a string that is not empty")
_PREFIX: _Kind = (_is_prefix, "a string that is not empty, or None")
_FLAG: _Kind = (_is_flag, "True or False")
#: Jinja2's environment options that a project may set; the others are ours to set.
_OPTIONS: dict[str, _Kind] = {
    "autoescape": (_is_autoescape, "True, False or a function"),
    "block_end_string": _TEXT,
    "block_start_string": _TEXT,
    "comment_end_string": _TEXT,
    "comment_start_string": _TEXT,
    "extensions": (_is_list, "a list of names or classes"),
    "finalize": (_is_finalize, "a function or None"),
    "keep_trailing_newline": _FLAG,
    "line_comment_prefix": _PREFIX,
    "line_statement_prefix": _PREFIX,
    "lstrip_blocks": _FLAG,
    "newline_sequence": _TEXT,
    "optimized": _FLAG,
    "trim_blocks": _FLAG,
    "undefined": (_is_undefined, "a class derived from jinja2.Undefined"),
    "variable_end_string": _TEXT,
    "variable_start_string": _TEXT,
}
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
#: Functions that every template has.
OUR_FUNCTIONS = ("read_text", "read_json", "read_toml", "read_yaml")


def table(key: str, value: Any) -> dict[str, Any]:
    """Return a table of names as a dict of its own; None is empty."""
    if value is not None and not isinstance(value, Mapping):
        raise DeclarationError("Codegen", f"{key} must be a dict, not {value!r}")
    for name in value or ():
        if not isinstance(name, str):
            raise DeclarationError(f"Codegen {key}", f"a key must be a string, not {name!r}")
    return dict(value or {})


def refuse_taken(names: Iterable[str]) -> None:
    """Refuse globals that would hide a function which every template has."""
    for name in names:
        if name in OUR_FUNCTIONS:
            what = f"every template already has a function '{name}'"
            raise DeclarationError("Codegen globals", what)


def options(where: str, given: Mapping[str, Any]) -> None:
    """Refuse what Jinja2 would refuse, without importing it."""
    refuse_unknown(where, given, _OPTIONS, "option")
    extensions = given.get("extensions", ())
    if isinstance(extensions, str):
        hint = f"extensions=[{extensions!r}]"
        raise DeclarationError(where, "extensions must be a list", hint)
    for key, value in given.items():
        fits, noun = _OPTIONS[key]
        if not fits(value):
            raise DeclarationError(where, f"{key} must be {noun}, not {value!r}")
    starts = {key: given.get(key, default) for key, default in _STARTS.items()}
    for first, second in itertools.combinations(starts, 2):
        if starts[first] == starts[second]:
            what = f"{first} and {second} are both {starts[first]!r}"
            raise DeclarationError(where, what)
    newline = given.get("newline_sequence", "\n")
    if newline not in ("\n", "\r\n", "\r"):
        raise DeclarationError(where, f"newline_sequence cannot be {newline!r}")
    for extension in extensions:
        if isinstance(extension, str):
            _check_extension(where, extension)


def _check_extension(where: str, name: str) -> None:
    """Refuse one that Jinja2 does not have, or whose package is not installed."""
    package = name.partition(".")[0]
    if package == "jinja2":
        refuse_unknown(where, [name], _EXTENSIONS, "extension")
    elif not _is_module(package):
        raise DeclarationError(where, f"extension '{name}': there is no module '{package}'")


def _is_module(name: str) -> bool:
    # `find_spec` refuses the empty name, and a loaded module without a spec such as `__main__`.
    return name in sys.modules or (name != "" and importlib.util.find_spec(name) is not None)


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


def schema(where: str, given: Any, globs: tuple[str, ...]) -> str | None:
    """Return the path of a rule's schema, plain; None if it has none."""
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise DeclarationError(where, f"schema must be the path of a JSON Schema, not {given!r}")
    if not globs:
        raise DeclarationError(where, "schema= needs patterns=")
    path = posixpath.normpath(os.fspath(given).replace(os.sep, "/"))
    if os.path.isabs(path) or path.split("/")[0] == "..":
        raise DeclarationError(where, f"the schema '{given}' lies outside of the project")
    return path


def formatter(where: str, given: Any) -> Any:
    """Return a rule's formatter; None if it has none."""
    if given is None:
        return None
    from .formats import Formatter  # few rules have one

    if isinstance(given, Formatter):
        return given
    command = toolchains.command_words(where, "format", given)
    return Formatter(os.path.splitext(os.path.basename(command[0]))[0] or command[0], command)


def mode(where: str, given: Any) -> int | None:
    """Return the permissions of a rule's targets; None if they are the system's affair."""
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= 0o777:
        what = f"mode must be permissions such as 0o755, not {given!r}"
        raise DeclarationError(where, what)
    if not given & 0o400:
        raise DeclarationError(
            where, f"mode 0o{given:03o}: its owner must be able to read a target"
        )
    return given


def newline(where: str, given: Any) -> str | None:
    """Return what ends the lines of a rule's targets; None if the template says it."""
    if given not in (None, "\n", "\r\n"):
        raise DeclarationError(where, f"newline must be '\\n' or '\\r\\n', not {given!r}")
    return None if given is None else str(given)


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
    if kind == "function" and name in OUR_FUNCTIONS:
        raise DeclarationError(f"function {name}", "every template already has one of that name")
    if name in known:
        raise DeclarationError(f"{kind} {name}", "is declared twice")
    return given


def refuse_namesakes(names: Iterable[str]) -> None:
    """Refuse two Codegen objects of one `dodo.py` whose tasks would have the same names."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            what = f"two Codegen objects {f'have the name {name!r}' if name else 'lack a name'}"
            raise DeclarationError("dodo.py", what, 'tell them apart: Codegen(name="other", ...)')
        seen.add(name)
