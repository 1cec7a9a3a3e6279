"""Compilers: their command and version, what they read, and the files they make.

A toolchain writes into a scratch folder and hands back bytes; unaware of targets' final
places being written, of traces, and of doit.
"""

from __future__ import annotations

import os
import py_compile
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import digest, disk, process
from .errors import CodegenError, DeclarationError, StepError, refuse_unknown

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_KNOWN = ("source", "sources", "target", "depfile", "folder")


@dataclass(frozen=True, slots=True)
class Job:
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


@dataclass(frozen=True)
class Toolchain:
    """A compiler as a command.

    Args:
        name: what `doit info` and messages call it.
        command: program and arguments; `{source}`, `{target}`, `{depfile}` stand for paths.
            With `batch`, `{sources}` stands for all of them and `{folder}` for the folder
            in which the program leaves `<stem><suffix>` for each.
        suffix: of the compiled file, which lies beside its source.
        version: command that prints the version; None: the program file's content counts.
        depfile: set (to any name, such as "{target}.d") if `{depfile}` in the command makes
            the program write a Makefile rule that names the files it read.
        batch: one process compiles many files.
        timeout: seconds one process may take.
        install: what to tell someone who does not have it.
    """

    name: str
    command: Sequence[str] = ()
    suffix: str = ""
    version: Sequence[str] | None = None
    depfile: str | None = None
    batch: bool = False
    timeout: float | None = None
    install: str = ""

    def __post_init__(self) -> None:
        where = f"toolchain {self.name}"
        for field in ("command", "version"):
            value = getattr(self, field)
            if isinstance(value, str):
                hint = f'{field}=["{value.split(" ")[0]}", ...]: no shell splits it'
                raise DeclarationError(where, f"{field} must be a list of words", hint)
            if value is not None:
                object.__setattr__(self, field, tuple(str(word) for word in value))
        if not self.suffix.startswith("."):
            raise DeclarationError(where, f"suffix must begin with a dot, not {self.suffix!r}")
        self._check_command(where)

    def _check_command(self, where: str) -> None:
        if not self.command:
            raise DeclarationError(where, "command is empty")
        used = {name for word in self.command for name in _PLACEHOLDER.findall(word)}
        refuse_unknown(where, sorted(used), _KNOWN, "placeholder")
        needed = {"sources", "folder"} if self.batch else {"source", "target"}
        for name in sorted(needed - used):
            raise DeclarationError(where, f"command lacks {{{name}}}")
        if self.depfile is not None and "depfile" not in used:
            raise DeclarationError(where, "depfile is set, but command lacks {depfile}")

    # What the staleness of a compiled target hangs on -----------------------------------

    @property
    def program(self) -> str:
        """The program's name or path, as the command gives it."""
        return self.command[0]

    @property
    def identity(self) -> str:
        """Digest of everything that was declared and shapes the output."""
        return digest.of_data([list(self.command), self.suffix, self.depfile, self.batch])

    @property
    def shares_process(self) -> bool:
        """Whether compiling many files together costs less than one by one."""
        return self.batch

    def outputs(self, source: str) -> tuple[str, ...]:
        """Return the files made from `source`, the target first."""
        return (os.path.splitext(source)[0] + self.suffix,)

    def find(self) -> str:
        """Return the program's path.

        Raises:
            StepError: it is not installed; the hint says what to install.
        """
        found = process.find(self.program)
        if found is None:
            hint = self.install or f"install {self.program}, or put it on PATH"
            raise StepError(f"toolchain {self.name}", f"'{self.program}' is not installed", hint)
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
            said = process.run(command, folder, timeout=60, environ=self.environ(folder)).output
        except OSError as error:
            what = f"cannot ask for its version: {(error.strerror or '').lower()}"
            raise StepError(f"toolchain {self.name}", what) from None
        return digest.of_bytes(said.encode()), (said.splitlines() or [""])[0].strip()

    def environ(self, cache: str) -> dict[str, str]:
        """Return the variables its processes get besides ours."""
        return {"LC_ALL": "C", "NO_COLOR": "1"}

    def references(self, text: str) -> list[str]:
        """Return paths, relative to the source's folder, that the compiler may read besides.

        They only order the build: what was read in truth is in `Compiled.discovered`.
        """
        return []

    # Compiling --------------------------------------------------------------------------

    def compile(self, jobs: Sequence[Job], site: Site, timeout: float | None) -> list[Compiled]:
        """Compile each job; failures are in the results, in the jobs' order."""
        program = self.find()
        limit = timeout if timeout is not None else self.timeout
        if not self.batch:
            return [self._one(program, job, site, limit) for job in jobs]
        results = self._many(program, jobs, site, limit)
        if len(jobs) > 1 and any(result.error for result in results):
            return [self._many(program, [job], site, limit)[0] for job in jobs]
        return results

    def _one(self, program: str, job: Job, site: Site, limit: float | None) -> Compiled:
        target = os.path.join(site.scratch, os.path.basename(job.outputs[0]))
        depfile = target + ".d"
        for leftover in (target, depfile):
            disk.remove(leftover)
        values = {"source": job.source, "target": target, "depfile": depfile}
        command = [program, *(self._filled(word, values) for word in self.command[1:])]
        done = self._run(command, job, site, limit)
        if isinstance(done, Compiled):
            return done
        try:
            made = disk.read(target)
        except OSError:
            return self._failed(job, done.output, f"{self.name} made no {self.suffix} file")
        discovered = parse_depfile(depfile) if self.depfile is not None else ()
        others = tuple(name for name in discovered if name not in (job.source, os.devnull))
        return Compiled({job.outputs[0]: made}, others, done.output)

    def _many(
        self, program: str, jobs: Sequence[Job], site: Site, limit: float | None
    ) -> list[Compiled]:
        folder = os.path.join(site.scratch, "batch")
        os.makedirs(folder, exist_ok=True)
        values = {"folder": folder}
        command = [program]
        for word in self.command[1:]:
            if word == "{sources}":
                command += [job.source for job in jobs]
            else:
                command.append(self._filled(word, values))
        done = self._run(command, jobs[0], site, limit)
        if isinstance(done, Compiled):
            return [done] * len(jobs)
        return [self._collected(job, folder, done.output) for job in jobs]

    def _collected(self, job: Job, folder: str, printed: str) -> Compiled:
        made = os.path.join(folder, os.path.basename(job.outputs[0]))
        try:
            return Compiled({job.outputs[0]: disk.read(made)}, (), printed)
        except OSError:
            return self._failed(job, printed, f"{self.name} made no {self.suffix} file")

    def _run(
        self, command: list[str], job: Job, site: Site, limit: float | None
    ) -> process.Finished | Compiled:
        try:
            done = process.run(command, site.root, limit, self.environ(site.cache))
        except OSError as error:
            what = f"cannot start {self.name}: {(error.strerror or '').lower()}"
            return self._failed(job, "", what)
        if done.timed_out:
            return self._failed(job, done.output, f"{self.name} took longer than {limit:g} s")
        if done.code:
            return self._failed(job, done.output, f"{self.name} exited with {done.code}")
        return done

    def _failed(self, job: Job, output: str, what: str) -> Compiled:
        where, first, details = self.explain(job, output)
        return Compiled({}, (), output, StepError(where, first or what, details=details))

    def explain(self, job: Job, output: str) -> tuple[str, str, list[str]]:
        """Return where, what and further lines of a compiler's complaint."""
        lines = [line.rstrip() for line in output.splitlines() if line.strip()]
        for index, line in enumerate(lines):
            found = re.match(r"(.+?):(\d+):(?:(\d+):)? (?:fatal )?error: (.*)", line)
            if found:
                where = f"{found[1]}:{found[2]}"
                return where, found[4], lines[index + 1 :]
        return job.source, "", lines

    @staticmethod
    def _filled(word: str, values: Mapping[str, str]) -> str:
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


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


class CFamily(Toolchain):
    """`cc` and `c++`: an object file, and the headers it read from the depfile.

    A header is compiled as if a source file included it first, which proves that it stands
    alone.
    """

    _HEADERS = (".h", ".hh", ".hpp", ".hxx", ".inc")

    def _one(self, program: str, job: Job, site: Site, limit: float | None) -> Compiled:
        if os.path.splitext(job.source)[1].lower() not in self._HEADERS:
            return super()._one(program, job, site, limit)
        language = "c++" if self.name == "c++" else "c"
        alone = ("-include", "{source}", "-x", language, os.devnull)
        words: list[str] = []
        for word in self.command:
            words += alone if word == "{source}" else (word,)
        return Toolchain._one(replace(self, command=tuple(words)), program, job, site, limit)

    def references(self, text: str) -> list[str]:
        """Return the names between quotes of all #include lines."""
        return re.findall(r'^\s*#\s*include\s*"([^"\n]+)"', text, re.MULTILINE)


class PythonBytecode(Toolchain):
    """`python`: a hash-based `.pyc` (PEP 552), importable without its source, no timestamp."""

    @property
    def program(self) -> str:
        """The running interpreter."""
        return sys.executable

    @property
    def identity(self) -> str:
        """Digest of the bytecode's format."""
        return digest.of_parts("python", "checked hash", "1")

    @property
    def shares_process(self) -> bool:
        """It starts no process at all."""
        return False

    def find(self) -> str:
        """Return the running interpreter's path."""
        return sys.executable

    def read_version(self, program: str, folder: str) -> tuple[str, str]:
        """Return digest and wording of the bytecode's version; no process is needed."""
        tag = sys.implementation.cache_tag or sys.version
        return digest.of_parts(tag, sysconfig.get_python_version()), f"python {tag}"

    def compile(self, jobs: Sequence[Job], site: Site, timeout: float | None) -> list[Compiled]:
        """Compile each job in this process."""
        return [self._bytecode(job, site) for job in jobs]

    def _bytecode(self, job: Job, site: Site) -> Compiled:
        target = os.path.join(site.scratch, os.path.basename(job.outputs[0]))
        try:
            py_compile.compile(
                os.path.join(site.root, job.source),
                cfile=target,
                dfile=job.source,
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
            )
        except py_compile.PyCompileError as error:
            return Compiled({}, error=_python_error(job, error))
        return Compiled({job.outputs[0]: disk.read(target)})


def _python_error(job: Job, error: py_compile.PyCompileError) -> StepError:
    value: Any = error.exc_value
    line = getattr(value, "lineno", None)
    where = f"{job.source}:{line}" if line else job.source
    return StepError(where, str(getattr(value, "msg", value)))


def builtin(name: str) -> Toolchain | None:
    """Return the built-in toolchain called `name`; None if there is none."""
    if name == "deno":
        from .deno import DENO

        return DENO
    return _BUILTIN.get(name)


def names() -> list[str]:
    """Return the names of the built-in toolchains."""
    return ["deno", *_BUILTIN]


_C_FLAGS = ("-O2", "-Wall", "-Wextra", "-c", "{source}", "-o", "{target}")
_C_DEPS = ("-MD", "-MF", "{depfile}")
_BUILTIN: dict[str, Toolchain] = {
    "cc": CFamily(
        "cc",
        ("cc", "-std=c11", *_C_FLAGS, *_C_DEPS),
        ".o",
        version=("cc", "--version"),
        depfile="{target}.d",
        install="install a C compiler (Debian: apt install gcc)",
    ),
    "c++": CFamily(
        "c++",
        ("c++", "-std=c++17", *_C_FLAGS, *_C_DEPS),
        ".o",
        version=("c++", "--version"),
        depfile="{target}.d",
        install="install a C++ compiler (Debian: apt install g++)",
    ),
    "python": PythonBytecode("python", ("python", "{source}", "{target}"), ".pyc"),
}
