"""doit diff: what a build would change in our targets, as a patch; writes nothing."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from .. import orphans
from ..preview import Difference, preview
from . import named
from .common import claimed, codegens, counted, options_first, planned, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped

if TYPE_CHECKING:
    from ..build import Build

#: On a terminal, of a line longer than so many bytes so many characters are shown.
_LONG, _SHOWN = 1000, 120
_COLOURS = {b"-": b"31", b"+": b"32", b"@": b"36"}
_NO_NEWLINE = b"\\ No newline at end of file\n"


class Diff(Piped, Ours, DoitCmdBase):
    """Shows how targets differ from what a build would make of them."""

    name = "diff"
    doc_purpose = "show what doit would change in its targets, as a patch"
    doc_usage = "[TASK|TARGET ...]"
    doc_description = (
        "Renders and compiles in memory, and shows unified diffs from the disk to what would be "
        "made, of all targets or of what doit would make for the names. Exits with 1 if a "
        "target differs or cannot be made. Changes nothing."
    )
    examples = (
        ("", "what the next build changes"),
        ("generated/bloom.ts", "the same of one target"),
        ("'generate:b*' > review.patch", "to review, or for patch -p1"),
    )

    def _execute(self, pos_args: list[str]) -> int:
        say_whatever_the_encoding()
        _, names = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        builds = planned(self)
        chosen = self._chosen(names)
        taken = claimed(self.task_list)
        return max([self._diff(build, chosen, taken) for build in builds], default=0)

    def _chosen(self, names: Sequence[str]) -> set[str]:
        """Return what doit would run for the names: those tasks, and all they wait for."""
        control = TaskControl(self.task_list)
        declared = codegens(self.loader.namespace)
        meant = named.resolved(names or None, self.task_list, declared)
        named.process(control, meant, declared, self.task_list)
        todo, found = list(control.selected_tasks), set()
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                task = control.tasks[name]
                todo += [*task.task_dep, *task.setup_tasks, *task.calc_dep]
        return found

    def _diff(self, build: Build, chosen: set[str], taken: set[str]) -> int:
        found = preview(build, self.dep_manager, chosen)
        self._show(found.differences)
        if found.printed:
            self._tell(found.printed.rstrip("\n"))
        for failure in found.failures:
            task, _, message = failure.partition("\n")
            self._tell(f"failed: {task}")
            for line in message.splitlines():
                self._tell(f"  {line}")
        for orphan in orphans.find(build, self.dep_manager, taken):
            what = "edited by hand" if orphan.edited else "doit prune would remove it"
            self._tell(f"{orphan.path}: made by no rule any more, {what}")
        if found.differences:
            count = len(found.differences)
            self._tell(f"{counted(count, 'target')} {'differs' if count == 1 else 'differ'}")
        return int(bool(found.differences or found.failures))

    def _show(self, differences: Sequence[Difference]) -> None:
        out: Any = self.outstream
        on_terminal = out.isatty()
        coloured = on_terminal and not os.environ.get("NO_COLOR")
        out.flush()
        raw = getattr(out, "buffer", None)
        for difference in differences:
            for line in patch(difference):
                shown = _shortened(line) if on_terminal else line
                shown = _coloured(shown) if coloured else shown
                if raw is not None:
                    raw.write(shown)
                else:
                    out.write(shown.decode("utf-8", "replace"))
        (raw or out).flush()

    @staticmethod
    def _tell(line: str) -> None:
        """Say what is no part of the patch."""
        print(line, file=sys.stderr)


def patch(difference: Difference) -> Iterator[bytes]:
    """Yield the lines of a unified diff that `patch -p1` and `git apply` take."""
    path = os.fsencode(difference.path)
    before, after = difference.before, difference.after
    if b"\0" in (before or b"") or b"\0" in after:
        old = b"/dev/null" if before is None else b"a/" + path
        yield b"Binary files " + old + b" and b/" + path + b" differ\n"
        return
    end = b"\t\n" if b" " in path else b"\n"  # a name with spaces ends at a tab
    was, then = difference.modes or (None, 0o644)
    if before is None or was is not None:
        yield b"diff --git " + _quoted(b"a/" + path) + b" " + _quoted(b"b/" + path) + b"\n"
    if before is None:
        yield b"new file mode 100%03o\n" % then
    elif was is not None:
        yield b"old mode 100%03o\nnew mode 100%03o\n" % (was, then)
    if (before or b"") == after:
        return  # no hunk tells of an empty file, or of a mode; that header does
    yield b"--- " + (b"/dev/null\n" if before is None else b"a/" + path + end)
    yield b"+++ b/" + path + end
    hunks = difflib.diff_bytes(difflib.unified_diff, _lines(before or b""), _lines(after), b"", b"")
    for number, line in enumerate(hunks):
        if number < 2:
            continue  # its own header, without the names
        yield line if line.endswith(b"\n") else line + b"\n" + _NO_NEWLINE


def _quoted(path: bytes) -> bytes:
    """Return a path as git quotes it, if it holds more than plain letters and signs."""
    plain = all(0x20 < byte < 0x7F and byte not in b'"\\' for byte in path)
    if plain:
        return path
    special = {ord('"'): b'\\"', ord("\\"): b"\\\\"}
    quoted = (
        special.get(byte) or (bytes([byte]) if 0x1F < byte < 0x7F else b"\\%03o" % byte)
        for byte in path
    )
    return b'"' + b"".join(quoted) + b'"'


def _lines(data: bytes) -> list[bytes]:
    """Return lines with their ends; only a newline ends one."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _shortened(line: bytes) -> bytes:
    """Return a line as people look at it: nobody reads a source map, which is one long line."""
    if len(line) <= _LONG:
        return line
    text = line.decode("utf-8", "replace").rstrip("\n")
    left = len(text) - _SHOWN
    return f"{text[:_SHOWN]}… ({left} more characters)\n".encode() if left > 0 else line


def _coloured(line: bytes) -> bytes:
    colour = b"1" if line.startswith((b"---", b"+++", b"diff")) else _COLOURS.get(line[:1])
    if colour is None:
        return line
    return b"\x1b[" + colour + b"m" + line.rstrip(b"\n") + b"\x1b[m\n"
