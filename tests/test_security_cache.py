"""The template cache under attack.

Each attack is first shown to work where nothing is authenticated, on Jinja2's own
`FileSystemBytecodeCache`, and then to fail against ours.

Also: folders in which others can write, secrets that are not the user's own, and fuzzed entries.
"""

from __future__ import annotations

import marshal
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import jinja2
import jinja2.bccache
import jinja2.sandbox
import pytest
from conftest import Project
from hypothesis import given
from hypothesis import strategies as st

from codegen_tasks import bytecode
from codegen_tasks.bytecode import TemplateCache

CODE = compile("x = 1", "t", "exec")
KEY = "k" * 64
has_users = pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users, no modes")
is_root = hasattr(os, "getuid") and os.getuid() == 0
SUITE = Path(__file__).with_name("jinja_suite.py")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TemplateCache:
    """Return an empty cache with a secret of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return opened(tmp_path)


def opened(tmp_path: Path) -> TemplateCache:
    """Return the cache as another process would open it."""
    return TemplateCache(str(tmp_path / "cache"), str(tmp_path / "cache.log"), keep=5)


def entry_of(cache: TemplateCache) -> Path:
    """Put one entry into the cache; return its file."""
    cache.put("a.j2", KEY, CODE, 1.0)
    return Path(cache.path("a.j2", KEY))


def entries_of(project: Project) -> list[Path]:
    return sorted((project.path / ".codegen/cache/templates").rglob("*.jbc"))


# Attacks --------------------------------------------------------------------------------

RENDER = """
import sys, jinja2
folder, cache = sys.argv[1:3]
options = eval(sys.argv[3]) if len(sys.argv) > 3 else {}
kind = jinja2.Environment
if options.pop("sandbox", False):
    from jinja2.sandbox import SandboxedEnvironment as kind
filters = options.pop("filters", {})
environment = kind(loader=jinja2.FileSystemLoader(folder),
                   bytecode_cache=jinja2.FileSystemBytecodeCache(cache), **options)
environment.filters.update(filters)
print(environment.get_template("plain.txt.j2").render(), end="")
"""


class Theirs:
    """The project's templates rendered with Jinja2's own cache, a process each time."""

    def __init__(self, project: Project):
        self.project = project
        self.folder = project.path / "theirs"
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def render(self, options: str = "{}") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", RENDER, "templates", str(self.folder), options]
        return subprocess.run(words, cwd=self.project.path, capture_output=True, text=True)

    def entry(self) -> Path:
        (found,) = self.folder.iterdir()
        return found


@pytest.fixture
def theirs(project: Project) -> Theirs:
    """Return the project as Jinja2 would render it with its own cache."""
    return Theirs(project)


def poison(proof: Path) -> CodeType:
    """Return a template's code that leaves a proof when it is run."""
    source = (
        f"open({str(proof)!r}, 'w').close()\n"
        "name = 'plain.txt.j2'\nblocks = {}\ndebug_info = ''\n"
        "def root(context, missing=None, environment=None):\n    yield 'poisoned'\n"
    )
    return compile(source, "poison", "exec")


class _Bomb:
    """Leaves a proof when it is unpickled."""

    def __init__(self, proof: Path):
        self.proof = str(proof)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.proof, "w")


def their_head(path: Path) -> bytes:
    """Return what stands before the code in an entry of Jinja2's: magic and checksum."""
    with path.open("rb") as file:
        magic = file.read(len(jinja2.bccache.bc_magic))
        assert magic == jinja2.bccache.bc_magic
        pickle.load(file)
        return path.read_bytes()[: file.tell()]


@pytest.mark.parametrize("payload", ["code", "pickle"])
def test_a_poisoned_entry_is_executed_by_jinjas_cache_and_not_by_ours(
    project: Project, theirs: Theirs, payload: str
) -> None:
    proof = project.path / "proof"
    assert theirs.render().stdout == "plain"
    entry = theirs.entry()
    head = their_head(entry)
    if payload == "code":
        entry.write_bytes(head + marshal.dumps(poison(proof)))
    else:  # the checksum is unpickled first of all
        entry.write_bytes(jinja2.bccache.bc_magic + pickle.dumps(_Bomb(proof)))
    theirs.render()
    assert proof.exists()
    proof.unlink()

    project.doit()
    (plain,) = (project.path / ".codegen/cache/templates/plain.txt.j2").iterdir()
    raw = plain.read_bytes()
    code = marshal.dumps(poison(proof))
    forged = {
        "code": [raw[:48] + code, raw[:8] + bytes(32) + raw[40:48] + code, head + code, code],
        "pickle": [pickle.dumps(_Bomb(proof)), raw[:8] + pickle.dumps(_Bomb(proof))],
    }
    for attempt in forged[payload]:
        plain.write_bytes(attempt)
        project.remove("generated/plain.txt")
        result = project.doit()
        assert (result.code, result.err) == (0, "")
        assert "1 miss" in result.out
        assert project.read("generated/plain.txt") == "plain\n"
        assert not proof.exists()
        assert project.codegen("cache", "verify").code == 0
        assert not proof.exists()


def test_a_truncated_entry_is_an_error_of_jinjas_cache_and_a_miss_of_ours(
    project: Project, theirs: Theirs
) -> None:
    theirs.render()
    entry = theirs.entry()
    entry.write_bytes(entry.read_bytes()[: len(their_head(entry)) - 3])
    failed = theirs.render()
    assert failed.returncode != 0
    assert "Traceback" in failed.stderr

    project.doit()
    (plain,) = (project.path / ".codegen/cache/templates/plain.txt.j2").iterdir()
    raw = plain.read_bytes()
    for length in (0, 8, 47, len(raw) - 1):
        plain.write_bytes(raw[:length])
        project.remove("generated/plain.txt")
        result = project.doit()
        assert (result.code, result.err) == (0, "")
        assert project.read("generated/plain.txt") == "plain\n"


@pytest.mark.parametrize(
    ("source", "before", "after", "was", "now"),
    [
        ("{{ 'a<b' }}", "{'autoescape': False}", "{'autoescape': True}", "a<b", "a&lt;b"),
        ("{% if 1 %}\nx{% endif %}", "{'trim_blocks': False}", "{'trim_blocks': True}", "\nx", "x"),
        (
            "{{ 'a'|loud }}",
            "{'filters': {'loud': lambda t: t + '!'}}",
            "{'filters': {'loud': lambda t: t + '?'}}",
            "a!",
            "a?",
        ),
    ],
)
def test_changed_options_and_filters_are_stale_in_jinjas_cache_and_not_in_ours(
    project: Project, theirs: Theirs, source: str, before: str, after: str, was: str, now: str
) -> None:
    project.write("templates/plain.txt.j2", source)
    assert theirs.render(before).stdout == was
    assert theirs.render(after).stdout == was  # stale
    theirs.clear()
    assert theirs.render(after).stdout == now

    def declare(options: str) -> None:
        project.write(
            "dodo.py",
            "from codegen_tasks import Codegen\n"
            f"options = {options}\n"
            "filters = options.pop('filters', {})\n"
            "codegen = Codegen(environment=options)\n"
            'codegen.rule("plain", template="plain.txt.j2", target="plain.txt")\n'
            "for name, function in filters.items():\n"
            "    codegen.filter(name)(function)\n",
        )

    for options, made in ((before, was), (after, now), (before, was)):
        declare(options)
        assert project.doit("generate:plain.txt").code == 0
        assert project.read("generated/plain.txt") == made


ESCAPE = "{{ ''.__class__.__name__ }}\n"


def test_an_ordinary_environments_entry_breaks_jinjas_sandbox_and_not_ours(
    project: Project, theirs: Theirs
) -> None:
    project.write("templates/plain.txt.j2", ESCAPE)
    assert theirs.render("{'sandbox': True}").returncode != 0
    theirs.clear()
    assert theirs.render().stdout == "str"
    assert theirs.render("{'sandbox': True}").stdout == "str"  # out of the sandbox

    open_dodo = project.read("dodo.py")
    project.doit()
    assert project.read("generated/plain.txt") == "str\n"
    ordinary = {path: path.read_bytes() for path in entries_of(project)}
    project.write("dodo.py", open_dodo.replace("Codegen(", "Codegen(sandbox=True, "))
    result = project.doit("generate:plain.txt")
    assert result.code == 1
    assert "access to attribute '__class__' of 'str' object is unsafe" in result.out
    assert "hit" not in result.out
    # The entry of one in the place of the other's.
    (theirs_now,) = {p for p in entries_of(project) if p not in ordinary and "plain" in str(p)}
    (ours_then,) = {raw for path, raw in ordinary.items() if path.parent == theirs_now.parent}
    theirs_now.write_bytes(ours_then)
    result = project.doit("generate:plain.txt")
    assert result.code == 1
    assert "is unsafe" in result.out
    project.write("dodo.py", open_dodo)
    assert project.doit("-a", "generate:plain.txt").code == 0


def test_two_codegens_of_one_folder_share_no_entry_when_one_is_sandboxed(
    project: Project,
) -> None:
    project.write("templates/plain.txt.j2", ESCAPE)
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen

        trusted = Codegen(output="a", name="trusted")
        trusted.rule("plain", template="plain.txt.j2", target="plain.txt")
        guests = Codegen(output="b", name="guests", sandbox=True)
        guests.rule("plain", template="plain.txt.j2", target="plain.txt")
        DOIT_CONFIG = trusted.doit_config
        """,
    )
    for _ in range(2):
        result = project.doit("-c")
        assert result.code == 1
        assert project.exists("a/plain.txt")
        assert not project.exists("b/plain.txt")
        # One folder for both, as if somebody had joined them.
        ours, others = (project.path / f".codegen/{n}/cache" for n in ("trusted", "guests"))
        shutil.copytree(ours, others, dirs_exist_ok=True)
        shutil.copytree(others, ours, dirs_exist_ok=True)


# Replay and other users -----------------------------------------------------------------


def test_an_entry_is_good_for_its_own_template_and_key_only(cache: TemplateCache) -> None:
    raw = entry_of(cache).read_bytes()
    names = ("b.j2", "a.j2x", "A.j2", "", "a.j2/", "../a.j2")
    places = [(name, KEY) for name in names] + [("a.j2", "l" * 64), ("a.j2", KEY[1:])]
    places += [("a.j2" + KEY[:1], KEY[1:]), ("a.j", "2" + KEY)]  # the same letters in a row
    for template, key in places:
        path = Path(cache.path(template, key))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(raw)
        assert cache.get(template, key) is None
    assert cache.get("a.j2", KEY) == CODE


def test_another_users_entries_are_misses_and_leave_ours_alone(
    cache: TemplateCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = entry_of(cache)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other home"))
    other = opened(tmp_path)
    assert other.get("a.j2", KEY) is None
    assert [entry.path for entry in other.broken()] == [str(path)]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert opened(tmp_path).get("a.j2", KEY) == CODE


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "round link", "dangling link"])
def test_what_is_no_file_in_an_entrys_place_is_a_miss(cache: TemplateCache, kind: str) -> None:
    path = entry_of(cache)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        to = {"device": "/dev/zero", "round link": path.name, "dangling link": "gone"}[kind]
        path.symlink_to(to)
    assert cache.get("a.j2", KEY) is None
    listed = {} if kind in ("round link", "dangling link") else {str(path)}
    assert {entry.path for entry in cache.broken()} == set(listed)
    cache.put("a.j2", KEY, CODE, 1.0)
    assert cache.get("a.j2", KEY) == CODE  # a folder was moved aside


# Folders of others ----------------------------------------------------------------------


@has_users
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_folders_of_the_cache_are_the_users_alone_whatever_the_umask(
    cache: TemplateCache, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        path = entry_of(cache)
    finally:
        os.umask(before)
    for folder in (path.parent, path.parent.parent, tmp_path / "home/codegen-tasks"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert opened(tmp_path).get("a.j2", KEY) == CODE


@has_users
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720, 0o702])
@pytest.mark.parametrize("which", ["cache", "entry"])
def test_a_folder_is_used_only_if_nobody_else_can_write_in_it(
    cache: TemplateCache, tmp_path: Path, mode: int, which: str
) -> None:
    path = entry_of(cache)
    folder = path.parent if which == "entry" else path.parent.parent
    folder.chmod(mode)
    other = opened(tmp_path)
    assert other.get("a.j2", KEY) is None
    other.put("a.j2", "l" * 64, CODE, 1.0)
    folder.chmod(0o755)
    assert opened(tmp_path).get("a.j2", KEY) == CODE
    assert opened(tmp_path).get("a.j2", "l" * 64) is None


@has_users
@pytest.mark.parametrize(("which", "mode"), [("cache", 0o775), ("entry", 0o777)])
def test_a_folder_in_which_others_can_write_is_named_once(
    project: Project, mode: int, which: str
) -> None:
    project.doit()
    folder = ".codegen/cache/templates" + ("/plain.txt.j2" if which == "entry" else "")
    (project.path / folder).chmod(mode)
    before = project.stamps(".codegen/cache")
    project.remove("generated/plain.txt")
    result = project.doit()
    assert result.code == 0
    assert result.err == (
        f"{folder}: can be written by others, so the template cache is not used\n"
        f"  hint: chmod go-w {folder}, or template_cache = false in [tool.codegen]\n"
    )
    assert "hit" not in result.out
    assert project.read("generated/plain.txt") == "plain\n"
    assert project.stamps(".codegen/cache") == before
    again = project.doit()
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("5 up to date in")
    status = project.codegen("cache", "status").out
    assert f"{folder}: can be written by others, so the template cache is not used\n" in status
    (project.path / folder).chmod(0o700)
    project.remove("generated/plain.txt")
    assert "1 hit" in project.doit().out


@has_users
def test_workers_do_not_say_it_again(project: Project) -> None:
    project.doit()
    (project.path / ".codegen/cache/templates").chmod(0o777)
    project.write("templates/base.j2", "{% block body %}{% endblock %}")
    project.write("templates/list.txt.j2", "new\n")
    project.write("templates/plain.txt.j2", "new\n")
    result = project.doit("-n", "2")
    assert result.code == 0
    assert result.err.count("so the template cache is not used") == 1


@has_users
@pytest.mark.skipif(not is_root, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(project: Project) -> None:
    project.doit()
    folder = project.path / ".codegen/cache/templates/plain.txt.j2"
    os.chown(folder, 12345, -1)
    project.remove("generated/plain.txt")
    result = project.doit()
    assert result.code == 0
    assert result.err == (
        ".codegen/cache/templates/plain.txt.j2: belongs to another user,"
        " so the template cache is not used\n"
        "  hint: remove .codegen/cache/templates/plain.txt.j2,"
        " or template_cache = false in [tool.codegen]\n"
    )


@has_users
def test_a_link_to_a_folder_of_others_is_not_used(cache: TemplateCache, tmp_path: Path) -> None:
    path = entry_of(cache)
    shared = tmp_path / "shared"
    shutil.move(path.parent.parent, shared)
    path.parent.parent.symlink_to(shared)
    assert opened(tmp_path).get("a.j2", KEY) == CODE
    shared.chmod(0o777)
    assert opened(tmp_path).get("a.j2", KEY) is None


@has_users
def test_nothing_is_said_while_the_cache_is_off(project: Project) -> None:
    project.doit()
    (project.path / ".codegen/cache/templates").chmod(0o777)
    project.remove("generated/plain.txt")
    for jobs in ([], ["-n", "2"]):
        result = project.doit("-a", *jobs, CODEGEN_TEMPLATE_CACHE="off")
        assert (result.code, result.err) == (0, "")


# The secret -----------------------------------------------------------------------------


def no_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Use the cache twice as two processes would; return why its secret was not used."""
    for _ in range(2):
        cache = opened(tmp_path)
        cache.put("a.j2", KEY, CODE, 1.0)
        assert cache.get("a.j2", KEY) == CODE
        assert opened(tmp_path).get("a.j2", KEY) is None
    first, second = capfd.readouterr().err.splitlines()
    assert first == second
    return first


def hostile(kind: str, secret: Path, other: Path) -> None:
    """Put something into the secret's place."""
    secret.parent.mkdir(parents=True, mode=0o700)
    other.write_bytes(b"x" * 32)
    other.chmod(0o600)
    if kind == "link":
        secret.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(secret, 0o600)
    elif kind == "folder":
        secret.mkdir(0o700)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(secret.parent)
            server.bind("secret")
    else:
        shutil.copy(other, secret)
        secret.chmod({"group": 0o640, "others": 0o604, "written": 0o622}.get(kind, 0o600))
    if kind == "open folder":
        secret.parent.chmod(0o777)


@has_users
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("link", "is a link"),
        ("pipe", "is not a regular file"),
        ("folder", "is a directory"),
        ("socket", "no such device or address"),
        ("group", "is open to other users"),
        ("others", "is open to other users"),
        ("written", "is open to other users"),
        ("open folder", "lies in a folder that can be written by others"),
    ],
)
def test_a_secret_that_may_not_be_the_users_own_is_not_used(
    cache: TemplateCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = Path(bytecode.secret_path())
    hostile(kind, secret, tmp_path / "known")
    said = no_secret(tmp_path, capfd)
    assert said == f"{secret}: {why}, so the template cache is of no use later"


@has_users
@pytest.mark.skipif(not is_root, reason="only root can give a file away")
def test_a_secret_of_another_user_is_not_used(
    cache: TemplateCache, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hostile("plain", Path(bytecode.secret_path()), tmp_path / "known")
    os.chown(bytecode.secret_path(), 12345, -1)
    assert "belongs to another user" in no_secret(tmp_path, capfd)


def test_without_a_home_nothing_is_written_into_the_project(project: Project) -> None:
    before = set(project.files(".codegen", "generated"))
    result = project.doit(XDG_STATE_HOME="relative/state", HOME=str(project.path / "home"))
    assert (result.code, result.err) == (0, "")
    secret = "home/.local/state/codegen-tasks/secret"
    assert set(project.files(".codegen", "generated")) - before == {secret}


def test_a_home_that_nobody_knows_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user
    assert no_secret(tmp_path, capfd) == (
        "~/.local/state/codegen-tasks/secret: there is no home folder,"
        " so the template cache is of no use later"
    )
    assert not (tmp_path / "~").exists()


def test_processes_that_make_the_secret_at_once_have_the_same(
    cache: TemplateCache, tmp_path: Path
) -> None:
    script = "from codegen_tasks.bytecode import user_secret; print(user_secret())"
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(6)
    ]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1
    assert list((tmp_path / "home/codegen-tasks").iterdir()) == [Path(bytecode.secret_path())]


# Fuzzing --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TemplateCache, Path]]:
    """Return a cache with one entry, and the entry's file."""
    folder = tmp_path_factory.mktemp("fuzzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "home"))
        cache = TemplateCache(str(folder / "cache"), str(folder / "cache.log"), keep=5)
        yield cache, entry_of(cache)


def test_every_bit_flipped_and_every_length_is_a_miss(
    fuzzed: tuple[TemplateCache, Path],
) -> None:
    cache, path = fuzzed
    raw = path.read_bytes()
    tried = 0
    for index in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:index] + bytes([raw[index] ^ 1 << bit]) + raw[index + 1 :])
            assert cache.get("a.j2", KEY) is None
            tried += 1
        path.write_bytes(raw[:index])
        assert cache.get("a.j2", KEY) is None
    path.write_bytes(raw + b"\0")
    assert cache.get("a.j2", KEY) is None
    path.write_bytes(raw)
    assert cache.get("a.j2", KEY) == CODE
    assert tried == 8 * len(raw)


@given(st.binary(max_size=400), st.integers(0, 60))
def test_no_bytes_are_an_entry(fuzzed: tuple[TemplateCache, Path], junk: bytes, kept: int) -> None:
    cache, path = fuzzed
    raw = path.read_bytes()
    try:
        path.write_bytes(raw[:kept] + junk)
        assert cache.get("a.j2", KEY) is None or raw[:kept] + junk == raw
    finally:
        path.write_bytes(raw)


@pytest.mark.slow
def test_ten_thousand_torn_entries_are_misses(fuzzed: tuple[TemplateCache, Path]) -> None:
    cache, path = fuzzed
    raw = path.read_bytes()
    chance = random.Random(0)
    for _ in range(10_000):
        torn = bytearray(raw)
        for _ in range(chance.randint(1, 5)):
            begin, end = sorted(chance.choices(range(len(torn) + 1), k=2))
            what = chance.choice(["drop", "noise", "swap", "repeat"])
            if what == "drop":
                del torn[begin:end]
            elif what == "noise":
                torn[begin:end] = chance.randbytes(end - begin)
            elif what == "swap":
                torn[begin:end] = torn[begin:end][::-1]
            else:
                torn[begin:end] = torn[begin:end] * 2
        path.write_bytes(torn)
        assert cache.get("a.j2", KEY) is None or bytes(torn) == raw
    path.write_bytes(raw)
    assert cache.get("a.j2", KEY) == CODE


# Jinja2's own tests ---------------------------------------------------------------------


@pytest.mark.slow
def test_jinjas_own_tests_of_caches_and_loaders_pass_on_ours(tmp_path: Path) -> None:
    source = jinja_source(tmp_path)
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "home")}
    environ["PYTHONPATH"] = os.pathsep.join([str(SUITE.parent), environ.get("PYTHONPATH", "")])
    words = ["-p", "jinja_suite", "-p", "no:cacheprovider", "-q", "-rA", "--rootdir", str(source)]
    words += ["-c", os.devnull, "-p", "no:randomly"]
    modules = [str(source / f"tests/test_{name}.py") for name in ("bytecode_cache", "loader")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *modules],
        cwd=source / "tests",
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ours: get_source" in done.stdout
    assert "ours: get_bucket" in done.stdout


def jinja_source(folder: Path) -> Path:
    """Return Jinja2's source distribution, of the version installed, unpacked."""
    name = f"jinja2=={jinja2.__version__}"
    words = ["download", "-q", "--no-deps", "--no-binary", "jinja2", "-d", str(folder), name]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=300
    )
    found = list(folder.glob("jinja2-*.tar.gz"))
    if not found:
        pytest.skip(f"cannot download {name}: {(done.stderr.splitlines() or ['no pip'])[-1]}")
    shutil.unpack_archive(found[0], folder)
    return folder / found[0].name.removesuffix(".tar.gz")
