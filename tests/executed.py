"""Pages that are played as their reader would: files written, commands run, screens compared.

What a page can say, and a test does:

- `` `path`: `` before a fenced block: the file has this content;
  `` At the end of `path`: `` the file gets this content as well.
- ``In `path`, `this` becomes `that`.`` (whatever breaks the lines): what must be there once is
  replaced.
- A `console` block: each line after `$ ` is run by one shell, which keeps its folder and its
  variables from one block to the next; what follows is what the screen shows.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import Project, Result

ROOT = Path(__file__).parents[1]
#: What pages call the clone of this repository.
CLONE = "path/to/codegen-tasks"
_PART = re.compile(
    r"(?:^(?P<end>At the end of )?`(?P<file>[^`\n]+)`:\n\n)?"
    r"^```(?P<language>[\w+-]*)\n(?P<content>.*?)^```$"
    r"|[Ii]n\s+`(?P<edited>[^`]+)`,\s+`(?P<old>[^`]+)`\s+becomes\s+`(?P<new>[^`]+)`",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Edit:
    """What a page has its reader replace in a file."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its content, where that begins, the file that gets it."""

    language: str
    content: str
    start: int
    path: str | None = None
    appended: bool = False


def parts(text: str) -> Iterator[Block | Edit]:
    """Yield what a page shows and asks for, in order."""
    for found in _PART.finditer(text):
        if found["edited"]:
            yield Edit(*(" ".join(found[name].split()) for name in ("edited", "old", "new")))
        else:
            start, path = found.start("content"), found["file"]
            yield Block(found["language"], found["content"], start, path, bool(found["end"]))


def blocks(text: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page, those in some languages only if any are given."""
    found = [part for part in parts(text) if isinstance(part, Block)]
    return [block for block in found if not languages or block.language in languages]


def screens(content: str) -> Iterator[tuple[str, str]]:
    """Yield command and expected output of a console block."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def settled(text: str, in_order: bool = True) -> list[str]:
    """Return the lines of a screen without what differs from run to run."""
    for pattern, word in (
        (r"\b\d+\.\d\d s\b", "T s"),
        (r"\b\d+(\.\d)? ms\b", "T ms"),
        (r"\bpid \d+", "pid P"),
        (r"\b[0-9a-f]{4}…", "H…"),
        (r"\b\d+(\.\d)? (bytes|KB)\b", "N bytes"),
        (r"\(templates [^)]*\)", "(templates …)"),
        (r"\bof 5\.0 GB, in \S+", "of 5.0 GB, in FOLDER"),
        (r"\b\d+\.\d s saved", "T s saved"),
        (r"\b\d+ hits \(\d+ %\), \d+ misses", "N hits, N misses"),  # workers may both parse one
        (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*( UTC)?", "WHEN"),
    ):
        text = re.sub(pattern, word, text)
    lines = [line.rstrip() for line in text.splitlines()]
    return lines if in_order else sorted(lines)


class Shell:
    """A shell that keeps folder, variables and exit code from one command to the next."""

    def __init__(self, project: Project):
        self._project = project
        self._state = project.path.parent / "shell-state"
        self._code = 0
        path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        self._state.write_text(f"export PATH={shlex.quote(path)}\n")
        self._environ = {
            "CODEGEN_OUTPUT_CACHE": "true",
            "CODEGEN_OUTPUT_CACHE_FOLDER": str(project.path.parent / "store"),
            "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "60000",  # how long something takes, nobody knows
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_QUIET": "2",
        }

    @property
    def folder(self) -> str:
        """Where the shell is."""
        return self.run("pwd").out.strip()

    def run(self, command: str) -> Result:
        """Run a command, and return what it came to, with both outputs in one."""
        state = shlex.quote(str(self._state))
        lines = (
            f". {state}",
            f"(exit {self._code})",
            command.replace(CLONE, str(ROOT)),
            "code=$?",
            f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {state}",
            "exit $code",
        )
        done = self._project.run("bash", "-c", "exec 2>&1\n" + "\n".join(lines), **self._environ)
        self._code = done.code
        return done


def play(project: Project, text: str) -> str:
    """Do what a page says, in a project's folder, and hold every screen against the page.

    Returns:
        The page, with the screens as they were if `REWRITE` is in the environment.
    """
    shell, rewritten, end = Shell(project), "", 0
    for part in parts(text):
        if isinstance(part, Edit):
            _edit(Path(shell.folder), part)
            continue
        if part.path is not None:
            path = Path(shell.folder, part.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_text(encoding="utf-8") if part.appended else ""
            path.write_text(before + part.content, encoding="utf-8")
        if part.language == "console":
            rewritten += text[end : part.start] + _screens(shell, part.content)
            end = part.start + len(part.content)
    return rewritten + text[end:]


def _edit(folder: Path, edit: Edit) -> None:
    path = folder / edit.path
    text = path.read_text(encoding="utf-8")
    assert text.count(edit.old) == 1, f"{edit.path}: {text.count(edit.old)} times {edit.old}"
    path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def _screens(shell: Shell, content: str) -> str:
    played = []
    for command, expected in screens(content):
        shown = shell.run(command).out
        shown += "" if shown.endswith("\n") or not shown else "\n"
        in_order = "-n" not in command.split()
        if settled(shown, in_order) == settled(expected, in_order):
            shown = expected
        elif "REWRITE" not in os.environ:
            assert settled(shown, in_order) == settled(expected, in_order), f"$ {command}\n{shown}"
        played.append(f"$ {command}\n{shown}")
    return "".join(played)
