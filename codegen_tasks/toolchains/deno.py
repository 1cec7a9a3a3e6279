"""The `deno` toolchain: TypeScript checked and transpiled, many files at a time.

`deno transpile` leaves `./runtime.ts` in the imports of the JavaScript, which deno would
run and a browser would not.  So the specifiers are rewritten before transpiling, at the
places `deno info` tells from its own parse, never by searching text: `.ts` and `.js` have
the same length, hence every line and column of the source maps stays right.

The module graph from the same `deno info` is what a file's check has read, types included.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from .. import disk, process
from ..errors import StepError
from .base import Compiled, Site, Toolchain, Unit

_FLAGS = ("--quiet", "--no-config", "--no-lock")
_OTHER_SUFFIX = {".ts": ".js", ".mts": ".mjs", ".cts": ".cjs", ".tsx": ".js"}
_ENTRY = "entry.ts"
#: The end of something that could be a specifier of TypeScript, or any escape.
_LOOKS_LEFT = re.compile(rb"""\.[cm]?tsx?["'`]|\\""")


class Deno(Toolchain):
    """Check and transpile; the map of `bloom.js` is `bloom.js.map` beside it."""

    @property
    def shares_process(self) -> bool:
        """Starting the type checker takes a second, checking one more file next to nothing."""
        return True

    def outputs(self, source: str) -> tuple[str, ...]:
        """Return the JavaScript file and its source map."""
        base, suffix = os.path.splitext(source)
        target = base + _OTHER_SUFFIX.get(suffix, self.suffix)
        return (target, target + ".map")

    def environ(self, cache: str) -> dict[str, str]:
        """Keep deno's own caches in the state folder, and its output plain."""
        return {
            "DENO_DIR": os.path.join(cache, "deno"),
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
            "RUST_BACKTRACE": "0",
        }

    def character(self, line: str, column: int) -> int:
        """Return which character is meant: the type checker counts UTF-16 units."""
        from ..maps import character

        return character(line, column - 1) + 1 if column else 0

    def references(self, text: str) -> list[str]:
        """Return everything in quotes that begins like a relative module specifier."""
        return re.findall(r"""["'](\.{1,2}/[^"'\n]+)["']""", text)

    def compile(self, units: Sequence[Unit], site: Site, timeout: float | None) -> list[Compiled]:
        """Compile all units in one go; if one is bad, the others in another."""
        limit = timeout if timeout is not None else self.timeout
        deno = _Run(self, self.find(), site, limit)
        done: dict[str, Compiled] = {}
        waiting = list(units)
        while waiting:
            results = deno.batch(waiting)
            done.update(results)
            waiting = [unit for unit in waiting if unit.source not in results]
        return [done[unit.source] for unit in units]


@dataclass(slots=True)
class _Graph:
    """The modules reached from a batch: what each imports, and where in its text."""

    imports: dict[str, list[str]] = field(default_factory=dict)
    spans: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def closure(self, path: str) -> list[str]:
        """Return all files a module imports, at any remove, itself left out."""
        seen = {path: None}
        todo = [path]
        while todo:
            for name in self.imports.get(todo.pop(), ()):
                if name not in seen:
                    seen[name] = None
                    todo.append(name)
        return [name for name in seen if name != path]


@dataclass(frozen=True, slots=True)
class _Run:
    tool: Deno
    program: str
    site: Site
    limit: float | None

    def batch(self, units: Sequence[Unit]) -> dict[str, Compiled]:
        """Compile a batch; a result for each unit, or, if some are bad, at least for those."""
        # URLs: deno would take a name for an option, a package or a glob.
        urls = [_url(self._full(unit.source)) for unit in units]
        # Checking takes longest, and what else is to do needs nothing of it.
        with self._started(["check", *_FLAGS, *urls]) as checking:
            graph = self._graph([self._full(unit.source) for unit in units])
            stage = os.path.join(self.site.scratch, "stage")
            self._stage(stage, units, graph)
            transpiled = self._transpile(stage, [unit.source for unit in units])
            checked = checking()
        for said in (checked, transpiled):
            if said.code or said.timed_out:
                return self._bad(units, graph, said)
        return {unit.source: self._result(unit, stage, graph, checked.output) for unit in units}

    def _full(self, path: str) -> str:
        return os.path.join(self.site.root, path)

    def _call(self, arguments: Sequence[str], folder: str | None = None) -> process.Finished:
        with self._started(arguments, folder) as finished:
            return finished()

    def _started(
        self, arguments: Sequence[str], folder: str | None = None
    ) -> contextlib.AbstractContextManager[Callable[[], process.Finished]]:
        environ = self.tool.environ(self.site.cache)
        command = [self.program, *arguments]
        return process.started(command, folder or self.site.root, self.limit, environ)

    # The module graph -------------------------------------------------------------------

    def _graph(self, paths: Iterable[str]) -> _Graph:
        """Ask deno for the modules reached from `paths` (absolute)."""
        entry = os.path.join(self.site.scratch, _ENTRY)
        lines = [f"import {json.dumps(_url(path))};\n" for path in paths]
        disk.write(entry, "".join(lines).encode())
        said = self._call(["info", "--json", *_FLAGS, entry])
        graph = _Graph()
        for module in _modules(said.output):
            path = module.get("local")
            if path is None or path == entry:
                continue
            found = module.get("dependencies", [])
            graph.spans[path] = found
            targets = [_local(end["specifier"]) for end in _ends(found) if "specifier" in end]
            graph.imports[path] = [target for target in targets if target]
        return graph

    def _stage(self, stage: str, units: Sequence[Unit], graph: _Graph) -> None:
        """Put copies of the sources below `stage`, which import JavaScript.

        deno names one place for each specifier of a file, so a file that imports the same
        one twice takes another round; so does one that merely looks as if it did.
        """
        shutil.rmtree(stage, ignore_errors=True)
        todo = []
        for unit in units:
            full = self._full(unit.source)
            path = os.path.join(stage, unit.source)
            if _put_rewritten(path, disk.read(full), graph.spans.get(full, [])):
                todo.append(path)
        while todo:
            again = self._graph(todo).spans
            todo = [p for p in todo if _put_rewritten(p, disk.read(p), again.get(p, []))]

    def _transpile(self, stage: str, sources: Sequence[str]) -> process.Finished:
        out = os.path.join(stage, ".out")
        # An only file would land without its folder; a second one in the root keeps them all.
        anchor = ".anchor.ts"
        disk.write(os.path.join(stage, anchor), b"export {};\n")
        arguments = ["transpile", *_FLAGS, "--source-map", "separate", "--outdir", out]
        return self._call([*arguments, anchor, *(f"./{source}" for source in sources)], stage)

    def _result(self, unit: Unit, stage: str, graph: _Graph, printed: str) -> Compiled:
        target, map_path = unit.outputs
        base = os.path.splitext(os.path.join(stage, ".out", unit.source))[0]
        suffix = os.path.splitext(target)[1]
        code = disk.read(base + suffix).decode()
        name = os.path.basename(target)
        code = code.rstrip("\n") + f"\n//# sourceMappingURL={name}.map\n"
        mapping = json.loads(disk.read(base + suffix + ".map"))
        mapping["file"] = name
        mapping["sources"] = [os.path.basename(unit.source)]
        mapping["sourcesContent"] = [disk.read(self._full(unit.source)).decode()]
        text = json.dumps(mapping, ensure_ascii=False, separators=(",", ":"))
        discovered = tuple(self._relative(p) for p in graph.closure(self._full(unit.source)))
        outputs = {target: code.encode(), map_path: text.encode() + b"\n"}
        return Compiled(outputs, discovered, printed)

    def _relative(self, path: str) -> str:
        relative = os.path.relpath(path, self.site.root)
        return (path if relative.startswith("..") else relative).replace(os.sep, "/")

    # Complaints -------------------------------------------------------------------------

    def _bad(
        self, units: Sequence[Unit], graph: _Graph, said: process.Finished
    ) -> dict[str, Compiled]:
        """Return results for the units to blame, and for those that import one of them."""
        if said.timed_out:
            return self._split(units, f"deno took longer than {self.limit:g} s", said.output)
        blamed = {
            unit.source: error
            for unit in units
            if (error := self._complaint(unit.source, said.output)) is not None
        }
        results = {}
        for unit in units:
            error = blamed.get(unit.source) or self._by_import(unit, graph, blamed, said.output)
            if error is not None:
                results[unit.source] = Compiled({}, (), said.output, error)
        return results or self._split(units, f"deno exited with {said.code}", said.output)

    def _split(self, units: Sequence[Unit], what: str, output: str) -> dict[str, Compiled]:
        """Compile one by one what deno refused together without naming a culprit."""
        if len(units) > 1:
            return {unit.source: self.batch([unit])[unit.source] for unit in units}
        lines = [line.rstrip() for line in output.splitlines() if line.strip()]
        error = StepError(units[0].source, what, details=lines)
        return {units[0].source: Compiled({}, (), output, error)}

    def _complaint(self, source: str, output: str) -> StepError | None:
        found = [c for c in _complaints(output) if self._relative(c.path) == source]
        if not found:
            return None
        more = [f"{source}:{c.line}: {c.what}" for c in found[1:]]
        error = StepError(f"{source}:{found[0].line}", found[0].what, details=more)
        return error.at_column(found[0].column if found[0].is_of_types else 0)

    def _by_import(
        self, unit: Unit, graph: _Graph, blamed: Mapping[str, StepError], output: str
    ) -> StepError | None:
        for path in graph.closure(self._full(unit.source)):
            name = self._relative(path)
            error = blamed.get(name) or self._complaint(name, output)
            if error is not None:
                what = f"imports {name}, which has an error"
                return StepError(unit.source, what, details=[f"{error.where}: {error.what}"])
        return None


@dataclass(frozen=True, slots=True)
class _Complaint:
    path: str
    line: int
    what: str
    column: int = 0

    @property
    def is_of_types(self) -> bool:
        """Whether the type checker says it; the parser's columns count a tab as two."""
        return "(TS" in self.what


_PLACE = re.compile(r"^\s+at (file://\S+?):(\d+):(\d+)$")
_HEAD = re.compile(r"^(?:error: )?(?:(TS\d+) \[ERROR\]: |(SyntaxError: )|error: )?(.*)$")


def _complaints(output: str) -> Iterator[_Complaint]:
    """Yield each diagnostic of `deno check`: a message, code lines, then the place."""
    block: list[str] = []
    for line in output.splitlines():
        place = _PLACE.match(line)
        if place is None:
            block = [] if not line.strip() else [*block, line]
            continue
        head = _HEAD.match(block[0]) if block else None
        if head is not None:
            code = f" ({head[1]})" if head[1] else ""
            what = head[3].rstrip(".") + code
            yield _Complaint(_local(place[1]) or place[1], int(place[2]), what, int(place[3]))
        block = []


def _modules(text: str) -> list[dict[str, Any]]:
    start = text.find("{")
    try:
        found = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return []
    modules = found.get("modules", [])
    return modules if isinstance(modules, list) else []


def _ends(dependencies: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for dependency in dependencies:
        for kind in ("code", "type"):
            if kind in dependency:
                yield dependency[kind]


def _put_rewritten(path: str, data: bytes, dependencies: Sequence[dict[str, Any]]) -> bool:
    """Write a staged file, its specifiers rewritten; True if it needs another look."""
    made = _rewritten(data, dependencies)
    # Not as targets are written: nobody reads it but us, and nobody after us.
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(made)
    return made != data and _LOOKS_LEFT.search(made) is not None


def _rewritten(data: bytes, dependencies: Sequence[dict[str, Any]]) -> bytes:
    """Return a source with its specifiers rewritten."""
    edits = sorted(set(_edits(dependencies)), reverse=True)
    if not edits:
        return data
    lines = data.decode().split("\n")
    # Deno's columns leave out a byte order mark.
    mark = lines[0].startswith("\ufeff")
    lines[0] = lines[0].removeprefix("\ufeff")
    for edit in edits:
        _rewrite_line(lines, *edit)
    return ("\ufeff" * mark + "\n".join(lines)).encode()


def _edits(dependencies: Iterable[dict[str, Any]]) -> Iterator[tuple[int, int, int, str]]:
    """Yield line, first and last column (from 0) and suffix of TypeScript specifiers."""
    for dependency in dependencies:
        specifier = dependency.get("specifier", "")
        suffix = os.path.splitext(specifier)[1]
        if not specifier.startswith(("./", "../")) or suffix not in _OTHER_SUFFIX:
            continue
        for end in _ends([dependency]):
            span = end.get("span")
            if span and span["start"]["line"] == span["end"]["line"]:
                start, stop = span["start"]["character"], span["end"]["character"]
                yield span["start"]["line"], start, stop - 1, suffix


def _rewrite_line(lines: list[str], number: int, start: int, stop: int, suffix: str) -> None:
    """Rewrite the end of the specifier whose quotes stand at `start` and `stop`, if it does.

    Columns count characters, not UTF-16 units; the text between may hold escapes.
    """
    line = lines[number]
    quoted = line[start : stop + 1]
    if len(quoted) >= 2 and quoted[0] == quoted[-1] and quoted[:-1].endswith(suffix):
        lines[number] = line[: stop - len(suffix)] + _OTHER_SUFFIX[suffix] + line[stop:]


def _url(path: str) -> str:
    from pathlib import Path

    return Path(path).as_uri()


def _local(specifier: str, windows: bool = os.name == "nt") -> str | None:
    """Return the path of a file URL; None for anything else.

    What `urllib.request.url2pathname` does, which would bring all of `http` with it.
    """
    parts = urlsplit(specifier)
    if parts.scheme != "file":
        return None
    path = unquote(parts.path)
    if not windows:
        return path
    if re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    host = f"//{parts.netloc}" if parts.netloc else ""
    return (host + path).replace("/", "\\")


DENO = Deno(
    "deno",
    ("deno", "check+transpile", "{source}", "{target}"),
    ".js",
    version=("deno", "--version"),
    batch=False,
    install="pip install 'deno>=2.9,<3'",
)
