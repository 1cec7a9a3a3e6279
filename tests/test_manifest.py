"""The manifest: what it lists, when it changes, and that it is only derived."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import pytest
from conftest import Project

MANIFEST = ".codegen/manifest.json"


def manifest(project: Project) -> Any:
    return json.loads(project.read(MANIFEST))


def test_it_lists_every_target_with_checksum_size_and_time(project: Project) -> None:
    project.doit()
    found = manifest(project)
    assert found["version"] == "1.0"
    assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None
    assert set(found["files"]) == {"ash.txt", "birch.txt", "cedar.txt", "list.txt", "plain.txt"}
    data = (project.path / "generated/ash.txt").read_bytes()
    entry = found["files"]["ash.txt"]
    assert entry["checksum"] == hashlib.sha256(data).hexdigest()
    assert entry["size"] == len(data)
    assert datetime.fromisoformat(entry["last_compiled"]).tzinfo is not None


def test_a_partial_run_updates_it_too(project: Project) -> None:
    project.doit("generate:ash.txt")
    assert set(manifest(project)["files"]) == {"ash.txt"}
    project.doit("generated/list.txt")
    assert set(manifest(project)["files"]) == {"ash.txt", "list.txt"}


def test_only_entries_whose_bytes_changed_change(project: Project) -> None:
    project.doit()
    before = manifest(project)["files"]
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 9\n')
    project.doit()
    after = manifest(project)["files"]
    assert {key for key in after if after[key] != before[key]} == {"ash.txt"}


def test_a_touched_target_leaves_it_untouched(project: Project) -> None:
    project.doit()
    before = project.stamps(".codegen")[MANIFEST]
    (project.path / "generated/ash.txt").touch()
    project.doit()
    assert project.stamps(".codegen")[MANIFEST] == before


def test_a_removed_target_leaves_it(project: Project) -> None:
    project.doit()
    project.remove("patterns/ash.toml")
    project.doit()
    assert "ash.txt" not in manifest(project)["files"]


def test_a_broken_manifest_is_made_anew(project: Project) -> None:
    project.doit()
    whole = manifest(project)["files"]
    for text in ("", "{", '{"version": "9.0", "files": {}}', '{"version": "1.0", "files": []}'):
        project.write(MANIFEST, text)
        result = project.doit()
        assert (result.code, result.err) == (0, "")
        assert "5 up to date" in result.out
        assert manifest(project)["files"] == whole


def test_a_failing_target_leaves_the_others_recorded(project: Project) -> None:
    project.write("patterns/ash.toml", "name =")
    assert project.doit("-c").code == 1
    assert set(manifest(project)["files"]) == {"birch.txt", "cedar.txt", "plain.txt"}


def test_status_tells_the_totals(project: Project) -> None:
    assert project.codegen("manifest", "status").out == f"{MANIFEST}: no files yet\n"
    project.doit()
    out = project.codegen("manifest").out
    assert out.startswith(f"{MANIFEST}: 5 files, ")


def test_verify_holds_every_file_against_its_checksum(project: Project) -> None:
    project.doit()
    result = project.codegen("manifest", "verify")
    assert (result.code, result.out) == (0, "5 files verified, all as recorded\n")
    project.write("generated/ash.txt", "x")
    project.remove("generated/list.txt")
    result = project.codegen("manifest", "verify")
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0].startswith("generated/ash.txt: changed: ")
    assert lines[1:] == ["generated/list.txt: missing", "2 of 5 files differ"]


ENTRY = {"checksum": "0" * 64, "size": 1, "last_compiled": "2025-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "files",
    [
        {"ash.txt": {**ENTRY, "checksum": 5}},
        {"ash.txt": {**ENTRY, "checksum": "\ud800"}},
        {"ash.txt": {**ENTRY, "size": "1"}},
        {"ash.txt": {**ENTRY, "size": True}},
        {"ash.txt": {**ENTRY, "size": 10**400}},
        {"ash.txt": {**ENTRY, "last_compiled": None}},
        {"ash.txt": {"checksum": "0"}},
        {"ash.txt": []},
        [],
        "ash.txt",
        None,
    ],
)
def test_what_has_other_types_than_ours_is_not_a_manifest(project: Project, files: Any) -> None:
    project.write(MANIFEST, json.dumps({"version": "1.0", "files": files}))
    said = f"{MANIFEST}: not a manifest; the next doit makes it anew\n"
    result = project.codegen("manifest", "verify")
    assert (result.code, result.out, result.err) == (1, said, "")
    result = project.codegen("manifest", "status")
    assert (result.code, result.out, result.err) == (0, said, "")


@pytest.mark.parametrize(
    "text", ["[]", "5", '"x"', "{}", '{"version": 1.0, "files": {}}', "[" * 9999]
)
def test_any_other_json_is_not_a_manifest_either(project: Project, text: str) -> None:
    project.write(MANIFEST, text)
    result = project.codegen("manifest", "verify")
    assert (result.code, result.err) == (1, "")
    assert result.out == f"{MANIFEST}: not a manifest; the next doit makes it anew\n"


def test_entries_of_files_outside_the_output_folder_are_ignored(project: Project) -> None:
    project.doit()
    outside = ["../dodo.py", "/etc/hostname", "a/../../dodo.py", "..", "", "a\0b", "\ud800"]
    document = manifest(project)
    for key in outside:
        document["files"][key] = ENTRY
    project.write(MANIFEST, json.dumps(document))
    result = project.codegen("manifest", "verify")
    assert (result.code, result.out) == (0, "5 files verified, all as recorded\n")
    assert "dodo.py" not in project.doit("info").out
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    result = project.doit()
    assert (result.code, result.err) == (0, "")
    assert set(manifest(project)["files"]).isdisjoint(outside)


def test_an_unknown_action_is_refused_with_the_nearest_one(project: Project) -> None:
    result = project.codegen("manifest", "verfy")
    assert result.code == 3
    assert "unknown action 'verfy', did you mean 'verify'?" in result.err
