"""Writing files: whole or not at all, only if bytes change, with the permissions they had."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from codegen_tasks import disk, folders
from codegen_tasks.errors import StepError
from codegen_tasks.model import UNSETTLED


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_equal_bytes_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "sub/a"
    assert disk.write(str(path), b"1")
    before = path.stat()
    assert not disk.write(str(path), b"1")
    assert path.stat() == before
    assert disk.write(str(path), b"2")
    assert path.read_bytes() == b"2"


def test_who_knows_whether_the_bytes_are_equal_spares_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    monkeypatch.setattr(disk, "read", None)
    assert not disk.write(str(path), b"1", unchanged=True)
    assert disk.write(str(path), b"2", unchanged=False)
    assert path.read_bytes() == b"2"


def test_a_new_file_has_the_permissions_that_the_umask_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)  # it is every thread's
            disk.write(str(tmp_path / "a"), b"1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o640


@pytest.mark.skipif(os.name == "nt", reason="files have no such permissions there")
def test_what_replaces_a_link_gets_nothing_of_where_that_leads(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"1")
    (tmp_path / "program").chmod(0o777)
    (tmp_path / "a").symlink_to(tmp_path / "program")
    assert disk.write(str(tmp_path / "a"), b"2")
    assert not (tmp_path / "a").is_symlink()
    assert not mode(tmp_path / "a") & 0o111


@pytest.mark.parametrize("kept", [0o600, 0o755, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    path.chmod(kept)
    disk.write(str(path), b"2")
    assert (mode(path), path.read_bytes()) == (kept, b"2")


def test_threads_that_write_one_file_leave_one_of_their_versions(tmp_path: Path) -> None:
    path = str(tmp_path / "a")

    def many(letter: bytes) -> None:
        for number in range(50):
            disk.write(path, letter * (1000 + number))

    threads = [threading.Thread(target=many, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(disk.read(path))) == 1
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("below", ["a", "sub/a", "sub/sub/a"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StepError) as caught:
        disk.write(f"{tmp_path}/out/{below}", b"1")
    assert str(caught.value) == (
        f"{tmp_path}/out: a file stands where a folder should be\n  hint: move {tmp_path}/out away"
    )
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(StepError) as caught:
        disk.write(f"{tmp_path}/a", b"1")
    assert str(caught.value) == (
        f"{tmp_path}/a: a folder stands where a file should be\n  hint: move {tmp_path}/a away"
    )
    assert os.listdir(tmp_path) == ["a"]


def test_only_a_regular_file_has_a_signature(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.symlink("a", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    assert disk.stat(f"{tmp_path}/a") == disk.stat(f"{tmp_path}/link") is not None
    assert disk.stat(f"{tmp_path}/fifo") is None
    assert disk.stat(str(tmp_path)) is None
    assert disk.stat(f"{tmp_path}/none") is None


def test_a_file_written_within_the_last_tick_has_no_settled_signature(tmp_path: Path) -> None:
    path = tmp_path / "edited"
    path.write_text("a")
    unsettled = disk.signature(str(path))
    assert unsettled is not None
    assert unsettled[1] == UNSETTLED
    assert unsettled != disk.stat(str(path)), "it is read again"
    disk.settle([unsettled])
    assert disk.signature(str(path)) == disk.stat(str(path))


def test_a_file_of_ours_is_settled_at_once_and_an_edit_in_its_tick_shows(tmp_path: Path) -> None:
    path = tmp_path / "made"
    disk.write(str(path), b"a")
    made = disk.signature(str(path))
    assert made == disk.stat(str(path))
    with path.open("r+b") as file:
        file.write(b"b")
    assert disk.stat(str(path)) != made


def test_a_file_system_that_counts_whole_seconds_takes_longer_to_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() // 1_000_000_000 * 1_000_000_000
    monkeypatch.setattr(disk, "stat", lambda path: (1, now, now, 7))
    assert disk.signature("any") == (1, UNSETTLED, now, 7)
    monkeypatch.setattr(disk, "stat", lambda path: (1, now - 3_000_000_000, now - 3_000_000_000, 7))
    assert disk.signature("any") == (1, now - 3_000_000_000, now - 3_000_000_000, 7)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs such a file")
def test_a_file_whose_size_is_not_told_is_read_to_its_end() -> None:
    assert disk.stat("/proc/self/status")[0] == 0  # type: ignore[index]
    assert disk.read("/proc/self/status").endswith(b"\n")


def test_a_system_that_takes_less_than_it_is_given_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:3]))
    disk.write(str(tmp_path / "a"), b"ten bytes.")
    assert (tmp_path / "a").read_bytes() == b"ten bytes."


def test_links_are_followed_once_a_folder_and_again_when_another_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = os.path.realpath
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home / "sub", outside):
        folder.mkdir(parents=True)
        for name in "ab":
            (folder / name).touch()
    (home / "sub/link").symlink_to(outside / "a")
    inside = disk.Inside(str(home))
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(path) or real(path))
    assert inside.holds(f"{home}/sub/a")
    first = len(asked)
    assert inside.holds(f"{home}/sub/b")
    assert len(asked) == first
    assert not inside.holds(f"{home}/sub/link")
    (home / "sub").rename(home / "moved")
    (home / "sub").symlink_to(outside)
    assert not inside.holds(f"{home}/sub/b")


# Folders --------------------------------------------------------------------------------


@pytest.mark.parametrize("also", [True, False])
def test_a_folder_that_has_just_changed_is_told_by_its_signature_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: bool
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.toml").write_text("")
    now = os.stat(tmp_path / "sub").st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: now)
    listed = folders.Folders(str(tmp_path))
    assert listed.walk("sub") == ["a.toml"]
    assert listed.signatures["sub"][1] == UNSETTLED
    if also:
        (tmp_path / "sub/b.toml").write_text("")
    monkeypatch.undo()
    time.sleep(0.03)
    assert (listed.settled()["sub"][1] == UNSETTLED) is also
