"""Running steps: render, compile, put a template into the cache; each yields an Outcome.

Runs in whichever process or thread it is called in, and raises nothing for a step that
fails: the failure is in its outcome.  Unaware of doit.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from . import digest, disk, toolchains
from .bytecode import TemplateCache
from .errors import CodegenError, StepError
from .functions import describe
from .model import Input, Outcome, Output, Step, Trace
from .plan import Plan
from .project import Project
from .toolchains import Compiled, Site, Unit
from .world import World

if TYPE_CHECKING:
    from .templates import Engine, Record

#: Digests of a target's bytes as its trace recorded them, by path: anything else that
#: stands there was put there by somebody else.
Recorded: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Made:
    """What the work of a step came to, before it is timed and recorded."""

    inputs: Sequence[Input] = ()
    outputs: tuple[Output, ...] = ()
    references: tuple[str, ...] = ()
    changed: bool = False
    notes: tuple[str, ...] = ()


_NOTHING = _Made()


class Workshop:
    """Everything one process needs to run steps of one project, made once, kept warm.

    Args:
        project: what was declared.
        plan: its steps.
        world: the facts; shared with whoever decides what is stale.
    """

    def __init__(self, project: Project, plan: Plan, world: World):
        self.project = project
        self.plan = plan
        self.world = world
        self._engine: Engine | None = None
        self._cache: TemplateCache | None = None

    def __reduce__(self) -> Any:
        """Pickle without what is made at first use: a worker makes its own."""
        return (Workshop, (self.project, self.plan, self.world))

    # Tools, made at first use -----------------------------------------------------------

    @property
    def cache(self) -> TemplateCache:
        """The template cache."""
        if self._cache is None:
            self._cache = template_cache(self.project)
        return self._cache

    @property
    def engine(self) -> Engine:
        """The template engine; making it imports Jinja2.

        Raises:
            DeclarationError: an environment option that Jinja2 does not take.
        """
        if self._engine is None:
            from .templates import Engine, Spec

            project = self.project
            spec = Spec(
                project.root,
                project.templates,
                project.options,
                project.filters,
                project.tests,
                {**project.globals, **project.functions},
                project.sandbox,
            )
            cache = self.cache if project.settings.template_cache else None
            self.world.settle()
            shape = self.world.declaration("environment", "bytecode")
            self._engine = Engine(spec, cache, shape)
        return self._engine

    # Running ----------------------------------------------------------------------------

    def run(
        self, steps: Sequence[Step], recorded: Mapping[str, Recorded], stop_early: bool = False
    ) -> list[Outcome]:
        """Run steps that may run together; return their outcomes in order.

        Args:
            steps: to run; if the first has a `compiler_key`, all have the same one, and
                they share a process.
            recorded: for each task, the digests its targets had when they were recorded.
            stop_early: leave out what comes after the first failure.
        """
        return list(self.outcomes(steps, recorded, stop_early))

    def outcomes(
        self, steps: Sequence[Step], recorded: Mapping[str, Recorded], stop_early: bool = False
    ) -> Iterator[Outcome]:
        """Yield each step's outcome when it is known; otherwise as `run`."""
        if len(steps) > 1 and self.compiler_key(steps[0]) is not None:
            yield from self._compile(steps, recorded)
            return
        failed = False
        for step in steps:
            if failed and stop_early:
                yield Outcome(step.task, skipped=True)
                continue
            outcome = self.run_one(step, recorded.get(step.task, {}))
            failed = failed or bool(outcome.error)
            yield outcome

    def compiler_key(self, step: Step) -> tuple[str, ...] | None:
        """Return what compile steps have in common that can share a process; None if none can."""
        if step.phase != "compile" or not self.project.settings.batch:
            return None
        toolchain = self.project.toolchain(step.rule, step.link)
        if not toolchain.shares_process:
            return None
        return (toolchain.name, toolchain.identity, str(self.project.rules[step.rule].timeout))

    def run_one(self, step: Step, recorded: Recorded) -> Outcome:
        """Run one step."""
        if step.phase == "compile":
            return self._compile([step], {step.task: recorded})[0]
        work = self._cache_template if step.phase == "templates" else self._generate
        hits, misses = self._template_counts()
        start = time.perf_counter()
        made, error = _NOTHING, ""
        with _printed() as printed:
            try:
                if step.problem is not None:
                    raise step.problem
                made = work(step, recorded)
            except CodegenError as problem:
                error = str(problem)
            except Exception:
                error = internal(step.task)
        seconds = time.perf_counter() - start
        after_hits, after_misses = self._template_counts()
        return Outcome(
            step.task,
            None if error else self._trace(made, seconds),
            made.changed,
            error,
            printed.getvalue(),
            made.references,
            after_hits - hits,
            after_misses - misses,
            os.getpid(),
            seconds,
            made.notes,
        )

    def _template_counts(self) -> tuple[int, int]:
        return (self._engine.hits, self._engine.misses) if self._engine else (0, 0)

    def _trace(self, made: _Made, seconds: float) -> Trace:
        """Return what is recorded of a step; `made` is when its outputs' bytes last changed."""
        # Files are written only if their bytes change, so the newest one's mtime tells.
        newest = max(
            (output.stat[1] for output in made.outputs if output.stat), default=time.time_ns()
        )
        return Trace(tuple(made.inputs), made.outputs, iso(newest / 1e9), round(seconds, 6))

    # Templates --------------------------------------------------------------------------

    def _cache_template(self, step: Step, recorded: Recorded) -> _Made:
        source = self.engine.parse(step.template)
        shape = self.world.declaration("environment", "bytecode")
        entry = self.engine.entry_path(step.template)
        inputs = (source, Input("environment", "bytecode", shape))
        kept = disk.stat(entry) if entry is not None else None
        if entry is None or kept is None:
            return _Made(inputs)
        relative = os.path.relpath(entry, self.project.root).replace(os.sep, "/")
        # The entry lies in our own cache, which vouches for it: no digest, and no signature
        # either, since another worker may replace it by its like.
        return _Made(inputs, (Output(relative, "", kept[0]),))

    # Generating -------------------------------------------------------------------------

    def _generate(self, step: Step, recorded: Recorded) -> _Made:
        engine = self.engine  # made before a context function runs, see `World.settle`
        variables, inputs = self._variables(step)
        made_by = step.patterns[0] if len(step.patterns) == 1 else ""
        text, record = engine.render(step.template, variables, made_by)
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise StepError(step.outputs[0], f"cannot be UTF-8: {error.reason}") from None
        inputs += self._declared_inputs(step)
        inputs += engine.inputs(record)
        inputs += self._functions_used(record)
        made = self._publish({step.outputs[0]: data}, recorded)
        return replace(made, inputs=inputs, references=self._references(step, text))

    def _variables(self, step: Step) -> tuple[dict[str, Any], list[Input]]:
        """Return what the template sees, and the patterns as they were read."""
        loaded = [self.world.library.load(path) for path in step.patterns]
        inputs = [Input("pattern", p.path, p.digest, p.stat) for p in loaded]
        rule = self.project.rules[step.rule]
        if step.many:
            data: dict[str, Any] = {"patterns": [pattern.variables() for pattern in loaded]}
        else:
            data = loaded[0].variables() if loaded else {}
        if step.item is not None:
            items = loaded[0].data[str(rule.each)]
            if step.item >= len(items):
                raise StepError(loaded[0].path, f"'{rule.each}' has become shorter meanwhile")
            item = items[step.item]
            data = {**data, **(item if isinstance(item, Mapping) else {}), "item": item}
        if rule.context is not None:
            data.update(_context(rule.name, rule.context, data, step.patterns))
            inputs.append(Input("context", rule.name, self.world.declaration("context", rule.name)))
        return data, inputs

    def _declared_inputs(self, step: Step) -> list[Input]:
        now = self.world.declaration
        return [
            Input("rule", step.rule, now("rule", step.rule)),
            Input("environment", "jinja2", now("environment", "jinja2")),
        ]

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
        return [Input(kind, name, self.world.declaration(kind, name)) for kind, name in used]

    def _references(self, step: Step, text: str) -> tuple[str, ...]:
        """Return the files that a generated one seems to refer to, project-relative."""
        if not any(rule.compile for rule in self.project.rules.values()):
            return ()
        folder = posixpath.dirname(step.outputs[0])
        names = toolchains.references(text)
        return tuple(sorted({posixpath.normpath(posixpath.join(folder, name)) for name in names}))

    # Compiling --------------------------------------------------------------------------

    def _compile(self, steps: Sequence[Step], recorded: Mapping[str, Recorded]) -> list[Outcome]:
        toolchain = self.project.toolchain(steps[0].rule, steps[0].link)
        timeout = self.project.rules[steps[0].rule].timeout
        start = time.perf_counter()
        began = time.time_ns()
        sources = {step.source: self.world.read_file("source", step.source) for step in steps}
        units = [Unit(step.source, step.outputs) for step in steps]
        try:
            found = self.world.compiler_inputs(steps[0])
            with self._site() as site:
                results = toolchain.compile(units, site, timeout)
        except CodegenError as problem:
            results, found = [Compiled({}, error=problem)] * len(steps), []
        except OSError as problem:
            what = f"cannot run: {problem.strerror or problem}"
            error = StepError(f"toolchain {toolchain.name}", what)
            results, found = [Compiled({}, error=error)] * len(steps), []
        seconds = (time.perf_counter() - start) / len(steps)
        return [
            self._compiled(step, result, [sources[step.source], *found], began, recorded, seconds)
            for step, result in zip(steps, results, strict=True)
        ]

    def _compiled(
        self,
        step: Step,
        result: Compiled,
        inputs: Sequence[Input],
        began: int,
        recorded: Mapping[str, Recorded],
        seconds: float,
    ) -> Outcome:
        made, error = _NOTHING, ""
        try:
            if result.error is not None:
                raise self._blamed(step, result.error)
            made = self._publish(result.outputs, recorded.get(step.task, {}))
            discovered = [self._read(name, began) for name in result.discovered]
            made = replace(made, inputs=[*inputs, *discovered])
        except CodegenError as problem:
            error = str(problem)
        except Exception:
            error = internal(step.task)
        return Outcome(
            step.task,
            None if error else self._trace(made, seconds),
            made.changed,
            error,
            result.printed,
            pid=os.getpid(),
            seconds=seconds,
            notes=made.notes,
        )

    def _read(self, name: str, began: int) -> Input:
        """Return what a compiler read as an input.

        It is digested only now: if it changed since the compile `began` (ns), nobody knows
        what the compiler saw, and without a digest the next run compiles again.
        """
        found = self.world.read_file("import", name)
        if found.stat is not None and found.stat[2] > began:
            return replace(found, digest="", stat=None)
        return found

    def _blamed(self, step: Step, error: CodegenError) -> CodegenError:
        """Add to a compiler's complaint the generated line, and what made it."""
        if error.where.startswith("toolchain "):
            return error  # no source is to blame
        details = list(error.details)
        path, _, line = error.where.rpartition(":")
        if line.isdigit() and path in self.plan.makers:
            details = [*self._line(path, int(line), details), *details]
        maker = self.plan.makers.get(path if line.isdigit() else step.source)
        origin = self.plan.steps[maker] if maker else step
        details.append(f"made from {self.project.templates}/{origin.template}")
        if len(origin.patterns) == 1:
            details[-1] += f" and {origin.patterns[0]}"
        return StepError(error.where, error.what, error.hint, details)

    def _line(self, path: str, line: int, shown: Sequence[str]) -> list[str]:
        """Return a line of a generated file, unless the compiler has `shown` it itself."""
        try:
            text = disk.read(self.project.full(path)).decode("utf-8", "replace")
            wanted = text.split("\n")[line - 1].rstrip()
        except (OSError, IndexError):
            return []
        return [] if any(wanted in said for said in shown[:1]) else [f"{line} | {wanted}"]

    @contextlib.contextmanager
    def _site(self) -> Iterator[Site]:
        project = self.project
        folder = project.full(f"{project.home}/tmp")
        os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder)
        try:
            yield Site(project.root, scratch, project.full(project.cache_folder))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    # Writing ----------------------------------------------------------------------------

    def _publish(self, made: Mapping[str, bytes], recorded: Recorded) -> _Made:
        """Write what differs; keep aside what somebody else put at a target's place."""
        outputs, notes, changed = [], [], False
        for path, data in made.items():
            content = digest.of_bytes(data)
            there = self._there(path)
            if there and there not in (content, recorded.get(path)):
                notes.append(f"{path}: was edited by hand, kept aside as {self.keep(path)}")
            changed = self._write(path, data, there == content) or changed
            outputs.append(Output(path, content, len(data), disk.stat(self.project.full(path))))
        return _Made((), tuple(outputs), (), changed, tuple(notes))

    def _there(self, path: str) -> str | None:
        """Return the digest of what stands at a target's place; None if nothing does."""
        try:
            return self.world.files.get(self.project.full(path))
        except OSError:
            what = "cannot read what stands there, so it is left alone"
            raise StepError(path, what, "remove it, or make it readable") from None

    def keep(self, path: str) -> str:
        """Copy a target that somebody else wrote into `kept/`; return where.

        Raises:
            StepError: it cannot be kept, so it must not be overwritten.
        """
        folder = f"{self.project.kept_folder}/{posixpath.dirname(path)}"
        kept = disk.keep_aside(self.project.full(path), self.project.full(folder))
        return os.path.relpath(kept, self.project.root).replace(os.sep, "/")

    def _write(self, path: str, data: bytes, unchanged: bool) -> bool:
        try:
            return disk.write(self.project.full(path), data, unchanged)
        except StepError as error:
            hint = error.hint.replace(self.project.root + os.sep, "")
            raise StepError(path, error.what, hint) from None

    def log(self, step: Step, outcome: Outcome) -> None:
        """Keep a log for a step that printed or failed; remove an older one otherwise."""
        path = self.project.full(self.project.log_path(step.phase, step.target))
        text = outcome.printed
        if outcome.error:
            text = f"{text.rstrip()}\n\n{outcome.error}\n".lstrip("\n")
        with contextlib.suppress(StepError, OSError):
            if text.strip():
                disk.write(path, text.encode("utf-8", "replace"))
            else:
                disk.remove(path)


def template_cache(project: Project) -> TemplateCache:
    """Return the template cache of a project."""
    return TemplateCache(
        project.full(f"{project.cache_folder}/templates"),
        project.full(project.cache_log),
        project.settings.cache_generations,
    )


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    """Catch what a step prints; in a thread, where that would catch others' too, let it pass."""
    printed = io.StringIO()
    if threading.current_thread() is not threading.main_thread():
        yield printed
        return
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield printed


def _context(
    rule: str, context: Any, data: Mapping[str, Any], made_by: Sequence[str]
) -> Mapping[str, Any]:
    if isinstance(context, Mapping):
        return context
    details = [f"pattern {path}" for path in made_by[:1]]
    try:
        found = context(data)
    except CodegenError:
        raise
    except (Exception, SystemExit) as error:
        what = f"context function {describe(context)}: {type(error).__name__}: {error}"
        raise StepError(f"rule {rule}", what, details=details) from None
    if not isinstance(found, Mapping):
        returned = type(found).__name__
        what = f"context function {describe(context)} must return a dict, not {returned}"
        raise StepError(f"rule {rule}", what, details=details)
    return found


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
