"""Promise 4: a target is whole or what it was before, whatever the disk does meanwhile.

Full and read-only disks are real ones where the machine lets us mount them, in a mount
namespace that ends with the command; other faults are raised by the calls that would meet
them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Project, Result

DOIT = shlex.join([sys.executable, "-m", "doit"])
#: What a target's bytes hang on: `gain` times 1,000 letters.
PAGE = '{{ name }}\n{{ "x" * 1000 * gain }}\n'


@pytest.fixture
def built(project: Project) -> Project:
    """Return a project that is built."""
    project.write("templates/page.txt.j2", PAGE)
    assert project.doit().code == 0
    return project


def bloat(project: Project, thousands: int) -> None:
    project.write("patterns/ash.toml", f'name = "ash"\ngain = {thousands}\n')


def whole(project: Project, before: dict[str, bytes]) -> None:
    """See that each target is what it was, and that no other file is there."""
    assert project.files("dodo.py", "patterns", "templates", ".codegen") == before


def targets(project: Project) -> dict[str, bytes]:
    return project.files("dodo.py", "patterns", "templates", ".codegen")


def ends_right(project: Project) -> None:
    """See that a build without the fault makes what a clean one makes."""
    assert project.doit().code == 0
    found = targets(project)
    assert project.doit().out.startswith("5 up to date")
    project.run("rm", "-r", "generated", ".codegen")
    assert project.doit().code == 0
    assert targets(project) == found


# Real ones ------------------------------------------------------------------------------


def mounted(project: Project, script: str) -> Result:
    """Run a shell script that may mount, seen by nobody else; skip where it may not."""
    tried = (
        subprocess.run(
            ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"],
            capture_output=True,
            check=False,
        )
        if sys.platform == "linux"
        else None
    )
    if tried is None or tried.returncode:
        pytest.skip("this machine lets us mount nothing")
    return project.run("unshare", "-m", "sh", "-c", f"set -e\n{script}")


@pytest.mark.parametrize("workers", ["", "-n 2"])
def test_a_full_disk_fails_the_step_and_leaves_the_old_target(built: Project, workers: str) -> None:
    before = targets(built)
    bloat(built, 500)
    result = mounted(
        built,
        f"""
        mkdir aside && mv generated/* aside
        mount -t tmpfs -o size=64k tmpfs generated
        mv aside/* generated && rmdir aside
        {DOIT} {workers} -c || echo "exit $?"
        ls -A generated
        cmp generated/ash.txt saved && echo same
        """.replace("mv aside/*", "cp aside/ash.txt saved; mv aside/*"),
    )
    assert "  generated/ash.txt: cannot write: no space left on device\n" in result.out
    assert result.out.endswith("exit 1\n" + "".join(f"{n[10:]}\n" for n in before) + "same\n")
    assert result.err == ""
    built.remove("saved")
    ends_right(built)


def test_a_file_too_large_fails_the_step_and_leaves_the_old_target(built: Project) -> None:
    before = targets(built)
    bloat(built, 500)
    result = built.run("sh", "-c", f"ulimit -f 400; {DOIT} -c generate")
    assert (result.code, result.err) == (1, "")
    assert "  generated/ash.txt: cannot write: file too large\n" in result.out
    whole(built, before)
    ends_right(built)


def test_a_read_only_disk_is_named_with_a_hint(built: Project) -> None:
    before = targets(built)
    bloat(built, 2)
    bind = "mount --bind generated generated; mount -o remount,ro,bind generated"
    result = mounted(built, f"{bind}; {DOIT} -c generate")
    assert (result.code, result.err) == (1, "")
    assert (
        "  generated/ash.txt: cannot write: read-only file system\n"
        "    hint: the folder generated must be writable\n"
    ) in result.out
    whole(built, before)
    ends_right(built)


def test_on_a_read_only_disk_a_build_with_nothing_to_do_and_info_work(built: Project) -> None:
    bind = "mount --bind . .; cd /; cd $OLDPWD; mount -o remount,ro,bind ."
    result = mounted(built, f"{bind}; {DOIT}; {DOIT} info")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("5 up to date")
    assert result.out.endswith("5 targets up to date\n")


def test_cleaning_a_read_only_disk_says_what_stays(built: Project) -> None:
    before = targets(built)
    bind = "mount --bind generated generated; mount -o remount,ro,bind generated"
    result = mounted(built, f"{bind}; {DOIT} clean generate:ash.txt")
    assert result.out.endswith(
        "generate:ash.txt - 'generated/ash.txt' cannot be removed: read-only file system\n"
    )
    whole(built, before)


FILL = """mount -t tmpfs -o size=300k tmpfs .codegen
{doit}; cat /dev/zero >.codegen/fill || :"""


NO_ROOM = [
    (0, ".codegen/lock: cannot be written: no space left on device"),
    (4096, ".codegen/state.db: cannot be written: database or disk is full"),
]


@pytest.mark.parametrize(
    ("workers", "room", "error"),
    [
        ("", *NO_ROOM[0]),
        ("-n 2", *NO_ROOM[1]),
        pytest.param("-n 2", *NO_ROOM[0], marks=pytest.mark.slow),
        pytest.param("", *NO_ROOM[1], marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_below_the_database_is_one_error_and_loses_nothing(
    project: Project, workers: str, room: int, error: str
) -> None:
    project.write("templates/page.txt.j2", PAGE)
    (project.path / ".codegen").mkdir()
    edit = "printf 'name = \"ash\"\\ngain = 9\\n' >patterns/ash.toml"
    result = mounted(
        project,
        f"""
        {FILL.format(doit=DOIT)} 2>/dev/null
        truncate -s -{room} .codegen/fill
        echo nothing; {DOIT}
        {edit}
        echo full; {DOIT} {workers} || echo "exit $?"
        wc -c <generated/ash.txt
        rm .codegen/fill
        echo room; {DOIT}; {DOIT}
        """,
    )
    _, _, rest = result.out.partition("nothing\n")
    nothing, _, rest = rest.partition("full\n")
    full, _, last = rest.partition("room\n")
    assert nothing.startswith("5 up to date")
    # The first record that cannot be kept ends the run; the target is whole in any case.
    assert full.endswith(("exit 3\n9005\n", "exit 3\n5\n"))
    assert f"ERROR: {error}\n" in result.err
    assert "Traceback" not in result.err + result.out
    assert last.splitlines()[-1].startswith("5 up to date")
    ends_right(project)


def test_a_full_disk_below_caches_and_logs_is_no_error(project: Project) -> None:
    result = mounted(
        project,
        f"""
        for folder in cache logs; do
            mkdir -p .codegen/$folder
            mount -t tmpfs -o size=4k tmpfs .codegen/$folder
            cat /dev/zero >.codegen/$folder/fill 2>/dev/null || :
        done
        {DOIT}; {DOIT}
        """,
    )
    assert (result.code, result.err) == (0, "")
    assert "5 generated" in result.out
    assert "5 up to date" in result.out.splitlines()[-1]
    ends_right(project)


@pytest.mark.slow
def test_with_few_open_files_a_build_is_right_or_says_so(project: Project) -> None:
    for limit in (6, 8, 10, 12, 16):
        project.run("rm", "-rf", "generated", ".codegen")
        for workers in ("", " -n 2"):
            result = project.run("sh", "-c", f"ulimit -n {limit}; {DOIT}{workers}")
            assert "Traceback" not in result.out + result.err, (limit, workers, result)
            assert result.code == 0 or "too many open files" in result.out + result.err, result
    ends_right(project)


# Raised ---------------------------------------------------------------------------------

FAULTY = """
import builtins, os

FAULT = os.environ.get("FAULT", "").split()
if FAULT:
    from codegen_tasks import disk

    def failing(call, at, error):
        real = getattr(os, call)

        def faulty(*arguments):
            if at(*arguments):
                raise OSError(error, os.strerror(error))
            return real(*arguments)

        setattr(os, call, faulty)

    def is_ash(*names):
        return any(FAULT[2] in str(name) for name in names)

    def halfway(call):
        real = getattr(os, call)

        def faulty(handle, *data):
            try:
                hit = is_ash(os.readlink(f"/proc/self/fd/{handle}"))
            except OSError:
                hit = False
            done = real(handle, *(part[: len(part) // 2] if hit else part for part in data))
            if hit:
                raise OSError(int(FAULT[1]), os.strerror(int(FAULT[1])))
            return done

        setattr(os, call, faulty)

    if FAULT[0] in ("write", "close"):
        halfway(FAULT[0])
    else:
        failing(FAULT[0], is_ash, int(FAULT[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["serial", "parallel"])
@pytest.mark.parametrize(
    "fault",
    [
        *("open EDQUOT", "open EMFILE", "write EIO", "write ENOSPC", "close EDQUOT", "close EIO"),
        *("replace EIO", "replace EBUSY", "replace ETXTBSY"),
    ],
)
def test_whatever_call_fails_the_old_target_stays_and_no_half_of_a_new_one(
    project: Project, fault: str, workers: list[str]
) -> None:
    import errno

    project.write("dodo.py", FAULTY + project.read("dodo.py"))
    project.write("templates/page.txt.j2", PAGE)
    assert project.doit().code == 0
    before = targets(project)
    project.write("templates/page.txt.j2", PAGE + "more\n")
    call, name = fault.split()
    number = getattr(errno, name)
    where = "/generated/.codegen-" if call != "replace" else "/generated/ash.txt"
    result = project.doit("run", "-c", *workers, FAULT=f"{call} {number} {where}")
    assert (result.code, result.err) == (1, "")
    said = f"  generated/ash.txt: cannot write: {os.strerror(number).lower()}\n"
    assert said in result.out
    assert targets(project).keys() == before.keys()
    assert targets(project)["generated/ash.txt"] == before["generated/ash.txt"]
    ends_right(project)


@pytest.mark.skipif(sys.platform != "linux", reason="tells files by /proc")
@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EROFS"])
def test_a_manifest_that_cannot_be_written_is_told_and_stays_whole(
    project: Project, name: str
) -> None:
    import errno

    project.write("dodo.py", FAULTY + project.read("dodo.py"))
    assert project.doit().code == 0
    before = project.read(".codegen/manifest.json")
    bloat(project, 7)
    number = getattr(errno, name)
    result = project.doit(FAULT=f"replace {number} /manifest.json")
    assert result.code == 1
    assert f".codegen/manifest.json: cannot write: {os.strerror(number).lower()}\n" in result.out
    assert str(project.path) not in result.out + result.err
    assert project.read(".codegen/manifest.json") == before
    assert [n for n in os.listdir(project.path / ".codegen") if n.startswith(".codegen-")] == []
    ends_right(project)


# What stands there ----------------------------------------------------------------------


@pytest.mark.parametrize("to", ["../mine", "/dev/null", "../nowhere", "../templates", "ash.txt"])
def test_a_link_at_a_targets_place_is_replaced_never_written_through(
    project: Project, to: str
) -> None:
    project.write("mine", "mine\n")
    (project.path / "generated").mkdir()
    (project.path / "generated/ash.txt").symlink_to(to)
    assert project.doit().code == 0
    assert not (project.path / "generated/ash.txt").is_symlink()
    assert project.read("mine") == "mine\n"
    project.remove("mine")
    ends_right(project)


def test_a_file_that_has_another_name_too_keeps_its_bytes_there(built: Project) -> None:
    os.link(built.path / "generated/ash.txt", built.path / "other")
    before = built.read("other")
    bloat(built, 5)
    assert built.doit().code == 0
    assert built.read("other") == before
    built.remove("other")
    ends_right(built)


@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_a_pipe_is_replaced_and_a_folder_is_left_alone(built: Project, make: str) -> None:
    built.remove("generated/ash.txt")
    assert built.run(make, "generated/ash.txt").code == 0
    result = built.doit("-c")
    if make == "mkfifo":
        assert result.code == 0
    else:
        assert result.code == 1
        assert (
            "  generated/ash.txt: a folder stands where a file should be\n"
            "    hint: move generated/ash.txt away\n"
        ) in result.out
        os.rmdir(built.path / "generated/ash.txt")
    ends_right(built)


def test_a_target_without_write_permission_is_replaced_and_keeps_it(built: Project) -> None:
    path: Path = built.path / "generated/ash.txt"
    path.chmod(0o444)
    bloat(built, 3)
    assert built.doit().code == 0
    assert path.stat().st_mode & 0o777 == 0o444
    with contextlib.suppress(OSError):
        path.chmod(0o644)
    ends_right(built)
