"""doit cache why: which input makes a target a miss of the output cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_output_cache import Cached


@pytest.fixture
def kept(tmp_path: Path, state_home: Path) -> Cached:
    """Return a project that was built once, with all it made in its output cache."""
    folder = tmp_path / "project"
    folder.mkdir()
    project = Cached(folder, state_home)
    project.fill(tmp_path / "log", tmp_path / "store")
    project.built()
    return project


def why(project: Cached, target: str) -> str:
    result = project.codegen("cache", "why", target)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_the_inputs_that_differ_from_the_nearest_result_are_told(kept: Cached) -> None:
    kept.write("patterns/ash.toml", 'text = "three"\n')
    head = "generated/ash.txt: the output cache has 1 result, the nearest differs:\n"
    assert why(kept, "ash.txt") == head + '  patterns/ash.toml: text "one" → "three"\n'
    kept.built()
    kept.write("patterns/ash.toml", 'text = "four"\n')
    kept.write("templates/page.j2", "{{ render(pattern.stem) }} {{ text }} more\n")
    told = why(kept, "generated/ash.txt").splitlines()
    assert told[0] == "generated/ash.txt: the output cache has 2 results, the nearest differs:"
    assert told[1] == '  patterns/ash.toml: text "three" → "four"'
    assert told[2].startswith("  templates/page.j2: ")
    assert len(told) == 3


def test_a_file_that_a_compiler_read_is_told(kept: Cached) -> None:
    kept.write("stamp.inc", "changed\n")
    told = why(kept, "compile:ash.out").splitlines()
    assert told[0] == "generated/ash.out: the output cache has 1 result, the nearest differs:"
    assert told[1].startswith("  stamp.inc: ")


def test_what_would_be_restored_is_no_miss(kept: Cached) -> None:
    shutil.rmtree(kept.path / "generated")
    assert why(kept, "ash.txt") == "generated/ash.txt: is in the output cache\n"


def test_what_is_compiled_is_told_as_made_from_the_source_that_is_there(kept: Cached) -> None:
    kept.write("patterns/ash.toml", 'text = "three"\n')  # of which another source will be made
    assert why(kept, "ash.out") == (
        "generated/ash.out: is in the output cache, made from generated/ash.txt as it is now\n"
    )


def test_a_target_of_which_nothing_is_kept(kept: Cached) -> None:
    kept.write("patterns/cedar.toml", 'text = "new"\n')
    told = "generated/cedar.txt: the output cache has nothing for it\n"
    assert why(kept, "cedar.txt") == told
    kept.environ["CODEGEN_OUTPUT_CACHE_MILLISECONDS"] = "7"
    assert why(kept, "cedar.txt") == f"{told}  hint: what took less than 7 ms is not kept\n"


def test_a_name_that_is_no_target_is_refused(kept: Cached) -> None:
    result = kept.codegen("cache", "why", "generated/ahs.txt")
    assert result.code == 3
    said = "cache why: no target 'generated/ahs.txt', did you mean 'generated/ash.txt'?"
    assert said in result.err
    assert "did you mean 'ash.out'?" in kept.codegen("cache", "why", "ahs.out").err
    assert "cache why: needs a TARGET" in kept.codegen("cache", "why").err
