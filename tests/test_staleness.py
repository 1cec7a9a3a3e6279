"""The verdict, case by case: what differs is a reason, in these words, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from codegen_tasks import staleness
from codegen_tasks.model import Input, Output, Trace
from codegen_tasks.world import World

OLD, NEW = "aaaa", "bbbb"  # shorter than digests, so shown whole


def _said(
    inputs: Sequence[Input],
    now: Mapping[str, tuple[str, str]],
    outputs: Sequence[Output] = (),
    targets: Sequence[str] = (),
) -> list[str]:
    """Return the reasons of a step, each input being as recorded unless `now` has its name."""
    trace = Trace(tuple(inputs), tuple(outputs), "2026-01-01T00:00:00Z")
    reasons = staleness.verify(
        trace,
        [item.key for item in inputs],
        targets,
        lambda item: now.get(item.name, (item.digest, item.shown)),
        lambda output: output.digest,
    )
    return [str(reason) for reason in reasons]


def test_an_input_that_is_gone_is_a_reason() -> None:
    assert _said([Input("file", "data.csv", OLD)], {"data.csv": ("", "")}) == ["data.csv: missing"]


def test_a_compiler_that_is_gone_is_a_reason() -> None:
    compiler = Input("toolchain", "cc", OLD, shown="cc 13.2.0")
    assert _said([compiler], {"cc": ("", "")}) == ["toolchain cc: missing"]


@pytest.mark.parametrize("kind", ["missing template", "file"])
def test_what_was_looked_for_and_is_there_now_is_a_reason(kind: str) -> None:
    assert _said([Input(kind, "a.j2", "")], {"a.j2": (NEW, "")}) == ["a.j2: added"]


def test_a_target_that_the_last_run_did_not_make_is_a_reason() -> None:
    assert _said([], {}, [Output("a", OLD, 1)], ["a", "a.map"]) == ["a.map: added"]


def test_a_changed_global_is_told_by_its_values() -> None:
    said = _said([Input("global", "gain", OLD, shown="1")], {"gain": (NEW, "2")})
    assert said == ["global gain: 1 → 2"]


def test_more_changes_of_one_input_than_three_are_counted() -> None:
    before, after = (dict.fromkeys("abcde", value) for value in ("1", "2"))
    option = Input("rule", "page", OLD, shown=json.dumps(before))
    said = _said([option], {"page": (NEW, json.dumps(after))})
    assert said == [
        "rule page: a 1 → 2",
        "rule page: b 1 → 2",
        "rule page: c 1 → 2",
        "rule page: 2 more aaaa → bbbb",
    ]


def test_a_template_is_told_with_those_between_it_and_the_rules_own() -> None:
    inputs = [
        Input("template", "page.j2", OLD),
        Input("template", "base.j2", OLD, via="page.j2"),
        Input("template", "macros.j2", OLD, via="base.j2"),
    ]
    assert _said(inputs, {"macros.j2": (NEW, "")}) == ["macros.j2: aaaa → bbbb (through base.j2)"]


def test_templates_that_load_each_other_are_told_once_each() -> None:
    inputs = [
        Input("template", "a.j2", OLD, via="b.j2"),
        Input("template", "b.j2", OLD, via="a.j2"),
    ]
    assert _said(inputs, {"a.j2": (NEW, "")}) == ["a.j2: aaaa → bbbb (through b.j2)"]


@pytest.mark.parametrize(
    ("digest", "signature"), [(OLD, (1, 3, 3, 7)), (NEW, (1, 2, 2, 7))], ids=["touched", "changed"]
)
def test_only_a_file_that_is_equal_after_its_signature_was_taken_gets_that(
    digest: str, signature: tuple[int, ...]
) -> None:
    world: Any = SimpleNamespace(
        signature=lambda step, item: (1, 3, 3, 7), current=lambda step, item: (digest, "")
    )
    step: Any = None
    found = World.signed(world, step, Input("file", "data.csv", OLD, (1, 2, 2, 7)))
    assert found.stat == signature
