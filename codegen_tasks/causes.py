"""Stale steps by what made them stale: one edited macro, 214 targets; pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .model import FILE_KINDS, Reason
from .survey import StepState

#: What happens to each target by itself, and is one cause all the same.
_ALIKE = {
    ("missing", "target"): "the target itself is missing",
    ("added", "target"): "the target itself is new",
    ("missing", "source"): "what it is compiled from is missing",
}
#: More names than this are not all shown, but the first few and the number of the others.
MANY = 12
_FEW = 3


@dataclass(slots=True)
class Cause:
    """One thing that happened, and the steps that it made stale.

    Args:
        reason: what happened, as the first of the steps tells it.
        states: the steps, each once.
        texts: what was said of it besides, for steps may read other keys of one pattern.
        chains: the templates between it and each step.
    """

    reason: Reason
    states: list[StepState] = field(default_factory=list)
    texts: dict[str, None] = field(default_factory=dict)
    chains: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What happened, on one line."""
        first, *more = self.texts
        prefix = f"{first.partition(': ')[0]}: "
        told = [first, *(text.removeprefix(prefix) for text in more[: _FEW - 1])]
        left = len(self.texts) - len(told)
        return ", ".join(told) + (f" and {left} more" if left else "")

    @property
    def through(self) -> tuple[str, ...]:
        """The templates between it and its steps, if they are the same for all."""
        return self.chains[0] if len(set(self.chains)) == 1 else ()

    def add(self, state: StepState, reason: Reason) -> None:
        """Note that it made a step stale."""
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
            self.chains.append(reason.chain)
        self.texts.setdefault(_text(reason))


def _text(reason: Reason) -> str:
    if _is_alike(reason):
        return _ALIKE[reason.change, reason.kind]
    if reason.change == "changed" and reason.kind in FILE_KINDS:
        return f"{reason.name}: changed"
    return str(replace(reason, chain=()))


def _is_alike(reason: Reason) -> bool:
    return (reason.change, reason.kind) in _ALIKE


def causes_of(states: Iterable[StepState]) -> list[Cause]:
    """Return the causes, those that many steps share first; hand edits are none, see `edited`."""
    found: dict[tuple[str, ...], Cause] = {}
    for state in states:
        for reason in state.reasons:
            if reason.change != "edited":
                found.setdefault(_key(reason), Cause(reason)).add(state, reason)
    return sorted(found.values(), key=lambda cause: -len(cause.states))


def _key(reason: Reason) -> tuple[str, ...]:
    if _is_alike(reason):
        return (reason.change, reason.kind)
    if reason.change == "failed last time":
        return (reason.change, reason.new)
    if reason.change == "changed" and reason.kind in FILE_KINDS:
        return (reason.change, "file", reason.name)  # compiled by one, imported by another
    return (reason.change, reason.kind, reason.name)


def edited(states: Iterable[StepState]) -> list[str]:
    """Return the paths of targets that somebody edited."""
    return [r.name for state in states for r in state.reasons if r.change == "edited"]


def left_out(causes: Sequence[Cause]) -> Iterator[tuple[str, int]]:
    """Yield what is said of causes that are not shown one by one, and their number of targets."""
    groups: dict[tuple[str, str], list[Cause]] = {}
    for cause in causes:
        groups.setdefault((cause.reason.kind, cause.reason.change), []).append(cause)
    for (kind, change), group in groups.items():
        tasks = {state.step.task for cause in group for state in cause.states}
        noun = kind + "s" if kind and len(group) > 1 else kind
        yield f"{len(group)} more {noun} {change}".replace("  ", " "), len(tasks)


def some(names: Sequence[str], whole: bool = False) -> str:
    """Return names for reading: all of a few, the first of many and their number."""
    if whole or len(names) <= MANY:
        return ", ".join(names)
    return f"{', '.join(names[:_FEW])} and {len(names) - _FEW} more"


def few(names: Sequence[str], whole: bool = False) -> tuple[Sequence[str], int]:
    """Return names that are to have a line each, and how many are left out."""
    if whole or len(names) <= MANY:
        return names, 0
    return names[:_FEW], len(names) - _FEW


# As a tree ------------------------------------------------------------------------------


@dataclass(slots=True)
class Node:
    """One line of a tree, and what stands below it.

    Args:
        text: the line.
        below: the lines below, by what tells them apart.
    """

    text: str
    below: dict[str, Node] = field(default_factory=dict)

    def child(self, text: str) -> Node:
        """Return the node of that text below, made if there is none."""
        return self.below.setdefault(text, Node(text))


class Forest:
    """Causes as trees: the templates they go through, the targets, what follows from those.

    Args:
        states: all steps that are stale or follow, of all builds.
        named: returns how people read of a step.
        whole: leave nothing out.
    """

    def __init__(
        self, states: Iterable[StepState], named: Callable[[StepState], str], whole: bool = False
    ):
        self._named = named
        self._whole = whole
        self._after: dict[str, list[StepState]] = {}
        for state in states:
            for task in state.follows:
                self._after.setdefault(task, []).append(state)

    def tree(self, cause: Cause) -> Node:
        """Return a cause as a tree."""
        root = Node(cause.text)
        places: dict[tuple[str, ...], list[StepState]] = {}
        for state, chain in zip(cause.states, cause.chains, strict=True):
            places.setdefault(_way(cause.reason, state, chain), []).append(state)
        for way, states in places.items():
            node = root
            for name in way:
                node = node.child(name)
            self._add(node, states)
        return root

    def _add(self, root: Node, states: Sequence[StepState]) -> None:
        """Add steps below a node, and below each what follows from it, told once.

        By hand, for a chain of targets may be longer than Python's stack is deep.
        """
        seen: set[str] = set()
        todo = [self._shown(root, states)]
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                continue
            node, name, state = entry
            after = self._after.get(state.step.task, ())
            if after and state.step.task in seen:
                node.child(f"{name} (as above)")
            else:
                seen.add(state.step.task)
                todo.append(self._shown(node.child(name), after))

    def _shown(
        self, node: Node, states: Sequence[StepState]
    ) -> Iterator[tuple[Node, str, StepState]]:
        """Yield the steps that have a line below a node; at last add one for the others."""
        by_name = {self._named(state): state for state in states}
        shown, more = few(list(by_name), self._whole)
        for name in shown:
            yield node, name, by_name[name]
        if more:
            node.child(self._rest([by_name[name] for name in list(by_name)[len(shown) :]]))

    def _rest(self, states: Sequence[StepState]) -> str:
        """Return what is said of steps that have no line each."""
        following = self.following(state.step.task for state in states)
        after = f", and {len(following)} that follow" if following else ""
        return f"and {len(states)} more{after}"

    def following(self, tasks: Iterable[str]) -> Collection[str]:
        """Return all tasks that follow from some, at any remove."""
        todo, found = list(tasks), dict[str, None]()
        while todo:
            new = [s.step.task for s in self._after.get(todo.pop(), ()) if s.step.task not in found]
            found.update(dict.fromkeys(new))
            todo += new
        return found


def _way(reason: Reason, state: StepState, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Return the templates between what happened and a step, the step's own last."""
    own = state.step.template
    if reason.kind not in FILE_KINDS or state.step.phase != "generate" or not own:
        return ()
    place = next((name for name in _templates(state) if name.endswith(f"/{own}")), own)
    return chain if reason.name == place else (*chain, place)


def _templates(state: StepState) -> Iterator[str]:
    for item in state.trace.inputs if state.trace is not None else ():
        if item.kind == "template":
            yield item.name
