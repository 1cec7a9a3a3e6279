"""Restoring steps from the output cache before doit has tasks for them.

A branch that is switched back, or a fresh clone, has thousands of steps whose results are known
already; to doit each would be a task to be made, scheduled and reported.  So `likely` tells, when
the tasks are made, which steps may do without one, and `restored` restores them when the run
begins, parts of them in forks of this process.  What it could not restore gets its task then.

Only the user's own store is asked, for a process that has asked a remote cache must not fork.
"""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from . import bundles, forks, rows
from .build import Build
from .glance import is_simple
from .model import PHASES, Outcome, Phase, Reason, Step, Trace
from .outputs import OutputCache
from .readsets import step_kind
from .tasks import packed
from .traffic import Traffic

if TYPE_CHECKING:
    from .remote.worth import Kind

#: So many steps are worth it; fewer are restored one by one as doit comes to them.
WORTH = 64
#: So many steps of a kind are looked for before the others of the kind are believed to be there.
_SAMPLE = 4
#: After so many in a row that are not there, no further ones of a kind are looked for.
_MISSED = 16
#: So many steps are restored before those are recorded.
_CHUNK = 256
#: So many steps are worth a fork.
WORTH_A_FORK = 128
#: At most so many forks: what they have found is recorded by one process.
_FORKS = 3

_T = TypeVar("_T")
#: What doit's database holds for a task, by its name; None for one that is not to be touched.
Values: TypeAlias = Callable[[str], Mapping[str, Any] | None]
#: A step, and the digests that its targets had when they were recorded.
_Todo: TypeAlias = tuple[Step, Mapping[str, str]]
#: Outcomes of what was restored, and the tasks of those that stood in bundles.
_Found: TypeAlias = tuple[list[Outcome], set[str]]


def likely(build: Build, names: Collection[str]) -> frozenset[str]:
    """Return the steps that the output cache probably knows, if they are many.

    Args:
        build: the build; steps of `Build.fresh` are left out.
        names: what was selected; empty for all.
    """
    settings = build.project.settings
    if not (settings.output_cache and settings.incremental) or settings.maps:
        return frozenset()
    plan, fresh = build.plan, build.fresh
    if not is_simple(plan) or len(plan.steps) - len(fresh) < WORTH:
        return frozenset()
    kinds: dict[Kind, list[Step]] = defaultdict(list)
    for phase in _phases(build, names):
        for step in plan.of_phase(phase):
            if step.task not in fresh and step.problem is None:
                kinds[step_kind(step)].append(step)
    outputs = build.workshop.outputs
    if outputs is None:
        return frozenset()
    outputs.use_bundles(())
    known = {kind for kind, steps in kinds.items() if _is_known(outputs, steps)}
    others = {kind: steps for kind, steps in kinds.items() if kind not in known}
    if settings.asks_afar and _fetched(build, list(others.values())):
        outputs.use_bundles(())
        known |= {kind for kind, steps in others.items() if _is_known(outputs, steps)}
    outputs.forget()  # by the time of the run it may be something else
    for kind, steps in kinds.items():
        if kind in known and _must_wait(build, steps[0], known):
            known.discard(kind)
    found = frozenset(step.task for kind in known for step in kinds[kind])
    return found if len(found) >= WORTH else frozenset()


def _must_wait(build: Build, step: Step, known: Collection[Kind]) -> bool:
    """Tell whether what a step compiles has to be made by a task first."""
    maker = build.plan.makers.get(step.source)
    if maker is None or maker in build.fresh:
        return False
    return step_kind(build.plan.steps[maker]) not in known


def _fetched(build: Build, kinds: Sequence[Sequence[Step]]) -> bool:
    """Fetch bundles of kinds that the user's own store does not know; tell whether any came."""
    firsts = [steps[0] for steps in kinds if len(steps) >= bundles.WORTH]
    outputs = build.workshop.outputs
    if not firsts or outputs is None:
        return False
    told = _in_a_fork(build, lambda there: there.fetch_bundles(firsts))
    if told is None:
        return False
    (outputs.fetched, added), traffic = told
    build.savings.added += added
    # Its workers need not find out once more that nobody answers.
    build.workshop.is_alone = bool(traffic.fault)
    return bool(outputs.fetched)


def _in_a_fork(build: Build, work: Callable[[OutputCache], _T]) -> tuple[_T, Traffic] | None:
    """Deal with the remote cache in a fork, for who has asked it must not fork any more.

    Args:
        build: the build; what went to and fro is counted in it.
        work: is given the output cache there.

    Returns:
        What `work` returned, and what went to and fro; None if there can be no fork, or it died.
    """
    if not forks.is_sound():
        return None
    told = forks.Fork(lambda: pickle.dumps(_afar(build, work))).begin().result()
    if told is None:
        return None
    found: tuple[_T, Traffic] = pickle.loads(told)
    build.savings.traffic.include(found[1])
    return found


def _afar(build: Build, work: Callable[[OutputCache], _T]) -> tuple[_T, Traffic]:
    """Deal with the remote cache in this process, which forks no more."""
    build.workshop.settle_here()
    outputs = build.workshop.outputs
    assert outputs is not None
    return work(outputs), build.workshop.traffic()


def _phases(build: Build, names: Collection[str]) -> Sequence[Phase]:
    """Return the phases that were selected as a whole; none if anything else was selected."""
    task = build.project.task
    if not {*map(task, PHASES)}.issuperset(names):
        return ()
    compiled = not names or not {task("compile"), task("output")}.isdisjoint(names)
    if compiled:
        return ("generate", "compile")
    return ("generate",) if task("generate") in names else ()


def _is_known(outputs: OutputCache, steps: Sequence[Step]) -> bool:
    """Tell whether most of a few steps of a kind are known, or may be."""
    some = steps[:: len(steps) // _SAMPLE + 1]
    # What is compiled may have to be generated first.
    known = [outputs.knows(step, guess=step.phase == "compile") for step in some]
    return 2 * sum(known) > len(known)


def restored(
    build: Build,
    values: Values,
    because: Callable[[str, Sequence[Reason]], None],
) -> Iterator[list[Outcome]]:
    """Restore what can be of `Build.ahead`; yield the outcomes, with their records made.

    To be called with the lock held.

    Args:
        build: the build.
        values: what is recorded.
        because: is told why steps are stale of which something is recorded.
    """
    outputs = build.workshop.outputs
    assert outputs is not None
    over = set(build.fresh)
    ours = [step for step in build.plan.steps.values() if step.task in build.ahead]
    for _, group in groupby(ours, key=lambda step: (step.phase, step.link)):
        stale = list(_stale(build, group, values, because))
        outputs.use_bundles({step_kind(step): step for step, _ in stale}.values())
        for outcomes, bundled in _in_parts(build, stale, over):
            over.update(outcome.task for outcome in outcomes)
            yield outcomes
            for task in bundled:  # and so need not be kept together once more
                build.kept.pop(task, None)
    outputs.forget()  # from now on tasks run


def _stale(
    build: Build,
    steps: Iterable[Step],
    values: Values,
    because: Callable[[str, Sequence[Reason]], None],
) -> Iterator[_Todo]:
    """Yield the steps that are stale, and the digests that their targets had when recorded."""
    for step in steps:
        known = values(step.task)
        if known is None:
            continue
        verdict = build.verdict(step, known)
        if not verdict.reasons:
            continue
        if known:
            because(step.task, verdict.reasons)
        yield step, build.recorded(step, verdict.trace)


def _in_parts(build: Build, todo: Sequence[_Todo], over: Collection[str]) -> Iterator[_Found]:
    """Restore steps that do not wait for each other, in several processes if they are many."""
    count = 1 + min(forks.room(), _FORKS, len(todo) // WORTH_A_FORK)
    cuts = [len(todo) * number // count for number in range(count + 1)]
    first, *others = [todo[begin:end] for begin, end in pairwise(cuts)]
    begun: list[forks.Fork] = []
    try:
        for part in others:
            begun.append(forks.Fork(_telling(build, part, over)))
            begun[-1].begin()
        for start in range(0, len(first), _CHUNK):
            yield _found(build, first[start : start + _CHUNK], over)
        untold = []
        for fork, part in zip(begun, others, strict=True):
            told = fork.result()
            if told is None:
                untold.append(part)
            else:
                yield pickle.loads(told)
    except BaseException:
        with forks.undisturbed():
            for fork in begun:
                fork.end()
            build.sweep()  # they may have been writing
        raise
    for part in untold:
        # What a fork restored that did not live to tell is restored once more.
        build.sweep()
        yield _found(build, part, over)


def _telling(build: Build, part: Sequence[_Todo], over: Collection[str]) -> Callable[[], bytes]:
    """Return the work of a fork."""
    return lambda: pickle.dumps(_found(build, part, over), 5)


def _found(build: Build, todo: Iterable[_Todo], over: Collection[str]) -> _Found:
    """Restore steps one by one; return the outcomes of those that were."""
    outputs = build.workshop.outputs
    assert outputs is not None
    found: list[Outcome] = []
    missed: Counter[Kind] = Counter()
    packer = rows.Packer()
    for step, before in todo:
        kind = step_kind(step)
        if missed[kind] >= _MISSED:
            continue
        outcome = build.workshop.known(step, before, over)
        if outcome is None or outcome.error:  # then it runs like any other, and tells of it
            missed[kind] += 1
            continue
        missed[kind] = 0
        found.append(packed(build, outcome, packer))
    return found, outputs.take_bundled()


# Keeping together -----------------------------------------------------------------------


def keep_together(build: Build, values: Values) -> None:
    """Keep many results that the output cache has, each for itself, in bundles as well.

    Renders that took next to no time are among them where what was compiled from them is: or that
    could not be restored before they have run.

    Args:
        build: the build.
        values: what is recorded.
    """
    outputs = build.workshop.outputs
    kinds: dict[Kind, list[Step]] = defaultdict(list)
    for step in _with_sources(build) if outputs is not None else ():
        kinds[step_kind(step)].append(step)
    made: dict[str, bytes] = {}
    for steps in kinds.values():
        if outputs is not None and len(steps) >= bundles.WORTH:
            shared, data, added = outputs.keep_together(list(_made(build, steps, values)))
            build.savings.added += added
            made.update({shared: data} if data else {})
    if made and build.workshop.asks_afar:
        build.savings.traffic.include(_afar(build, lambda there: there.send_bundles(made))[1])
    elif made and build.project.settings.asks_afar:
        _in_a_fork(build, lambda there: there.send_bundles(made))


def _with_sources(build: Build) -> Iterator[Step]:
    """Yield the steps whose results are to be kept together."""
    plan, sources = build.plan, set()
    for task in build.kept:
        step = plan.steps[task]
        yield step
        while (maker := plan.makers.get(step.source)) in build.quick and maker not in sources:
            sources.add(maker)
            step = plan.steps[maker]
            yield step


def _made(
    build: Build, steps: Iterable[Step], values: Values
) -> Iterator[tuple[Step, Trace, Sequence[str], str]]:
    for step in steps:
        known = values(step.task) or {}
        trace = Trace.from_values(known.get("trace"))
        if trace is not None:
            printed = build.kept.get(step.task) or build.quick.get(step.task, "")
            yield step, trace, known.get("references", ()), printed
