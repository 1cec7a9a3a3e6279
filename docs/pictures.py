"""pictures: take the pictures of the README and the docs, of real runs and pages.

    python docs/pictures.py [NAME...]

Needs deno, Chromium and the extra `dev`; writes docs/pictures/.
"""

from __future__ import annotations

import functools
import http.server
import io
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402
from test_pattern_library import SEARCH_PATH, make_project  # noqa: E402
from test_preview import Quiet  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"


def doit(project: Path, *arguments: str) -> None:
    """Run doit; whatever it prints is not shown."""
    environ = {**os.environ, "PATH": SEARCH_PATH}
    command = [sys.executable, "-m", "doit", *arguments]
    subprocess.run(command, cwd=project, env=environ, stdout=subprocess.DEVNULL, check=True)


def preview(scratch: Path) -> None:
    """Take the page on which the compiled patterns play."""
    project = make_project(scratch)
    doit(project)
    handler = functools.partial(Quiet, directory=str(project / "generated"))
    browser = Browser(scratch / "profile")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.emulate(width=1000, height=700, dark=True)
        browser.open(f"http://127.0.0.1:{server.server_port}/preview.html")
        browser.value("document.querySelector('#play').click()")
        browser.value("for (let i = 0; i < 163; i++) window.preview.step(0.02)")
        (PICTURES / "preview.png").write_bytes(browser.picture())
        server.shutdown()
    browser.close()


def report(scratch: Path) -> None:
    """Take the page about a run."""
    lights = scratch / "lights"
    lights.mkdir()
    project = make_project(lights)
    doit(project, "-n", "3")
    for number in (70, 80, 90):
        pattern = project / "templates/patterns/pulse.toml"
        text = pattern.read_text(encoding="utf-8")
        pattern.write_text(text.replace("speed = ", f"speed = {number}.0  # "), encoding="utf-8")
        doit(project, "-n", "3")
    base = project / "templates/base.ts.j2"
    base.write_text(base.read_text(encoding="utf-8") + "// end\n", encoding="utf-8")
    doit(project, "-n", "3")
    doit(project, "report", "-o", "report.html")
    browser = Browser(scratch / "profile")
    browser.emulate(width=1000, height=900)
    browser.open(project / "report.html")
    (PICTURES / "report.png").write_bytes(browser.picture(height=1290))
    browser.close()


#: A template that takes its time, and many patterns.
SLOW = """\
import time

from codegen_tasks import Codegen

codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt")


@codegen.function
def slowly(seconds):
    time.sleep(seconds)
    return ""


DOIT_CONFIG = codegen.doit_config
"""


def progress(scratch: Path) -> None:
    """Take the terminal in the middle of a long run."""
    for name in ("templates", "patterns"):
        (scratch / name).mkdir()
    (scratch / "dodo.py").write_text(SLOW, encoding="utf-8")
    (scratch / "templates/page.j2").write_text("{{ slowly(seconds) }}\n", encoding="utf-8")
    for number in range(600):
        text = f"seconds = {1.5 + number % 7 / 2}\n"
        (scratch / f"patterns/p{number:03d}.toml").write_text(text, encoding="utf-8")
    terminal("progress", scratch, ["-n", "4"], seconds=21)


def tree(scratch: Path) -> None:
    """Take what `doit info --tree` says when a macro was edited."""
    project = make_project(scratch)
    doit(project)
    macros = project / "templates/macros.ts.j2"
    macros.write_text(macros.read_text(encoding="utf-8") + "{# more #}\n", encoding="utf-8")
    terminal("tree", project, ["info", "--tree"], seconds=30)


def failure(scratch: Path) -> None:
    """Take what is said when a compiler refuses what a template made."""
    project = make_project(scratch)
    doit(project)
    template = project / "templates/pattern.ts.j2"
    text = template.read_text(encoding="utf-8")
    said = "export const decay: number = {{ nodes[2].params.decay|string|tojson }};\n"
    text = text.replace("export type {{ settings }}", f"{said}export type {{{{ settings }}}}")
    template.write_text(text, encoding="utf-8")
    terminal("failure", project, ["generated/bloom.js"], seconds=60)


def terminal(name: str, project: Path, arguments: list[str], seconds: float) -> None:
    """Run doit in a terminal of 80 columns; take its screen at the end, or after some seconds."""
    import pyte
    from rich.console import Console
    from rich.text import Text

    ours, theirs = pty.openpty()
    environ = {**os.environ, "PATH": SEARCH_PATH, "TERM": "xterm-256color", "COLUMNS": "80"}
    for variable in ("NO_COLOR", "CI"):
        environ.pop(variable, None)
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    command = [sys.executable, "-m", "doit", *arguments]
    set_size(theirs)
    with subprocess.Popen(
        command, cwd=project, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    stream.feed(os.read(ours, 1 << 16))
                except OSError:
                    break
        running.kill()
    os.close(ours)
    shown = Console(record=True, width=80, file=io.StringIO())
    shown.print(f"$ doit {' '.join(arguments)}", style="bold", highlight=False)
    rows = [row for row in range(24) if screen.display[row].strip()]
    for row in range(rows[-1] + 1 if rows else 0):
        text = Text()
        for column in range(80):
            cell = screen.buffer[row][column]
            colour = "" if cell.fg == "default" else f"#{cell.fg}" if len(cell.fg) == 6 else cell.fg
            colour = {"brown": "yellow", "brightblue": "bright_blue"}.get(colour, colour)
            text.append(cell.data, style=f"{'bold ' if cell.bold else ''}{colour}".strip() or None)
        text.rstrip()
        shown.print(text)
    svg = shown.export_svg(title="codegen-tasks")
    # A picture needs no network: rich names a font there, and `monospace` for who has it not.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    (PICTURES / f"{name}.svg").write_text(svg, encoding="utf-8")


def set_size(terminal_end: int) -> None:
    """Make a terminal 80 columns wide and 24 rows high."""
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))


ALL: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (preview, report, progress, tree, failure)
}


def main() -> int:
    """Take the pictures that are named, or all."""
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ALL:
        with tempfile.TemporaryDirectory(prefix="pictures-") as scratch:
            ALL[name](Path(scratch))
            print(f"docs/pictures: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
