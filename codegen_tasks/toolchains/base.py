"""What every compiler has: command and version, what it reads, and the files it makes.

A toolchain writes into a scratch folder and hands back bytes; unaware of targets' final
places being written, of traces, and of doit.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import digest, disk, process
from ..errors import CodegenError, DeclarationError, StepError, refuse_unknown

#: Braces around anything but a name are the program's own, such as awk's.
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KNOWN = ("source", "target", "depfile")
_KNOWN_IN_BATCH = ("sources", "folder")
#: Seconds a program may take to tell its version.
_VERSION_TIMEOUT = 60


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
            in which the program leaves `<stem><suffix>` for each.  A word that is the path
            of a file in the project, alone or after `=`, is an input of each compile.
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
        if self.batch and self.depfile is not None:
            raise DeclarationError(where, "batch=True cannot have a depfile")
        used = {name for word in self.command for name in _PLACEHOLDER.findall(word)}
        known = _KNOWN_IN_BATCH if self.batch else _KNOWN
        refuse_unknown(where, sorted(used), known, "placeholder")
        for name in ("sources", "folder") if self.batch else ("source", "target"):
            if name not in used:
                raise DeclarationError(where, f"command lacks {{{name}}}")
        if self.batch and "{sources}" not in self.command:
            raise DeclarationError(where, "{sources} must be a word of its own")
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

    def files(self, root: str) -> list[str]:
        """Return the project's files that the command names, and so may read or run.

        Args:
            root: absolute path of the project.
        """
        words = [word for word in (*self.command, *(self.version or ())) if word != self.program]
        # Without a version command, the program's own content counts already.
        if self.version is not None and "/" in self.program:
            words.append(self.program)
        found = (_project_file(root, word.rpartition("=")[2]) for word in words)
        return list(dict.fromkeys(name for name in found if name))

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
            done = process.run(command, folder, _VERSION_TIMEOUT, self.environ(folder))
        except OSError as error:
            what = f"cannot ask for its version: {(error.strerror or '').lower()}"
            raise StepError(f"toolchain {self.name}", what) from None
        if done.timed_out:
            what = f"'{' '.join(self.version)}' took longer than {_VERSION_TIMEOUT} s"
            raise StepError(f"toolchain {self.name}", what)
        said = done.output
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
        done: dict[str, Compiled] = {}
        for group in _without_twins(jobs):
            results = self._many(program, group, site, limit)
            if len(group) > 1 and any(result.error for result in results):
                results = [self._many(program, [job], site, limit)[0] for job in group]
            done.update(zip((job.source for job in group), results, strict=True))
        return [done[job.source] for job in jobs]

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
        named = parse_depfile(depfile) if self.depfile is not None else ()
        read = dict.fromkeys(_plain(site.root, name) for name in named)
        others = tuple(name for name in read if name not in (job.source, os.devnull))
        return Compiled({job.outputs[0]: made}, others, done.output)

    def _many(
        self, program: str, jobs: Sequence[Job], site: Site, limit: float | None
    ) -> list[Compiled]:
        folder = os.path.join(site.scratch, "batch")
        shutil.rmtree(folder, ignore_errors=True)  # what lay there was another batch's
        os.makedirs(folder)
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
        said = _shares(jobs, done.output)
        return [self._collected(job, folder, said[job.source]) for job in jobs]

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
                # A header that is included on the command line is named "./x.h".
                where = f"{os.path.normpath(found[1]).replace(os.sep, '/')}:{found[2]}"
                return where, found[4], lines[index + 1 :]
        return job.source, "", lines

    @staticmethod
    def _filled(word: str, values: Mapping[str, str]) -> str:
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)


def _project_file(root: str, word: str) -> str:
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


def _without_twins(jobs: Sequence[Job]) -> list[list[Job]]:
    """Divide jobs so that no two outputs of a group have one name in the batch's folder."""
    groups: list[dict[str, Job]] = []
    for job in jobs:
        name = os.path.basename(job.outputs[0]).casefold()
        free = next((group for group in groups if name not in group), None)
        if free is None:
            groups.append(free := {})
        free[name] = job
    return [list(group.values()) for group in groups]


def _shares(jobs: Sequence[Job], output: str) -> dict[str, str]:
    """Return for each source its share of what a batch printed, every line once.

    A line that names a source begins its share; what no source claims is the first one's.
    """
    owner = jobs[0].source
    shares = {job.source: "" for job in jobs}
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
