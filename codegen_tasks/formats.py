"""Formatters: programs between render and write, from standard input to standard output.

Unaware of steps; whoever asks one for a text writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from . import digest, process, texts
from .errors import DeclarationError, StepError, cause, refuse_unknown
from .model import Rule
from .toolchains import Tool, check_timeout, command_words, project_file, refuse_surplus

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: A place in what a formatter says of its input: `<stdin>:3:5`, `at 3:5`, `(3:5)`.
_AT = re.compile(r"(?<![\d.])(?<!\d:)(\d{1,7}):(\d{1,5})(?![\d:]*\d)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Formatter(Tool):
    """A formatter as a command.

    Args:
        name: what `doit info` and messages call it.
        command: program and arguments; it reads a text from standard input and writes it,
            formatted, to standard output.  `{target}` stands for the target's path, for
            programs that tell a language by it.  A word that is the path of a file in the
            project is an input.
        version: command that prints the version; None: the program file's content counts.
        reads: files of the project that it reads by itself, such as ".clang-format".
        timeout: seconds one process may take; the rule's, if that has one.
        install: what to tell someone who does not have it.

    Raises:
        DeclarationError: an unknown or unusable argument.
    """

    name: str = ""
    command: Sequence[str] = ()
    version: Sequence[str] | None = None
    reads: Sequence[str] = ()
    timeout: float | None = None
    install: str = ""
    noun: ClassVar[str] = "formatter"

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Refuse what the generated `__init__` would refuse with a traceback."""
        known = [field.name for field in fields(cls)]
        where = f"formatter {named.get('name', given[0] if given else '')}".rstrip()
        refuse_unknown(where, named, known, "argument")
        refuse_surplus(where, given, known)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DeclarationError("formatter", f"name must be a string, not {self.name!r}")
        words = command_words(self.place, "command", self.command)
        object.__setattr__(self, "command", words)
        if self.version is not None:
            version = command_words(self.place, "version", self.version)
            object.__setattr__(self, "version", version)
        reads = command_words(self.place, "reads", self.reads) if self.reads != () else ()
        object.__setattr__(self, "reads", reads)
        if not isinstance(self.install, str):
            raise DeclarationError(self.place, f"install must be a string, not {self.install!r}")
        check_timeout(self.place, self.timeout)
        used = [name for word in words for name in _PLACEHOLDER.findall(word)]
        refuse_unknown(self.place, used, ["target"], "placeholder")

    @property
    def identity(self) -> str:
        """Digest of everything that was declared and shapes the output."""
        return digest.of_data([list(self.command), list(self.reads)])

    @property
    def facts(self) -> dict[str, str]:
        """What `identity` is of, by name, for people."""
        reads = {"reads": ", ".join(self.reads)} if self.reads else {}
        return {"": " ".join(self.command), **reads}

    def files(self, root: str) -> list[str]:
        """Return the project's files that it reads: those its command names, and `reads`."""
        own = (project_file(root, name) for name in self.reads)
        return list(dict.fromkeys([*super().files(root), *filter(None, own)]))

    def formatted(self, data: bytes, target: str, root: str, timeout: float | None) -> bytes:
        """Return a text as the formatter leaves it.

        Args:
            data: the text.
            target: path of the file that it is for, project-relative.
            root: absolute path of the project, where the program runs.
            timeout: seconds it may take; None: its own limit.

        Raises:
            StepError: it is not installed, refuses the text, or takes too long.
        """
        values = {"target": target}
        command = [self.find(), *(_filled(word, values) for word in self.command[1:])]
        limit = timeout if timeout is not None else self.timeout
        try:
            done = process.run(command, root, limit, self.environ(root), data)
        except OSError as error:
            raise StepError(self.place, f"cannot start: {cause(error)}") from None
        if done.timed_out:
            raise self._refused(data, target, f"took longer than {limit:g} s", done.output)
        if done.code:
            raise self._refused(data, target, f"exited with {done.code}", done.output)
        if data.strip() and not done.result.strip():
            hint = "it must write the text to standard output"
            raise self._refused(data, target, "wrote nothing", done.output, hint)
        if done.output.strip():
            print(done.output.rstrip())
        return done.result

    def _refused(self, data: bytes, target: str, what: str, said: str, hint: str = "") -> StepError:
        """Return the error of a formatter, with the line that it complains of."""
        said = _COLOURS.sub("", said).partition("\nStack backtrace:")[0]  # deno's, of itself
        lines = [line.rstrip() for line in said.splitlines() if line.strip()]
        text = data.decode("utf-8", "replace")
        found = next((at for line in lines if (at := _AT.search(line))), None)
        shown = texts.source_line(text, int(found[1])) if found is not None else []
        where = f"{target}:{found[1]}" if found is not None and shown else target
        if any(shown[0].partition("| ")[2] in line for line in lines[1:] if shown):
            shown = []  # it has shown the line itself
        return StepError(where, f"{self.name} {what}", hint, [*shown, *lines])


def finished(rule: Rule, data: bytes, target: str, root: str) -> bytes:
    """Return what is written of a rendered text: formatted, with the line ends of its rule.

    Raises:
        StepError: its formatter fails, see `Formatter.formatted`.
    """
    if rule.format is not None:
        data = rule.format.formatted(data, target, root, rule.timeout)
    if rule.newline is not None:
        data = data.replace(b"\r\n", b"\n").replace(b"\n", rule.newline.encode())
    return data


def _filled(word: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)
