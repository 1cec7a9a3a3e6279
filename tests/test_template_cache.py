"""The template cache: what hits, what misses, what is kept, and that it cannot lie."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from codegen_tasks import bytecode
from codegen_tasks.bytecode import TemplateCache

CODE = compile("x = 1", "t", "exec")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TemplateCache:
    """Return an empty cache that keeps two generations."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return TemplateCache(str(tmp_path / "cache"), str(tmp_path / "cache.log"), keep=2)


def templates_of(result_out: str) -> str:
    found = re.search(r"\(templates (.*)\)", result_out)
    return found[1] if found else ""


# As a user sees it ----------------------------------------------------------------------


def test_the_first_run_misses_and_a_later_one_hits(project: Project) -> None:
    assert templates_of(project.doit().out) == "5 misses"
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    assert templates_of(project.doit().out) == "4 hits"  # page, base, macros; list


def test_workers_share_what_was_parsed(project: Project) -> None:
    out = project.doit("-n", "3").out
    log = project.read(".codegen/logs/cache.log")
    misses = re.findall(r" miss (\S+) ", log)
    assert sorted(set(misses)) == sorted(
        ["base.j2", "macros.j2", "page.txt.j2", "list.txt.j2", "plain.txt.j2"]
    )
    assert " hit" in templates_of(out)


def test_each_hit_and_miss_is_one_line_of_the_log(project: Project) -> None:
    project.doit()
    lines = project.read(".codegen/logs/cache.log").splitlines()
    assert len(lines) == 5
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (hit|miss) \S+ [0-9a-f]{16} \d+\.\d{3}"
    assert all(re.fullmatch(shape, line) for line in lines)


def test_the_five_newest_generations_of_each_template_are_kept(project: Project) -> None:
    for number in range(7):
        project.write("templates/plain.txt.j2", f"{number}\n")
        assert project.doit().code == 0
    folder = project.path / ".codegen/cache/templates/plain.txt.j2"
    assert len(list(folder.iterdir())) == 5
    assert "2 entries removed" in project.codegen("cache", "cleanup", "3").out
    assert len(list(folder.iterdir())) == 3


def test_how_many_generations_are_kept_is_a_setting(project: Project) -> None:
    project.write("pyproject.toml", "[tool.codegen]\ncache_generations = 2\n")
    for number in range(4):
        project.write("templates/plain.txt.j2", f"{number}\n")
        assert project.doit().code == 0
    assert len(list((project.path / ".codegen/cache/templates/plain.txt.j2").iterdir())) == 2


def test_an_older_generation_hits_again(project: Project) -> None:
    for text in ("one\n", "two\n", "one\n"):
        project.write("templates/plain.txt.j2", text)
        out = project.doit().out
    assert templates_of(out) == "1 hit"


def test_cache_status_counts_entries_bytes_hits_and_misses(project: Project) -> None:
    project.doit()
    project.write("templates/plain.txt.j2", "new\n")
    project.doit()
    out = project.codegen("cache", "status").out
    assert re.search(r"^templates: 6 entries of 5 templates, [\d.]+ KB$", out, re.MULTILINE)
    assert re.search(r"^0 hits \(0 %\), 6 misses, 0 ms saved$", out, re.MULTILINE)


def test_a_missing_cache_makes_nothing_else_stale(project: Project) -> None:
    project.doit()
    assert project.codegen("cache", "clear").out == "5 entries removed\n"
    assert project.doit().out.startswith("5 up to date in")


def test_a_broken_entry_is_a_miss_and_is_replaced(project: Project) -> None:
    project.doit()
    for entry in (project.path / ".codegen/cache/templates").rglob("*.jbc"):
        entry.write_bytes(entry.read_bytes()[:-7])
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    result = project.doit()
    assert (result.code, result.err) == (0, "")
    assert templates_of(result.out) == "4 misses"
    assert "OAK!" in project.read("generated/ash.txt")


def test_a_filter_folded_into_the_bytecode_is_in_its_key(project: Project) -> None:
    project.write("templates/plain.txt.j2", "{{ 'a'|shout }}\n")
    project.doit()
    dodo = project.read("dodo.py")
    project.write("dodo.py", dodo.replace('"!"', '"?"'))
    project.doit()
    assert project.read("generated/plain.txt") == "A?\n"


def test_an_entry_of_another_user_is_a_miss(project: Project, tmp_path: Path) -> None:
    project.doit()
    project.write("patterns/ash.toml", 'name = "oak"\ngain = 0\n')
    out = project.doit(XDG_STATE_HOME=str(tmp_path / "other")).out
    assert templates_of(out) == "4 misses"


def test_verify_reads_every_entry_and_removes_what_cannot_be_used(project: Project) -> None:
    project.doit()
    whole = project.codegen("cache", "verify")
    assert (whole.code, whole.out) == (0, "5 entries verified, 0 removed\n")
    folder = project.path / ".codegen/cache/templates"
    (entry,) = (folder / "plain.txt.j2").iterdir()
    raw = entry.read_bytes()
    entry.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    (other,) = (folder / "list.txt.j2").iterdir()
    copied = folder / "base.j2" / other.name
    copied.write_bytes(other.read_bytes())
    result = project.codegen("cache", "verify")
    lines = result.out.splitlines()
    assert (result.code, lines[2:]) == (0, ["6 entries verified, 2 removed"])
    assert sorted(lines[:2]) == sorted(
        f"{path.relative_to(project.path).as_posix()}: cannot be used, removed"
        for path in (entry, copied)
    )
    assert not entry.exists()
    assert not copied.exists()
    assert project.codegen("cache", "verify").out == "4 entries verified, 0 removed\n"


def test_what_cannot_be_removed_is_named(project: Project) -> None:
    project.doit()
    entry = project.path / ".codegen/cache/templates/plain.txt.j2/x.jbc"
    entry.mkdir()  # stands for a file in a folder that is not ours: root may remove that
    for action, first in (("verify", "6 entries verified, 0"), ("clear", "5 entries")):
        result = project.codegen("cache", action)
        assert (result.code, result.err) == (1, "")
        assert result.out.splitlines() == [
            f"{first} removed",
            ".codegen/cache/templates/plain.txt.j2/x.jbc: cannot be removed",
        ]


def test_a_secret_that_cannot_be_kept_is_said_in_one_line(project: Project) -> None:
    project.write("home", "a file")
    home = str(project.path / "home")
    result = project.doit(XDG_STATE_HOME=home)
    assert result.code == 0
    assert result.err == (
        f"{home}/codegen-tasks/secret: not a directory, so the template cache is of no use later\n"
    )
    again = project.doit(XDG_STATE_HOME=home)
    assert again.out.startswith("5 up to date in")
    assert again.err == ""


# The cache itself -----------------------------------------------------------------------


def test_an_entry_is_found_under_its_key_only(cache: TemplateCache) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    assert cache.get("a.j2", "k" * 64) == CODE
    assert cache.get("a.j2", "l" * 64) is None
    assert cache.get("b.j2", "k" * 64) is None


def test_a_hit_opens_its_entry_and_the_log_once_and_looks_at_nothing_else(
    cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("page.j2", "key", CODE, 1.0)
    assert cache.get("page.j2", "key") is not None
    calls: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("open", "stat", "mkdir", "listdir", "scandir")}
    for name in real:

        def noting(path: object, *rest: Any, _name: str = name, **more: Any) -> Any:
            calls.append((_name, os.path.basename(str(path))))
            return real[_name](path, *rest, **more)

        monkeypatch.setattr(os, name, noting)
    assert cache.get("page.j2", "key") is not None
    monkeypatch.undo()
    assert calls == [("open", "key.jbc"), ("open", "cache.log")]


def test_an_entry_moved_to_another_key_or_template_is_a_miss(cache: TemplateCache) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    raw = Path(cache.path("a.j2", "k" * 64)).read_bytes()
    for template, key in (("a.j2", "l" * 64), ("b.j2", "k" * 64), ("a.j2", "k" * 32 + "l" * 32)):
        path = Path(cache.path(template, key))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        assert cache.get(template, key) is None


def test_no_byte_of_an_entry_can_be_changed(cache: TemplateCache) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    path = Path(cache.path("a.j2", "k" * 64))
    raw = path.read_bytes()
    for index in range(len(raw)):
        path.write_bytes(raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :])
        assert cache.get("a.j2", "k" * 64) is None
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        assert cache.get("a.j2", "k" * 64) is None


def test_the_secret_is_readable_by_its_owner_only(cache: TemplateCache) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    secret = Path(bytecode.secret_path())
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32


def test_a_secret_that_others_can_read_is_not_used(
    cache: TemplateCache, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    Path(bytecode.secret_path()).chmod(0o644)
    other = TemplateCache(str(tmp_path / "cache"), str(tmp_path / "cache.log"), keep=2)
    assert other.get("a.j2", "k" * 64) is None
    assert capfd.readouterr().err == ""
    for key in ("l", "m"):
        other.put("a.j2", key * 64, CODE, 1.0)
    assert capfd.readouterr().err == (
        f"{bytecode.secret_path()}: is open to other users,"
        " so the template cache is of no use later\n"
    )


def test_a_template_name_can_be_anything(cache: TemplateCache) -> None:
    names = ("ä/ö ü.j2", "a%2Fb", "..", "x" * 300, "y" * 300, "nul\\byte", "日本.j2", "\udcff")
    for name in names:
        cache.put(name, "k" * 64, CODE, 1.0)
        assert cache.get(name, "k" * 64) == CODE
    assert len(cache.entries()) == len(names)
    assert cache.broken() == []
    assert cache.forget("y" * 300) == 1
    assert cache.clear() == len(names) - 1
    assert cache.entries() == []


def test_entries_that_another_process_prunes_meanwhile_are_passed_over(
    cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    entry = cache.entries()[0]
    os.unlink(entry.path)
    os.symlink("gone", entry.path)  # listed, and not there when it is looked at
    assert cache.entries() == []
    assert cache.cleanup(0) == []
    monkeypatch.setattr(cache, "entries", lambda: [entry])
    assert cache.broken() == []
    cache.put("a.j2", "l" * 64, CODE, 1.0)
    assert cache.get("a.j2", "l" * 64) == CODE


def another(cache: TemplateCache) -> TemplateCache:
    """Return a cache on the same folder, as another process would open it."""
    folder = Path(cache.path("a", "k")).parents[1]
    return TemplateCache(str(folder), str(folder.parent / "cache.log"), keep=2)


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33])
def test_a_torn_secret_is_replaced(cache: TemplateCache, secret: bytes) -> None:
    path = Path(bytecode.secret_path())
    path.parent.mkdir(parents=True)
    path.write_bytes(secret)
    path.chmod(0o600)
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    assert another(cache).get("a.j2", "k" * 64) == CODE


def test_a_secret_is_kept_where_there_are_no_hard_links(
    cache: TemplateCache, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def link(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    assert another(cache).get("a.j2", "k" * 64) == CODE
    assert Path(bytecode.secret_path()).stat().st_mode & 0o777 == 0o600
    assert len(list(Path(bytecode.secret_path()).parent.iterdir())) == 1
    assert capfd.readouterr().err == ""


def test_the_mode_of_the_secret_says_nothing_where_there_are_no_users(
    cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("a.j2", "k" * 64, CODE, 1.0)
    Path(bytecode.secret_path()).chmod(0o666)
    monkeypatch.delattr(os, "getuid")
    assert another(cache).get("a.j2", "k" * 64) == CODE


def test_processes_that_write_at_once_leave_a_whole_entry(cache: TemplateCache) -> None:
    script = (
        "import sys; from codegen_tasks.bytecode import TemplateCache as C\n"
        "c = C(sys.argv[1], sys.argv[2], 5)\n"
        "code = compile('x = 1', 't', 'exec')\n"
        "for i in range(50):\n"
        "    c.put('a.j2', 'k' * 64, code, float(i))\n"
        "    assert c.get('a.j2', 'k' * 64) == code\n"
    )
    folder = str(Path(cache.path("a", "k")).parents[1])
    log = str(Path(folder).parent / "cache.log")
    running = [subprocess.Popen([sys.executable, "-c", script, folder, log]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    lines = Path(log).read_text().splitlines()
    assert len(lines) == 400
    assert bytecode.figures(log).hits == 200


def test_time_saved_is_what_parsing_took_less_what_loading_took(tmp_path: Path) -> None:
    log = tmp_path / "cache.log"
    log.write_text(
        "t miss a b.j2 k1 10.000\nt hit a b.j2 k1 0.500\nt hit a b.j2 k1 0.500\n"
        "t hit c.j2 k2 0.100\ngarbage\n"
    )
    found = bytecode.figures(str(log))
    assert (found.hits, found.misses, found.saved) == (3, 1, 19.0)
