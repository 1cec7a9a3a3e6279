"""doit lint: what is probably a mistake in templates and patterns; writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from ..engines import JINJA2
from ..errors import known_or_nearest
from .common import counted, options_first, planned, say_whatever_the_encoding
from .helped import Ours
from .piped import Piped

if TYPE_CHECKING:
    from ..build import Build

_AGAIN = "_CODEGEN_LINT_AGAIN"
_OPTIONS: tuple[dict[str, Any], ...] = (
    {
        "name": "as_json",
        "long": "json",
        "type": bool,
        "default": False,
        "help": "print JSON",
    },
    {
        "name": "ignore",
        "long": "ignore",
        "type": list,
        "default": [],
        "help": "a kind of finding to leave out; may be given again",
    },
    {
        # Lint's own, so no word of the command line: compare with the digests in this file.
        "name": "again",
        "env_var": _AGAIN,
        "type": str,
        "default": "",
    },
)
#: Seconds after which a render that tells the time in seconds tells another.
_PAUSE = 1.1


class Lint(Piped, Ours, DoitCmdBase):
    """Renders everything twice in memory, and tells what looks like a mistake."""

    name = "lint"
    doc_purpose = "tell what is probably wrong in templates and patterns"
    doc_usage = ""
    doc_description = (
        "Tells of variables that nothing defines, keys, templates and macros that nothing uses, "
        "reads that are not recorded, renders that differ when they are repeated, and names that "
        "hide others. Exits with 1 if there is any. Writes nothing."
    )
    examples = (
        ("", "all that was found"),
        ("--ignore unused-key --ignore shadowed", "but for two kinds"),
    )
    cmd_options = _OPTIONS

    def _execute(self, pos_args: list[str], as_json: bool, ignore: list[str], again: str) -> int:
        say_whatever_the_encoding()
        params, names = self.cmdparser.parse(options_first(self.cmdparser, pos_args))
        if names:
            raise InvalidCommand(f"`lint` takes no names, such as '{names[0]}'")
        builds = planned(self)
        if again:
            return self._compare(builds, again)
        left_out = {*ignore, *params["ignore"]}
        if not builds:
            found = []
        else:
            from ..lint import CODES, findings

            for code in left_out - CODES.keys():
                hint = known_or_nearest(code, CODES)
                raise InvalidCommand(f"--ignore {code}: is none\n  hint: {hint}")
            repeat = self._again if "unsteady" not in left_out else _not_again
            known = findings(builds, repeat)
            found = [one for one in known if one.code not in left_out]
        if as_json or params["as_json"]:
            rows = [
                {"code": f.code, "path": f.path, "line": f.line, "text": f.text, "hint": f.hint}
                for f in found
            ]
            self.outstream.write(json.dumps({"version": 1, "findings": rows}, indent=2) + "\n")
        else:
            self.outstream.writelines(f"{one}\n" for one in found)
            told = counted(len(found), "finding") if found else "no findings"
            print(told, file=sys.stderr)
            _say_unparsed(builds)
        return int(bool(found))

    # Rendering again, in a process that orders sets otherwise ------------------------------

    def _compare(self, builds: list[Build], path: str) -> int:
        """Replace digests in a file by the texts of targets that have others now."""
        from ..lint import differing

        with open(path, encoding="utf-8") as file:
            digests = json.load(file)
        found: dict[str, str] = {}
        for build in builds:
            found |= differing(build, digests)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(found, file)
        return 0

    def _again(self, build: Build, digests: Mapping[str, str]) -> Mapping[str, str]:
        """Return the texts of targets, by task, that another process renders otherwise."""
        dodo = vars(self.loader).get("namespace", {}).get("__file__", "")
        if not dodo or not digests:
            return {}
        time.sleep(_PAUSE)
        return _elsewhere(dodo, build.project.root, digests)


def _say_unparsed(builds: Iterable[Build]) -> None:
    """Say of which templates only the renders were looked at."""
    kinds = {kind.label for build in builds for kind in build.project.kinds()} - {JINJA2.label}
    if kinds:
        what = f"not looked at, but for what they read: {' and '.join(sorted(kinds))} templates"
        print(what, file=sys.stderr)


def _not_again(build: Build, digests: Mapping[str, str]) -> Mapping[str, str]:
    """Render nothing again."""
    return {}


def _elsewhere(dodo: str, root: str, digests: Mapping[str, str]) -> Mapping[str, str]:
    """Return the texts that another process renders otherwise."""
    seed = str(int.from_bytes(os.urandom(3)))  # another than ours, whatever that is
    with tempfile.TemporaryDirectory(prefix="codegen-") as folder:
        path = os.path.join(folder, "digests")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(digests, file)
        command = [sys.executable, "-m", "codegen_tasks", "lint", "-f", dodo, "-d", root]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed, _AGAIN: path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            print(f"renders were not repeated: {said}", file=sys.stderr)
            return {}
        with open(path, encoding="utf-8") as file:
            found: dict[str, str] = json.load(file)
        return found
