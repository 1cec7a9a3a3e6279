"""What the commands share: finding the Codegen objects, options after names, plain words.

Loaded by `doit run` and `doit info` in every project of the environment, so it imports
next to nothing.
"""

from __future__ import annotations

import getopt
import io
import sys
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.globals import Globals

from .. import disk, garbage
from ..codegen import ASKED, Codegen
from ..errors import nearest
from ..ours import is_ours
from .helped import Helped

if TYPE_CHECKING:
    from ..build import Build


def codegens(namespace: Any) -> list[Codegen]:
    """Return the Codegen objects of a `dodo.py`, each once, in declared order.

    Args:
        namespace: its names; what a foreign loader calls so may be anything.
    """
    found: list[Codegen] = []
    for value in namespace.values() if isinstance(namespace, Mapping) else ():
        # By `type`: `isinstance` would wake a stranger's lazy proxy.
        if issubclass(type(value), Codegen) and not any(value is other for other in found):
            found.append(value)
    return found


def builds_of(loader: Any) -> list[Build]:
    """Return the builds of the `dodo.py` that a doit task loader has loaded.

    A Codegen with nothing to do has none.
    """
    found = codegens(getattr(loader, "namespace", None))
    return [codegen.build for codegen in found if not codegen.quiet]


def planned(command: Any) -> list[Build]:
    """Return a command's builds as they are when it is known what all tasks of the `dodo.py` make.

    Raises:
        DeclarationError: a rule lacks its template or patterns, and no task makes them.
    """
    found = codegens(getattr(command.loader, "namespace", None))
    if any(one.is_abridged for one in found) and _must_be_whole(command, found):
        from .. import chains

        command.task_list = chains.unabridged(found, command.task_list)
    if not all(one.quiet for one in found):
        from .. import chains

        command.task_list = chains.complete(found, command.task_list)
        chains.order([one.build for one in found], command.task_list, command.dep_manager)
    return builds_of(command.loader)


def _must_be_whole(command: Any, found: Sequence[Codegen]) -> bool:
    """Tell whether tasks that have no work must be there all the same."""
    from ..glance import are_concerned, want_steps, would_read

    if len(found) > 1 and any(one.is_ahead for one in found):
        return True  # what one restores, it may have read of what another is to make
    if len(found) == 1 and found[0].glance is None:
        # Nothing has been recorded, so nothing tells what steps read that tasks make: those wait.
        others = claimed(task for task in command.task_list if not is_ours(task))
        concerned = want_steps(command.task_list) or would_read(found[0].project, others)
        return concerned or not command.may_be_short(found)
    glances = [one.glance for one in found if one.glance is not None]
    alike = len({one.quiet for one in found}) == 1
    tidy = not command.needs_tidy or all(one.kept.tidy for one in glances)
    whole = len(glances) < len(found) or not alike or not tidy
    whole = whole or are_concerned(glances, command.task_list) or _read_each_other(found)
    return whole or not command.may_be_short(found)


def _read_each_other(found: Sequence[Codegen]) -> bool:
    """Tell whether a step has read, or looked for, what another Codegen makes that has work."""
    working = [one for one in found if not one.quiet]
    return any(
        not made.isdisjoint(one.glance.kept.paths)
        for made, maker in ((set(one.build.plan.makers), one) for one in working)
        for one in working
        if one is not maker and one.glance is not None
    )


def claimed(tasks: Iterable[Any]) -> set[str]:
    """Return the targets of all doit tasks, project-relative and plain: what is nobody's orphan."""
    return {disk.relative(str(target)) for task in tasks for target in task.targets}


def names_us(dodo: str) -> bool:
    """Tell whether a `dodo.py` names this package, without running it."""
    try:
        with open(dodo, encoding="utf-8") as file:
            return "codegen_tasks" in file.read()
    except (OSError, UnicodeError):
        return False


def say_whatever_the_encoding() -> None:
    """Let a screen that has no arrows show a substitute instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class LateParser(CmdParse):
    """Core's options, in its words; besides them some that only a Codegen makes known.

    Options are parsed before `dodo.py` is loaded, so a refusal is kept until it is.

    Args:
        options: core's.
        own: ours, as core declares them.
    """

    def __init__(self, options: Sequence[CmdOption], own: Sequence[Mapping[str, Any]]):
        super().__init__(options)
        self._own = own
        self.refused: CmdParseError | None = None
        #: Options, as doit goes on completing them, and the other arguments.
        self.given: tuple[Any, list[str]] | None = None

    @property
    def complete(self) -> CmdParse:
        """All options."""
        return CmdParse([*self.options, *map(CmdOption, self._own)])

    def parse_only(self, in_args: Any, params: Any = None) -> Any:
        """Parse as core does; see there."""
        try:
            found, names = super().parse_only(in_args, params)
        except CmdParseError as error:
            try:
                found, names = self.complete.parse_only(in_args, params)
            except CmdParseError:
                refused = misspelt(self.complete, in_args) if names_us("dodo.py") else None
                raise refused or error from None
            self.refused = error
        for option in self._own:
            found.setdefault(option["name"], option["default"])
        self.given = found, names
        return found, names


class OverCore(Helped):
    """What our commands have in common that stand in for core's of the same name.

    Before a command that has `own` options and an `_execute_builds`.
    """

    own: Sequence[Mapping[str, Any]]
    loader: Any
    _cmdparser: Any
    #: Whether the command must know what we made and no rule makes any more.
    needs_tidy = False

    @property
    def execute(self) -> Any:
        """Core's method, so that its tracebacks show no frame of ours.

        Meanwhile tasks are made of what may have work, if `names` allows it.
        """
        # Weakly: a foreign project's database is closed when doit's last object is let go.
        ASKED.set(weakref.WeakMethod(self._asked))
        return super().execute  # type: ignore[misc]

    def _asked(self) -> Collection[str] | None:
        command: Any = self
        given = self.cmdparser.given
        if given is None or Globals.dep_manager is not command.dep_manager:
            return None  # another command of this process
        return self.names(*given)

    def may_be_short(self, found: Sequence[Codegen]) -> bool:
        """Tell whether it is enough to have looked at all before any task runs."""
        return True

    def names(self, params: Mapping[str, Any], args: Sequence[str]) -> Collection[str] | None:
        """Return what was selected by name; None if the command needs all tasks.

        Args:
            params: values of the options, by name; those of `DOIT_CONFIG` are among them.
            args: the other arguments.
        """
        return None

    def get_options(self) -> list[CmdOption]:
        """Return core's options, and ours if the `dodo.py` is: what shells complete."""
        options: list[CmdOption] = super().get_options()  # type: ignore[misc]
        return [*options, *map(CmdOption, self.own)] if self._is_of_ours() else options

    @property
    def cmdparser(self) -> Any:
        """The parser, made at the first call."""
        command: Any = self
        if self._cmdparser is None:
            self._cmdparser = LateParser(super().get_options(), self.own)  # type: ignore[misc]
            self._cmdparser.overwrite_defaults(command.config_vals)
        return self._cmdparser

    @property
    def _execute(self) -> Any:
        """Core's method itself where there is no Codegen: its tracebacks show no frame of ours."""
        command: Any = self
        if codegens(getattr(self.loader, "namespace", None)):
            return garbage.seldom()(command._execute_builds)
        if self.cmdparser.refused is not None:
            raise self.cmdparser.refused
        return super()._execute  # type: ignore[misc]

    def help(self) -> str:
        """Return help; it runs no `dodo.py`, so whose it is shows in the text only."""
        if not self._is_of_ours():
            return str(super(Helped, self).help())  # type: ignore[misc]
        self.describe()
        self._cmdparser = self.cmdparser.complete
        return super().help()

    @property
    def purpose(self) -> str:
        """What the command is for, here."""
        if self._is_of_ours():
            self.describe()
        command: Any = self
        return str(command.doc_purpose)

    def _is_of_ours(self) -> bool:
        command: Any = self
        options = {**self.cmdparser.parse([])[0], **command.opt_vals}
        return names_us(options.get("dodoFile", ""))

    def describe(self) -> None:
        """Change what help says of the command where there is a Codegen."""


def options_first(parser: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with options before names, as doit's parser wants them.

    Raises:
        CmdParseError: an unknown option.
    """
    try:
        options, names = getopt.gnu_getopt(list(arguments), parser.get_short(), parser.get_long())
    except getopt.GetoptError as error:
        raise refusal(error, parser) from None
    first: list[str] = []
    for option, value in options:
        if option.startswith("--") and value:
            first.append(f"{option}={value}")
        else:
            first += [option, value] if value else [option]
    return [*first, "--", *names] if names else first


def misspelt(parser: CmdParse, arguments: Sequence[str]) -> CmdParseError | None:
    """Return what is wrong with an option, without core's list of all; None if it is not that."""
    try:
        getopt.getopt(list(arguments), parser.get_short(), parser.get_long())
    except getopt.GetoptError as error:
        return refusal(error, parser)
    return None


def refusal(error: getopt.GetoptError, parser: CmdParse) -> CmdParseError:
    """Return what is wrong with an option, and the nearest one or where to find all."""
    known = [f"--{name.rstrip('=')}" for name in parser.get_long()]
    hint = nearest(f"--{error.opt}", known) if "not recognized" in error.msg else ""
    return CmdParseError(f"{error.msg}\n  hint: {hint or 'doit help COMMAND lists its options'}")


def sized(count: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return ""


def counted(count: int, noun: str) -> str:
    """Return `1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
