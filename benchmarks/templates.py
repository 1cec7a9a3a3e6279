"""templates: load the templates of real generators through our template cache, and Jinja2's own.

The suites are fetched from PyPI.  Each figure is a process of its own: cold parses every
template, compiles it and stores it; warm loads them all from the cache that the cold one left.
README.md tells what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import measure
from measure import MeasurementError, Table, milliseconds

OURS, THEIRS = CACHES = ("ours", "jinja2")
COLD, WARM = STATES = ("cold", "warm")


@dataclass(frozen=True, slots=True)
class Suite:
    """The templates of one generator.

    Args:
        name: of the project on PyPI.
        version: that is fetched.
        folders: below which its templates lie, relative to the package.
        suffix: of their names.
        options: of its Jinja2 environment, those that shape what a template compiles to.
    """

    name: str
    version: str
    folders: str
    suffix: str
    options: Mapping[str, Any] = field(default_factory=dict)


_BLOCKS = {"trim_blocks": True, "lstrip_blocks": True}
SUITES = (
    Suite(
        "gapic-generator",
        "1.44.0",
        "gapic/templates",
        ".j2",
        {**_BLOCKS, "extensions": ["jinja2.ext.do"]},
    ),
    Suite(
        "datamodel-code-generator",
        "0.89.0",
        "datamodel_code_generator",
        ".jinja2",
        {"extensions": ["jinja2.ext.do"]},
    ),
    Suite(
        "openapi-python-client",
        "0.29.1",
        "openapi_python_client/templates",
        ".jinja",
        {**_BLOCKS, "extensions": ["jinja2.ext.loopcontrols"]},
    ),
)


def fetch(suite: Suite) -> Path:
    """Return the folder of a suite's templates, fetched if it is not there.

    Raises:
        MeasurementError: it cannot be fetched.
    """
    requirement = f"{suite.name}=={suite.version}"
    return measure.fetched(requirement, [requirement]) / suite.folders


def names_of(folder: Path, suffix: str) -> list[str]:
    """Return the templates below a folder, by the names that Jinja2 knows them by."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*" + suffix))
    return sorted(found)


# In a process of its own ----------------------------------------------------------------


def load(order: Mapping[str, Any]) -> dict[str, Any]:
    """Load all templates of an order; return seconds, and how many were found and parsed.

    The clock starts when everything is imported and the environment is made.
    """
    environment, counts = {OURS: _our_engine, THEIRS: _their_environment}[order["cache"]](order)
    start = time.perf_counter()
    for name in order["names"]:
        environment(name)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, **counts()}


def _our_engine(order: Mapping[str, Any]) -> tuple[Any, Any]:
    from codegen_tasks.bytecode import TemplateCache
    from codegen_tasks.templates import Engine, Spec

    filters, tests = (dict.fromkeys(order[kind], _stub) for kind in ("filters", "tests"))
    root, folder = os.path.split(order["folder"])
    spec = Spec(root, folder, order["options"], filters, tests, {}, sandbox=False)
    cache = TemplateCache(order["store"], os.path.join(order["store"], "log"), keep=5)
    engine = Engine(spec, cache, "the benchmark's")
    return engine.parse, lambda: {"hits": cache.hits, "misses": cache.misses}


def _their_environment(order: Mapping[str, Any]) -> tuple[Any, Any]:
    import jinja2

    class Counting(jinja2.FileSystemBytecodeCache):
        hits = misses = 0

        def load_bytecode(self, bucket: Any) -> None:
            super().load_bytecode(bucket)
            self.hits += bucket.code is not None

        def dump_bytecode(self, bucket: Any) -> None:
            self.misses += 1
            super().dump_bytecode(bucket)

    os.makedirs(order["store"], exist_ok=True)
    cache = Counting(order["store"])
    environment = _plain_environment(order, auto_reload=False, cache_size=-1, bytecode_cache=cache)
    return environment.get_template, lambda: {"hits": cache.hits, "misses": cache.misses}


def _plain_environment(order: Mapping[str, Any], **more: Any) -> Any:
    import jinja2

    loader = jinja2.FileSystemLoader(order["folder"])
    options = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, **options, **order["options"], **more)
    environment.filters.update(dict.fromkeys(order["filters"], _stub))
    environment.tests.update(dict.fromkeys(order["tests"], _stub))
    return environment


def _stub(*_: Any) -> str:
    """Stand for a generator's own filter or test: Jinja2 compiles no name that it lacks."""
    return ""


# Orders ---------------------------------------------------------------------------------


def order_of(suite: Suite, folder: Path) -> dict[str, Any]:
    """Return what a process needs to load a suite's templates.

    Raises:
        MeasurementError: it has no templates, or one that does not compile.
    """
    order = {
        "folder": str(folder),
        "names": names_of(folder, suite.suffix),
        "options": dict(suite.options),
        "filters": [],
        "tests": [],
    }
    if not order["names"]:
        raise MeasurementError(f"{suite.name}: no templates in {suite.folders}")
    for name in order["names"]:
        _find_missing(suite, order, name)
    return order


def _find_missing(suite: Suite, order: Mapping[str, Any], name: str) -> None:
    """Enter in an order the filters and tests that a template needs and Jinja2 lacks."""
    import jinja2

    while True:
        try:
            _plain_environment(order).get_template(name)
            return
        except jinja2.TemplateAssertionError as error:
            kind, quoted = str(error.message).partition("named")[::2]
            words = {"No filter ": "filters", "No test ": "tests"}
            if kind not in words:
                raise MeasurementError(f"{suite.name}: {name}: {error}") from None
            order[words[kind]].append(quoted.strip(" '."))
        except jinja2.TemplateError as error:
            raise MeasurementError(f"{suite.name}: {name}: {error}") from None


# Measuring ------------------------------------------------------------------------------


@dataclass(slots=True)
class Loads:
    """What was measured of one suite: seconds of each run by cache and state.

    Args:
        suite: its name and version.
        templates: how many it has.
        inside: seconds of loading alone.
        whole: seconds of the processes.
    """

    suite: str
    templates: int
    inside: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    whole: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON can hold it: medians, seconds."""
        figures = [
            {"cache": cache, "state": state, "inside": median(seconds), "runs": len(seconds)}
            | {"whole": median(self.whole[cache, state])}
            for (cache, state), seconds in self.inside.items()
        ]
        return {"suite": self.suite, "templates": self.templates, "figures": figures}


def measure_suite(suite: Suite, folder: Path, runs: int, scratch: Path) -> Loads:
    """Load a suite cold and warm through both caches in turn, `runs` times.

    Raises:
        MeasurementError: a process parsed or found another number of templates.
    """
    order = order_of(suite, folder)
    count = len(order["names"])
    loads = Loads(f"{suite.name} {suite.version}", count)
    environ = measure.clean_environ(scratch)
    for cache in CACHES:  # Python's own bytecode, and the secret
        _one(order, cache, scratch / f"unmeasured-{cache}", environ)
    for turn in range(runs):
        for cache in CACHES:
            store = scratch / f"{suite.name}-{cache}-{turn}"
            for state in STATES:
                ran, found = _one(order, cache, store, environ)
                wanted = (0, count) if state == COLD else (count, 0)
                if (found["hits"], found["misses"]) != wanted:
                    what = f"{found['hits']} found and {found['misses']} parsed"
                    raise MeasurementError(f"{suite.name}, {cache}, {state}: {what} of {count}")
                loads.inside[cache, state].append(found["seconds"])
                loads.whole[cache, state].append(ran.seconds)
    return loads


def _one(
    order: Mapping[str, Any], cache: str, store: Path, environ: Mapping[str, str]
) -> tuple[measure.Ran, dict[str, Any]]:
    whole = {**order, "cache": cache, "store": str(store)}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(whole, file)
        file.flush()
        command = [sys.executable, __file__, "--load", file.name]
        ran = measure.run(command, Path(order["folder"]), environ)
    return ran, json.loads(ran.output.splitlines()[-1])


def measure_all(runs: int, names: Sequence[str] = ()) -> Iterator[Loads]:
    """Measure each suite that can be fetched; say which cannot."""
    for suite in SUITES:
        if names and suite.name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="templates-") as scratch:
            try:
                folder = fetch(suite)
            except MeasurementError as error:
                print(f"{suite.name}: left out, {error}", file=sys.stderr)
                continue
            yield measure_suite(suite, folder, runs, Path(scratch))


def table(measured: Iterable[Mapping[str, Any]]) -> Table:
    """Return the figures of all suites, as `Loads.as_data` gives them."""
    rows = []
    for loads in measured:
        found = {(one["cache"], one["state"]): one for one in loads["figures"]}
        inside = {key: one["inside"] for key, one in found.items()}
        ours, theirs = inside[OURS, WARM], inside[THEIRS, WARM]
        rows.append(
            [
                f"{loads['suite']}, {loads['templates']} templates",
                milliseconds(inside[OURS, COLD]),
                f"{ours * 1000:.1f} ms",
                f"{inside[OURS, COLD] / ours:.1f}x",
                milliseconds(inside[THEIRS, COLD]),
                f"{theirs * 1000:.1f} ms",
                f"{ours / theirs:.2f}x",
                milliseconds(found[OURS, WARM]["whole"]),
            ]
        )
    header = [" ", "ours cold", "warm", "cold / warm", "Jinja2's cold", "warm", "ours / Jinja2's"]
    note = "without imports, which the last column, a whole warm process, has"
    return Table("Template suites", [*header, "process"], rows, [note])


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=measure.positive, default=9, help="runs of each (9)")
    parser.add_argument("--load", metavar="ORDER", help=argparse.SUPPRESS)
    parser.add_argument(
        "suite", nargs="*", help=f"one or more of {', '.join(suite.name for suite in SUITES)}"
    )
    chosen = parser.parse_args()
    if chosen.load:
        with contextlib.closing(open(chosen.load, encoding="utf-8")) as file:
            print(json.dumps(load(json.load(file))))
        return 0

    def measured() -> Table:
        return table([loads.as_data() for loads in measure_all(chosen.runs, chosen.suite)])

    return measure.tell("templates", measured)


if __name__ == "__main__":
    sys.exit(main())
