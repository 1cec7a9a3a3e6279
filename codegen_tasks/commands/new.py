"""doit new: a small project to grow from, or in a project a pattern like another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from .. import scaffold
from ..errors import CodegenError, known_or_nearest
from ..project import Project
from .common import codegens, options_first, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped
from .screen import Screen

_OPT_TOOLCHAIN = {
    "name": "toolchain",
    "short": "t",
    "long": "toolchain",
    "type": str,
    "default": scaffold.NONE,
    "help": "what the new project compiles with: none, deno, cc, c++ or python "
    "[default: %(default)s]",
}
_OPT_LIKE = {
    "name": "like",
    "short": "l",
    "long": "like",
    "type": str,
    "default": "",
    "help": "the pattern that a new one begins as, by name or path [default: the first]",
}


class New(Piped, Ours, DoitCmdBase):
    """Makes files that are not there yet; replaces none."""

    name = "new"
    doc_purpose = "make a small project, or a pattern like another"
    doc_usage = "DIR | pattern NAME"
    doc_description = (
        "DIR gets a dodo.py, a pyproject.toml, templates and a pattern, which doit builds at once. "
        "In a project, `pattern NAME` makes another pattern beside the first one, or the one of "
        "--like. No file is overwritten. A folder named pattern is ./pattern."
    )
    words = ("pattern",)
    examples = (
        ("lights --toolchain deno", "a project that compiles TypeScript"),
        ("pattern glow --like bloom", "another pattern, in a project"),
    )
    cmd_options = (_OPT_TOOLCHAIN, _OPT_LIKE)

    def execute(self, params: Any, args: list[str]) -> Any:
        """Make a project without a `dodo.py`, a pattern in the one that there is."""
        say_whatever_the_encoding()
        given, names = self.cmdparser.parse(options_first(self.cmdparser, args))
        for option in ("toolchain", "like"):
            if given[option] == self.cmdparser[option].default:
                given[option] = params[option]
        if names[:1] == ["pattern"]:
            if len(names) != 2:
                raise InvalidCommand("`new pattern` takes the one name of the new pattern")
            self._name, self._like = names[1], given["like"]
            return super().execute(params, names)
        if len(names) != 1:
            raise InvalidCommand("`new` takes the folder of a new project, or `pattern NAME`")
        try:
            return self._project(names[0], given["toolchain"])
        except CodegenError as error:
            raise InvalidCommand(str(error)) from None

    # A project --------------------------------------------------------------------------

    def _project(self, folder: str, toolchain: str) -> int:
        from ..__main__ import COMMANDS

        known = scaffold.toolchains()
        if toolchain not in known:
            hint = known_or_nearest(toolchain, known)
            raise InvalidCommand(f"--toolchain {toolchain}: is none of ours\n  hint: {hint}")
        files = scaffold.files_of(toolchain, COMMANDS)
        scaffold.write_new(folder, files)
        self._made([os.path.join(folder, path) for path in files])
        self._next(folder, files)
        self._say_if_not_installed(toolchain)
        return 0

    def _next(self, folder: str, files: Iterable[str]) -> None:
        screen = Screen(self.outstream)
        files = list(files)
        template = next(path for path in files if path.startswith("templates/light"))
        pattern = next(path for path in files if path.startswith("patterns/"))
        steps = [
            ("doit", "makes what is declared in dodo.py, in generated/"),
            ("doit info", "tells what is stale, and why"),
            ("doit new pattern NAME", f"begins another like {pattern}"),
            ("doit help", "lists all commands"),
        ]
        screen.write("next:", "bold")
        if os.path.normpath(folder) != ".":
            screen.write(f"  cd {_quoted(folder)}")
        for command, what in steps:
            screen.field(f"  {command:23}", what)
        screen.wrapped(f"then change {pattern} or {template}, and doit again")

    def _say_if_not_installed(self, toolchain: str) -> None:
        from ..toolchains import builtin

        compiler = builtin(toolchain)
        try:
            if compiler is not None:
                compiler.find()
        except CodegenError as error:
            for line in f"note: {error}".splitlines():
                self._say(line)

    # A pattern --------------------------------------------------------------------------

    def _execute(self, pos_args: Sequence[str]) -> int:
        found = codegens(getattr(self.loader, "namespace", None))
        if not found:
            raise InvalidCommand("`new pattern` needs a dodo.py that declares a Codegen")
        libraries = [(one.project, _library(one.project)) for one in found]
        project, known = next((each for each in libraries if each[1]), libraries[0])
        model = scaffold.model_of(known, self._like)
        rules = project.rules.values()
        path, text = scaffold.like(project.root, model, self._name, rules)
        scaffold.write_new(".", {path: text})
        self._made([path])
        self._say(f"  like {model}; change it, and run doit")
        return 0

    # Words ------------------------------------------------------------------------------

    def _made(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._say(f"made {os.path.normpath(path).replace(os.sep, '/')}")

    def _say(self, line: str) -> None:
        Screen(self.outstream).write(line)


def _library(project: Project) -> list[str]:
    return scaffold.library(project.root, project.rules, project.output)


def _quoted(folder: str) -> str:
    import shlex

    return shlex.quote(folder) if os.name == "posix" else f'"{folder}"'
