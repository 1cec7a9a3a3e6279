"""Dask workers that answer something else than they were asked: told in a line, and no more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project
from dask_cluster import Cluster, cluster
from test_dask import notes

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

DODO = """
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")
DOIT_CONFIG = codegen.doit_config
"""
#: What a worker does with an answer, from a file that it reads each time.
LIAR = """
import os, pickle
from dataclasses import replace
import codegen_tasks.distributed.mirror as mirror
from codegen_tasks.distributed.messages import Afar, Delivery
from codegen_tasks.remote.parcels import Blob

honest = mirror.Mirror.work
before = {}

def work(self, order, wanted):
    answer = honest(self, order, wanted)
    if answer.get("made"):
        task = next(iter(answer["made"]))
        made, result = dict(answer["made"]), pickle.loads(answer["made"][task])
        def instead(value):
            answer["made"][task] = pickle.dumps(value)
        exec(open(os.environ["LIE"]).read())
        before.update(made)
    return answer

mirror.Mirror.work = work
"""
#: Lies, and what is said of them.
LIES = {
    "answer['made'].clear()": "it tells nothing of a step: generate:",
    "answer['left'] = list(order['tasks'])": "it tells of a step that it was not asked for: ",
    "answer['made'].update(before)": "it tells of a step that it was not asked for: generate:",
    "answer['made']['generate:x.txt'] = b''": "it tells of a step that it was not asked for: ",
    "answer['made'] = 3": "'made' is no table",
    "answer['failed'] = None": "'failed' is no list",
    "answer['aside'] = None": "it holds something else than text",
    "answer['unfit'] = None": "it does not tell what it lacks",
    "answer['since'] = dict.fromkeys(order['tasks'], float('nan'))": "it holds something else ",
    "answer['traffic'] = {'found': 1}": "it tells of other traffic",
    "answer['made'][task] = b'junk'": "UnpicklingError: ",
    "instead([])": "it made a list that is none of ours",
    "instead(replace(result, outputs={p: 'text' for p in result.outputs}))": "it made a Result ",
    "instead(replace(result, inputs=('a file',)))": "it made a Result that is none of ours",
    "instead(replace(result, seconds=float('inf')))": "it made a Result that is none of ours",
    "instead(replace(result, like={p: '/etc/hostname' for p in result.outputs}))": "it made a ",
    "instead(Delivery([], {}, False))": "it made a list that is none of ours",
    "instead(Delivery(result, {'p': None}, False))": "it does not tell where what it made is",
    "instead(Delivery(result, {'p': Afar('x', 1, Blob([], 1))}, False))": "it does not tell ",
}


@pytest.fixture
def bare(tmp_path: Path, state_home: Path) -> Project:
    """Return a project of one template."""
    found = Project(tmp_path, state_home)
    found.write("dodo.py", DODO)
    found.write("templates/page.j2", "{{ pattern.stem }}\n")
    return found


@pytest.fixture(scope="module")
def lie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that says how the worker lies."""
    return tmp_path_factory.mktemp("lie") / "lie"


@pytest.fixture(scope="module")
def liar(lie: Path) -> Iterator[Cluster]:
    """Return a cluster of one worker, which may lie."""
    (lie.parent / "sitecustomize.py").write_text(LIAR)
    with cluster(lie.parent / "cluster") as found:
        found.start_worker("first", PYTHONPATH=str(lie.parent), LIE=str(lie))
        yield found


def test_a_worker_that_answers_something_else_is_told_and_left_alone(
    bare: Project, liar: Cluster, lie: Path
) -> None:
    stems = [f"some{number:02}" for number in range(24)]
    for stem in stems:
        bare.write(f"patterns/{stem}.toml", "")
    # A process of this machine and not a worker is what the build ends with.
    asked = ("-P", "dask", "--scheduler", liar.address, "-n", "1")
    for text, said in LIES.items():
        lie.write_text(text)
        result = bare.doit(*asked)
        assert (text, result.code, result.err) == (text, 0, ""), result
        assert len(notes(result)) == 1, (text, notes(result))
        [note] = notes(result)
        begin = "-P dask: worker first gets no steps: its answer cannot be read: "
        assert note.startswith(begin + said), text
        assert note.endswith("; they run here")
        assert [bare.read(f"generated/{stem}.txt") for stem in stems] == [f"{s}\n" for s in stems]
        assert "24 up to date" in bare.doit().out
        shutil.rmtree(bare.path / "generated")
        shutil.rmtree(bare.path / ".codegen")


def test_a_worker_that_makes_other_files_makes_none(
    bare: Project, liar: Cluster, lie: Path
) -> None:
    bare.write("patterns/one.toml", "")
    for outputs in ("{}", "{'generated/other.txt': b'x'}"):
        lie.write_text(f"instead(replace(result, outputs={outputs}))")
        result = bare.doit("-P", "dask", "--scheduler", liar.address)
        what = "it made other files is not on first what it is here, so it runs here"
        assert (result.code, notes(result)) == (0, [f"-P dask: rule page: {what}"])
        assert bare.read("generated/one.txt") == "one\n"
        assert not bare.exists("generated/other.txt")
        shutil.rmtree(bare.path / "generated")
        shutil.rmtree(bare.path / ".codegen")
