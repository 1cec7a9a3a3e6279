"""Formatters, modes and line ends: what becomes of a text between render and write."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
from conftest import Project

from codegen_tasks import process

DODO = """
import sys
from codegen_tasks import Codegen, Formatter

tidy = Formatter("tidy", [sys.executable, "tools/tidy.py", "{target}"], version=["true"])
codegen = Codegen()
codegen.rule("page", template="page.j2", patterns="patterns/*.toml", target="{stem}.txt",
             format=tidy)
DOIT_CONFIG = codegen.doit_config
"""
#: Strips the ends of lines; complains of `bad` with its place, and counts its runs.
TIDY = """
import sys
text = sys.stdin.read()
with open("runs", "a") as runs:
    runs.write(sys.argv[1] + "\\n")
for number, line in enumerate(text.splitlines(), 1):
    if "bad" in line:
        print("looking", file=sys.stderr)
        sys.exit(f"<stdin>:{number}:{line.index('bad') + 1}: a bad word")
sys.stdout.write("".join(line.rstrip() + "\\n" for line in text.splitlines()))
"""


@pytest.fixture
def tidied(empty_project: Project) -> Project:
    """Return a project whose targets go through a formatter."""
    project = empty_project
    project.write("dodo.py", DODO)
    project.write("tools/tidy.py", TIDY)
    project.write("templates/page.j2", "{{ name }}   \nend")
    for stem in ("ash", "birch"):
        project.write(f"patterns/{stem}.toml", f'name = "{stem}"\n')
    return project


def with_rule(project: Project, arguments: str) -> Project:
    """Declare one rule without a formatter, with further arguments."""
    project.write(
        "dodo.py",
        "from codegen_tasks import Codegen\n\ncodegen = Codegen()\n"
        f'codegen.rule("a", template="a.j2", target="a.sh", {arguments})\n'
        "DOIT_CONFIG = codegen.doit_config\n",
    )
    return project


def runs(project: Project) -> list[str]:
    """Return for which targets the formatter has run since this was last asked."""
    found = project.read("runs").split() if project.exists("runs") else []
    project.write("runs", "")
    return sorted(found)


# Formatters -----------------------------------------------------------------------------


def test_a_target_is_written_as_its_formatter_leaves_it(tidied: Project) -> None:
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.txt") == "ash\nend\n"
    assert runs(tidied) == ["generated/ash.txt", "generated/birch.txt"]


def test_with_nothing_to_do_no_formatter_is_started(tidied: Project) -> None:
    assert tidied.doit().code == 0
    runs(tidied)
    before = tidied.stamps()
    assert tidied.doit().code == 0
    assert tidied.doit("info").code == 0
    assert tidied.stamps() == before
    assert runs(tidied) == []


def test_a_change_that_the_formatter_undoes_rewrites_nothing(tidied: Project) -> None:
    assert tidied.doit().code == 0
    before = tidied.stamps("generated")
    tidied.write("templates/page.j2", "{{ name }} \nend   \n")
    assert tidied.doit().code == 0
    assert tidied.stamps("generated") == before


def test_an_edit_of_a_file_in_its_command_formats_again(tidied: Project) -> None:
    assert tidied.doit().code == 0
    tidied.write("tools/tidy.py", TIDY.replace('"\\n" for', '";\\n" for'))
    info = tidied.doit("info")
    assert "tools/tidy.py" in info.out
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.txt") == "ash;\nend;\n"


def test_a_file_that_it_reads_by_itself_counts_from_when_it_is_there(tidied: Project) -> None:
    tidied.write("dodo.py", DODO.replace('["true"]', '["true"], reads=[".tidyrc"]'))
    assert tidied.doit().code == 0
    for text in ("one\n", "two\n"):
        tidied.write(".tidyrc", text)
        assert ".tidyrc" in tidied.doit("info").out
        runs(tidied)
        assert tidied.doit().code == 0
        assert len(runs(tidied)) == 2
    assert tidied.doit("info").code == 0
    tidied.remove(".tidyrc")
    assert tidied.doit("info").code == 1
    assert tidied.doit().code == 0
    assert tidied.doit("info").code == 0


def test_another_command_formats_again(tidied: Project) -> None:
    assert tidied.doit().code == 0
    tidied.write("dodo.py", DODO.replace('"{target}"]', '"{target}", "-x"]'))
    assert "-x" in tidied.doit("info").out
    runs(tidied)
    assert tidied.doit().code == 0
    assert len(runs(tidied)) == 2


@pytest.mark.skipif(os.name != "posix", reason="a script is no program there")
@pytest.mark.parametrize("version", ["None", '["tools/tidy", "--version"]'])
def test_another_version_formats_again(tidied: Project, version: str) -> None:
    tidied.write("dodo.py", DODO.replace('[sys.executable, "tools/tidy.py",', '["tools/tidy",'))
    tidied.write("dodo.py", tidied.read("dodo.py").replace('["true"]', version))
    for number in ("1.0", "1.1"):
        told = f"if '--version' in sys.argv: sys.exit(print('{number}'))"
        script = TIDY.replace("import sys\n", f"import sys\n{told}\n")
        tidied.write("tools/tidy", f"#!{sys.executable}\n{script}").chmod(0o755)
        assert tidied.doit("info").code == 1
        assert tidied.doit().code == 0
        assert len(runs(tidied)) == 2
        assert tidied.doit("info").code == 0


def test_a_formatter_may_come_and_go(tidied: Project) -> None:
    plain = DODO.replace("format=tidy", "")
    for dodo, text in ((plain, "ash   \nend"), (DODO, "ash\nend\n"), (plain, "ash   \nend")):
        tidied.write("dodo.py", dodo)
        assert tidied.doit("info").code == 1
        assert tidied.doit().code == 0
        assert tidied.read("generated/ash.txt") == text
        assert tidied.doit("info").code == 0


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-n", "2", "-P", "thread")])
def test_a_failing_formatter_is_a_failed_step_and_tells_the_line(
    tidied: Project, options: tuple[str, ...]
) -> None:
    assert tidied.doit(*options).code == 0
    tidied.write("patterns/ash.toml", 'name = "so bad"\n')
    tidied.write("patterns/birch.toml", 'name = "elm"\n')
    result = tidied.doit("-c", *options)
    # Under `-P thread` doit itself answers 2 where a step fails.
    assert result.code == (2 if "thread" in options else 1)
    said = result.out + result.err
    assert "generated/ash.txt:1: tidy exited with 1\n" in said
    assert "1 | so bad\n" in said
    assert "<stdin>:1:4: a bad word" in said
    assert "by templates/page.j2:1\n" in said
    assert 'with patterns/ash.toml:1: name = "so bad"\n' in said
    assert "made from templates/page.j2 and patterns/ash.toml" in said
    assert tidied.read("generated/ash.txt") == "ash\nend\n"
    assert tidied.read("generated/birch.txt") == "elm\nend\n"


def test_one_that_writes_nothing_spoils_no_target(tidied: Project) -> None:
    tidied.write("tools/tidy.py", "")
    result = tidied.doit()
    assert result.code == 1
    assert "generated/ash.txt: tidy wrote nothing" in result.out + result.err
    assert not tidied.exists("generated/ash.txt")


def test_one_that_does_not_read_its_input_is_no_error(tidied: Project) -> None:
    tidied.write("templates/page.j2", "x" * 200_000)
    tidied.write("tools/tidy.py", "print('short')\n")
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.txt") == "short\n"


def test_one_that_is_not_installed_is_named(tidied: Project) -> None:
    tidied.write("dodo.py", DODO.replace("format=tidy", 'format=["no-such-formatter"]'))
    result = tidied.doit()
    assert result.code == 1
    said = result.out + result.err
    assert "formatter no-such-formatter: 'no-such-formatter' is not installed" in said


def test_one_that_takes_too_long_is_ended(tidied: Project) -> None:
    tidied.write("tools/tidy.py", "import time\ntime.sleep(60)\n")
    tidied.write("dodo.py", DODO.replace('["true"]', '["true"], timeout=0.2'))
    began = time.monotonic()
    result = tidied.doit()
    assert result.code == 1
    assert "generated/ash.txt: tidy took longer than 0.2 s" in result.out + result.err
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process groups")
@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_killed_run_leaves_no_formatter(tidied: Project, options: tuple[str, ...]) -> None:
    tidied.write(
        "tools/tidy.py",
        "import os, time\nopen('pid', 'w').write(f'{os.getpid()}\\n')\ntime.sleep(60)\n",
    )
    command = [sys.executable, "-m", "doit", *options]
    run = subprocess.Popen(command, cwd=tidied.path, env=tidied.environ, stdout=subprocess.DEVNULL)
    while not (tidied.exists("pid") and tidied.read("pid").endswith("\n")):
        time.sleep(0.02)
    formatter = int(tidied.read("pid"))
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    for _ in range(500):
        try:
            os.kill(formatter, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the formatter lives on")


def test_diff_shows_the_formatted_text_and_writes_nothing(tidied: Project) -> None:
    assert tidied.doit().code == 0
    tidied.write("templates/page.j2", "{{ name }}  \nmore   \nend")
    before = tidied.stamps("generated")
    result = tidied.codegen("diff", "generate:ash.txt")
    assert result.code == 1
    assert "@@ -1,2 +1,3 @@\n ash\n+more\n end\n" in result.out
    assert tidied.stamps("generated") == before


def test_a_hand_edited_target_is_formatted_anew_and_kept_aside(tidied: Project) -> None:
    assert tidied.doit().code == 0
    tidied.write("generated/ash.txt", "mine\n")
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.txt") == "ash\nend\n"
    assert tidied.read(".codegen/kept/generated/ash.txt") == "mine\n"


def test_what_is_compiled_is_the_formatted_text(tidied: Project) -> None:
    compiler = (
        "copy = Toolchain('copy', [sys.executable, '-c', 'import sys, shutil;"
        " shutil.copy(*sys.argv[1:])', '{source}', '{target}'], '.out')\n"
    )
    dodo = DODO.replace("Formatter\n", "Formatter, Toolchain\n").replace(
        "codegen =", compiler + "codegen ="
    )
    tidied.write("dodo.py", dodo.replace("format=tidy", "format=tidy, compile=copy"))
    assert tidied.doit().code == 0, tidied.doit().out
    assert tidied.read("generated/ash.out") == "ash\nend\n"
    tidied.write("tools/tidy.py", TIDY + "print('more')\n")
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.out") == "ash\nend\nmore\n"


def test_info_tells_the_formatter_of_a_target(tidied: Project) -> None:
    assert tidied.doit().code == 0
    shown = tidied.doit("info", "generated/ash.txt").out
    assert "formatter" in shown
    assert "tidy" in shown
    assert "tools/tidy.py" in shown


@pytest.mark.skipif(process.find("deno") is None, reason="deno is not installed")
def test_deno_formats_typescript(tidied: Project) -> None:
    command = 'format=["deno", "fmt", "--no-config", "--ext", "ts", "-"]'
    tidied.write("dodo.py", DODO.replace("format=tidy", command))
    tidied.write("templates/page.j2", "const  {{ name }}=[1,2\n]")
    assert tidied.doit().code == 0
    assert tidied.read("generated/ash.txt") == "const ash = [1, 2];\n"
    tidied.write("templates/page.j2", "const {{ name }} =\n= 1")
    result = tidied.doit()
    assert "generated/ash.txt:2: deno exited with 1" in result.out + result.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('"clang-format"', "rule page: format must be a list of words"),
        ("3", "rule page: format must be a list of words, not 3"),
        ("[]", "rule page: format is empty"),
        ('Formatter("x", ["y"], reeds=[])', "formatter x: unknown argument 'reeds'"),
        ('Formatter("x", ["y", "{tarket}"])', "formatter x: unknown placeholder 'tarket'"),
        ('Formatter("", ["y"])', "formatter: name must be a string, not ''"),
        ('Formatter("x", ["y"], timeout=0)', "formatter x: timeout must be seconds above 0, not 0"),
    ],
)
def test_what_is_no_formatter_is_refused(tidied: Project, given: str, said: str) -> None:
    tidied.write("dodo.py", DODO.replace("format=tidy", f"format={given}"))
    result = tidied.doit()
    assert (result.code, "Traceback" in result.err) == (3, False)
    assert said in result.err


# Modes ----------------------------------------------------------------------------------


def mode(project: Project, name: str = "generated/a.sh") -> int:
    """Return a file's permissions."""
    return stat.S_IMODE((project.path / name).stat().st_mode)


@pytest.fixture
def script(empty_project: Project) -> Project:
    """Return a built project with a target that has a mode."""
    empty_project.write("templates/a.j2", "echo a\n")
    with_rule(empty_project, "mode=0o755")
    assert empty_project.doit().code == 0
    return empty_project


posix = pytest.mark.skipif(os.name != "posix", reason="files have no such permissions")


@posix
def test_a_target_has_the_mode_of_its_rule(script: Project) -> None:
    assert mode(script) == 0o755
    script.write("templates/a.j2", "echo b\n")
    assert script.doit().code == 0
    assert mode(script) == 0o755


@posix
def test_another_mode_in_the_rule_is_given_without_rewriting(script: Project) -> None:
    inode = (script.path / "generated/a.sh").stat().st_ino
    with_rule(script, "mode=0o700")
    assert "mode 0755 → 0700" in script.doit("info").out
    assert script.doit().code == 0
    assert mode(script) == 0o700
    assert (script.path / "generated/a.sh").stat().st_ino == inode
    before = script.stamps()
    assert script.doit().code == 0
    assert script.stamps() == before


@posix
def test_a_mode_that_somebody_changed_is_told_shown_and_restored(script: Project) -> None:
    (script.path / "generated/a.sh").chmod(0o644)
    info = script.doit("info")
    assert (info.code, "mode generated/a.sh: 0755 → 0644" in info.out) == (1, True)
    diff = script.codegen("diff")
    assert diff.code == 1
    assert diff.out == (
        "diff --git a/generated/a.sh b/generated/a.sh\nold mode 100644\nnew mode 100755\n"
    )
    assert script.doit().code == 0
    assert mode(script) == 0o755
    assert not script.exists(".codegen/kept")
    assert script.doit("info").code == 0


@posix
def test_a_rule_without_a_mode_leaves_it_alone(script: Project) -> None:
    with_rule(script, "")
    assert script.doit().code == 0
    (script.path / "generated/a.sh").chmod(0o640)
    assert script.doit("info").code == 0
    script.write("templates/a.j2", "echo b\n")
    assert script.doit().code == 0
    assert mode(script) == 0o640


@posix
def test_a_diff_of_a_new_file_has_its_mode(script: Project) -> None:
    script.remove("generated/a.sh")
    assert "new file mode 100755\n" in script.codegen("diff").out


@posix
def test_a_file_with_the_same_bytes_gets_the_mode_when_it_is_adopted(script: Project) -> None:
    shutil.rmtree(script.path / ".codegen")
    (script.path / "generated/a.sh").chmod(0o600)
    assert script.doit().code == 0
    assert mode(script) == 0o755


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mode=755", "mode must be permissions such as 0o755, not 755"),
        ('mode="755"', "mode must be permissions such as 0o755, not '755'"),
        ("mode=0o055", "mode 0o055: its owner must be able to read a target"),
        ('newline="x"', "newline must be '\\n' or '\\r\\n', not 'x'"),
        ("newline=[]", "newline must be '\\n' or '\\r\\n', not []"),
    ],
)
def test_what_is_no_mode_or_newline_is_refused(
    empty_project: Project, given: str, said: str
) -> None:
    empty_project.write("templates/a.j2", "a")
    result = with_rule(empty_project, given).doit()
    assert (result.code, "Traceback" in result.err) == (3, False)
    assert f"rule a: {said}" in result.err


# Line ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newline", "made"),
    [("\\n", b"a\nb\n\n\rc"), ("\\r\\n", b"a\r\nb\r\n\r\n\rc")],
)
def test_every_line_ends_as_the_rule_says(
    empty_project: Project, newline: str, made: bytes
) -> None:
    # A carriage return by itself ends no line.
    empty_project.write("templates/a.j2", "{{ 'a\\r\\nb\\n\\n\\rc' }}")
    assert with_rule(empty_project, f'newline="{newline}"').doit().code == 0
    assert (empty_project.path / "generated/a.sh").read_bytes() == made
    assert empty_project.doit("info").code == 0


def test_other_line_ends_in_the_rule_make_a_target_stale(empty_project: Project) -> None:
    empty_project.write("templates/a.j2", "a\nb\n")
    for newline, made in (("", b"a\nb\n"), ('newline="\\r\\n"', b"a\r\nb\r\n"), ("", b"a\nb\n")):
        with_rule(empty_project, newline)
        assert empty_project.doit("info").code == 1
        assert empty_project.doit().code == 0
        assert (empty_project.path / "generated/a.sh").read_bytes() == made


def test_line_ends_are_made_after_formatting(tidied: Project) -> None:
    tidied.write("dodo.py", DODO.replace("format=tidy", 'format=tidy, newline="\\r\\n"'))
    assert tidied.doit().code == 0
    assert (tidied.path / "generated/ash.txt").read_bytes() == b"ash\r\nend\r\n"
