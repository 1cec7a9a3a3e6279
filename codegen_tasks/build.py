"""One build of one project: its plan, its facts, and the verdict on each of its steps.

What `doit`, `doit info` and the other commands all ask, so that they cannot disagree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from . import disk, manifest, patterns, snapshot
from .model import PATH_KINDS, Change, Outcome, Output, Phase, Reason, Stat, Step, Trace
from .outputs import FETCHED, KEPT, RESTORED, too_quick
from .plan import Plan, make_plan
from .project import Project
from .savings import Savings
from .snapshot import Row, Told
from .staleness import verify
from .steps import Workshop
from .world import World

if TYPE_CHECKING:
    from .glance import Glance


#: The phases that make targets.
_MAKING: tuple[Phase, ...] = ("generate", "compile")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a step must run, and why.

    Args:
        reasons: why it must; empty if it is up to date.
        trace: what its last run recorded, if anything.
        refreshed: the same with the signatures of touched but equal files, if any differ.
    """

    reasons: tuple[Reason, ...]
    trace: Trace | None
    refreshed: Trace | None = None


def left_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return path and digest of what a task's values say it made once; see `Build.left`."""
    found = values.get("left")
    if not isinstance(found, dict):
        return {}
    return {path: content for path, content in found.items() if isinstance(content, str)}


class Build:
    """Everything that is known of a project between two loads of `dodo.py`.

    Args:
        project: what was declared.
        others: path → task of what tasks make that are not ours; None while that is not
            known, and the plan then lacks what hangs on it.
        outputs: output folders of the other Codegen objects.
        before: returns what we have made so far, see `orphans.made`.
        glance: the project beside the snapshot that there is, if it can be trusted.

    Raises:
        DeclarationError: the rules cannot be turned into steps.
    """

    def __init__(
        self,
        project: Project,
        others: Mapping[str, str] | None = None,
        outputs: tuple[str, ...] = (),
        before: Callable[[], Collection[str]] = tuple,
        glance: Glance | None = None,
    ):
        self.project = project
        self.world = World(project, glance.folders if glance is not None else None)
        sound = glance is not None and glance.planned
        self.plan: Plan = make_plan(project, self.world.library, others, outputs, before, sound)
        if not self.plan.asked and not any(step.many for step in self.plan.steps.values()):
            self.world.library.keep = patterns.FEW
        self.glance = glance
        self.workshop = Workshop(project, self.plan, self.world)
        self.hints: dict[str, set[str]] = {}  # tasks a step waits for because of its last run
        #: Steps that have no work as far as is known, so that nobody asks for their verdict.
        self.fresh: Collection[str] = frozenset()
        #: Steps that the output cache probably knows, and when the run has begun, those that were
        #: restored from it: see `ahead`.
        self.ahead: Collection[str] = frozenset()
        #: What each step has read and written, as far as this build has come to know it.
        self.latest: dict[str, Trace] = {}
        #: Steps that have run; the database knows what they have read, or that they failed.
        self.ran: set[str] = set()
        #: What snapshot and manifest are to say of these, as far as it is known without that.
        self.rows: dict[str, Row] = {}
        #: What the output cache has done in this run.
        self.savings = Savings()
        #: Steps whose results the output cache has, each for itself, and what they printed.
        self.kept: dict[str, str] = {}
        #: Steps that it does not have because they took next to no time, and what they printed.
        self.quick: dict[str, str] = {}
        self._too_quick = too_quick(project.settings)
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._rows = snapshot.Rows(project.templates)
        self._leaving = False
        self._manifest: manifest.Entries | None = None
        self._manifest_read: tuple[Stat | None, tuple[manifest.Entries, str]] | None = None
        #: The manifest's signature when this build saw or had it say all that it should.
        self.manifest_sign: Stat | None = None
        # What each step's record said before it ran, which its new one replaces.
        self._before: dict[str, tuple[Trace | None, dict[str, str]]] = {}

    def verdict(self, step: Step, values: Mapping[str, Any]) -> Verdict:
        """Return whether a step must run.

        Args:
            step: of this build's plan.
            values: what doit's database holds for its task.
        """
        trace = Trace.from_values(values.get("trace"))
        self._before[step.task] = (trace, left_in(values))
        if step.problem is not None:
            return Verdict((Reason("failing"),), trace)
        if trace is None and "failed" in values:
            return Verdict((Reason("failed last time", new=str(values["failed"])),), None)
        if not self.project.settings.incremental:
            return Verdict((Reason("always", "setting", "incremental is off"),), trace)
        reasons = verify(
            trace,
            self.world.declared(step),
            step.outputs,
            lambda item: self.world.current(step, item),
            self.world.on_disk,
        )
        reasons += self._mode_changed(step) if trace is not None else ()
        refreshed = self.refreshed(step, trace) if trace is not None and not reasons else None
        if trace is not None and not reasons:
            self.latest[step.task] = refreshed or trace
        return Verdict(reasons, trace, refreshed)

    def trace_before(self, step: Step) -> Trace | None:
        """Return what a step's last run recorded, if its verdict was asked for."""
        return self._before.get(step.task, (None, {}))[0]

    def seconds_before(self) -> list[tuple[str, float]]:
        """Return the steps whose verdict was asked for, and how long each took the last time."""
        before = list(self._before.items())
        return [(task, trace.seconds) for task, (trace, _) in before if trace is not None]

    def _mode_changed(self, step: Step) -> tuple[Reason, ...]:
        """Return why a step must run whose target has lost the mode that its rule declares."""
        wanted = self.project.rules[step.rule].mode if step.phase == "generate" else None
        if wanted is None:
            return ()
        path = step.outputs[0]
        found = disk.mode_of(self.project.full(path))
        if found in (wanted, None):
            return ()
        return (Reason("changed", "mode", path, f"{wanted:04o}", f"{found:04o}"),)

    def ended(self, outcome: Outcome) -> None:
        """Take in that a step has run: what was known of it holds no longer."""
        self.ran.add(outcome.task)
        self.savings.take(outcome)
        if outcome.cached in (KEPT, RESTORED, FETCHED):
            self.kept[outcome.task] = outcome.printed
        elif outcome.cached == self._too_quick:
            self.quick[outcome.task] = outcome.printed
        for known in (self.latest, self.rows, self._entries):
            known.pop(outcome.task, None)
        if outcome.trace is not None:
            self.latest[outcome.task] = outcome.trace
        elif outcome.row is not None:
            self.rows[outcome.task] = self._rows.heard(outcome.row)
        if outcome.entries is not None:
            self._entries[outcome.task] = outcome.entries

    def has_task(self, task: str) -> bool:
        """Tell whether doit has a task for a step before anybody asks for it."""
        return task not in self.fresh and task not in self.ahead

    def has_made(self, task: str) -> bool:
        """Tell whether what a step makes is there: it is up to date, or has run and not failed."""
        known = (self.latest, self.rows, self._entries, self.fresh)
        return any(task in each for each in known)

    def told(self, step: Step, trace: Trace) -> Told | None:
        """Return a step's row for the snapshot; None if that cannot be told before the run ends."""
        if step.phase == "compile":
            return None  # what its compiler is given may change until then
        return self._rows.told(step, trace, self.world.declared(step))

    @property
    def leaves_behind(self) -> bool:
        """Whether a step's record names files that it made once and does not make now."""
        return self._leaving or any(left for _, left in self._before.values())

    def refreshed(self, step: Step, trace: Trace) -> Trace | None:
        """Return a fresh trace with the signatures as they are; None if all still hold."""
        inputs = tuple(self.world.signed(step, item) for item in trace.inputs)
        outputs = tuple(self._signed(output) for output in trace.outputs)
        if inputs == trace.inputs and outputs == trace.outputs:
            return None
        return replace(trace, inputs=inputs, outputs=outputs)

    def _signed(self, output: Output) -> Output:
        now = disk.stat(self.project.full(output.path)) if output.digest else output.stat
        if now in (output.stat, None):
            return output
        same = self.world.on_disk(replace(output, stat=None)) == output.digest
        return replace(output, stat=now) if same else output

    def recorded(self, step: Step, trace: Trace | None) -> dict[str, str]:
        """Return the digests a step's targets had when we last wrote them.

        A step that failed or was forgotten has no trace; then the manifest still knows.
        """
        if trace is not None:
            return {output.path: output.digest for output in trace.outputs}
        entries = self.remember_manifest()
        prefix = len(self.project.output) + 1
        found = {path: entries.get(path[prefix:]) for path in step.outputs}
        return {
            **{path: entry["checksum"] for path, entry in found.items() if entry},
            **self._before.get(step.task, (None, {}))[1],
        }

    def time_limit(self, step: Step) -> float | None:
        """Return the seconds a step may take; None for no end, or where its compiler is watched."""
        if step.phase == "compile" or step.problem is not None:
            return None
        limit = self.project.rules[step.rule].timeout if step.rule else None
        if not self.project.sandbox:
            return limit
        most = float(self.project.settings.sandbox_seconds)
        return most if limit is None else min(limit, most)

    def renew(self) -> None:
        """Forget what was looked at before another process may have changed it."""
        self._manifest = None

    def sweep(self) -> None:
        """Remove what killed runs left half made; to be called with the lock held."""
        full, home = self.project.full, self.project.home
        disk.clear(full(f"{home}/tmp"))
        for folder in (self.project.output, home):
            disk.sweep(full(folder))

    def remember_manifest(self) -> manifest.Entries:
        """Return the manifest's entries as they were when they were first asked for."""
        if self._manifest is None:
            self._manifest, _ = self.manifest_now()
        return self._manifest

    def manifest_now(self) -> tuple[manifest.Entries, str]:
        """Return what `manifest.read` does; the file is read again only if it has changed."""
        sign = disk.stat(self.project.full(self.project.manifest_path))
        if sign is None or self._manifest_read is None or self._manifest_read[0] != sign:
            ours = self.glance is not None and self.glance.kept.manifest == sign
            self._manifest_read = sign, manifest.read(self.project, ours)
        return self._manifest_read[1]

    def write_manifest(self, entries: manifest.Entries, timestamp: str, part: bool) -> None:
        """Replace the manifest.

        Args:
            entries: what it is to say.
            timestamp: when.
            part: they are those of a few steps, and what it said before of the others.

        Raises:
            StepError: it cannot be written.
        """
        before = self._manifest_read[0] if self._manifest_read is not None else None
        manifest.write(self.project, entries, timestamp)
        if not part or (before is not None and before == self.manifest_known):
            self.manifest_sign = disk.stat(self.project.full(self.project.manifest_path))

    @property
    def manifest_known(self) -> Stat | None:
        """The signature of a manifest that says all it should, but for steps that have run."""
        if self.manifest_sign is not None:
            return self.manifest_sign
        glance = self.glance
        return glance.kept.manifest if glance is not None and glance.planned else None

    @property
    def listed(self) -> Collection[str]:
        """The steps whose files the manifest is known to list as they are."""
        return self.fresh if self.glance is not None and self.glance.complete else frozenset()

    @property
    def is_tidy(self) -> bool:
        """Whether it is known that all that we have made is made by a rule still."""
        glance = self.glance
        return glance is not None and glance.kept.tidy and glance.planned

    def entries_of(self, tasks: Collection[str]) -> manifest.Entries:
        """Return what the manifest says of the files that some steps make."""
        made = {path for task in tasks for path in self.plan.steps[task].outputs}
        prefix = f"{self.project.output}/"
        listed = self.remember_manifest() if made else {}
        return {key: entry for key, entry in listed.items() if prefix + key in made}

    def manifest_wanted(self, recorded: Callable[[str], Trace | None]) -> manifest.Entries:
        """Return what the manifest is to say of all files that steps make.

        Args:
            recorded: returns what is recorded of a task.
        """
        listed = self.listed
        wanted = self.entries_of(listed)
        for phase in _MAKING:
            for step in self.plan.of_phase(phase):
                if step.task not in listed:
                    wanted |= self.entries_made(step.task, recorded)
        return wanted

    def entries_made(self, task: str, recorded: Callable[[str], Trace | None]) -> Mapping[str, Any]:
        """Return what the manifest is to say of the files that a step makes."""
        known = self._entries.get(task)
        if known is not None:
            return known
        return manifest.entries_of(self.project, (self.latest.get(task) or recorded(task),))

    def manifest_due(self, wanted: manifest.Entries) -> tuple[Reason, ...]:
        """Return why the manifest is to be written: it does not hold the `wanted` entries."""
        found, problem = self.manifest_now()
        if not problem and found == wanted:
            self.manifest_sign = self._manifest_read[0] if self._manifest_read else None
            return ()
        path = self.project.manifest_path
        change: Change = "changed" if problem or found else "missing"
        return (Reason(change, "manifest", path),)

    def values(self, outcome: Outcome) -> dict[str, Any]:
        """Return what doit is to keep of a finished step."""
        assert outcome.trace is not None
        made = {output.path for output in outcome.trace.outputs}
        return {
            "trace": outcome.trace.to_values(),
            **self.beside(outcome.task, outcome.trace, outcome.references),
            **self.left(outcome.task, made),
        }

    def beside(self, task: str, trace: Trace, references: Sequence[str]) -> dict[str, Any]:
        """Return what doit is to keep of a finished step beside its trace, whatever was before."""
        return {"references": list(references), **self._chained(task, trace)}

    def _chained(self, task: str, trace: Trace) -> dict[str, Any]:
        """Return what doit is to keep of files that a step read and tasks make."""
        read = {
            item.name for item in trace.inputs if item.kind in PATH_KINDS and item.kind != "source"
        }
        made = sorted(path for path in read if self.plan.maker(path) not in (None, task))
        return {"chained": made} if made else {}

    def left(self, task: str, made: Collection[str] = ()) -> dict[str, Any]:
        """Return what doit is to keep of files that a step made before and not this time.

        Without it nobody would know any more that they are ours; see `orphans`.
        """
        trace, left = self._before.get(task, (None, {}))
        if trace is not None:
            left = left | {o.path: o.digest for o in trace.outputs if o.digest}
        found = {
            path: content
            for path, content in left.items()
            if path not in made and os.path.lexists(self.project.full(path))
        }
        self._leaving = self._leaving or bool(found)
        return {"left": found} if found else {}

    def inputs_inside(self, trace: Trace) -> list[str]:
        """Return the files a step read, as doit's `file_dep`: those of the project only."""
        return [
            item.name
            for item in trace.inputs
            if item.kind in PATH_KINDS and item.digest and not item.name.startswith(("/", "../"))
        ]
