"""Running steps: render, compile, put a template into the cache; each yields an Outcome.

Runs in whichever process or thread it is called in, and raises nothing for a step that
fails: the failure is in its outcome.  Unaware of doit.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from . import disk, formats, texts, toolchains
from .bytecode import TemplateCache
from .compiling import Compilation, Compiling
from .complaints import Complaints
from .engines import Kind, kind_of
from .errors import AwaitedError, CodegenError, StepError
from .keys import View
from .looks import Guard
from .model import Input, Outcome, Output, Pattern, Result, Step, Trace
from .outputs import FETCHED, Found, OutputCache, remote_of
from .patterns import EXPLAINED, data_input
from .plan import Plan
from .project import Project
from .publish import Made, Publisher, Recorded
from .schemas import Schemas
from .toolchains import Compiled
from .traffic import Traffic
from .views import Views
from .world import World, compiled_by
from .young import Young

if TYPE_CHECKING:
    from .engines.base import Engine, Spec
    from .origins import Origins
    from .record import Record

#: For each task, the tasks that it waited for.
Over: TypeAlias = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a render came to: the target's bytes, what was read, what the text refers to."""

    data: bytes
    inputs: Sequence[Input]
    references: tuple[str, ...]


class Workshop:
    """Everything one process needs to run steps of one project, made once, kept warm.

    Args:
        project: what was declared.
        plan: its steps.
        world: the facts; shared with whoever decides what is stale.
        anew: run steps though the output cache knows what they make.
    """

    def __init__(self, project: Project, plan: Plan, world: World, anew: bool = False):
        self.project = project
        self.plan = plan
        self.world = world
        self.anew = anew
        #: Whether this process may use a remote cache: it must not fork afterwards.
        self.asks_afar = False
        self._speaker = 0  # the process that has begun to use one
        #: Whether it was found out in this run that a remote cache is of no use.
        self.is_alone = False
        self._engines: dict[str, Engine] = {}
        self._renderers: dict[str, Engine] = {}  # the same by template
        self._cache: TemplateCache | None = None
        self._guarding: Guard | None = None
        self.views = Views(project, lambda template: self.engine_for(template).tracks)
        self.publisher = Publisher(project, world.files)
        self.complaints = Complaints(project, plan, lambda: self.origins)
        self.compiling = Compiling(project, world, self.complaints)
        self._second = (0, "")
        self._young = Young(project.root)
        self._formatters: dict[str, Sequence[Input]] = {}
        self._shared: dict[Any, tuple[list[Input], list[Input]]] = {}

    def __reduce__(self) -> Any:
        """Pickle without what is made at first use: a worker makes its own."""
        return (Workshop, (self.project, self.plan, self.world, self.anew))

    # Tools, made at first use -----------------------------------------------------------

    @property
    def cache(self) -> TemplateCache:
        """The template cache."""
        if self._cache is None:
            self._cache = template_cache(self.project)
        return self._cache

    def prepare(self) -> None:
        """Say what is to be said once, before workers are started that would each say it."""
        if self.project.settings.template_cache:
            self.cache.prepare()

    def warm_up(self) -> None:
        """Make what renders need, so that processes forked from this one have it."""
        if any(step.phase in ("templates", "generate") for step in self.plan.steps.values()):
            texts.warm_up()
            for kind in self.project.kinds():
                with contextlib.suppress(CodegenError):  # told by the step that needs it
                    self.engine_of(kind).warm_up()
            for schema in {rule.schema for rule in self.project.rules.values()} - {None}:
                with contextlib.suppress(CodegenError):
                    self.schemas.prepared(str(schema))

    def make_engines(self) -> None:
        """Make the engines that the rules need.

        Raises:
            DeclarationError: an option that an engine does not take.
        """
        for kind in self.project.kinds():
            self.engine_of(kind)

    def engine_of(self, kind: Kind) -> Engine:
        """Return an engine; making it imports its library.

        Raises:
            DeclarationError: an option that it does not take.
        """
        found = self._engines.get(kind.name)
        if found is None:
            found = self._engines[kind.name] = self._made_engine(kind)
        return found

    def engine_for(self, template: str) -> Engine:
        """Return the engine that renders a template; otherwise as `engine_of`."""
        found = self._renderers.get(template)
        if found is None:
            found = self._renderers[template] = self.engine_of(kind_of(template))
        return found

    def _made_engine(self, kind: Kind) -> Engine:
        cache = self.cache if self.project.settings.template_cache else None
        self.world.settle()
        shape = self.world.declaration("environment", compiled_by(kind))
        made: Engine = import_module(kind.module).Engine(self.spec_of(kind), cache, shape)
        return made

    def spec_of(self, kind: Kind) -> Spec:
        """Return what an engine is made from."""
        from .engines.base import Spec

        project = self.project
        return Spec(
            project.root,
            project.templates,
            project.options_of(kind.name),
            project.filters,
            project.tests,
            {**project.globals, **project.functions},
            project.sandbox,
            key_tracking=project.settings.key_tracking,
            sandbox_bytes=project.settings.sandbox_bytes,
            state=project.state,
        )

    @cached_property
    def origins(self) -> Origins:
        """What tells which template line made a place of a target."""
        from .origins import Origins

        return Origins(self)

    @cached_property
    def outputs(self) -> OutputCache | None:
        """The output cache; None if it is off."""
        if not self.project.settings.output_cache:
            return None
        asks = self.asks_afar and not self.is_alone
        remote = remote_of(self.project) if asks else None
        return OutputCache(self.project, self.world, remote)

    def settle_here(self) -> None:
        """Begin in a process that forks no more: it may use a remote cache.

        One that was forked, though, from a process that does, may not.
        """
        self.asks_afar = self._speaker in (0, os.getpid())
        self._speaker = self._speaker or os.getpid()
        self.__dict__.pop("outputs", None)

    @cached_property
    def schemas(self) -> Schemas:
        """The schemas of patterns."""
        return Schemas(self.project.root)

    # Running ----------------------------------------------------------------------------

    def run(
        self,
        steps: Sequence[Step],
        recorded: Mapping[str, Recorded],
        stop_early: bool = False,
        over: Over | None = None,
    ) -> list[Outcome]:
        """Run steps that may run together; return their outcomes in order.

        Args:
            steps: to run; if the first is `compiling.shared_by` something, all are, and
                they share a process.
            recorded: for each task, the digests its targets had when they were recorded.
            stop_early: leave out what comes after the first failure.
            over: for each task, those that it waited for; what any other task makes, it is
                not to read yet.  None: it may read everything.
        """
        return list(self.outcomes(steps, recorded, stop_early, over))

    def expect(self, steps: Sequence[Step], over: Over | None = None) -> None:
        """Ask a remote cache about steps that are about to be run; `over` as in `run`."""
        if self.anew or self.outputs is None or self.outputs.remote is None:
            return
        known = over if over is not None else {}
        renders = {s.task: s for s in steps if s.phase == "generate" and over is not None}
        guards = {name: self._guard(step, known.get(name, ())) for name, step in renders.items()}
        self.outputs.expect([s for s in steps if s.phase != "templates"], guards)

    def traffic(self) -> Traffic:
        """Have sent what is to be sent to a remote cache; return what went to and fro so far."""
        outputs = self.__dict__.pop("outputs", None)
        remote = outputs.remote if outputs is not None else None
        return remote.end() if remote is not None else Traffic()

    def outcomes(
        self,
        steps: Sequence[Step],
        recorded: Mapping[str, Recorded],
        stop_early: bool = False,
        over: Over | None = None,
    ) -> Iterator[Outcome]:
        """Yield each step's outcome when it is known; otherwise as `run`."""
        if len(steps) > 1 and self.compiling.shared_by(steps[0]) is not None:
            yield from self._compile(steps, recorded)
            return
        failed = False
        for step in steps:
            if failed and stop_early:
                yield Outcome(step.task, skipped=True)
                continue
            guard = None if over is None else self._guard(step, over.get(step.task, ()))
            outcome = self.run_one(step, recorded.get(step.task, {}), guard)
            failed = failed or bool(outcome.error)
            yield outcome

    def _guard(self, step: Step, over: Collection[str]) -> Guard:
        """Return what a render asks before it reads a file."""

        def ask(path: str) -> None:
            maker = self.plan.maker(path)
            if maker == step.task:
                raise StepError(path, "is what this step makes, so it cannot read it")
            if maker is not None and maker not in over:
                raise AwaitedError(path)

        return ask

    def run_one(self, step: Step, recorded: Recorded, guard: Guard | None = None) -> Outcome:
        """Run one step; `guard` is called with each path that it is about to read."""
        if step.phase == "compile":
            return self._compile([step], {step.task: recorded})[0]
        work = self._cache_template if step.phase == "templates" else self._generate
        hits, misses = self._template_counts()
        began, start = time.time_ns(), time.perf_counter()
        made, error = Made(), ""
        self._guarding = guard
        with _Printed() as printed:
            try:
                if step.problem is not None:
                    raise step.problem
                restored = self._restored(step, recorded, guard)
                if restored is not None:
                    return restored
                made = work(step, recorded)
            except AwaitedError as awaited:
                return Outcome(step.task, awaits=awaited.path)
            except CodegenError as problem:
                error = str(problem)
            except Exception:
                error = internal(step.task)
            finally:
                self._guarding = None
        seconds = time.perf_counter() - start
        after_hits, after_misses = self._template_counts()
        trace = None if error else self._trace(made, seconds)
        said = printed.getvalue()
        cached, stored = self._keep(step, trace, made, said, seconds)
        return Outcome(
            step.task,
            trace,
            made.changed,
            error,
            said,
            made.references,
            after_hits - hits,
            after_misses - misses,
            os.getpid(),
            seconds,
            made.notes,
            start=began,
            cached=cached,
            stored=stored,
        )

    def _template_counts(self) -> tuple[int, int]:
        hits = misses = 0
        for engine in self._engines.values():
            hits += engine.hits
            misses += engine.misses
        return hits, misses

    def _trace(self, made: Made, seconds: float) -> Trace:
        """Return what is recorded of a step; `made` is when its outputs' bytes last changed."""
        # Files are written only if their bytes change, so the newest one's mtime tells.
        written = [output.stat[1] for output in made.outputs if output.stat]
        newest = max(written) if written else time.time_ns()
        return Trace(tuple(made.inputs), made.outputs, self._iso(newest), round(seconds, 6))

    def _iso(self, nanoseconds: int) -> str:
        """Return a time as `iso` does; what it says of a second is made once."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        known = self._second
        if known[0] != second:
            known = self._second = (second, iso(second))
        return known[1].replace(".000", f".{rest // 1_000_000:03d}")

    # Templates --------------------------------------------------------------------------

    def _cache_template(self, step: Step, recorded: Recorded) -> Made:
        kind = kind_of(step.template)
        engine, shaped = self.engine_of(kind), compiled_by(kind)
        source = engine.parse(step.template)
        shape = self.world.declaration("environment", shaped)
        entry = engine.entry_path(step.template)
        inputs = (source, Input("environment", shaped, shape))
        kept = disk.stat(entry) if entry is not None else None
        if entry is None or kept is None:
            return Made(inputs)
        relative = disk.relative(entry, self.project.root)
        # The entry lies in our own cache, which vouches for it: no digest, and no signature
        # either, since another worker may replace it by its like.
        return Made(inputs, (Output(relative, "", kept[0]),))

    # Generating -------------------------------------------------------------------------

    def _generate(self, step: Step, recorded: Recorded) -> Made:
        rendered = self.rendered(step)
        mode = self.project.rules[step.rule].mode
        made = self.publisher.publish({step.outputs[0]: rendered.data}, recorded, mode)
        made.inputs, made.references = rendered.inputs, rendered.references
        made.data = {step.outputs[0]: rendered.data}
        if self.project.settings.maps:
            self.origins.keep(step.outputs[0])
        return made

    def rendered(self, step: Step) -> Rendered:
        """Return what a generating step makes; nothing is written.

        Raises:
            CodegenError: it fails.
        """
        if step.problem is not None:
            raise step.problem
        # Made before a context function runs, see `World.settle`.
        engine = self.engine_for(step.template)
        loaded = [self.world.library.load(path) for path in step.patterns]
        judged = self._judged(step, loaded)
        view = self.views.of(step, loaded)
        if judged:
            view.see_all()  # a key that no template reads may be wrong, too
        made_by = step.patterns[0] if len(step.patterns) == 1 else ""
        try:
            text, record = engine.render(step.template, view, made_by, self._guarding)
        except StepError as error:
            raise self.complaints.of_template(step, error) from None
        finally:
            self._young.forget()
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise StepError(step.outputs[0], f"cannot be UTF-8: {error.reason}") from None
        inputs = self._inputs(step, loaded, view, record, judged)
        data, tools = self._finished(step, data)
        inputs += tools
        return Rendered(data, inputs, self._references(step, text))

    def names_for(self, step: Step) -> set[str]:
        """Return the variables that a render sees, besides globals.

        Raises:
            CodegenError: its patterns cannot be read.
        """
        loaded = [self.world.library.load(path) for path in step.patterns]
        return set(self.views.of(step, loaded).variables)

    def _finished(self, step: Step, data: bytes) -> tuple[bytes, Sequence[Input]]:
        """Return what is written of a rendered text, and what had a part in that.

        Raises:
            StepError: its formatter fails.
        """
        rule = self.project.rules[step.rule]
        tools: Sequence[Input] = ()
        if rule.format is not None:
            tools = self.world.compiler_inputs(step)
            # Equal ones are the same objects, as with all that steps have in common.
            if self._formatters.setdefault(step.rule, tools) == tools:
                tools = self._formatters[step.rule]
        try:
            return formats.finished(rule, data, step.outputs[0], self.project.root), tools
        except StepError as error:
            raise self.complaints.of_formatter(step, error, data) from None

    def _judged(self, step: Step, loaded: Sequence[Pattern]) -> Sequence[Input]:
        """Return what the patterns of a step were held against, if they fit it.

        Raises:
            StepError: they do not.
        """
        schema = self.project.rules[step.rule].schema
        if schema is None:
            return ()
        return self.schemas.judge(schema, loaded, self._guarding)

    def _inputs(
        self,
        step: Step,
        loaded: Sequence[Pattern],
        view: View,
        record: Record,
        judged: Sequence[Input],
    ) -> list[Input]:
        """Return the inputs of a render, patterns by the keys that were read."""
        room = max(200, min(EXPLAINED, 50 * EXPLAINED // max(1, len(loaded))))
        found = [
            data_input("pattern", one.path, one.data, view.notes[one.path], one.stat, room)
            for one in loaded
        ]
        # What renders have in common are the same objects, made once.
        key = (step.rule, record.used())
        if key not in self._shared:
            templates = self.engine_for(step.template).template_inputs(record)
            before = [*self._declared_inputs(step.rule), *templates]
            self._shared[key] = (before, self._functions_used(record))
        before, after = self._shared[key]
        return [*found, *before, *judged, *record.file_inputs(), *after]

    def _declared_inputs(self, rule: str) -> list[Input]:
        """Return the inputs of every step of a rule, besides patterns."""
        now = self.world.declared_input
        context = [] if self.project.rules[rule].context is None else [now("context", rule)]
        engine = kind_of(self.project.rules[rule].template).name
        return [*context, now("rule", rule), now("environment", engine)]

    def _functions_used(self, record: Record) -> list[Input]:
        """Return the filters, tests, functions and globals that a render used.

        Jinja2's own are among them, and names that nothing had: the project may declare
        one of that name later.
        """
        project = self.project
        used = [("filter", name) for name in record.filters]
        used += [("test", name) for name in record.tests]
        used += [
            ("function" if name in project.functions else "global", name) for name in record.names
        ]
        used += [("module", name) for name in record.modules]
        return [self.world.declared_input(kind, name) for kind, name in used]

    def _references(self, step: Step, text: str) -> tuple[str, ...]:
        """Return the files that a generated one seems to refer to, project-relative."""
        if not any(rule.compile for rule in self.project.rules.values()):
            return ()
        folder = posixpath.dirname(step.outputs[0])
        names = toolchains.references(text)
        return tuple(sorted({posixpath.normpath(posixpath.join(folder, name)) for name in names}))

    # Compiling --------------------------------------------------------------------------

    def _compile(self, steps: Sequence[Step], recorded: Mapping[str, Recorded]) -> list[Outcome]:
        """Compile what the output cache does not know."""
        found = [self._restored(step, recorded.get(step.task, {})) for step in steps]
        left = [step for step, known in zip(steps, found, strict=True) if known is None]
        compiled = self.compiling.run(left) if left else []
        self._keep_maps(left, [one.made for one in compiled])
        ran = zip(left, compiled, strict=True)
        made = (self._compiled(step, one, recorded.get(step.task, {})) for step, one in ran)
        return [known or next(made) for known in found]

    def _compiled(self, step: Step, one: Compilation, recorded: Recorded) -> Outcome:
        """Publish what a compiler made of a step, and keep it."""
        made, error, result = Made(), "", one.made
        try:
            if result.error is not None:
                raise result.error
            made = self.publisher.publish(result.outputs, recorded)
            made.inputs, made.data = self.compiling.inputs(one), result.outputs
        except CodegenError as problem:
            error = str(problem)
        except Exception:
            error = internal(step.task)
        trace = None if error else self._trace(made, one.seconds)
        cached, stored = self._keep(step, trace, made, result.printed, one.seconds)
        return Outcome(
            step.task,
            trace,
            made.changed,
            error,
            result.printed,
            pid=os.getpid(),
            seconds=one.seconds,
            notes=made.notes,
            start=one.began,
            cached=cached,
            stored=stored,
        )

    def _keep_maps(self, steps: Sequence[Step], results: Sequence[Compiled]) -> None:
        """Keep source maps of what a compiler complains about, or of all if that is wanted."""
        always = self.project.settings.maps
        for step, result in zip(steps, results, strict=True):
            path = result.error.where.rpartition(":")[0] if result.error is not None else ""
            if path in self.plan.makers and not self.project.sandbox:
                self.origins.keep(path)
            elif always and result.error is None:
                self.origins.keep(step.source)

    # Made elsewhere ---------------------------------------------------------------------

    def _restored(
        self, step: Step, recorded: Recorded, guard: Guard | None = None
    ) -> Outcome | None:
        """Return the outcome of a step that the output cache knows; None if it is to be run."""
        if self.anew or self.outputs is None or step.phase == "templates":
            return None
        if step.phase == "generate" and self.project.settings.maps:
            return None  # its map is made of a render
        found = self.outputs.find(step, guard)
        if found is None:
            return None
        return self.adopt(step, found.result, recorded, found)

    def _keep(
        self,
        step: Step,
        trace: Trace | None,
        made: Made,
        printed: str,
        seconds: float,
        sent: bool = False,
    ) -> tuple[str, int]:
        """Keep what a step came to in the output cache, if that is of use; return what that did.

        That is what `Outcome` says of it: `cached`, `stored`.  `sent`: see `OutputCache.keep`.
        """
        if self.outputs is None or trace is None or step.phase == "templates":
            return "", 0
        why = self.outputs.passes_over(step, seconds)
        if why:
            return why, 0
        result = Result(trace.inputs, made.data, made.references, printed, round(seconds, 6))
        return self.outputs.keep(step, trace, result, sent)

    def adopt(
        self, step: Step, result: Result, recorded: Recorded, found: Found | None = None
    ) -> Outcome:
        """Write what a step came to elsewhere, as if it had run here; return its outcome.

        Args:
            step: this.
            result: what it came to.
            recorded: see `run`.
            found: it is from the output cache, so its inputs have the signatures that they have
                here; otherwise one that is not here as it was there gets none, and so is looked
                at again by the next run.
        """
        began, start = time.time_ns(), time.perf_counter()
        mode = self.project.rules[step.rule].mode if step.phase == "generate" else None
        made, error = Made(), ""
        try:
            made = self.publisher.publish(result.outputs, recorded, mode, result.like)
            made.inputs = result.inputs
            if found is None:
                made.inputs = [self.world.signed(step, item) for item in result.inputs]
            made.references = result.references
        except CodegenError as problem:
            error = str(problem)
        except Exception:
            error = internal(step.task)
        found = found if not error else None
        seconds = time.perf_counter() - start
        return Outcome(
            step.task,
            None if error else self._trace(made, result.seconds),
            made.changed,
            error,
            result.printed,
            made.references,
            pid=os.getpid(),
            seconds=seconds,
            notes=made.notes,
            start=began,
            cached=found.where if found is not None else "",
            stored=found.stored if found is not None else 0,
            saved=max(0.0, result.seconds - seconds) if found is not None else 0.0,
        )

    # For elsewhere ----------------------------------------------------------------------

    def known(self, step: Step, recorded: Recorded, over: Collection[str]) -> Outcome | None:
        """Return the outcome of a step that need not be sent elsewhere: the output cache has it.

        Args:
            step: to be run.
            recorded: the digests its targets had when they were recorded.
            over: tasks that it waited for, see `run`.
        """
        try:
            return self._restored(step, recorded, self._guard(step, over))
        except (AwaitedError, CodegenError):
            return None  # whoever runs it will meet the same

    def take_in(
        self,
        step: Step,
        result: Result,
        recorded: Recorded,
        sent: bool = False,
        found: float | None = None,
    ) -> Outcome:
        """Return the outcome of a step that ran elsewhere: as `adopt`, and kept in the cache.

        Args:
            step: this.
            result: what it came to.
            recorded: see `run`.
            sent: the remote cache has it.
            found: it did not run, but was found there; seconds that this took.
        """
        outcome = self.adopt(step, result, recorded)
        made = Made(references=result.references, data=result.outputs)
        known = (result.printed, result.seconds, sent)
        cached, stored = self._keep(step, outcome.trace, made, *known)
        if found is None or outcome.error:
            return replace(outcome, seconds=result.seconds, cached=cached, stored=stored)
        saved = max(0.0, result.seconds - found)
        return replace(outcome, seconds=found, cached=FETCHED, stored=stored, saved=saved)

    def result(self, step: Step, guard: Guard | None = None) -> Result:
        """Return what a generating step comes to, for whoever will `adopt` it.

        Args:
            step: to run.
            guard: is called with each path that it is about to read; may raise.

        Raises:
            CodegenError: it fails.
        """
        start = time.perf_counter()
        self._guarding = guard
        try:
            with _Printed() as printed:
                rendered = self.rendered(step)
        finally:
            self._guarding = None
        return Result(
            tuple(replace(item, stat=None) for item in rendered.inputs),
            {step.outputs[0]: rendered.data},
            rendered.references,
            printed.getvalue(),
            time.perf_counter() - start,
        )

    def results(self, steps: Sequence[Step]) -> list[Result | CodegenError]:
        """Return what compile steps come to that share a process, or how each fails."""
        return [self._result(one) for one in self.compiling.run(steps)]

    def _result(self, one: Compilation) -> Result | CodegenError:
        if one.made.error is not None:
            return one.made.error
        try:
            inputs = tuple(replace(item, stat=None) for item in self.compiling.inputs(one))
        except CodegenError as problem:
            return problem
        return Result(inputs, one.made.outputs, (), one.made.printed, one.seconds)


def template_cache(project: Project) -> TemplateCache:
    """Return the template cache of a project."""
    return TemplateCache(
        project.full(f"{project.cache_folder}/templates"),
        project.full(project.cache_log),
        project.settings.cache_generations,
    )


class _Printed:
    """Catches what a step prints; in a thread, where that would catch others' too, lets it pass."""

    def __enter__(self) -> io.StringIO:
        printed = io.StringIO()
        self._catches = threading.current_thread() is threading.main_thread()
        if self._catches:
            self._streams = sys.stdout, sys.stderr
            sys.stdout = sys.stderr = printed
        return printed

    def __exit__(self, *_: object) -> None:
        if self._catches:
            sys.stdout, sys.stderr = self._streams


def internal(task: str) -> str:
    """Return the message for the exception being handled, which is a fault of ours."""
    what = "internal error of codegen-tasks, please report it"
    return f"{task}: {what}\n{traceback.format_exc().rstrip()}"


def iso(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, milliseconds kept.

    Args:
        seconds: since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
