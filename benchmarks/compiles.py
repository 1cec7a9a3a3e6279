"""compiles: compile TypeScript with `doit compile`, and with deno called by hand.

By hand means one `deno check` and one `deno transpile` over all files: what somebody writes
who wants it done once, and needs no record of it.  README.md tells what is timed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
from measure import Figure, MeasurementError, Ran, Table, duration

SIZES = (1, 100, 1000)
OURS, PARALLEL, HAND, NOTHING = ROWS = ("doit compile", "doit -n 2 compile", "by hand", "nothing")
_FLAGS = ("--quiet", "--no-config", "--no-lock")

_FILES = {
    "dodo.py": '''\
"""TypeScript from patterns, compiled by deno."""

from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("runtime", template="runtime.ts.j2", target="runtime.ts", compile="deno")
codegen.rule(
    "wave", template="wave.ts.j2", patterns="patterns/*.toml", target="{stem}.ts", compile="deno"
)
DOIT_CONFIG = codegen.doit_config
''',
    "templates/runtime.ts.j2": """\
export interface Wave {
  readonly name: string;
  at(seconds: number): number;
}

export function clamp(value: number, low = 0, high = 1): number {
  return Math.min(Math.max(value, low), high);
}
""",
    "templates/wave.ts.j2": """\
import { clamp, type Wave } from "./runtime.ts";

const gain: number = {{ gain }};
const steps: readonly number[] = {{ steps }};

export class {{ name }} implements Wave {
  readonly name: string = "{{ name }}";

  at(seconds: number): number {
    const step: number = steps[Math.floor(seconds) % steps.length] ?? 0;
    return clamp(gain * step);
  }
}
""",
}


def make_project(folder: Path, count: int) -> None:
    """Make a project whose patterns give `count` files of TypeScript that share one module."""
    (folder / "patterns").mkdir(parents=True)
    (folder / "templates").mkdir()
    for name, text in _FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number in range(count):
        text = f'name = "Wave{number}"\ngain = 0.{number % 9 + 1}\nsteps = [{number}, 2, 3]\n'
        (folder / f"patterns/wave{number:05}.toml").write_text(text, encoding="utf-8")


def measure_size(count: int, runs: int, scratch: Path) -> dict[str, Figure]:
    """Compile `count` files in each way in turn, from no compiled file and no cache of deno's.

    Raises:
        MeasurementError: a run made another number of files.
    """
    project, hand = scratch / f"project-{count}", scratch / f"hand-{count}"
    make_project(project, count)
    environ = measure.clean_environ(scratch)
    beside = os.path.dirname(sys.executable)
    environ["PATH"] = beside + os.pathsep + environ.get("PATH", os.defpath)
    doit = [sys.executable, "-m", "doit"]
    measure.run([*doit, "generate"], project, environ)
    shutil.copytree(project / "generated", hand)
    measure.run([*doit, "compile"], project, environ)  # Python's bytecode, deno's version
    samples: dict[str, list[Ran]] = defaultdict(list)
    for _ in range(runs):
        for row, options in ((OURS, ()), (PARALLEL, ("-n", "2"))):
            _uncompile(project)
            ran = measure.run([*doit, *options, "compile"], project, environ)
            _check(row, project / "generated", count)
            samples[row].append(ran)
        samples[NOTHING].append(measure.run([*doit, "compile"], project, environ))
        samples[HAND].append(_by_hand(hand, environ))
        _check(HAND, hand / "out", count)
    return {row: measure.figure(found) for row, found in samples.items()}


def _uncompile(project: Path) -> None:
    for path in (project / "generated").glob("*.js*"):
        path.unlink()
    shutil.rmtree(project / ".codegen/cache/deno", ignore_errors=True)


def _by_hand(folder: Path, environ: Mapping[str, str]) -> Ran:
    """Check and transpile all files of a folder; return what both processes took together."""
    for name in ("out", "deno"):
        shutil.rmtree(folder / name, ignore_errors=True)
    own = {**environ, "DENO_DIR": str(folder / "deno"), "DENO_NO_UPDATE_CHECK": "1"}
    files = sorted(path.name for path in folder.glob("*.ts"))
    check = measure.run(["deno", "check", *_FLAGS, *files], folder, own)
    transpile = ["deno", "transpile", *_FLAGS, "--source-map", "separate", "--outdir", "out"]
    made = measure.run([*transpile, *files], folder, own)
    return Ran(
        check.seconds + made.seconds,
        check.processor + made.processor,
        max(check.peak, made.peak),
    )


def _check(row: str, folder: Path, count: int) -> None:
    for suffix in (".js", ".js.map"):
        found = len(list(folder.glob("*" + suffix)))
        if found != count + 1:  # the shared module
            what = f"{found} {suffix} files, should be {count + 1}"
            raise MeasurementError(f"{row}, {count} files: {what}")


def measure_all(sizes: Sequence[int], runs: int) -> list[dict[str, Any]]:
    """Return the medians of every size as JSON can hold them.

    Raises:
        MeasurementError: deno is not installed, or a run made another number of files.
    """
    measured = []
    with tempfile.TemporaryDirectory(prefix="compiles-") as scratch:
        for count in sizes:
            found = measure_size(count, runs, Path(scratch))
            rows = {
                row: {"seconds": one.seconds, "processor": one.processor, "runs": one.runs}
                for row, one in found.items()
            }
            measured.append({"files": count, "rows": rows})
    return measured


def table(measured: Iterable[Mapping[str, Any]]) -> Table:
    """Return the figures of all sizes, as `measure_all` gives them."""
    rows = []
    for one in measured:
        seconds = {row: found["seconds"] for row, found in one["rows"].items()}
        cells = [duration(seconds[row]) for row in ROWS]
        ratios = [f"{seconds[row] / seconds[HAND]:.2f}x" for row in (OURS, PARALLEL)]
        rows.append([f"{one['files']}", *cells, *ratios])
    header = ["files", OURS, PARALLEL, "by hand", "nothing to do", "ratio", "-n 2"]
    note = "by hand: one `deno check`, one `deno transpile`; every cache of deno's is empty"
    return Table("Compiling TypeScript", header, rows, [note])


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=measure.positive, default=3, help="runs of each (3)")
    parser.add_argument("sizes", nargs="*", type=measure.positive, help="files (1 100 1000)")
    chosen = parser.parse_args()
    sizes = chosen.sizes or SIZES
    return measure.tell("compiles", lambda: table(measure_all(sizes, chosen.runs)))


if __name__ == "__main__":
    sys.exit(main())
