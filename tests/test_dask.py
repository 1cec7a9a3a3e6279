"""Steps on Dask workers: the same bytes and traces, whatever becomes of workers and schedulers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, Result
from dask_cluster import Cluster, cluster
from doit.dependency import Dependency

from codegen_tasks.model import Trace
from codegen_tasks.progress import Counts, View
from codegen_tasks.state import StateDB

pytest.importorskip("distributed")

slow = pytest.mark.slow


def traces(project: Project) -> dict[str, Any]:
    """Return what is recorded of each step, but for times and signatures."""
    database = Dependency(StateDB, str(project.path / ".codegen/state.db"))
    found = {}
    for path in sorted((project.path / "generated").rglob("*")):
        name = path.relative_to(project.path / "generated").as_posix()
        for phase in ("generate", "compile"):
            values = database.get_values(f"{phase}:{name}")
            trace = Trace.from_values(values.get("trace"))
            if trace is not None:
                inputs = [replace(item, stat=None) for item in trace.inputs]
                signed = [item.stat is not None for item in trace.inputs]
                outputs = [replace(output, stat=None) for output in trace.outputs]
                rest = {key: value for key, value in values.items() if key != "trace"}
                found[f"{phase}:{name}"] = (inputs, signed, outputs, rest)
    return found


def made(project: Project) -> dict[str, bytes]:
    paths = (project.path / "generated").rglob("*.*")
    return {p.relative_to(project.path).as_posix(): p.read_bytes() for p in paths if p.is_file()}


def twin(project: Project) -> Project:
    """Return a copy of a project that has built nothing."""
    path = project.path.parent / "twin"
    shutil.copytree(project.path, path, ignore=shutil.ignore_patterns(".codegen", "generated"))
    return Project(path, Path(project.environ["XDG_STATE_HOME"]))


def on_dask(project: Project, there: Cluster, *arguments: str, **environ: str) -> Result:
    return project.doit("-P", "dask", "--scheduler", there.address, *arguments, **environ)


def notes(result: Result) -> list[str]:
    """Return what was said of Dask."""
    marks = ("-P dask: ", "  hint: ")
    return [line for line in result.out.splitlines() if line.startswith(marks)]


def the_same(project: Project, *arguments: str, **environ: str) -> Result:
    """Build on Dask and, in a copy, here; see that nothing differs, and all is up to date."""
    other = twin(project)
    result = project.doit("-P", "dask", *arguments, **environ)
    assert result.code == 0, result
    assert other.doit().code == 0
    assert made(project) == made(other)
    assert traces(project) == traces(other)
    before = project.stamps()
    assert project.doit().out.partition(" in ")[0] == f"{len(targets(project))} up to date"
    assert project.stamps() == before
    return result


def targets(project: Project) -> list[str]:
    return list(traces(project))


# What is asked for ----------------------------------------------------------------------


def test_without_dask_the_hint_says_what_to_install(project: Project) -> None:
    hidden = "import sys; sys.modules['distributed'] = None; import doit.__main__"
    script = f"{hidden} as main; sys.argv = ['doit', '-P', 'dask']; main.main()"
    result = project.run(sys.executable, "-c", script)
    what = "ERROR: -P dask: needs Dask\n  hint: pip install 'codegen-tasks[dask]'\n"
    assert (result.code, result.err) == (3, what)
    assert not project.exists("generated")


@pytest.mark.parametrize(
    ("arguments", "environ", "what"),
    [
        (
            ["--scheduler", "tcp://127.0.0.1:1"],
            {},
            "--scheduler: is for Dask's workers only\n  hint: -P dask\n",
        ),
        (
            ["-P", "dask", "--scheduler", "nonsense"],
            {},
            "--scheduler: 'nonsense' is no address of a scheduler\n"
            "  hint: like tcp://host:8786, as the scheduler tells when it starts\n",
        ),
        (
            ["-P", "dask"],
            {"CODEGEN_DASK_SCHEDULER": "host"},
            "dask_scheduler: 'host' is no address of a scheduler\n"
            "  hint: like tcp://host:8786, as the scheduler tells when it starts\n",
        ),
    ],
)
def test_an_address_that_is_none_is_refused(
    project: Project, arguments: list[str], environ: dict[str, str], what: str
) -> None:
    result = project.doit(*arguments, **environ)
    assert (result.code, result.err) == (3, f"ERROR: {what}")


def test_the_address_in_pyproject_must_be_text(project: Project) -> None:
    project.write("pyproject.toml", "[tool.codegen]\ndask_scheduler = 8786\n")
    result = project.doit()
    assert result.err == (
        "ERROR: pyproject.toml [tool.codegen] dask_scheduler: must be a string, not 8786\n"
    )


def test_with_nothing_to_do_dask_is_not_imported_and_no_scheduler_is_asked(
    project: Project,
) -> None:
    assert project.doit().code == 0
    script = (
        "import sys; from doit.doit_cmd import DoitMain; code = DoitMain().run(sys.argv[1:]); "
        "sys.exit(code or bool({'dask', 'distributed'} & sys.modules.keys()))"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        asked = ("-P", "dask", "--scheduler", address)
        result = project.run(sys.executable, "-c", script, *asked)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith("5 up to date in ")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_parallel_switched_off_means_no_workers_there_either(project: Project) -> None:
    asked = ("-P", "dask", "--scheduler", "tcp://127.0.0.1:1", "-v", "2")
    result = project.doit(*asked, CODEGEN_PARALLEL="0")
    assert result.code == 0
    assert notes(result) == []
    assert len(set(re.findall(r"pid (\d+)", result.out))) == 1


def test_a_scheduler_that_does_not_answer_costs_a_line(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        asked = ("-P", "dask", "--scheduler", address)
        result = project.doit(*asked, CODEGEN_DASK_WAIT="1")
    assert result.code == 0
    assert notes(result) == [
        f"-P dask: {address} does not answer; all steps run here",
        "  hint: does it run, and is this the address that it tells?",
    ]
    assert project.read("generated/ash.txt") == "begin\n== ash == ASH! 0\nend\n"


def test_what_is_no_scheduler_is_told_with_what_may_help(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as caller:
                        caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        caller.recv(100_000)

        threading.Thread(target=serve, daemon=True).start()
        result = project.doit("-P", "dask", "--scheduler", address, CODEGEN_DASK_WAIT="10")
    assert result.code == 0
    what, hint = notes(result)
    assert what.startswith(f"-P dask: what answers at {address} is no scheduler that Dask 20")
    assert what.endswith("; all steps run here")
    assert hint == "  hint: dask scheduler tells its address and, with --version, which Dask it is"


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({}, "needs certificates"),
        (
            {
                "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "no.pem",
                "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": "no.pem",
            },
            "needs certificates, a file of which is not there",
        ),
    ],
)
def test_a_scheduler_that_wants_certificates_is_told_with_where_they_are_named(
    project: Project, environ: dict[str, str], what: str
) -> None:
    result = project.doit("-P", "dask", "--scheduler", "tls://127.0.0.1:9", **environ)
    assert result.code == 0
    assert notes(result) == [
        f"-P dask: tls://127.0.0.1:9 {what}; all steps run here",
        "  hint: distributed.comm.tls in Dask's configuration names them",
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"address": "nowhere"}', "[]", "no JSON"])
def test_a_scheduler_file_that_is_none_costs_a_line(project: Project, text: str) -> None:
    path = project.write("../scheduler.json", text)
    files = {"DASK_SCHEDULER_FILE": str(path), "CODEGEN_DASK_WAIT": "1"}
    result = project.doit("-P", "dask", **files)
    assert (result.code, result.err) == (0, "")
    assert len(notes(result)) == 1
    assert notes(result)[0].endswith("; all steps run here")


def test_without_a_scheduler_workers_of_this_machine_make_the_same(project: Project) -> None:
    result = the_same(project, "-n", "2", "-v", "2")
    assert set(re.findall(r"generate:\S+  \((worker \d), \d+ ms\)", result.out)) <= {
        "worker 0",
        "worker 1",
    }
    assert notes(result) == []


def test_workers_of_this_machine_listen_to_nobody_else_and_two_runs_at_once_are_no_matter(
    project: Project,
) -> None:
    project.write(
        "dodo.py",
        project.read("dodo.py")
        + """

def task_look():
    def look():
        import os, psutil
        leading = psutil.Process(os.getppid())
        for one in leading.net_connections("inet"):
            print("listens", one.status, one.laddr.ip)
    return {"actions": [look], "task_dep": ["generate"], "verbosity": 2}
""",
    )
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then another has it
            taken.bind(("", 8787))
            taken.listen()
        result = project.doit("-P", "dask", "-n", "2", "look")
    assert (result.code, result.err) == (0, "")
    assert set(re.findall(r"listens (?:LISTEN|NONE) (\S+)", result.out)) == {"127.0.0.1"}


class Busy:
    """A runner that has a worker elsewhere, and one here."""

    places = 2

    def recorded_of(self, names: Iterable[str]) -> dict[str, float]:
        return {}

    def recorded(self) -> list[tuple[str, float]]:
        return []

    def under_way(self) -> list[tuple[int | str, list[str]]]:
        return [("first", ["generate:ash.txt", "generate:elm.txt"]), (7, ["generate:fir.txt"])]


def test_the_live_view_names_workers_elsewhere() -> None:
    view = View(io.StringIO(), lambda: Counts(0, 3), dict, {}, {})
    [row] = view.picture(Busy(), time.monotonic(), 200, 50)
    assert row.endswith(" left: first: generate:ash.txt and 1 more, generate:fir.txt")


# All kinds of steps ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster of two workers; nobody is to harm it."""
    with cluster(tmp_path_factory.mktemp("cluster"), "first", "second") as found:
        yield found


KINDS = """
import json
import helpers
from codegen_tasks import Codegen, Formatter, Toolchain

codegen = Codegen(environment={"extensions": ["jinja2.ext.do"]}, globals={"limit": 3})
copy = Toolchain("copy", ["tools/copy", "{source}", "{target}"], suffix=".out",
                 version=["tools/copy", "--version"])
headed = Toolchain("headed", ["cc", "-Iinclude", "-c", "{source}", "-o", "{target}", "-MD", "-MF",
                   "{depfile}"], suffix=".o", depfile="{target}.d", version=["cc", "--version"])
plain = Toolchain("plain", ["tools/plain", "{source}", "{target}"], suffix=".plain")
tidy = Formatter("tidy", ["tools/tidy", "{target}"], reads=["tools/tidy.cfg"])
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt",
             context=helpers.context, schema="schema.json", mode=0o755)
codegen.rule("all", template="all.j2", patterns="patterns/*.toml", target="all.txt",
             format=tidy, newline="\\r\\n")
codegen.rule("each", template="each.j2", patterns="patterns/*.toml", each="items",
             target="{stem}/{item}.txt")
codegen.rule("c", template="code.c.j2", patterns="patterns/*.toml", target="{stem}.c",
             compile="cc")
codegen.rule("more", template="more.c.j2", target="more.c", compile=headed)
codegen.rule("h", template="own.h.j2", target="own.h")
codegen.rule("python", template="code.py.j2", patterns="patterns/*.toml", target="{stem}.py",
             compile=["python", copy, plain])
codegen.rule("mako", template="one.mako", patterns="patterns/*.toml", target="{stem}.mako.txt")
codegen.rule("chained", template="chained.j2", target="chained.txt")


@codegen.filter
def late(text):
    import lazily
    return lazily.reverse(text)


DOIT_CONFIG = codegen.doit_config
"""

FILES = {
    "dodo.py": KINDS,
    "helpers.py": "LIMITS = open('limits.txt').read()\n\n\n"
    "def context(data):\n    return {'twice': data['gain'] * 2, 'limits': LIMITS}\n",
    "limits.txt": "0-9",
    "lazily.py": "import deeper.still\n\n\n"
    "def reverse(text):\n    return deeper.still.reverse(text)\n",
    "deeper/__init__.py": "",
    "deeper/still.py": "def reverse(text):\n    return text[::-1]\n",
    "schema.json": '{"type": "object", "properties": {"gain": {"type": "integer"}}}',
    "tools/copy": '#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\ncp "$1" "$2"\n',
    "tools/plain": '#!/bin/sh\ncp "$1" "$2"\n',
    "tools/tidy": "#!/bin/sh\ncat tools/tidy.cfg - \n",
    "tools/tidy.cfg": "tidy\n",
    "templates/page.j2": '{% extends "base.j2" %}{% block body %}'
    '{% include ["no.j2", name ~ ".inc", "usual.inc"] %} {{ name|late }} {{ twice }} {{ limits }} '
    '{{ read_text("data/" ~ name ~ ".txt") }} {{ read_json("data/all.json").key }}'
    '{% include "nowhere.j2" ignore missing %}{% endblock %}\n',
    "templates/base.j2": "begin {% block body %}{% endblock %} end\n",
    "templates/usual.inc": "usual",
    "templates/ash.inc": "special",
    "templates/all.j2": "{% for p in patterns %}{{ p.name }} {{ limit }}\n{% endfor %}",
    "templates/each.j2": "{{ item }} of {{ name }}\n",
    "templates/code.c.j2": '#include "own.h"\nint {{ name }} = OWN;\n',
    "templates/more.c.j2": '#include "by_hand.h"\nint more = BY_HAND;\n',
    "templates/one.mako": '<%include file="two.mako"/> ${name}\n',
    "templates/two.mako": "two",
    "templates/own.h.j2": "#define OWN 1\n",
    "templates/code.py.j2": "{{ name }} = {{ gain }}\n",
    "templates/chained.j2": '{{ read_text("generated/all.txt") }}',
    "include/by_hand.h": '#include "deep/more.h"\n#define BY_HAND MORE\n',
    "include/deep/more.h": "#define MORE 2\n",
    "data/all.json": '{"key": "value", "other": 1}',
    "templates/__pycache__/lazily.cpython-311.pyc": "bytecode is of a machine",
    "secret.txt": "nobody sends this",
    "data/secret.txt": "nor this",
}


@pytest.fixture
def kinds(empty_project: Project) -> Project:
    """Return a project with all that a step can read."""
    project = empty_project
    for name, text in FILES.items():
        path = project.write(name, text)
        if name.startswith("tools/") and "." not in name:
            path.chmod(0o755)
    for number, stem in enumerate(("ash", "birch", "cedar", "elm", "fir")):
        items = f'items = ["{stem}1", "{stem}2"]'
        project.write(f"patterns/{stem}.toml", f'name = "{stem}"\ngain = {number}\n{items}\n')
        project.write(f"data/{stem}.txt", f"data of {stem}")
    return project


@slow
def test_all_kinds_of_steps_make_the_same_bytes_and_traces(kinds: Project, two: Cluster) -> None:
    result = the_same(kinds, "-v", "2", "--scheduler", two.address)
    ran = re.findall(r"(generate|compile):\S+  \((first|second), \d+ ms\)", result.out)
    assert len(ran) == len(targets(kinds))
    assert notes(result) == []
    assert kinds.codegen("report", "-o", "page.html").code == 0
    assert kinds.codegen("report", "--trace", "trace.json").code == 0
    assert "first<small>elsewhere</small>" in kinds.read("page.html")
    assert {"first (elsewhere)", "second (elsewhere)"} <= {
        event["args"]["name"]
        for event in json.loads(kinds.read("trace.json"))["traceEvents"]
        if event["name"] == "thread_name"
    }


@slow
def test_workers_are_sent_what_steps_read_and_nothing_else(kinds: Project, two: Cluster) -> None:
    sent = []
    for name in ("first", "second"):
        before = set(two.files(name))
        sent.append((name, before))
    # While the run is under way its copy is there; a task of the user's holds the run open.
    kinds.write(
        "dodo.py",
        KINDS
        + f"""

def task_look():
    def look():
        import pathlib
        found = set()
        for name in ("first", "second"):
            scratch = pathlib.Path({str(two.folder)!r}) / name / "scratch"
            found |= {{str(p).partition("/project/")[2] for p in scratch.rglob("*") if p.is_file()}}
        pathlib.Path("../found").write_text("\\n".join(sorted(found)))
    return {{"actions": [look], "task_dep": ["generate", "compile"]}}
""",
    )
    assert on_dask(kinds, two, "look").code == 0
    found = kinds.read("../found").split("\n")
    assert "templates/page.j2" in found
    assert "lazily.py" in found
    assert "data/ash.txt" in found
    assert [name for name in found if "secret" in name] == []
    assert not any(name.endswith(("pyproject.toml", "state.db")) for name in found)
    assert not any(name.startswith("templates/") and name.endswith(".pyc") for name in found)


@slow
def test_a_second_run_after_an_edit_sends_what_changed(kinds: Project, two: Cluster) -> None:
    assert on_dask(kinds, two).code == 0
    kinds.write("include/deep/more.h", "#define MORE 3\n")
    kinds.write("data/all.json", '{"key": "another", "other": 1}')
    result = on_dask(kinds, two, "-v", "2")
    assert result.code == 0
    assert "5 generated, 1 compiled" in result.out
    assert "another" in kinds.read("generated/ash.txt")
    other = twin(kinds)
    assert other.doit().code == 0
    assert made(kinds) == made(other)


@slow
def test_what_the_output_cache_has_is_not_sent(
    kinds: Project, two: Cluster, tmp_path: Path
) -> None:
    cache = {
        "CODEGEN_OUTPUT_CACHE": "true",
        "CODEGEN_OUTPUT_CACHE_FOLDER": str(tmp_path / "store"),
        "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "0",
    }
    assert on_dask(kinds, two, **cache).code == 0
    other = twin(kinds)
    result = on_dask(other, two, "-v", "2", **cache)
    assert result.code == 0
    assert made(kinds) == made(other)
    assert result.out.count(", restored)") >= len(targets(kinds)) - 1
    assert "of them restored" in result.out


@slow
def test_what_reads_a_failed_target_is_not_run(project: Project, two: Cluster) -> None:
    dodo = project.read("dodo.py").replace(
        "@codegen.filter",
        'codegen.rule("chained", template="chained.j2", target="chained.txt")\n\n\n@codegen.filter',
    )
    project.write("dodo.py", dodo)
    project.write("templates/chained.j2", "{{ read_text('generated/list.txt') }}")
    assert on_dask(project, two).code == 0
    project.write("templates/list.txt.j2", "{{ nothing }}")
    project.write("templates/chained.j2", "again {{ read_text('generated/list.txt') }}")
    result = on_dask(project, two, "-c")
    assert result.code == 1
    assert "1 failed, 1 not run" in result.out
    assert not project.read("generated/chained.txt").startswith("again")


@slow
def test_what_a_compiler_goes_on_without_is_sent_and_it_runs_there_again(
    empty_project: Project, two: Cluster
) -> None:
    project = empty_project
    tool = (
        '#!/bin/sh\n{ cat "$1" own.inc; echo end; } 2>/dev/null >"$2"; echo "$2: own.inc" >"$3"\n'
    )
    project.write("tools/lax", tool).chmod(0o755)
    project.write("templates/plain.txt.j2", "plain\n")
    for stem in ("ash", "birch", "cedar"):
        project.write(f"patterns/{stem}.toml", "x = 1\n")
    project.write("own.inc", "included\n")
    project.write(
        "dodo.py",
        """
        from codegen_tasks import Codegen, Toolchain

        lax = Toolchain("lax", ["tools/lax", "{source}", "{target}", "{depfile}"], suffix=".lax",
                        depfile="{target}.d")
        codegen = Codegen()
        codegen.rule("plain", template="plain.txt.j2", patterns="patterns/*.toml",
                     target="{stem}.txt", compile=lax)
        DOIT_CONFIG = codegen.doit_config
        """,
    )
    result = the_same(project, "-v", "2", "--scheduler", two.address)
    assert project.read("generated/ash.lax") == "plain\nincluded\nend\n"
    assert len(re.findall(r"compile:\S+  \((first|second), \d+ ms\)", result.out)) == 3
    assert notes(result) == []


EDITED = """
import time
from pathlib import Path
from codegen_tasks import Codegen

codegen = Codegen()
for name, stem in (("slow", "ash"), ("quick", "birch"), ("then", "ash")):
    codegen.rule(name, template=f"{name}.j2", patterns=f"patterns/{stem}.toml",
                 target=f"{{stem}}.{name}")


@codegen.function
def note(name):
    Path(NOTES, name).touch()
    return ""


@codegen.function
def await_note(name):
    end = time.monotonic() + 30
    while not Path(NOTES, name).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return ""


@codegen.function
def edit():
    Path(PROJECT, "patterns/ash.toml").write_text("value = 2")
    return ""


DOIT_CONFIG = codegen.doit_config
"""


@slow
def test_what_read_a_pattern_before_it_was_edited_and_sent_again_is_stale(
    empty_project: Project, two: Cluster, tmp_path: Path
) -> None:
    project = empty_project
    (tmp_path / "notes").mkdir()
    names = {"NOTES": repr(str(tmp_path / "notes")), "PROJECT": repr(str(project.path))}
    text = EDITED
    for name, value in names.items():
        text = text.replace(name, value)
    project.write("dodo.py", text)
    project.write("patterns/ash.toml", "value = 1")
    project.write("patterns/birch.toml", "value = 3")
    project.write(
        "templates/slow.j2", "{{ value }}{{ edit() }}{{ note('a') }}{{ await_note('b') }}"
    )
    project.write("templates/quick.j2", "{{ value }}{{ await_note('a') }}")
    # Sent when another is made: with the pattern as it is then.
    read = "{{ read_text('generated/birch.quick') }}{{ value }}{{ note('b') }}"
    project.write("templates/then.j2", read)
    assert on_dask(project, two).code == 0
    assert (project.read("generated/ash.slow"), project.read("generated/ash.then")) == ("1", "32")
    assert "1 stale" in project.doit("info").out
    assert "1 generated, 2 up to date" in project.doit().out
    assert project.read("generated/ash.slow") == "2"
