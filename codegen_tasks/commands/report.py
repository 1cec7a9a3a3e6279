"""doit report: a page about the last run, a trace for other viewers, what differs between two."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.cmdparse import CmdParse
from doit.exceptions import InvalidCommand
from doit.globals import Globals

from .. import disk, runs
from ..codegen import ASKED
from ..errors import DeclarationError, StepError, cause
from ..runs import Head, Run
from .common import codegens, counted, options_first, planned, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped

if TYPE_CHECKING:
    from ..report.graph import Graph

_OPT_OUTPUT = {
    "name": "page_file",
    "short": "o",
    "long": "output",
    "type": str,
    "default": "",
    "help": "write the page here [default: report.html in the state folder]",
}
_OPT_OPEN = {
    "name": "open_page",
    "long": "open",
    "type": bool,
    "default": False,
    "help": "show the page in a browser",
}
_OPT_TRACE = {
    "name": "trace_file",
    "long": "trace",
    "type": str,
    "default": "",
    "help": "write a trace for Perfetto to this file, and no page",
}
_OPT_COMPARE = {
    "name": "compare_runs",
    "long": "compare",
    "type": bool,
    "default": False,
    "help": "tell what differs between two runs, the last two if none is named",
}
_OPT_LIST = {
    "name": "list_runs",
    "long": "list",
    "type": bool,
    "default": False,
    "help": "list the runs that are recorded",
}
_BACK = re.compile(r"-\d+")
_RUN = "run "  # no option begins so


class _Parser(CmdParse):
    """Takes `-1` and the like for the names of runs, which doit's parser takes for options."""

    def parse_only(self, in_args: Any, params: Any = None) -> Any:
        """Parse as core does, with options before names or after them."""
        marked = [f"{_RUN}{one}" if _BACK.fullmatch(one) else one for one in in_args]
        found, names = super().parse_only(options_first(self, marked), params)
        return found, [name.removeprefix(_RUN) for name in names]


class Report(Piped, Ours, DoitCmdBase):
    """The report: of the last run, or of one that is named."""

    name = "report"
    doc_purpose = "show what runs did: a page, a trace, a comparison"
    doc_usage = "[RUN] | --compare [A [B]] | --list"
    doc_description = (
        "Writes one HTML page about a run: timeline, critical path, slowest steps, reasons, "
        "template cache, recent runs, dependency graph. A RUN is a number of `--list`, `last`, "
        "or -1 for the last, -2 for the one before."
    )
    examples = (
        ("--open", "the last run, in a browser"),
        ("--compare", "the last two runs: what differs"),
        ("--trace run.json", "for https://ui.perfetto.dev"),
    )
    cmd_options = (_OPT_OUTPUT, _OPT_OPEN, _OPT_TRACE, _OPT_COMPARE, _OPT_LIST)
    _cmdparser: Any

    @property
    def cmdparser(self) -> Any:
        """The parser, made at the first call."""
        if self._cmdparser is None:
            self._cmdparser = _Parser(self.get_options())
            self._cmdparser.overwrite_defaults(self.config_vals)
        return self._cmdparser

    def execute(self, params: Any, args: Any) -> Any:
        """Execute as core does; what tells of records only needs no task of ours."""
        if params["list_runs"] or params["compare_runs"]:
            ASKED.set(weakref.WeakMethod(self._none))
        return super().execute(params, args)

    def _none(self) -> Collection[str] | None:
        return () if Globals.dep_manager is self.dep_manager else None

    def _execute(
        self,
        pos_args: list[str],
        page_file: str,
        open_page: bool,
        trace_file: str,
        compare_runs: bool,
        list_runs: bool,
    ) -> int:
        say_whatever_the_encoding()
        chosen = [
            name
            for name, value in (
                ("--trace", trace_file),
                ("--compare", compare_runs),
                ("--list", list_runs),
            )
            if value
        ]
        if len(chosen) > 1:
            raise InvalidCommand(f"report: {chosen[0]} and {chosen[1]} are two things to do")
        if chosen and (page_file or open_page):
            raise InvalidCommand(f"report: {chosen[0]} writes no page, so it takes no -o or --open")
        most = 2 if compare_runs else 0 if list_runs else 1
        if len(pos_args) > most:
            raise InvalidCommand(f"report: too many runs, such as '{pos_args[most]}'")
        heads = self._heads()
        try:
            if list_runs:
                return self._list(heads)
            if compare_runs:
                return self._compare(heads, pos_args)
            run = self._loaded(_chosen(heads, pos_args[0] if pos_args else "last"))
            if trace_file:
                return self._trace(run, trace_file)
            return self._page(run, heads, page_file, open_page)
        except BrokenPipeError:
            # Whoever reads this, such as `head`, has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    # Runs -------------------------------------------------------------------------------

    def _heads(self) -> Sequence[Head]:
        """Return the runs that are recorded, the oldest first; say what cannot be read.

        Raises:
            DeclarationError: there is no Codegen.
            InvalidCommand: there is no run.
        """
        found = codegens(getattr(self.loader, "namespace", None))
        if not found:
            raise DeclarationError("dodo.py", "declares no Codegen, so no run is recorded")
        self._states = [*dict.fromkeys(one.project.full(one.project.state) for one in found)]
        self._problems: list[str] = []
        heads: dict[tuple[int, int], Head] = {}
        for state in self._states:
            folder = os.path.join(state, "runs")
            read, problems = runs.heads(folder)
            heads |= {(head.start, head.pid): head for head in read}
            self._problems += [f"{disk.relative(folder)}/{problem}" for problem in problems]
        for problem in self._problems:
            print(f"{problem}, left out", file=sys.stderr)
        if not heads:
            folder = disk.relative(os.path.join(self._states[0], "runs"))
            raise InvalidCommand(
                f"report: {folder}: no run is recorded\n"
                "  hint: `doit` records each run that has something to do"
            )
        return sorted(heads.values(), key=lambda head: (head.start, head.number))

    @staticmethod
    def _loaded(head: Head) -> Run:
        try:
            return runs.load(head)
        except StepError as error:
            raise InvalidCommand(f"report: {error}") from None

    # What to do with them ---------------------------------------------------------------

    def _list(self, heads: Sequence[Head]) -> int:
        from ..report.words import duration, made, selection, when

        for head in heads:
            ended = "" if head.ended == "done" else f"  ({head.ended})"
            said = f"{head.number:5}  {when(head)}  {duration(head.seconds):>9}  {made(head)}"
            asked = f"  of {selection(head)}" if head.selected else ""
            self._say(f"{said}{asked}{ended}")
        return 0

    def _compare(self, heads: Sequence[Head], names: Sequence[str]) -> int:
        from ..report.compare import compared

        first = names[0] if names else "-2"
        second = names[1] if len(names) > 1 else "last"
        pair = [self._loaded(_chosen(heads, name)) for name in (first, second)]
        self._say("\n".join(compared(*pair)))
        return 0

    def _trace(self, run: Run, path: str) -> int:
        from ..report.figures import critical_path, units
        from ..report.trace import trace

        chain = critical_path(units(run.steps), self._graph().waits)
        critical = {step.task for unit in chain for step in unit.steps}
        self._write(path, trace(run, self._name, critical), run)
        return 0

    def _page(self, run: Run, heads: Sequence[Head], path: str, show: bool) -> int:
        from ..report.page import Story, page

        kept = heads[-runs.KEPT :]
        if run.head.number not in [head.number for head in kept]:
            kept = [run.head, *kept]
        text = page(Story(self._name, run, kept, self._graph(), self._problems))
        path = path or disk.relative(os.path.join(self._states[0], "report.html"))
        self._write(path, text, run)
        if show:
            import webbrowser
            from pathlib import Path

            webbrowser.open(Path(path).resolve().as_uri())
        return 0

    @property
    def _name(self) -> str:
        """What to call the project: its folder."""
        found = codegens(self.loader.namespace)
        return os.path.basename(os.path.abspath(found[0].project.root)) or "project"

    def _graph(self) -> Graph:
        from ..report.graph import graph_of

        builds = planned(self)
        return graph_of(builds, self.task_list, self.dep_manager)

    def _write(self, path: str, text: str, run: Run) -> None:
        """Write a file whole and say so; what is no file, such as `/dev/stdout`, gets the text."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
                with open(path, "wb") as out:
                    out.write(data)
                return
            disk.write(os.path.realpath(path) if os.path.islink(path) else path, data)
        except BrokenPipeError:
            raise
        except StepError as error:
            raise InvalidCommand(f"report: {error}") from None
        except (OSError, ValueError) as error:
            what = cause(error) if isinstance(error, OSError) else "is no path"
            raise InvalidCommand(f"report: {path}: cannot write: {what}") from None
        self._say(f"{path}: run {run.head.number}, {counted(len(run.steps), 'step')}")

    def _say(self, line: str) -> None:
        out: Any = self.outstream
        out.write(line.encode("utf-8", "backslashreplace").decode() + "\n")


def _chosen(heads: Sequence[Head], name: str) -> Head:
    """Return the run that a name stands for: its number, `last`, or how far back it is.

    Raises:
        InvalidCommand: there is none.
    """
    if name == "last":
        return heads[-1]
    if _BACK.fullmatch(name):
        back = int(name)
        if back and -back <= len(heads):
            return heads[back]
    found = [head for head in heads if name == str(head.number)]
    if found:
        return found[-1]
    known = str(heads[0].number) if len(heads) == 1 else f"{heads[0].number} to {heads[-1].number}"
    raise InvalidCommand(
        f"report: no run '{name}' is recorded\n  hint: {known}, `last`, or -1 for the last"
    )
