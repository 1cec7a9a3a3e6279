"""Causes, without a project: what is grouped, in which order, and in what words."""

from __future__ import annotations

import io

from codegen_tasks.causes import Forest, causes_of, edited, left_out
from codegen_tasks.commands.screen import Screen
from codegen_tasks.model import Reason, Step
from codegen_tasks.survey import StepState


def state(name: str, *reasons: Reason, follows: list[str] | None = None) -> StepState:
    step = Step("generate", name, f"generate:{name}", (f"out/{name}",), template="p.j2")
    return StepState(step, None, reasons, follows or [])


def changed(name: str, key: str = "", old: str = "1", new: str = "2") -> Reason:
    return Reason("changed", "pattern", name, old, new, key)


MACRO = Reason("changed", "template", "t/m.j2", "aaaa…", "bbbb…", chain=("t/b.j2",))


def test_a_cause_that_many_share_comes_first_and_others_as_they_come() -> None:
    states = [
        state("a", changed("p/a", "x")),
        state("b", changed("p/b", "x"), MACRO),
        state("c", MACRO),
    ]
    assert [(cause.text, len(cause.states)) for cause in causes_of(states)] == [
        ("t/m.j2: changed", 2),
        ("p/a: x 1 → 2", 1),
        ("p/b: x 1 → 2", 1),
    ]


def test_a_file_is_one_cause_whatever_it_is_to_whom() -> None:
    states = [
        state(kind, Reason("changed", kind, "out/a.ts", "aaaa…", "bbbb…"))
        for kind in ("source", "import", "file")
    ]
    (cause,) = causes_of(states)
    assert (cause.text, len(cause.states)) == ("out/a.ts: changed", 3)


def test_keys_of_one_pattern_are_told_once_and_the_first_three() -> None:
    keys = [changed("p/a", key) for key in ("u", "v", "w", "x", "y")]
    (cause,) = causes_of([state("a", *keys[:2]), state("b", *keys)])
    assert cause.text == "p/a: u 1 → 2, v 1 → 2, w 1 → 2 and 2 more"
    assert [each.step.target for each in cause.states] == ["a", "b"]


def test_the_templates_between_are_told_if_they_are_the_same_for_all() -> None:
    other = Reason("changed", "template", "t/m.j2", "aaaa…", "bbbb…")
    assert causes_of([state("a", MACRO), state("b", MACRO)])[0].through == ("t/b.j2",)
    assert causes_of([state("a", MACRO), state("b", other)])[0].through == ()


def test_a_hand_edit_is_no_cause() -> None:
    by_hand = Reason("edited", "target", "out/a")
    assert causes_of([state("a", by_hand)]) == []
    assert edited([state("a", by_hand)]) == ["out/a"]


def test_causes_left_out_are_counted_by_what_happened_to_what() -> None:
    states = [
        state("a", changed("p/a")),
        state("b", changed("p/b"), Reason("removed", "pattern", "p/c")),
        state("c", Reason("failed last time", new="x: y")),
    ]
    assert list(left_out(causes_of(states))) == [
        ("2 more patterns changed", 2),
        ("1 more pattern removed", 1),
        ("1 more failed last time", 1),
    ]


def test_what_follows_by_two_ways_is_shown_with_its_own_once() -> None:
    states = [
        state("a", MACRO),
        state("b", follows=["generate:a"]),
        state("c", follows=["generate:a", "generate:b"]),
        state("d", follows=["generate:c"]),
    ]
    out = io.StringIO()
    forest = Forest(states, lambda one: one.step.target)
    Screen(out).tree(forest.tree(causes_of(states)[0]))
    assert out.getvalue() == (
        """\
t/m.j2: changed
└─ t/b.j2
   └─ p.j2
      └─ a
         ├─ b
         │  └─ c
         │     └─ d
         └─ c (as above)
"""
    )


def test_a_tree_can_be_deeper_than_pythons_stack() -> None:
    states = [state("0", MACRO)]
    states += [state(f"{n}", follows=[f"generate:{n - 1}"]) for n in range(1, 3000)]
    out = io.StringIO()
    Screen(out).tree(Forest(states, lambda one: one.step.target).tree(causes_of(states)[0]))
    assert out.getvalue().endswith("└─ 2999\n")
