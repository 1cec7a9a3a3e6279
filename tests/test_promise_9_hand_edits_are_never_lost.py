"""Promise 9: what somebody else wrote in a target's place is told, and kept aside or adopted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import disk
from codegen_tasks.errors import StepError

KEPT = ".codegen/kept/generated/"
TYPED = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("ts", template="a.ts.j2", target="a.ts", compile="deno")
codegen.rule("py", template="b.py.j2", target="b.py", compile="python")
codegen.rule("txt", template="c.txt.j2", target="c.txt")
DOIT_CONFIG = codegen.doit_config
"""


@pytest.fixture
def built(project: Project) -> Project:
    """Return the small project after its first build."""
    assert project.doit().code == 0
    return project


@pytest.fixture
def typed(empty_project: Project) -> Project:
    """Return a built project with compiled targets."""
    project = empty_project
    project.write("dodo.py", TYPED)
    project.write("templates/a.ts.j2", "export const x: number = 1;\n")
    project.write("templates/b.py.j2", "x = {'a': 1}\n\n\ndef f(y):\n    return y + x['a']\n")
    project.write("templates/c.txt.j2", "c\n")
    assert project.doit().code == 0
    return project


def edit_unseen(path: Path, data: bytes) -> None:
    """Change a file's bytes in place, leaving its size and mtime as they were."""
    before = path.stat()
    assert len(data) == before.st_size
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def edited(project: Project) -> Any:
    return json.loads(project.doit("info", "--json").out)["edited"]


# Noticed, told, kept aside ---------------------------------------------------------------


def test_an_edit_under_the_same_size_and_mtime_is_noticed(built: Project) -> None:
    edit_unseen(built.path / "generated/plain.txt", b"PLAIN\n")
    assert edited(built) == ["generated/plain.txt"]
    out = built.doit().out
    assert f"generated/plain.txt: was edited by hand, kept aside as {KEPT}plain.txt" in out
    assert built.read(KEPT + "plain.txt") == "PLAIN\n"
    assert built.read("generated/plain.txt") == "plain\n"


@pytest.mark.parametrize("name", ["a.js", "a.js.map", "b.pyc"])
def test_an_edit_of_a_compiled_file_is_kept_aside(typed: Project, name: str) -> None:
    whole = typed.files(".codegen")
    typed.write(f"generated/{name}", b"mine\n")
    assert edited(typed) == [f"generated/{name}"]
    assert f"kept aside as {KEPT}{name}" in typed.doit().out
    assert typed.read(KEPT + name) == "mine\n"
    assert typed.files(".codegen") == whole


def test_it_is_kept_aside_too_if_what_it_is_made_from_changed(built: Project) -> None:
    built.write("generated/plain.txt", "mine\n")
    built.write("templates/plain.txt.j2", "new\n")
    assert "kept aside" in built.doit("-n", "2").out
    assert built.read(KEPT + "plain.txt") == "mine\n"
    assert built.read("generated/plain.txt") == "new\n"


def test_an_edit_of_a_target_whose_step_fails_stays_where_it_is(built: Project) -> None:
    built.write("generated/ash.txt", "mine\n")
    built.write("patterns/ash.toml", "name =")
    assert built.doit("-c").code == 1
    assert built.read("generated/ash.txt") == "mine\n"
    assert not built.exists(KEPT)
    built.write("patterns/ash.toml", 'name = "ash"\ngain = 0\n')
    assert built.doit().code == 0
    assert built.read(KEPT + "ash.txt") == "mine\n"


def test_what_a_failed_step_left_is_ours_without_a_manifest(built: Project) -> None:
    good = built.read("patterns/ash.toml")
    built.write("patterns/ash.toml", "name =")
    assert built.doit("-c").code == 1
    built.remove(".codegen/manifest.json")
    built.write("patterns/ash.toml", good.replace("0", "7"))
    result = built.doit()
    assert (result.code, "kept aside" in result.out) == (0, False)


def test_a_file_that_stood_there_before_the_first_build_is_kept_aside(project: Project) -> None:
    project.write("generated/plain.txt", "mine\n")
    said = f"generated/plain.txt: was there before, kept aside as {KEPT}plain.txt"
    assert said in project.doit().out
    assert project.read(KEPT + "plain.txt") == "mine\n"


def test_a_link_is_replaced_and_what_it_leads_to_stays(built: Project) -> None:
    built.write("mine.txt", "mine\n")
    path = built.path / "generated/plain.txt"
    path.unlink()
    path.symlink_to("../mine.txt")
    assert built.doit().code == 0
    assert not path.is_symlink()
    assert built.read("mine.txt") == "mine\n"
    assert built.read(KEPT + "plain.txt") == "mine\n"


def test_a_folder_in_a_targets_place_is_an_error_and_stays(built: Project) -> None:
    built.remove("generated/plain.txt")
    built.write("generated/plain.txt/mine", "x")
    result = built.doit()
    assert result.code == 1
    assert "generated/plain.txt: a folder stands where a file should be" in result.out
    assert built.read("generated/plain.txt/mine") == "x"


def test_nothing_is_overwritten_that_cannot_be_kept_aside(built: Project) -> None:
    built.write("generated/plain.txt", "mine\n")
    built.write(".codegen/kept", "a file")
    result = built.doit()
    assert result.code == 1
    assert ".codegen/kept: generated/plain.txt cannot be kept aside: a file stands" in result.out
    assert built.read("generated/plain.txt") == "mine\n"


# Adopted ---------------------------------------------------------------------------------


def test_a_clone_with_committed_outputs_writes_none_of_them(typed: Project) -> None:
    typed.write(".gitignore", ".codegen/\n__pycache__/\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "all"]):
        assert typed.run("git", *command).code == 0
    clone = Project(typed.path.parent / "clone", Path(typed.environ["XDG_STATE_HOME"]))
    subprocess.run(["git", "clone", "-q", typed.path, clone.path], check=True)
    before = clone.stamps("generated")
    assert len(before) == 6
    assert clone.codegen("diff").code == 0
    result = clone.doit()
    assert (result.code, result.err) == (0, "")
    assert "3 generated, 2 compiled, 5 of them unchanged" in result.out
    assert clone.stamps("generated") == before
    assert not clone.exists(".codegen/kept")
    assert "5 up to date" in clone.doit().out


# Cleaned ---------------------------------------------------------------------------------


def test_clean_keeps_an_edited_target_aside(built: Project) -> None:
    built.write("generated/plain.txt", "mine\n")
    result = built.doit("clean", "generate:plain.txt")
    assert "was edited by hand, kept aside" in result.out
    assert built.read(KEPT + "plain.txt") == "mine\n"
    assert not built.exists("generated/plain.txt")
    assert built.exists("generated/ash.txt")


@pytest.mark.parametrize("more", [[], ["--clean-all"], ["--forget"], ["output", "generate"]])
def test_clean_leaves_nothing_of_ours_but_what_was_kept_aside(
    built: Project, more: list[str]
) -> None:
    built.write("generated/plain.txt", "mine\n")
    built.remove("patterns/ash.toml")
    built.remove("patterns/birch.toml")
    built.write("generated/birch.txt", "mine too\n")
    built.write("generated/.codegen-0123456789abcdef", "half of a fi")
    built.write(".codegen/tmp/7-x/a", "")
    ours = {*built.files(), ".codegen/kept/generated/birch.txt"}
    mine = built.files(".codegen", "generated")
    result = built.doit("clean", *more)
    assert (result.code, result.err) == (0, "")
    left = built.files()
    kept = {KEPT + "plain.txt": b"mine\n", KEPT + "birch.txt": b"mine too\n"}
    database = {name: left[name] for name in ours if name.startswith(".codegen/state.db")}
    if more == ["output", "generate"]:
        left = {name: text for name, text in left.items() if "cache/" not in name}
    assert left == {**mine, **kept, **database}
    assert not built.exists("generated")
    assert not built.exists(".codegen/tmp")
    assert built.codegen("prune").out == "no orphans\n"


def test_clean_touches_nothing_that_we_did_not_make(built: Project) -> None:
    built.write("generated/mine.txt", "mine\n")
    built.write("generated/sub/mine.txt", "mine\n")
    built.write("generated/.codegen-mine", "mine\n")
    assert built.doit("clean").code == 0
    assert set(built.stamps("generated")) == {
        "generated/mine.txt",
        "generated/sub/mine.txt",
        "generated/.codegen-mine",
    }


def test_clean_before_any_build_leaves_files_in_targets_places_alone(project: Project) -> None:
    project.write("generated/plain.txt", "mine\n")
    assert project.doit("clean").code == 0
    assert project.read("generated/plain.txt") == "mine\n"
    assert not project.exists(".codegen/kept")


def test_a_dry_clean_names_orphans_and_changes_nothing(built: Project) -> None:
    built.remove("patterns/ash.toml")
    before = built.stamps()
    assert "output - removing file 'generated/ash.txt'" in built.doit("clean", "-n").out
    assert built.stamps() == before


def test_clean_says_what_it_cannot_remove(built: Project) -> None:
    built.write("generated/plain.txt", "mine\n")
    built.write(".codegen/kept", "a file")
    result = built.doit("clean")
    assert "'generated/plain.txt' cannot be removed: .codegen/kept: " in result.out
    assert "Traceback" not in result.out + result.err
    assert built.read("generated/plain.txt") == "mine\n"


def test_clean_leaves_the_records_of_other_tasks(built: Project) -> None:
    task = "\ndef task_mine():\n    return {'actions': ['true'], 'file_dep': ['dodo.py']}\n"
    built.write("dodo.py", built.read("dodo.py") + task)
    built.doit()
    built.doit("ignore", "generate:ash.txt")
    assert built.doit("clean").code == 0
    result = built.doit()
    assert ".  mine" not in result.out
    assert not built.exists("generated/ash.txt")


# Where it is kept ------------------------------------------------------------------------


def kept(root: Path, path: str, data: bytes) -> str:
    full = root / path
    if full.is_dir():
        shutil.rmtree(full)
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(data)
    found = disk.keep_aside(str(root), path, "kept")
    assert (root / found).read_bytes() == data
    return found


def test_each_version_gets_a_name_and_none_is_kept_twice(tmp_path: Path) -> None:
    assert kept(tmp_path, "out/a.txt", b"1") == "kept/out/a.txt"
    assert kept(tmp_path, "out/a.txt", b"2") == "kept/out/a.txt.2"
    assert kept(tmp_path, "out/a.txt", b"3") == "kept/out/a.txt.3"
    assert kept(tmp_path, "out/a.txt", b"2") == "kept/out/a.txt.2"
    assert kept(tmp_path, "out/a.txt", b"1") == "kept/out/a.txt"


def test_whatever_stands_where_it_is_to_go_stays(tmp_path: Path) -> None:
    assert kept(tmp_path, "out/a", b"1") == "kept/out/a"
    (tmp_path / "out/a").unlink()
    assert kept(tmp_path, "out/a/b", b"2") == "kept/out/a.2/b"
    assert kept(tmp_path, "out/a/c", b"3") == "kept/out/a.2/c"
    assert kept(tmp_path, "out/a", b"4") == "kept/out/a.3"
    (tmp_path / "kept/out/d").symlink_to("nowhere")
    assert kept(tmp_path, "out/d", b"5") == "kept/out/d.2"
    assert (tmp_path / "kept/out/a").read_bytes() == b"1"
    assert not (tmp_path / "kept/out/nowhere").exists()


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127 + "x", "x" * 254])
def test_a_name_as_long_as_can_be_is_shortened_for_its_number(tmp_path: Path, name: str) -> None:
    found = [kept(tmp_path, f"out/{name}", bytes([number])) for number in range(12)]
    assert len(set(found)) == 12
    assert found[0] == f"kept/out/{name}"
    assert all(len(os.fsencode(os.path.basename(path))) <= 255 for path in found)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-8 there")
def test_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.txt")
    assert kept(tmp_path, f"out/{name}", b"1") == f"kept/out/{name}"
    assert kept(tmp_path, f"out/{name}", b"2") == f"kept/out/{name}.2"


def test_what_is_kept_at_once_is_all_kept(tmp_path: Path) -> None:
    roots = 8
    found: list[str] = []
    start = threading.Barrier(roots)
    for number in range(roots):
        path = tmp_path / f"out{number}/a"
        path.parent.mkdir()
        path.write_bytes(b"%d" % number * 1000)

    def keep(number: int) -> None:
        # One name for all: each file lies in a root of its own, linked to one `kept`.
        root = tmp_path / f"root{number}"
        root.mkdir()
        (root / "out").symlink_to(tmp_path / f"out{number}")
        (root / "kept").symlink_to(tmp_path / "kept")
        start.wait()
        found.append(os.path.basename(disk.keep_aside(str(root), "out/a", "kept")))

    (tmp_path / "kept").mkdir()
    threads = [threading.Thread(target=keep, args=(number,)) for number in range(roots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = {path.read_bytes()[:1] for path in (tmp_path / "kept/out").iterdir()}
    assert len(set(found)) == roots
    assert there == {b"%d" % number for number in range(roots)}


def test_a_copy_is_no_more_readable_than_the_file_was(tmp_path: Path) -> None:
    kept(tmp_path, "out/a", b"1")
    (tmp_path / "out/b").write_bytes(b"2")
    (tmp_path / "out/b").chmod(0o600)
    found = tmp_path / disk.keep_aside(str(tmp_path), "out/b", "kept")
    assert found.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "kept").write_bytes(b"")
    with pytest.raises(StepError) as caught:
        disk.keep_aside(str(tmp_path), "a", "kept")
    assert str(caught.value) == (
        "kept: a cannot be kept aside: a file stands where a folder should be\n"
        "  hint: move kept away"
    )
