"""outputs: restore outputs from the output cache and from a remote one, beside `cp -r`.

And switch a branch and back.  The remote one is an nginx of its own on this machine.  README.md
tells what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import measure
from measure import Figure, MeasurementError, Ran, Table, duration

#: Outputs, and the bytes of each.
SIZES = ((10_000, 1_000), (1_000, 100_000))
#: Patterns of the project whose branch is switched.
SWITCHED = 300
MADE, MADE_2, KEPT, HERE, HERE_2, THERE, THERE_2, BARE, COPIED = ROWS = (
    "made",
    "made, -n 2",
    "made and kept",
    "restored",
    "restored, -n 2",
    "from remote",
    "from remote, -n 2",
    "bare loop",
    "cp -r",
)
_DOIT = [sys.executable, "-m", "doit"]

_DODO = """\
from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("part", template="part.j2", patterns="patterns/*.toml", target="{stem}.c"{more})
DOIT_CONFIG = codegen.doit_config
"""
_LARGE = """\
// {{ name }}
{% for number in range(lines) %}// {{ name }} says {{ number }} of {{ lines }}: {{ number * 7919 }}
{% endfor %}
"""
_C = """\
{% macro body(name) %}int {{ name }}(int x) { return x * {{ gain }}; }
{% endmacro %}{{ body(name) }}
"""
#: What is left of restoring where nothing is asked, recorded or told: each pattern read and
#: digested, each output read and written whole.
_BARE = """
import hashlib, os
os.mkdir("copy")
for name in os.listdir("patterns"):
    with open(f"patterns/{name}", "rb") as file:
        hashlib.sha256(file.read()).hexdigest()
    name = name.replace(".toml", ".c")
    with open(f"generated/{name}", "rb") as file:
        data = file.read()
    with open("copy/new", "xb") as file:
        file.write(data)
    os.replace("copy/new", f"copy/{name}")
"""
_LINE = 50  # bytes of a line, about


def make_project(folder: Path, count: int, template: str, more: str = "", lines: int = 0) -> None:
    """Write a project of `count` patterns."""
    (folder / "patterns").mkdir(parents=True)
    (folder / "templates").mkdir()
    (folder / "dodo.py").write_text(_DODO.replace("{more}", more), encoding="utf-8")
    (folder / "templates/part.j2").write_text(template, encoding="utf-8")
    for number in range(count):
        text = f'name = "part{number}"\ngain = {number}\nlines = {lines}\n'
        (folder / f"patterns/part{number:06}.toml").write_text(text, encoding="utf-8")


# Stores ---------------------------------------------------------------------------------

_NGINX = """
daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 256m; keepalive_requests 1000000;
    client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
    server {{
        listen 127.0.0.1:{1}; root {0}/dav;
        location / {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start an nginx that takes what is put there; yield its URL, "" if there is no nginx."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield ""
        return
    with socket.socket() as any_one:
        any_one.bind(("127.0.0.1", 0))
        port = any_one.getsockname()[1]
    (folder / "dav").mkdir(parents=True)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder, port), encoding="utf-8")
    command = [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}/cache"
    finally:
        running.kill()
        running.wait()


# Measuring ------------------------------------------------------------------------------


class Bench:
    """One project, and how it is built from nothing.

    Args:
        scratch: a folder of the benchmark's own.
        project: below it.
        count: outputs that a build makes.
        url: of the remote cache; "" if there is none.
    """

    def __init__(self, scratch: Path, project: Path, count: int, url: str):
        self._project = project
        self._count = count
        self._store = scratch / f"store-{project.name}"
        cached = {
            "CODEGEN_OUTPUT_CACHE": "true",
            "CODEGEN_OUTPUT_CACHE_FOLDER": str(self._store),
            "CODEGEN_OUTPUT_CACHE_MILLISECONDS": "0",
        }
        self._off = measure.clean_environ(scratch)
        self._cached = {**self._off, **cached}
        self._remote = {**self._cached, "CODEGEN_REMOTE_CACHE": f"{url}/{project.name}"}

    def fill(self) -> None:
        """Have both caches hold all outputs."""
        writes = {"CODEGEN_REMOTE_CACHE_WRITE": "true"}
        self.from_nothing({**self._remote, **writes} if self._remote else self._cached)

    def from_nothing(self, environ: Mapping[str, str], *options: str, keep: bool = False) -> Ran:
        """Build where nothing was built; a store of our own is only there to `keep` it.

        Raises:
            MeasurementError: not all was made.
        """
        for name in ("generated", ".codegen"):
            shutil.rmtree(self._project / name, ignore_errors=True)
        if not keep:
            shutil.rmtree(self._store, ignore_errors=True)
        ran = measure.run([*_DOIT, *options], self._project, environ)
        found = sum(1 for _ in (self._project / "generated").iterdir())
        if found != self._count:
            raise MeasurementError(f"{found} outputs, should be {self._count}")
        return ran

    def run(self, row: str) -> Ran:
        """Measure one row."""
        parallel = ("-n", "2") if row.endswith("-n 2") else ()
        if row in (MADE, MADE_2):
            return self.from_nothing(self._off, *parallel)
        if row == KEPT:
            return self.from_nothing(self._cached)
        if row in (THERE, THERE_2):
            return _restored(self.from_nothing(self._remote, *parallel))
        if row in (HERE, HERE_2):
            return _restored(self.from_nothing(self._cached, *parallel, keep=True))
        copy = self._project / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if row == BARE:
            return measure.run([sys.executable, "-c", _BARE], self._project, self._off)
        return measure.run(["cp", "-r", "generated", "copy"], self._project, self._off)


def _restored(ran: Ran) -> Ran:
    if " of them restored" not in ran.output:
        raise MeasurementError(f"nothing was restored\n{ran.output}")
    return ran


def measure_size(count: int, size: int, runs: int, scratch: Path, url: str) -> dict[str, Figure]:
    """Return the medians of each row for `count` outputs of `size` bytes.

    Raises:
        MeasurementError: a run made or restored something else.
    """
    project = scratch / f"outputs-{count}-{size}"
    make_project(project, count, _LARGE, lines=max(1, size // _LINE))
    bench = Bench(scratch, project, count, url)
    rows = [row for row in ROWS if url or row not in (THERE, THERE_2)]
    bench.fill()
    samples: dict[str, list[Ran]] = defaultdict(list)
    for _ in range(runs):
        for row in rows:
            samples[row].append(bench.run(row))
    shutil.rmtree(project)
    return {row: measure.figure(found) for row, found in samples.items()}


def measure_switch(runs: int, scratch: Path) -> list[str]:
    """Return the row of a branch that is switched and back, a macro differing between the two.

    Raises:
        MeasurementError: cc is not installed, or a run made something else.
    """
    project = scratch / "switch"
    make_project(project, SWITCHED, _C, ', compile="cc"')
    environ = {
        **measure.clean_environ(scratch),
        "CODEGEN_OUTPUT_CACHE": "true",
        "CODEGEN_OUTPUT_CACHE_FOLDER": str(scratch / "store-switch"),
    }
    template = project / "templates/part.j2"
    other = _C.replace("x *", "1 + x *")
    measure.run(_DOIT, project, environ)
    template.write_text(other, encoding="utf-8")
    first = measure.run(_DOIT, project, environ)
    samples = []
    for number in range(2 * runs):
        template.write_text(other if number % 2 else _C, encoding="utf-8")
        samples.append(_restored(measure.run(_DOIT, project, environ)))
    again = measure.figure(samples).seconds
    ratio = f"{first.seconds / again:.1f}x"
    return [f"{SWITCHED} patterns, cc", duration(first.seconds), duration(again), ratio]


def tables(sizes: Sequence[tuple[int, int]], runs: int) -> list[Table]:
    """Measure all; return the tables.

    Raises:
        MeasurementError: a run made something else.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="outputs-") as name:
        scratch = Path(name)
        with server(scratch / "nginx") as url:
            for count, size in sizes:
                found = measure_size(count, size, runs, scratch, url)
                cells = [duration(found[row].seconds) if row in found else "" for row in ROWS]
                ratios = [found[HERE].seconds / found[row].seconds for row in (BARE, COPIED)]
                more = [f"{ratio:.1f}x" for ratio in ratios]
                rows.append([f"{count:,} of {size:,} bytes", *cells, *more])
        switch = measure_switch(runs, scratch)
    header = ["outputs", *ROWS, "restored / bare", "restored / cp"]
    return [
        Table("Restoring outputs", header, rows, [measure.machine(runs)]),
        Table("A branch switch", ["project", "first", "and again", "ratio"], [switch]),
    ]


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=measure.positive, default=3, help="runs of each (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the outputs")
    chosen = parser.parse_args()
    sizes = [(count // 10 if chosen.quick else count, size) for count, size in SIZES]
    try:
        print("\n\n".join(map(measure.markdown, tables(sizes, chosen.runs))))
    except MeasurementError as error:
        print(f"outputs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
