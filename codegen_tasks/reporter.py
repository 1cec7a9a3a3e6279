"""What a run prints: a line for each step that runs, failures in full, a summary at the end.

Where very many steps run, the further ones are counted, with a line a second.  Below all
that, a terminal has the live view of `progress`, while no task of the user's is under way.
Tasks that are not ours are reported as doit's console reporter does.  Loaded by doit in
every project of the environment, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from .ours import phase_of

if TYPE_CHECKING:
    from .model import Outcome
    from .progress import Counts, View, Work
    from .screen import Screen

#: So many steps have a line each; more are counted.
_LINES = 200
#: Seconds between two lines that tell of steps without one.
_EVERY = 1.0
#: So many lines after a failure's message, people no longer see it.
_AWAY = 20
#: So many steps of which it is not known whether they run are asked how long they took.
_SAMPLE = 16
#: So many names are told of what was under way.
_NAMES = 4

#: How lines of a message begin that tell on which way a render came to a place.
_WAY = ("  pattern ", "  from ")
_DONE = {"generate": "generated", "compile": "compiled"}


class CodegenReporter(ConsoleReporter):
    """Console output for code generation: steps that run, failures, one summary line."""

    desc = "console output of codegen-tasks: what ran, what failed, one summary"
    failures: list[Any]

    def __init__(self, outstream: Any, options: Any):
        super().__init__(outstream, options)
        self._start = time.perf_counter()
        self._done: Counter[str] = Counter()
        self._unchanged = 0
        self._uptodate = 0
        self._failed: list[str] = []
        self._reasons: dict[str, str] = {}  # of all that failed, the user's tasks too
        self._written_since = 0  # lines, since the last failure was told
        self._said: dict[str, str] = {}  # a failure's message, and the first task that had it
        self._alike: set[str] = set()  # first lines of messages
        self._unmet = 0
        self._hits = 0
        self._misses = 0
        self._restored = 0
        self._finished: set[str] = set()
        self._others = 0
        self._steps: dict[str, str] = {}  # that are to run as far as is known, with their phases
        self._counted: set[str] = set()  # phases that have told how many are up to date
        self._asked: set[str] = set()  # tasks of which it is known whether they run
        self._spent: dict[str, tuple[float, int]] = {}  # by phase: seconds, steps
        self._told = 0  # steps that have got their line
        self._next = 0.0  # when the next line of counts is due
        self._began = 0.0  # when the first step did
        self._screen: Screen | None = None  # if a view may be shown
        self._view: View | None = None
        self._work: Work | None = None
        self._under_way: list[str] = []  # what was, when the work ended
        self._sample: Mapping[str, float] = {}  # seconds that some steps took the last time
        self._users: set[str] = set()  # tasks that have the screen
        #: The names that were given to the command; None if nobody knows.
        self.names_given: Sequence[str] | None = None

    def initialize(self, tasks: Any, selected_tasks: Any) -> None:
        """Take in what is to run; doit calls it once."""
        super().initialize(tasks, selected_tasks)
        self.stage_begins(tasks, selected_tasks)

    def stage_begins(self, tasks: Any, selected_tasks: Any) -> None:
        """Count what there is to do, and the steps that are up to date and have no task.

        Of these, their phase tells how many.
        """
        left, seen = list(selected_tasks), set(selected_tasks)
        while left:
            name = left.pop()
            task = tasks.get(name)
            if task is None:
                continue
            phase = phase_of(task)
            if phase in _DONE and name not in self._counted:
                self._uptodate += task.meta["codegen"].get("fresh", 0)
                self._counted.add(name)
            if phase is not None and phase != "output" and _is_step(task):
                self._steps[name] = phase
            before = {*task.task_dep, *task.calc_dep, *task.setup_tasks} - seen
            seen |= before
            left += before

    def write(self, text: str) -> None:
        """Print, above the live view if there is one."""
        self._written_since += text.count("\n")
        if self._screen is not None:
            self._screen.write(text)
            return
        try:
            super().write(text)
        except BrokenPipeError:
            self._write_no_more()

    def _write_message(self, text: str) -> None:
        """Print lines that a terminal breaks at words, and in which it shows what failed."""
        if getattr(self.outstream, "isatty", bool)():
            from .dressed import dressed_for

            text = dressed_for(self.outstream, text)
        self.write(f"{text}\n")

    def _write_no_more(self) -> None:
        """Let the run go on: whoever reads what it prints, such as `head`, has seen enough."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.outstream.fileno())

    # What doit tells --------------------------------------------------------------------

    def get_status(self, task: Any) -> None:
        """Note that it is decided now whether a task runs."""
        self._asked.add(task.name)

    def execute_task(self, task: Any) -> None:
        """Print what begins; with verbosity 2 a step's line comes when its time is known."""
        phase = phase_of(task)
        if phase is None:
            self._others += 1
            if task.actions:
                self._give_screen(task.name)
            super().execute_task(task)
            return
        if not self._began and _is_step(task):
            self._begin()
        if phase in _DONE and _is_step(task) and task.verbosity != 2:
            if self._told < _LINES:
                self._told += 1
                super().execute_task(task)
            else:
                self._tell_counts()

    def add_success(self, task: Any) -> None:
        """Count a step that ran under one of doit's own runners, which tell no more of it."""
        phase = phase_of(task)
        if phase is None:
            self._take_screen(task.name)
        elif _is_step(task) and task.name not in self._finished:
            self._done[phase] += 1
            if task.name in self._steps:
                self._finished.add(task.name)

    def skip_uptodate(self, task: Any) -> None:
        """Count our targets that are up to date; show other tasks as doit does."""
        phase = phase_of(task)
        if phase is None:
            super().skip_uptodate(task)
            return
        self._steps.pop(task.name, None)
        if phase in _DONE and _is_step(task) and not self._is_counted(task):
            self._uptodate += 1

    def _is_counted(self, task: Any) -> bool:
        """Tell whether a step is among those that its phase has counted as up to date."""
        return task.meta["codegen"].get("counted") in self._counted

    def add_failure(self, task: Any, fail: Any) -> None:
        """Print a step's failure at once and whole; count what it kept from running."""
        phase = phase_of(task)
        self._take_screen(task.name)
        if task.name in self._steps:
            self._finished.add(task.name)
        if phase is None and isinstance(fail, UnmetDependency):
            kept_by = ", ".join(str(fail.message).split(" "))  # doit's own list of names
            self.write(f"not run: {task.name}, for {kept_by} failed or was not run\n")
        elif phase is None:
            self._reasons[task.name] = f"{fail.get_name()}: {fail.message}"
            super().add_failure(task, fail)
            self._written_since = 0
        elif isinstance(fail, UnmetDependency):
            self._unmet += phase in _DONE and _is_step(task)
            self._uptodate -= phase in _DONE and self._is_counted(task)
        else:
            self._failed.append(task.name)
            self._reasons[task.name] = str(fail.message)
            message = self._unsaid(task.name, fail)
            if message is not None:
                self._write_message(f"failed: {task.name}\n{_indented(message)}")
                self._written_since = 0

    def _unsaid(self, name: str, fail: Any) -> str | None:
        """Return a failure's message, or whose it was if it has been said; None if too often."""
        message = str(fail.message)
        alike, *lines = message.split("\n")
        # By which way it came there, a failure of one place differs by target.
        reason = [alike, *(line for line in lines if not line.startswith(_WAY))]
        first = self._said.setdefault("\n".join(reason), name)
        often = len(self._failed) > _LINES and alike in self._alike
        self._alike.add(alike)
        if often:
            return None
        if first == name:
            return message
        own = (line.lstrip() for line in lines if line.startswith(_WAY[0]))
        return "\n".join([f"for the same reason as {first}", *own])

    # What our runner tells besides ------------------------------------------------------

    def work_begins(self, work: Work) -> None:
        """Learn whom to ask what is under way, until `work_ends`."""
        self._work = work
        if self._screen is not None and not self._users:
            self._screen.begin()

    def work_ends(self) -> None:
        """Take the view off: tasks are torn down, and the run ends."""
        if self._work is not None:
            self._under_way = [n for _, names in self._work.under_way() for n in names]
            self._work = None
        self._end_view()

    def step_finished(self, task: Any, outcome: Outcome) -> None:
        """Take in what a step, doit's task, came to."""
        phase = phase_of(task)
        self._finished.add(task.name)
        self._uptodate -= phase in _DONE and self._is_counted(task)
        self._steps.setdefault(task.name, str(phase))
        seconds, number = self._spent.get(str(phase), (0.0, 0))
        self._spent[str(phase)] = seconds + outcome.seconds, number + 1
        self._hits += outcome.hits
        self._misses += outcome.misses
        if not outcome.error:
            self._done[str(phase)] += 1
            self._unchanged += phase in _DONE and not outcome.changed
        self._restored += outcome.cached.startswith("restored")
        if task.verbosity == 2:
            self.write(f".  {task.name}{self._took(outcome)}\n")
        self._tell_details(outcome, str(phase), int(task.verbosity or 0))

    def restoring(self, steps: Mapping[str, str]) -> None:
        """Learn which steps, with their phases, are to be restored before they have tasks."""
        self._steps.update(steps)
        self._asked.update(steps)

    def step_restored(self, phase: str, outcome: Outcome, verbosity: int) -> None:
        """Take in a step that was restored before its task would have been made."""
        self._finished.add(outcome.task)
        self._done[phase] += 1
        self._unchanged += not outcome.changed
        self._restored += 1
        if self._told < _LINES:
            self._told += 1
            self.write(f".  {outcome.task}{self._took(outcome) if verbosity == 2 else ''}\n")
        self._tell_details(outcome, phase, verbosity)

    @staticmethod
    def _took(outcome: Outcome) -> str:
        """Return who ran a step, and for how long."""
        who = outcome.worker or f"pid {outcome.pid}"
        how = f", {outcome.cached}" if outcome.cached.startswith("restored") else ""
        return f"  ({who}, {outcome.seconds * 1000:.0f} ms{how})"

    def _tell_details(self, outcome: Outcome, phase: str, verbosity: int) -> None:
        for note in outcome.notes:
            self.write(f"   {note}\n")
        # Compilers' warnings are shown as doit shows stderr, templates' prints as stdout.
        shown = verbosity >= (1 if phase == "compile" else 2)
        if outcome.printed and not outcome.error and shown:
            self.write(_indented(outcome.printed.rstrip()) + "\n")

    # The live view ----------------------------------------------------------------------

    def _begin(self) -> None:
        """Note that the first step begins; a terminal gets the view, if that takes long."""
        self._began = time.monotonic()
        if not getattr(self.outstream, "isatty", bool)():
            return
        from .screen import Screen, can_show

        if can_show(self.outstream, os.environ):
            self._screen = Screen(self.outstream, self._picture)
            # What is compiled is decided late; to reckon with it, a few must do.
            late = [name for name in self._steps if name not in self._asked]
            some = late[:: len(late) // _SAMPLE + 1]
            self._sample = self._work.recorded_of(some) if self._work is not None else {}
            if not self._users:
                self._screen.begin()

    def _picture(self, width: int, height: int) -> list[str]:
        if self._view is None:
            from .progress import View

            asked = self._counts, self._unfinished
            self._view = View(self.outstream, *asked, self._sample, os.environ)
        return self._view.picture(self._work, self._began, width, height)

    def _end_view(self) -> None:
        if self._screen is not None:
            self._screen.end()

    def _give_screen(self, name: str) -> None:
        """Leave the screen to a task of the user's, whatever it does there."""
        self._users.add(name)
        self._end_view()

    def _take_screen(self, name: str) -> None:
        if name in self._users:
            self._users.discard(name)
            if self._screen is not None and not self._users:
                self._screen.begin()

    def _counts(self) -> Counts:
        from .progress import Counts

        done, failed = len(self._finished), len(self._failed)
        total = max(done, len(self._steps))
        return Counts(done, total, failed, self._hits, self._templates(), dict(self._spent))

    def _unfinished(self) -> dict[str, str]:
        finished = self._finished
        return {name: phase for name, phase in list(self._steps.items()) if name not in finished}

    def _tell_counts(self) -> None:
        """Print how the run stands, seldom, where steps have no line each and no view is seen."""
        now = time.monotonic()
        self._next = self._next or now + _EVERY
        if now < self._next or (self._screen is not None and self._screen.visible):
            return
        from .progress import in_words, seconds_left

        work, counts, elapsed = self._work, self._counts(), now - self._began
        recorded: Iterable[tuple[str, float]] = work.recorded() if work is not None else ()
        places = work.places if work is not None else 1
        left = seconds_left(self._unfinished(), recorded, counts, (), elapsed, places)
        self.write(f".. {in_words(counts, left)}\n")
        # Looking through very many steps takes its time too.
        self._next = now + max(_EVERY, (time.monotonic() - now) * 200)

    # The end ----------------------------------------------------------------------------

    def complete_run(self) -> None:
        """Print what doit prints of other tasks' failures, then our summary."""
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        self._end_view()
        away = self._written_since > _AWAY
        self._tell_captured()
        super().complete_run()
        for line in self._summary():
            self._write_message(line)
        for line in self._failures(away):
            self._write_message(line)
        for line in self._remaining() if interrupted else []:
            self.write(line + "\n")
        try:
            self.outstream.flush()
        except BrokenPipeError:
            self._write_no_more()

    def _tell_captured(self) -> None:
        """Print what other tasks that failed have printed, as doit does, if it is anything."""
        failures, self.failures = self.failures, []
        for failure in failures:
            task = failure["task"]
            shown = {
                "err": task.verbosity < 1 or self.failure_verbosity > 0,
                "out": task.verbosity < 2 or self.failure_verbosity == 2,
            }
            said = {
                name: "".join(getattr(action, name) or "" for action in task.actions)
                for name in shown
                if task.executed and shown[name]
            }
            if not any(said.values()):
                continue
            self.write("#" * 40 + "\n")
            if shown["err"]:
                self._write_failure(failure, write_exception=self.failure_verbosity)
            for name, text in said.items():
                if text:
                    self.write(f"{task.name} <std{name}>:\n{text}\n")

    def _summary(self) -> list[str]:
        parts = [
            f"{self._done[phase]} {word}" for phase, word in _DONE.items() if self._done[phase]
        ]
        if self._unchanged:
            parts.append(f"{self._unchanged} of them unchanged")
        if self._restored:
            parts.append(f"{self._restored} of them restored")
        if self._uptodate:
            parts.append(f"{self._uptodate} up to date")
        if self._failed:
            parts.append(f"{len(self._failed)} failed")
        if self._unmet:
            parts.append(f"{self._unmet} not run")
        if not parts and self._others:
            return []  # the user's tasks were run, none of ours: doit has said it all
        text = ", ".join(parts) or "nothing to do"
        seconds = time.perf_counter() - self._start
        templates = self._templates()
        found = f" (templates {templates})" if templates else ""
        return [f"{text} in {seconds:.2f} s{found}"]

    def _failures(self, away: bool) -> list[str]:
        """Return what failed once more, unless it was only one, and just now."""
        if not self._failed or (len(self._reasons) == 1 and not away):
            return []
        from .failures import command_for, summary

        program, *given = sys.argv or [""]
        started = os.path.basename(program).partition(".")[0] in ("doit", "__main__")
        asked = self.names_given if started else None  # or a program of the user's runs doit
        return summary(self._reasons, command_for(self._reasons, given, asked))

    def _remaining(self) -> list[str]:
        """Return what an interrupted run leaves to do."""
        left = self._unfinished()
        if not left:
            return []
        bound = "" if self._asked.issuperset(left) else "at most "
        names = [name for name in self._under_way if name in left]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        was = "were" if len(names) > 1 else "was"
        told = f"; {', '.join(names[:_NAMES])}{more} {was} under way" if names else ""
        return [f"{bound}{len(left)} left to do{told}"]

    def _templates(self) -> str:
        counts = ((self._hits, "hit", "hits"), (self._misses, "miss", "misses"))
        return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n)


def _is_step(task: Any) -> bool:
    return bool(task.meta["codegen"]["target"]) or task.meta["codegen"]["phase"] == "output"


def _indented(text: str) -> str:
    return "\n".join("  " + line if line else line for line in str(text).splitlines())
