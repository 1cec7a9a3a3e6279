"""Whatever happens on the way to a remote cache, the build is done, and its outputs are right.

The store is an nginx; between us and it stands a proxy that does what networks do.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from proxies import proxy
from stores import Web, nginx
from test_output_cache import ALL, Cached
from test_remote_cache import KEY, WRITES, clone, url, web

from codegen_tasks import actions
from codegen_tasks.model import Input, Result
from codegen_tasks.remote import parcels, wire

__all__ = ["clone", "url", "web"]  # fixtures

#: What goes wrong, and at which byte: of the status line, of the header, of the body.
FAULTS = [
    ("reset at once", 0),
    ("silent", 0),
    ("flood", 0),
    ("drip", 0),
    ("a page", 0),
    ("redirects", 0),
    ("an error", 0),
    ("no login", 0),
    ("a huge one", 0),
    ("no length", 0),
    ("junk", 0),
    *(("cut request", at) for at in (0, 1, 40, 150)),
    *(("cut answer", at) for at in (0, 5, 60, 240, 400, -1)),
    *(("reset answer", at) for at in (0, 60, 400)),
    *(("garble", at) for at in (0, 60, 240, 400, -1)),
]
#: At most so many connections are made by each of the processes of a run.
MOST = 40


def named(fault: tuple[str, int]) -> str:
    return f"{fault[0]} {fault[1]}".replace(" ", "-")


def is_fast(fault: tuple[str, int]) -> bool:
    return fault == ("cut answer", 400)


CASES = [
    pytest.param(*fault, id=named(fault), marks=[] if is_fast(fault) else [pytest.mark.slow])
    for fault in FAULTS
]


def check_line(project: Cached, url: str, err: str) -> None:
    """Check that a run said no more than one line, and a hint, of the remote cache."""
    assert err.replace("\n  hint: ", "").count("\n") <= 1
    assert err == "" or err.startswith(f"remote cache {url}: ")


@pytest.mark.parametrize(("fault", "at"), CASES)
def test_a_cable_pulled_at_any_point_while_reading_fails_no_build(
    clone: Callable[..., Cached], web: Web, url: str, fault: str, at: int
) -> None:
    first = clone("first", 100_000)
    first.built(**WRITES)
    first.ran()
    second = clone("second", 100_000)
    with proxy(web.port, fault, at) as way:
        through = url.replace(f":{web.port}", f":{way.port}")
        environ = {"CODEGEN_REMOTE_CACHE": through, "CODEGEN_REMOTE_CACHE_SECONDS": "1"}
        result = second.built(**environ)
        assert way.calls <= MOST
    check_line(second, through, result.err)
    assert second.files() == first.files()
    assert "4 up to date" in second.built().out


@pytest.mark.parametrize(("fault", "at"), CASES)
def test_a_cable_pulled_at_any_point_while_writing_leaves_nothing_wrong_behind(
    clone: Callable[..., Cached], web: Web, url: str, fault: str, at: int
) -> None:
    first = clone("first", 100_000)
    with proxy(web.port, fault, at) as way:
        through = url.replace(f":{web.port}", f":{way.port}")
        environ = {"CODEGEN_REMOTE_CACHE": through, "CODEGEN_REMOTE_CACHE_SECONDS": "1"}
        result = first.built("-n", "2", **environ, **WRITES)
        assert way.calls <= 2 * MOST
    check_line(first, through, result.err)
    assert first.ran() == ALL
    second = clone("second", 100_000)
    assert second.built().err == ""
    assert second.files() == first.files()


def test_an_answer_that_says_it_is_short_and_never_ends_is_not_read_on(
    clone: Callable[..., Cached], web: Web, url: str
) -> None:
    project = clone("first")
    with proxy(web.port, "endless") as way:
        through = url.replace(f":{web.port}", f":{way.port}")
        result = project.built(CODEGEN_REMOTE_CACHE=through)
        assert way.sent < 100_000_000  # what the system takes in before anybody reads
    check_line(project, through, result.err)
    assert project.ran() == ALL


@pytest.mark.slow
def test_a_store_that_costs_more_than_it_spares_is_left_alone(
    clone: Callable[..., Cached], web: Web, url: str
) -> None:
    projects = [clone(name) for name in ("first", "second")]
    for project in projects:
        for number in range(400):
            project.write(f"patterns/p{number}.toml", 'text = "many"\n')
    projects[0].built("generate", **WRITES)
    projects[0].ran()
    # Without the bundle, each step is to be asked for.
    shutil.rmtree(web.folder / url.rpartition("/")[2] / "cas")
    with proxy(web.port, "slow") as way:
        through = url.replace(f":{web.port}", f":{way.port}")
        environ = {"CODEGEN_REMOTE_CACHE": through, "CODEGEN_REMOTE_CACHE_SECONDS": "1"}
        before = len(web.asked())
        result = projects[1].built("generate", **environ)
    assert len(web.asked()) - before < 400
    told = "is too slow to be of use, so it was left alone"
    assert result.err in ("", f"remote cache {through}: {told}\n")
    assert 0 < len(projects[1].ran()) <= 402


# Stores that lie ------------------------------------------------------------------------

Lie = Callable[[list[Path]], None]


def _each(change: Callable[[bytes], bytes]) -> Lie:
    def lie(paths: list[Path]) -> None:
        for path in paths:
            path.write_bytes(change(path.read_bytes()))

    return lie


def _turned(paths: list[Path]) -> None:
    """Put each file's content under the next one's name."""
    contents = [path.read_bytes() for path in paths]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(data)


def _turned_bit(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


def _blown_up(paths: list[Path]) -> None:
    for path in paths:
        os.truncate(path, 300_000_000)  # sparse


LIES: dict[str, Lie] = {
    "empty": _each(lambda data: b""),
    "torn": _each(lambda data: data[: len(data) // 2]),
    "longer": _each(lambda data: data + b"x"),
    "turned bit": _each(_turned_bit),
    "page": _each(lambda data: b"<html>not found</html>"),
    "of another": _turned,
    "huge": _blown_up,
}


#: The lies that are told in the fast tests, too.
_FAST = [("torn", "cas", "unsigned")]


@pytest.mark.parametrize(
    ("lie", "kind", "environ"),
    [
        pytest.param(
            *(lie, kind, environ),
            id=f"{lie}-{kind}-{name}",
            marks=[] if (lie, kind, name) in _FAST else [pytest.mark.slow],
        )
        for lie in LIES
        for kind in ("ac", "cas")
        for name, environ in (("unsigned", {}), ("signed", KEY))
    ],
)
def test_a_store_that_hands_out_something_else_is_a_miss(
    clone: Callable[..., Cached],
    web: Web,
    url: str,
    kind: str,
    lie: str,
    environ: dict[str, str],
) -> None:
    first = clone("first", 100_000)
    first.built(**WRITES, **environ)
    first.ran()
    folder = web.folder / url.rpartition("/")[2] / kind
    LIES[lie](sorted(folder.iterdir()))
    second = clone("second", 100_000)
    result = second.built(**environ)
    check_line(second, url, result.err)
    assert second.ran() == ALL
    assert second.files() == first.files()


def test_nothing_that_comes_can_name_a_file_of_the_user() -> None:
    result = Result((Input("pattern", "a.toml", "a" * 64),), {"b": b"x" * 100_000})
    text, _ = actions.written(result)
    for name in ("../../../victim", "/victim", "A" * 64, "a" * 63, "a" * 65):
        forged = _resealed(text, actions.stored_in(text).contents[0].digest, name)  # type: ignore[union-attr]
        assert actions.stored_in(forged) is None


def _resealed(text: bytes, old: str, new: str) -> bytes:
    from codegen_tasks import digest

    body = text.partition(b"\n")[2].replace(old.encode(), new.encode())
    return digest.of_bytes(body).encode() + b"\n" + body


@pytest.mark.parametrize("secret", [b"", b"secret"], ids=["unsigned", "signed"])
def test_bytes_of_any_kind_are_what_was_sent_or_refused(secret: bytes) -> None:
    contents = {"c" * 64: b"content" * 1000}
    message, blobs = parcels.packed("k" * 64, b"text" * 100, contents, secret)
    parcel = parcels.opened("k" * 64, message, secret)
    assert parcel.text == b"text" * 100
    (blob,) = parcel.blobs.values()
    assert {blob.name} == set(blobs)
    dice = random.Random(1)
    for _ in range(2000):
        forged = bytearray(message)
        for _ in range(dice.choice([1, 1, 2, 8])):
            forged[dice.randrange(len(forged))] = dice.randrange(256)
        if dice.random() < 0.3:
            del forged[dice.randrange(len(forged)) :]
        try:
            found = parcels.opened("k" * 64, bytes(forged), secret)
        except (parcels.ForeignError, parcels.UnsignedError):
            continue
        assert found == parcel  # what was changed is only for the server


def test_a_message_signed_for_one_key_is_of_no_use_under_another() -> None:
    message, _ = parcels.packed("a" * 64, b"text", {}, b"secret")
    with pytest.raises(parcels.UnsignedError):
        parcels.opened("b" * 64, message, b"secret")
    with pytest.raises(parcels.UnsignedError):
        parcels.opened("a" * 64, message, b"other")


def test_what_is_packed_to_fill_the_memory_is_refused() -> None:
    import zlib

    bomb = zlib.compress(b"\0" * (parcels.MESSAGE + 1))
    said = b"codegen-tasks 1\n-\n" + bomb
    with pytest.raises(parcels.ForeignError):
        parcels.opened("a" * 64, wire.action_result(said, [], "x"))


@pytest.mark.slow
def test_a_token_is_sent_and_never_shown(clone: Callable[..., Cached], tmp_path: Path) -> None:
    wanted = 'if ($http_authorization != "Bearer t0ken") { return 401; }'
    with nginx(tmp_path / "nginx", wanted) as web:
        environ = {"CODEGEN_REMOTE_CACHE": web.url, "CODEGEN_REMOTE_CACHE_TOKEN": "t0ken"}
        first = clone("first")
        assert first.built(**environ, **WRITES).err == ""
        first.ran()
        second = clone("second")
        second.built(**environ)
        assert second.ran() == []
        assert "t0ken" not in second.codegen("cache", "status", **environ).out


def _below(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_credentials_are_sent_and_never_shown(clone: Callable[..., Cached], tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:{PLAIN}s3cret/word\n")
    login = f'auth_basic "codegen"; auth_basic_user_file {tmp_path}/users;'
    with nginx(tmp_path / "nginx", login) as web:
        with_login = web.url.replace("http://", "http://ann:s3cret%2Fword@")
        first = clone("first")
        assert first.built(CODEGEN_REMOTE_CACHE=with_login, **WRITES).err == ""
        first.ran()
        second = clone("second")
        second.built(CODEGEN_REMOTE_CACHE=with_login)
        assert second.ran() == []
        status = second.codegen("cache", "status", CODEGEN_REMOTE_CACHE=with_login)
        assert f"remote {web.url}: answers" in status.out
        wrong = with_login.replace("s3cret", "guess")
        refused = clone("third").built(CODEGEN_REMOTE_CACHE=wrong)
        assert (
            refused.err
            == f"remote cache {web.url}: answers with status 401, so it was left alone\n"
            "  hint: user and password stand in CODEGEN_REMOTE_CACHE, https://user:password@…; "
            "a token in CODEGEN_REMOTE_CACHE_TOKEN\n"
        )
    kept = b"".join(
        data for folder in (first.path, second.path) for data in _below(folder / ".codegen")
    )
    everything = status.out + refused.out + refused.err + kept.decode("latin-1")
    assert "s3cret" not in everything
    assert "guess" not in everything
