"""JSON Schemas of patterns: read once, with what they refer to; what a pattern lacks by one.

Unaware of rules and steps.  `jsonschema` is imported by whoever makes a `Schemas`.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import posixpath
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from . import disk, keys, places, texts
from .errors import DeclarationError, StepError, cause, nearest
from .keys import WHOLE
from .model import Input, Pattern, Stat
from .patterns import EXPLAINED, FEW, noun, selected

#: So many faults of one pattern are told, the others counted.
_MOST = 20
#: A value that takes more characters is told by what it is.
_SHORT = 40
_TYPES = {
    "object": "a table",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "a boolean",
    "null": "null",
}


def need_library(where: str) -> None:
    """Refuse a schema where there is nothing to read it.

    Raises:
        DeclarationError: the extra is not installed.
    """
    if importlib.util.find_spec("jsonschema") is None:
        hint = "pip install 'codegen-tasks[schema]'"
        raise DeclarationError(where, "schema= needs jsonschema", hint)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a pattern: where in it, what, and what to do."""

    place: tuple[Any, ...]
    what: str
    hint: str = ""


@dataclass(slots=True)
class _Schema:
    """A schema as it was read, ready to judge.

    Args:
        path: of its file, project-relative.
        validator: of `jsonschema`.
        inputs: its file, and those it refers to.
        stats: signatures of these files by path; None: there was none.
        judged: by path, patterns that were judged, and what is wrong with them.
    """

    path: str
    validator: Any
    inputs: list[Input]
    stats: dict[str, Stat | None]
    judged: dict[str, tuple[Pattern, list[Fault]]] = field(default_factory=dict)


class Schemas:
    """The schemas of one project, each read and prepared once per process.

    Args:
        root: absolute path of the project.
    """

    def __init__(self, root: str):
        self._root = root
        self._known: dict[str, _Schema] = {}

    def judge(
        self, path: str, loaded: Sequence[Pattern], guard: Callable[[str], None] | None = None
    ) -> list[Input]:
        """Return a schema's files as inputs.

        Args:
            path: of the schema, project-relative.
            loaded: the patterns that it is to fit.
            guard: is called with each path that is about to be read; may raise.

        Raises:
            StepError: a pattern does not fit it, or it is no schema itself.
        """
        schema = self.prepared(path, guard)
        wrong = {one.path: found for one in loaded if (found := self._faults(schema, one))}
        if wrong:
            raise _told(self._root, path, wrong)
        return schema.inputs

    def prepared(self, path: str, guard: Callable[[str], None] | None = None) -> _Schema:
        """Return a schema, read again if one of its files is another.

        Raises:
            StepError: it cannot be read, or is none.
        """
        known = self._known.get(path)
        if guard is not None:
            for each in known.stats if known is not None else (path,):
                guard(each)
        # A file that could have been written again unnoticed has the signature of none.
        if known is None or any(self._stat(name) != stat for name, stat in known.stats.items()):
            known = self._known[path] = _Reader(self._root, path, guard).schema()
        return known

    def _stat(self, path: str) -> Stat | None:
        return disk.stat(os.path.join(self._root, path))

    @staticmethod
    def _faults(schema: _Schema, pattern: Pattern) -> list[Fault]:
        known = schema.judged.get(pattern.path)
        if known is not None and known[0] is pattern:
            return known[1]
        found = _faults(schema, pattern)
        if len(schema.judged) >= FEW:
            del schema.judged[next(iter(schema.judged))]
        schema.judged[pattern.path] = (pattern, found)
        return found


# Reading a schema -----------------------------------------------------------------------


class _Reader:
    """Reads a schema and, before it is used, all files of the project that it refers to."""

    def __init__(self, root: str, path: str, guard: Callable[[str], None] | None):
        self._root = root
        self._path = path
        self._guard = guard
        self._documents: dict[str, Any] = {}  # by path, project-relative
        self._inputs: dict[str, Input] = {}
        self._stats: dict[str, Stat | None] = {}
        # Where a schema says by `$id` that it lies elsewhere, its neighbours lie there too.
        self._folders: dict[str, str] = {"": posixpath.dirname(path)}

    def schema(self) -> _Schema:
        """Return the schema, ready to judge."""
        content = self._read(self._path)
        if content is None:
            raise StepError(self._path, "there is no such schema", "see schema= of the rule")
        self._follow(content, "")
        validator = self._validator(content)
        return _Schema(self._path, validator, list(self._inputs.values()), self._stats)

    def _validator(self, content: Any) -> Any:
        from jsonschema import exceptions, validators
        from referencing import Registry, Resource
        from referencing.exceptions import NoSuchResource
        from referencing.jsonschema import DRAFT202012

        def retrieve(uri: str) -> Any:
            path = self._local(uri)
            document = self._documents.get(path) if path is not None else None
            if document is None:
                raise NoSuchResource(uri)
            return Resource.from_contents(document, default_specification=DRAFT202012)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a dialect that it does not know
            kind = validators.validator_for(content, default=validators.Draft202012Validator)
        for path, document in self._documents.items():
            try:
                validators.validator_for(document, default=kind).check_schema(document)
            except exceptions.SchemaError as error:
                raise _told(self._root, "", {path: [*_of(error)]}) from None
        registry: Any = Registry
        return kind(content, registry=registry(retrieve=retrieve))

    def _read(self, path: str) -> Any:
        """Return a document; None if there is none."""
        if self._guard is not None:
            self._guard(path)
        full = os.path.join(self._root, path)
        if not disk.is_inside(full, self._root):
            raise StepError(path, "a schema cannot lie outside the project")
        try:
            raw, signature = disk.read_signed(full)
        except FileNotFoundError:
            self._inputs[path], self._stats[path] = Input("json", path, ""), None
            return None
        except OSError as error:
            raise StepError(path, f"cannot read: {cause(error)}") from None
        stat = disk.recorded(signature)
        try:
            data = texts.parsed(path, texts.decoded(path, raw), json.loads)
            content, text = selected("json", path, data, WHOLE)
        except (RecursionError, TypeError, ValueError):
            raise StepError(path, "is nested too deeply, or holds what no schema does") from None
        if not isinstance(data, (dict, bool)):
            raise StepError(path, f"a schema is a table or a boolean, not {noun(data)}")
        shown = text if len(text) <= EXPLAINED else ""
        self._inputs[path] = Input("json", path, content, stat, shown, WHOLE)
        self._stats[path] = stat
        self._documents[path] = data
        return data

    def _follow(self, schema: Any, base: str, at_top: bool = True) -> None:
        """Read what a schema refers to, at any remove."""
        if isinstance(schema, list):
            for part in schema:
                self._follow(part, base, at_top=False)
        if not isinstance(schema, dict):
            return
        own = schema.get("$id")
        if isinstance(own, str) and own:
            if at_top and (here := self._local(base) if base else self._path) is not None:
                folder = urljoin(urljoin(base, own), ".")
                if folder.endswith("/"):
                    self._folders.setdefault(folder, posixpath.dirname(here))
            base = urljoin(base, own)
        for key, part in schema.items():
            if key in ("properties", "patternProperties") and isinstance(part, dict):
                # The library does not tell where a value stands that is forbidden by `false`.
                part.update({name: {"not": {}} for name, one in part.items() if one is False})
            if key in ("$ref", "$dynamicRef") and isinstance(part, str):
                self._refer(urldefrag(urljoin(base, part)).url)
            else:
                self._follow(part, base, at_top=False)

    def _refer(self, uri: str) -> None:
        path = self._local(uri) if uri else None
        if path is None or path in self._inputs or path in self._documents:
            return
        document = self._read(path)
        if document is not None:
            self._follow(document, uri)

    def _local(self, uri: str) -> str | None:
        """Return the file of the project that a reference means; None if it means none."""
        folder = max((f for f in self._folders if uri.startswith(f)), key=len)
        rest = uri.removeprefix(folder)
        parts = urlsplit(rest)
        if not rest or parts.scheme or parts.netloc or rest.startswith("/"):
            return None
        path = posixpath.normpath(posixpath.join(self._folders[folder], unquote(parts.path)))
        return None if path == ".." or path.startswith("../") or "\0" in path else path


# Judging a pattern ----------------------------------------------------------------------


def _faults(schema: _Schema, pattern: Pattern) -> list[Fault]:
    """Return what is wrong with a pattern, in the schema's order."""
    try:
        data = _plain(pattern.data)
        errors = list(schema.validator.iter_errors(data))
    except RecursionError:
        raise StepError(schema.path, "refers to itself without an end") from None
    except Exception as error:
        # The library meets what the schema says only now: a reference to nothing, an
        # expression that is none.  It has no one kind of exception for that.
        said = str(error).strip().partition("\n")[0].removesuffix(".")
        raise StepError(schema.path, f"cannot be used: {said or type(error).__name__}") from None
    return list(dict.fromkeys(fault for error in errors for fault in _of(error)))


def _plain(value: Any) -> Any:
    """Return data as JSON has it: dates as text, names of keys too."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value


def _of(error: Any) -> Iterator[Fault]:
    """Yield what one error of the library says, in our words."""
    place, value, rule = tuple(error.absolute_path), error.instance, error.validator
    if rule in ("anyOf", "oneOf") and error.context:
        yield from _of_choice(error)
    elif rule == "additionalProperties" and error.validator_value is False:
        known = error.schema.get("properties", {})
        for key in _surplus(value, error.schema):
            yield Fault((*place, key), "unknown key", nearest(key, known))
    elif rule == "required":
        for key in error.validator_value:
            if key not in value:
                yield Fault(place, f"lacks '{key}'", "")
    elif rule == "enum":
        among = ", ".join(json.dumps(each, ensure_ascii=False) for each in error.validator_value)
        hint = nearest(value, filter(_is_text, error.validator_value)) if _is_text(value) else ""
        yield Fault(place, f"{_shown(value)} is none of {among}", hint)
    else:
        yield Fault(place, _what(rule, value, error.validator_value, error.message))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _surplus(value: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return the keys of a table that its schema does not know."""
    known, fitting = schema.get("properties", {}), schema.get("patternProperties", {})
    return [k for k in value if k not in known and not any(re.search(p, k) for p in fitting)]


def _of_choice(error: Any) -> Iterator[Fault]:
    """Yield what is wrong by the alternative that was meant, as far as that can be told."""
    branches: dict[Any, list[Any]] = {}
    for each in error.context:
        branches.setdefault(each.schema_path[0], []).append(each)
    place, all_of = tuple(error.absolute_path), list(branches.values())
    named = [_names(found, len(place)) for found in all_of]
    kinds = [_kinds(found, len(place)) for found in all_of]
    meant = [n for n in range(len(all_of)) if not named[n] and not kinds[n]]
    if meant:
        for each in min((all_of[n] for n in meant), key=len):
            yield from _of(each)
        return
    rest = [names for names, kind in zip(named, kinds, strict=True) if not kind]
    keys_of_all = set.intersection(*map(set, rest)) if rest else set()
    for key in sorted(keys_of_all, key=str)[:1]:
        known = list(dict.fromkeys(one for names in rest for one in names[key]))
        value = error.instance[key]
        hint = nearest(value, filter(_is_text, known)) if _is_text(value) else ""
        what = f"{_shown(value)} is none of {', '.join(map(_shown, known))}"
        yield Fault((*place, key), what, hint)
    if not keys_of_all:
        wanted = [one for kind in kinds for one in kind]
        told = _what("type", error.instance, wanted, "") if wanted and not rest else ""
        yield Fault(place, told or "fits none of the alternatives")


def _names(found: Iterable[Any], depth: int) -> dict[Any, list[Any]]:
    """Return the keys that tell a table from one alternative, and the values they would have."""
    return {
        each.absolute_path[-1]: _listed(each.validator_value)
        for each in found
        if each.validator in ("const", "enum") and len(each.absolute_path) == depth + 1
    }


def _kinds(found: Iterable[Any], depth: int) -> list[Any]:
    """Return the types that one alternative would have had."""
    return [
        one
        for each in found
        if each.validator == "type" and len(each.absolute_path) == depth
        for one in _listed(each.validator_value)
    ]


def _what(rule: str | None, value: Any, limit: Any, said: str) -> str:
    """Return what is wrong with a value by one keyword of a schema."""
    shown = _shown(value)
    if rule is None:
        return f"{shown} is not allowed"
    if rule == "type":
        wanted = _either(_TYPES.get(one, str(one)) for one in _listed(limit))
        what = noun(value)
        return f"is {what}, not {wanted}" if shown == what else f"{shown} is {what}, not {wanted}"
    counted = {"minLength": "character", "maxLength": "character"}
    counted |= {"minItems": "item", "maxItems": "item"}
    counted |= {"minProperties": "key", "maxProperties": "key"}
    if rule in counted:
        side = "fewer" if rule.startswith("min") else "more"
        many = "" if len(value) == 1 else "s"
        return f"has {len(value)} {counted[rule]}{many}, {side} than {limit}"
    words = {
        "minimum": f"{shown} is less than the minimum of {limit}",
        "maximum": f"{shown} is more than the maximum of {limit}",
        "exclusiveMinimum": f"{shown} is not more than {limit}",
        "exclusiveMaximum": f"{shown} is not less than {limit}",
        "multipleOf": f"{shown} is no multiple of {limit}",
        "pattern": f"{shown} does not match {limit}",
        "format": f"{shown} is no valid {limit}",
        "const": f"{shown} is not {json.dumps(limit, ensure_ascii=False, default=str)}",
        "uniqueItems": "holds an item twice",
        "not": f"{shown} is what the schema forbids",
        "oneOf": f"{shown} fits more than one alternative",
    }
    fallback = said[:1].lower() + said[1:].removesuffix(".")
    return words.get(rule, fallback if len(fallback) <= 200 else f"{fallback[:199]}…")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _either(names: Iterable[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last


def _shown(value: Any) -> str:
    """Return a value as JSON writes it; what is long, by what it is."""
    if isinstance(value, (dict, list)) and value:
        return noun(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"


# Telling --------------------------------------------------------------------------------


def _told(root: str, schema: str, wrong: Mapping[str, Sequence[Fault]]) -> StepError:
    """Return the error that tells all faults of some files by a schema; "" is that of schemas."""
    lines: list[tuple[str, int, Fault, str]] = []
    for path, faults in wrong.items():
        text = _text(root, path)
        found = [(path, places.line_of(path, text, fault.place), fault, text) for fault in faults]
        lines += sorted(found, key=lambda one: one[1])
    if len(lines) == 1:
        path, line, fault, text = lines[0]
        said = texts.source_line(text, line)
        return StepError(_where(path, line), _said(fault), fault.hint, said)
    details = []
    for path, line, fault, _ in lines[:_MOST]:
        hint = f" ({fault.hint})" if fault.hint else ""
        details.append(f"{_where(path, line)}: {_said(fault)}{hint}")
    if len(lines) > _MOST:
        details.append(f"and {len(lines) - _MOST} more")
    judge = f"by {schema}" if schema else "as a schema"
    where = next(iter(wrong)) if len(wrong) == 1 else f"{len(wrong)} patterns"
    return StepError(where, f"{len(lines)} faults {judge}", details=details)


def _where(path: str, line: int) -> str:
    return f"{path}:{line}" if line else path


def _said(fault: Fault) -> str:
    place = keys.place(fault.place)
    return f"{place}: {fault.what}" if place else fault.what


def _text(root: str, path: str) -> str:
    """Return a file's text, to show it; "" if it is not to be had."""
    try:
        return disk.read(os.path.join(root, path)).decode("utf-8")
    except (OSError, ValueError):
        return ""
