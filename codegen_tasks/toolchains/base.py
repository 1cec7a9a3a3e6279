"""What every compiler has: command and version, what it reads, and the files it makes.

A toolchain writes into a scratch folder and hands back bytes; unaware of targets' final
places being written, of traces, and of doit.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from .. import digest, disk, process
from ..errors import CodegenError, DeclarationError, StepError, refuse_unknown

#: Braces around anything but a name are the program's own, such as awk's.
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KNOWN = ("source", "target", "depfile")
_KNOWN_IN_BATCH = ("sources", "folder")
#: A suffix that can lead nowhere else.
_SUFFIX = re.compile(r"\.[\w.+-]+")
#: Seconds a program may take to tell its version.
_VERSION_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Unit:
    """One file to compile: source and outputs, project-relative; the first output is the target."""

    source: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiling one file came to.

    Args:
        outputs: the bytes of each output, by path; empty if it failed.
        discovered: files the compiler read besides the source, as it names them.
        printed: what the compiler said of it.
        error: set if it failed.
    """

    outputs: Mapping[str, bytes]
    discovered: tuple[str, ...] = ()
    printed: str = ""
    error: CodegenError | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """Where a compile happens: the project's absolute path, and a scratch folder of its own."""

    root: str
    scratch: str
    cache: str


class Tool:
    """A program that makes something of targets: its command and version, what it reads."""

    name: str
    command: Sequence[str]
    version: Sequence[str] | None
    install: str
    #: What such a program is called.
    noun: ClassVar[str] = "toolchain"

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.noun} {self.name}"

    @property
    def program(self) -> str:
        """The program's name or path, as the command gives it."""
        return self.command[0]

    @property
    def identity(self) -> str:
        """Digest of everything that was declared and shapes the output."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, str]:
        """What `identity` is of, by name, for people."""
        raise NotImplementedError

    def files(self, root: str) -> list[str]:
        """Return the project's files that the command names, and so may read or run.

        Args:
            root: absolute path of the project.
        """
        words = [word for word in (*self.command, *(self.version or ())) if word != self.program]
        # Without a version command, the program's own content counts already.
        if self.version is not None and "/" in self.program:
            words.append(self.program)
        found = (project_file(root, word.rpartition("=")[2]) for word in words)
        return list(dict.fromkeys(name for name in found if name))

    def find(self) -> str:
        """Return the program's path.

        Raises:
            StepError: it is not installed; the hint says what to install.
        """
        found = process.find(self.program)
        if found is None:
            hint = self.install or f"install {self.program}, or put it on PATH"
            raise StepError(self.place, f"'{self.program}' is not installed", hint)
        return found

    def read_version(self, program: str, folder: str) -> tuple[str, str]:
        """Return digest and wording of the installed version.

        Raises:
            StepError: the version command cannot be run.
        """
        if self.version is None:
            return digest.of_bytes(disk.read(program)), ""
        command = [program if word == self.program else word for word in self.version]
        try:
            done = process.run(command, folder, _VERSION_TIMEOUT, self.environ(folder))
        except OSError as error:
            what = f"cannot ask for its version: {(error.strerror or '').lower()}"
            raise StepError(self.place, what) from None
        if done.timed_out:
            what = f"'{' '.join(self.version)}' took longer than {_VERSION_TIMEOUT} s"
            raise StepError(self.place, what)
        said = done.output
        return digest.of_bytes(said.encode()), (said.splitlines() or [""])[0].strip()

    def environ(self, cache: str) -> dict[str, str]:
        """Return the variables its processes get besides ours."""
        return {"LC_ALL": "C", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Toolchain(Tool):
    """A compiler as a command.

    Args:
        name: what `doit info` and messages call it.
        command: program and arguments; `{source}`, `{target}`, `{depfile}` stand for paths.
            With `batch`, `{sources}` stands for all of them and `{folder}` for the folder
            in which the program leaves `<stem><suffix>` for each.  A word that is the path
            of a file in the project, alone or after `=`, is an input of each compile.
        suffix: of the compiled file, which lies beside its source.
        version: command that prints the version; None: the program file's content counts.
        depfile: path below the scratch folder, such as "{target}.d" (`{target}` being the
            target's name there), where the program writes a Makefile rule that names the
            files it read; the command has it as `{depfile}`.
        batch: one process compiles many files.
        timeout: seconds one process may take.
        install: what to tell someone who does not have it.

    Raises:
        DeclarationError: an unknown or unusable argument.
    """

    name: str = ""
    command: Sequence[str] = ()
    suffix: str = ""
    version: Sequence[str] | None = None
    depfile: str | None = None
    batch: bool = False
    timeout: float | None = None
    install: str = ""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Refuse what the generated `__init__` would refuse with a traceback."""
        known = [field.name for field in fields(cls)]
        where = f"toolchain {named.get('name', given[0] if given else '')}".rstrip()
        refuse_unknown(where, named, known, "argument")
        refuse_surplus(where, given, known)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DeclarationError("toolchain", f"name must be a string, not {self.name!r}")
        where = f"toolchain {self.name}"
        object.__setattr__(self, "command", command_words(where, "command", self.command))
        if self.version is not None:
            object.__setattr__(self, "version", command_words(where, "version", self.version))
        if not isinstance(self.suffix, str) or not _SUFFIX.fullmatch(self.suffix):
            raise DeclarationError(where, f"suffix must be like '.css', not {self.suffix!r}")
        if not isinstance(self.install, str):
            raise DeclarationError(where, f"install must be a string, not {self.install!r}")
        check_timeout(where, self.timeout)
        self._check_command(where)
        self._check_depfile(where)

    def _check_command(self, where: str) -> None:
        used = {name for word in self.command for name in _PLACEHOLDER.findall(word)}
        known = _KNOWN_IN_BATCH if self.batch else _KNOWN
        refuse_unknown(where, sorted(used), known, "placeholder")
        for name in ("sources", "folder") if self.batch else ("source", "target"):
            if name not in used:
                raise DeclarationError(where, f"command lacks {{{name}}}")
        if self.batch and "{sources}" not in self.command:
            raise DeclarationError(where, "{sources} must be a word of its own")

    def _check_depfile(self, where: str) -> None:
        asked = any("{depfile}" in word for word in self.command)
        if self.depfile is None:
            if asked:
                hint = 'depfile="{target}.d"'
                raise DeclarationError(where, "command has {depfile}, but depfile is not set", hint)
            return
        if not isinstance(self.depfile, str) or not self.depfile:
            raise DeclarationError(where, f"depfile must be a path, not {self.depfile!r}")
        if self.batch:
            raise DeclarationError(where, "batch=True cannot have a depfile")
        if not asked:
            raise DeclarationError(where, "depfile is set, but command lacks {depfile}")
        refuse_unknown(where, _PLACEHOLDER.findall(self.depfile), ["target"], "placeholder")
        path = os.path.normpath(self.depfile).replace(os.sep, "/")
        if os.path.isabs(path) or path.split("/")[0] == "..":
            what = f"the depfile '{self.depfile}' lies outside of the scratch folder"
            raise DeclarationError(where, what)
        if path in (".", "{target}"):
            raise DeclarationError(where, f"the depfile cannot be '{self.depfile}'")

    # What the staleness of a compiled target hangs on -----------------------------------

    @property
    def identity(self) -> str:
        """Digest of everything that was declared and shapes the output."""
        return digest.of_data([list(self.command), self.suffix, self.depfile, self.batch])

    @property
    def facts(self) -> dict[str, str]:
        """What `identity` is of, by name, for people."""
        found = {"": " ".join(self.command), "suffix": self.suffix, "depfile": str(self.depfile)}
        return {**found, "batch": str(self.batch)}

    @property
    def shares_process(self) -> bool:
        """Whether compiling many files together costs less than one by one."""
        return self.batch

    def outputs(self, source: str) -> tuple[str, ...]:
        """Return the files made from `source`, the target first."""
        return (os.path.splitext(source)[0] + self.suffix,)

    def references(self, text: str) -> list[str]:
        """Return paths, relative to the source's folder, that the compiler may read besides.

        They only order the build: what was read in truth is in `Compiled.discovered`.
        """
        return []

    # Compiling --------------------------------------------------------------------------

    def compile(self, units: Sequence[Unit], site: Site, timeout: float | None) -> list[Compiled]:
        """Compile each unit; failures are in the results, in the units' order."""
        program = self.find()
        limit = timeout if timeout is not None else self.timeout
        if not self.batch:
            return [self._one(program, unit, site, limit) for unit in units]
        done: dict[str, Compiled] = {}
        for group in _without_twins(units):
            results = self._many(program, group, site, limit)
            if len(group) > 1 and any(result.error for result in results):
                results = [self._many(program, [unit], site, limit)[0] for unit in group]
            done.update(zip((unit.source for unit in group), results, strict=True))
        return [done[unit.source] for unit in units]

    def _one(self, program: str, unit: Unit, site: Site, limit: float | None) -> Compiled:
        target = os.path.join(site.scratch, os.path.basename(unit.outputs[0]))
        depfile = self._depfile(target, site)
        for leftover in (target, depfile):
            disk.remove(leftover)
        os.makedirs(os.path.dirname(depfile), exist_ok=True)
        values = {"source": argument(unit.source), "target": target, "depfile": depfile}
        command = [program, *(self._filled(word, values) for word in self.command[1:])]
        done = self._run(command, unit, site, limit)
        if isinstance(done, Compiled):
            return done
        try:
            made = disk.read(target)
        except OSError:
            return self._failed(unit, done.output, f"{self.name} made no {self.suffix} file")
        named = parse_depfile(depfile) if self.depfile is not None else ()
        read = dict.fromkeys(_plain(site.root, name) for name in named)
        others = tuple(name for name in read if name not in (unit.source, os.devnull))
        return Compiled({unit.outputs[0]: made}, others, done.output)

    def _depfile(self, target: str, site: Site) -> str:
        name = self._filled(self.depfile or "{target}.d", {"target": os.path.basename(target)})
        return os.path.normpath(os.path.join(site.scratch, name))

    def _many(
        self, program: str, units: Sequence[Unit], site: Site, limit: float | None
    ) -> list[Compiled]:
        folder = os.path.join(site.scratch, "batch")
        shutil.rmtree(folder, ignore_errors=True)  # what lay there was another batch's
        os.makedirs(folder)
        values = {"folder": folder}
        command = [program]
        for word in self.command[1:]:
            if word == "{sources}":
                command += [argument(unit.source) for unit in units]
            else:
                command.append(self._filled(word, values))
        done = self._run(command, units[0], site, limit)
        if isinstance(done, Compiled):
            return [done] * len(units)
        said = _shares(units, done.output)
        return [self._collected(unit, folder, said[unit.source]) for unit in units]

    def _collected(self, unit: Unit, folder: str, printed: str) -> Compiled:
        made = os.path.join(folder, os.path.basename(unit.outputs[0]))
        try:
            return Compiled({unit.outputs[0]: disk.read(made)}, (), printed)
        except OSError:
            return self._failed(unit, printed, f"{self.name} made no {self.suffix} file")

    def _run(
        self, command: list[str], unit: Unit, site: Site, limit: float | None
    ) -> process.Finished | Compiled:
        try:
            done = process.run(command, site.root, limit, self.environ(site.cache))
        except OSError as error:
            what = f"cannot start {self.name}: {(error.strerror or '').lower()}"
            return self._failed(unit, "", what)
        if done.timed_out:
            return self._failed(unit, done.output, f"{self.name} took longer than {limit:g} s")
        if done.code:
            return self._failed(unit, done.output, f"{self.name} exited with {done.code}")
        return done

    def _failed(self, unit: Unit, output: str, what: str) -> Compiled:
        where, first, details = self.explain(unit, output)
        error = StepError(where, first or what, details=details)
        said = re.search(rf"^(?:\./)?{re.escape(where)}:(\d+): ", output, re.MULTILINE)
        return Compiled({}, (), output, error.at_column(int(said[1]) if said else 0))

    def character(self, line: str, column: int) -> int:
        """Return which character of a line a complaint means, from 1; 0 if it is not known.

        Compilers count bytes, characters, or columns of a screen.

        Args:
            line: the line.
            column: as the complaint has it, from 1; 0 if it has none.
        """
        before = line[: max(column, 0)]
        return column if before.isascii() and "\t" not in before else 0

    def explain(self, unit: Unit, output: str) -> tuple[str, str, list[str]]:
        """Return where, what and further lines of a compiler's complaint."""
        lines = [line.rstrip() for line in output.splitlines() if line.strip()]
        for index, line in enumerate(lines):
            found = re.match(r"(.+?):(\d+):(?:(\d+):)? (?:fatal )?error: (.*)", line)
            if found:
                # A header that is included on the command line is named "./x.h".
                where = f"{os.path.normpath(found[1]).replace(os.sep, '/')}:{found[2]}"
                return where, found[4], lines[index + 1 :]
        return unit.source, "", lines

    @staticmethod
    def _filled(word: str, values: Mapping[str, str]) -> str:
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


def argument(path: str) -> str:
    """Return a project-relative path as no program takes it for an option or a list of them."""
    return f"./{path}" if path.startswith(("-", "@", "+")) else path


def refuse_surplus(where: str, given: Sequence[Any], known: Sequence[str]) -> None:
    """Refuse more arguments without a name than there are names."""
    if len(given) > len(known):
        hint = f"by name: {', '.join(f'{name}=' for name in known)}"
        what = f"takes {len(known)} arguments at most, not {len(given)}"
        raise DeclarationError(where, what, hint)


def check_timeout(where: str, value: Any) -> None:
    """Refuse a timeout that is neither None nor a number of seconds above 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and value > 0 and math.isfinite(value)):
        raise DeclarationError(where, f"timeout must be seconds above 0, not {value!r}")


def command_words(where: str, key: str, given: Any) -> tuple[str, ...]:
    """Return a command as words."""
    if isinstance(given, str):
        hint = f'{key}=["{given.split(" ")[0]}", ...]: no shell splits it'
        raise DeclarationError(where, f"{key} must be a list of words", hint)
    words: Sequence[Any] = given if isinstance(given, (list, tuple)) else [None]
    if not all(isinstance(word, (str, os.PathLike)) for word in words):
        raise DeclarationError(where, f"{key} must be a list of words, not {given!r}")
    if not words:
        raise DeclarationError(where, f"{key} is empty")
    return tuple(os.fspath(word) for word in words)


def project_file(root: str, word: str) -> str:
    """Return the project-relative path that a command's word is; "" if it is none."""
    if not word or word.startswith("-") or "{" in word:
        return ""
    path = os.path.normpath(word).replace(os.sep, "/")
    outside = os.path.isabs(path) or path.split("/")[0] == ".."
    return "" if outside or disk.stat(os.path.join(root, path)) is None else path


def _plain(root: str, name: str) -> str:
    """Return the shortest path of a file that a compiler read, project-relative if inside.

    `a/../b.h` stays as it is where `a` is a link that leads elsewhere.
    """
    full = os.path.join(root, name)
    path = os.path.normpath(full)
    if path != full and not _same(path, full):
        path = full
    return path.removeprefix(os.path.join(root, "")).replace(os.sep, "/")


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _without_twins(units: Sequence[Unit]) -> list[list[Unit]]:
    """Divide units so that no two outputs of a group have one name in the batch's folder."""
    groups: list[dict[str, Unit]] = []
    for unit in units:
        name = os.path.basename(unit.outputs[0]).casefold()
        free = next((group for group in groups if name not in group), None)
        if free is None:
            groups.append(free := {})
        free[name] = unit
    return [list(group.values()) for group in groups]


def _shares(units: Sequence[Unit], output: str) -> dict[str, str]:
    """Return for each source its share of what a batch printed, every line once.

    A line that names a source begins its share; what no source claims is the first one's.
    """
    owner = units[0].source
    shares = {unit.source: "" for unit in units}
    for line in output.splitlines(keepends=True):
        named = [source for source in shares if source in line]
        owner = max(named, key=len) if named else owner
        shares[owner] += line
    return shares


def parse_depfile(path: str) -> tuple[str, ...]:
    r"""Return the prerequisites in a Makefile rule, as gcc and clang write it with -MD.

    Spaces in names come as `\ `, dollars as `$$`, line ends as `\` before a newline.
    """
    try:
        text = disk.read(path).decode("utf-8", "surrogateescape")
    except OSError:
        return ()
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    names: list[str] = []
    for line in joined.splitlines():
        _, colon, rest = line.partition(": ")
        if colon:
            words = re.findall(r"(?:\\.|[^\s\\])+", rest)
            names += [re.sub(r"\\(.)", r"\1", word).replace("$$", "$") for word in words]
    return tuple(dict.fromkeys(name.replace(os.sep, "/") for name in names))
