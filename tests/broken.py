"""Rules of codegen-tasks, deliberately broken: what a test of all of it must find out.

Each changes the process it is called in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

#: Kinds of inputs; a build can be blind to each.
KINDS = (
    *("pattern", "template", "missing template", "file", "toml", "json", "yaml"),
    *("filter", "test", "function", "global", "context", "environment", "rule"),
    *("source", "import", "toolchain", "command"),
)


def break_rule(name: str) -> None:
    """Break one rule: a kind of input, or a name of `RULES`."""
    if name in KINDS:
        _blind(name)
    else:
        RULES[name]()


def _blind(kind: str) -> None:
    """Take every input of a kind for what it was."""
    from codegen_tasks.world import World

    current = World.current
    _set(
        World,
        "current",
        lambda self, step, item: (
            (item.digest, item.shown) if item.kind == kind else current(self, step, item)
        ),
    )


def _set(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _forget(how: str) -> Callable[[], None]:
    """Return what makes renders not note that they read something in this way."""

    def forget() -> None:
        from codegen_tasks.keys import Notes

        add = Notes.add
        _set(Notes, "add", lambda self, path, way: None if way == how else add(self, path, way))

    return forget


def _rewrite() -> None:
    """Write every target that was made again, its bytes being the same or not."""
    from codegen_tasks import disk
    from codegen_tasks.publish import Publisher

    publish = Publisher.publish

    def rewriting(self: Any, made: Any, *more: Any) -> Any:
        for path, data in made.items():
            full = self._project.full(path)
            if os.path.isfile(full) and disk.read(full) == data:
                disk.write(full, data, unchanged=False)
        return publish(self, made, *more)

    _set(Publisher, "publish", rewriting)


def _record_first() -> None:
    """Write targets only when the phase or the run ends, long after they were recorded."""
    from codegen_tasks.build import Build
    from codegen_tasks.publish import Publisher
    from codegen_tasks.runner import CodegenRunner
    from codegen_tasks.steps import Workshop

    owed: list[tuple[Any, ...]] = []
    main: list[int] = []
    write, compile_, begin = Publisher._write, Workshop._compile, CodegenRunner.run_tasks
    finish = CodegenRunner.finish

    def late(self: Any, *what: Any) -> None:
        if main == [os.getpid()]:
            owed.append((self, *what))
        else:
            write(self, *what)

    def pay() -> None:
        while owed:
            write(*owed.pop(0))

    # Signatures that were recorded are wrong; that must not be what is found out.
    _set(Build, "refreshed", lambda self, step, trace: None)
    _set(Publisher, "_write", late)
    _set(Workshop, "_compile", lambda *given: (pay(), compile_(*given))[1])
    _set(CodegenRunner, "run_tasks", lambda *given: (main.append(os.getpid()), begin(*given))[1])
    _set(CodegenRunner, "finish", lambda self: (pay(), finish(self))[1])


def _torn() -> None:
    """Write targets in place, and not at once."""
    from codegen_tasks import disk

    def replace(path: str, folder: str, data: bytes, *more: Any) -> None:
        os.makedirs(folder, exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            for part in (data[:3], data[3:]):
                file.write(part)
                time.sleep(0.001)

    _set(disk, "_replace", replace)


def _root_in_key() -> None:
    """Count where the project lies."""
    from codegen_tasks.project import Project

    of = Project.environment_digest
    _set(Project, "environment_digest", lambda self, sources: of(self, sources) + self.root)


def _nothing_kept() -> None:
    """Say that a hand edit was kept aside, and do not."""
    from codegen_tasks.publish import Publisher

    _set(Publisher, "keep", lambda self, path: f"{self._project.kept_folder}/{path}")


def _edits_are_ours() -> None:
    """Take orphans that were edited by hand for what we made."""
    from codegen_tasks import orphans

    edited = orphans._edited
    _set(orphans, "_edited", lambda *given: None if edited(*given) is None else False)


def _all_is_read() -> None:
    """Count a pattern whole, whatever a render reads of it."""
    from codegen_tasks.keys import WHOLE, Notes

    _set(Notes, "reads", lambda self: WHOLE)


def _unlocked() -> None:
    """Let anybody build while another does."""
    from codegen_tasks.runner import CodegenRunner

    _set(CodegenRunner, "_hold", lambda self: False)


def _disk_only() -> None:
    """Have `doit diff` leave out what a compiler would make."""
    from codegen_tasks.preview import _Rehearsal

    _set(_Rehearsal, "_compile_all", lambda self, link: None)


def _unnamed() -> None:
    """Do not note what names the target of an item."""
    from codegen_tasks import items

    _set(items, "_note_name", lambda name, seen: None)


RULES: dict[str, Callable[[], None]] = {
    "keys of a table are not noted": _forget("keys"),
    "keys that are there are not noted": _forget("there"),
    "keys do not matter": _all_is_read,
    "what names an item is not noted": _unnamed,
    "no early cutoff": _rewrite,
    "recorded before it is written": _record_first,
    "targets are written in place": _torn,
    "the checkout counts": _root_in_key,
    "hand edits are not kept": _nothing_kept,
    "edited orphans are ours": _edits_are_ours,
    "no lock": _unlocked,
    "diff compiles nothing": _disk_only,
}
