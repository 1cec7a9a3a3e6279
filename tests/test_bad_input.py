"""Bad input: the whole message, the exit code, and that nothing is half written.

Exit code 3 means that the `dodo.py`, a rule or a setting is wrong and no step began; 1 that
a step failed, and no other target with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
from conftest import Project

from codegen_tasks import patterns, settings
from codegen_tasks.errors import DeclarationError, StepError
from codegen_tasks.toolchains.deno import DENO

PAGE = (
    'codegen.rule("page", template="page.txt.j2", patterns="patterns/*.toml",'
    ' target="{stem}.txt")\n'
)


#: The one target that a fault of its template shows in.
ASH = "generate:ash.txt"


def dodo(declared: str = PAGE, codegen: str = "Codegen()", config: bool = True) -> str:
    """Return a dodo.py; what is `declared` begins on its line 4."""
    head = f"from codegen_tasks import Codegen, PatternError, Toolchain\n\ncodegen = {codegen}\n"
    shout = '\n\n@codegen.filter("shout")\ndef _shout(text):\n    return text.upper()\n'
    return head + declared + shout + "\n\nDOIT_CONFIG = codegen.doit_config\n" * config


def page(**keys: str) -> str:
    """Return the rule `page`, some of its arguments given as Python source."""
    given = {
        "template": '"page.txt.j2"',
        "patterns": '"patterns/*.toml"',
        "target": '"{stem}.txt"',
        **keys,
    }
    return f'codegen.rule("page", {", ".join(f"{key}={it}" for key, it in given.items())})\n'


def screen_of(text: str) -> str:
    return textwrap.dedent(text).removeprefix("\n")


def tidy(project: Project, screen: str) -> str:
    """Leave out what differs from run to run: seconds, cache hits, where the project lies."""
    screen = re.sub(r"in \d+\.\d\d s( \(templates .*\))?", "in N s", screen)
    return screen.replace(str(project.path), "PROJECT")


def refused(project: Project, message: str, *arguments: str, **environ: str) -> None:
    """Demand exit code 3 with exactly this message, and that nothing at all was written."""
    before = project.files()
    result = project.doit(*arguments, **environ)
    wanted = ("", "ERROR: " + screen_of(message), 3)
    assert (result.out, tidy(project, result.err), result.code) == wanted
    assert project.files() == before


def fails(
    project: Project, screen: str, *arguments: str, changed: Iterable[str] = (), **environ: str
) -> None:
    """Demand exit code 1 and exactly this screen, by default of `doit -c`.

    Of the targets only those named in `changed` may differ from before.
    """
    before = targets(project)
    result = project.doit(*(arguments or ["-c"]), **environ)
    assert (tidy(project, result.out), result.err, result.code) == (screen_of(screen), "", 1)
    assert differences(before, targets(project)) == {f"generated/{name}" for name in changed}
    assert temporaries(project) == []


def targets(project: Project) -> dict[str, bytes]:
    return {k: data for k, data in project.files().items() if k.startswith("generated/")}


def differences(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def temporaries(project: Project) -> list[str]:
    return [path.name for path in project.path.rglob(".codegen-*")]


@pytest.fixture
def built(project: Project) -> Project:
    """Make everything."""
    assert project.doit().code == 0
    return project


@pytest.fixture
def links(project: Project) -> Project:
    """Put a folder into `generated` that is a link to one outside."""
    (project.path.parent / "elsewhere").mkdir()
    (project.path / "generated").mkdir()
    (project.path / "generated/sub").symlink_to("../../elsewhere")
    return project


# dodo.py and rules ------------------------------------------------------------------------

#: What is wrong → the declaration, and the whole message.
RULES = {
    "unknown key of a rule": (
        'codegen.rule("page", template="page.txt.j2", pattern="*.toml", target="x")\n',
        "rule page: unknown key 'pattern'\n  hint: did you mean 'patterns'?\n",
    ),
    "no name": (
        'codegen.rule(template="plain.txt.j2", target="x")\n',
        "codegen.rule: lacks the rule's name\n",
    ),
    "too many arguments without names": (
        'codegen.rule("x", "plain.txt.j2", None, "x", None, None, None, 1, *"23456")\n',
        """
        rule x: takes 12 arguments at most, not 13
          hint: by name: name=, template=, patterns=, target=, each=, compile=, context=, \
timeout=, schema=, format=, mode=, newline=
        """,
    ),
    "name with a space": (
        'codegen.rule("a page", template="plain.txt.j2", target="x")\n',
        "rule a page: a rule's name must be letters, digits, _ or -\n",
    ),
    "one name twice": (PAGE + PAGE, "rule page: is declared twice\n"),
    "no target": ('codegen.rule("x", template="plain.txt.j2")\n', "rule x: lacks target=\n"),
    "target that is no string": (
        page(target="3"),
        "rule page: target must be a string, not 3\n",
    ),
    "patterns that are no globs": (
        page(patterns="[3]"),
        "rule page: patterns must be a glob or a list of globs, not [3]\n",
    ),
    "empty list of globs": (
        page(patterns="[]"),
        "rule page: patterns must be a glob or a list of globs, not []\n",
    ),
    "patterns outside of the project": (
        page(patterns='"../*.toml"'),
        "rule page: patterns '../*.toml' lies outside of the project\n",
    ),
    "each that is no name": (
        page(each="3"),
        "rule page: each must be the name of a list or a table, not 3\n",
    ),
    "each without patterns": (
        'codegen.rule("x", template="plain.txt.j2", target="x", each="registers")\n',
        "rule x: each= needs patterns=\n",
    ),
    "placeholder without patterns": (
        'codegen.rule("x", template="plain.txt.j2", target="{stem}.txt")\n',
        """
        rule x: target '{stem}.txt' has a placeholder, but there are no patterns to fill it
          hint: add patterns=
        """,
    ),
    "timeout with a unit": (
        page(timeout='"3s"'),
        "rule page: timeout must be seconds above 0, not '3s'\n",
    ),
    "timeout that is no number": (
        page(timeout="True"),
        "rule page: timeout must be seconds above 0, not True\n",
    ),
    "compiled file outside of the output folder": (
        "\n\nclass Odd(Toolchain):\n"
        "    def outputs(self, source):\n"
        '        return (source + ".out", source + "/../../x.map")\n\n\n'
        + page(compile='Odd("odd", ["x", "{source}", "{target}"], ".out")'),
        "rule page: toolchain odd: the target '../x.map' lies outside of generated/\n",
    ),
    "target that its own compile step overwrites": (
        page(compile='Toolchain("same", ["x", "{source}", "{target}"], ".txt")'),
        """
        rule page: makes generated/ash.txt twice, as generate:ash.txt and as compile:ash.txt
          hint: give the compile step another suffix
        """,
    ),
    "unknown toolchain": (
        page(compile='"demo"'),
        "rule page: unknown toolchain 'demo'\n  hint: did you mean 'deno'?\n",
    ),
    "unknown toolchain unlike any": (
        page(compile='"fortran"'),
        """
        rule page: unknown toolchain 'fortran'
          hint: built in: deno, cc, c++, python; or pass a Toolchain
        """,
    ),
    "context that is a lambda": (
        page(context="lambda data: {}"),
        """
        rule page: context must be a module-level function
          hint: define it with def at the top of a module
        """,
    ),
    "context that is a number": (
        page(context="3"),
        "rule page: context must be a dict or a function, not 3\n",
    ),
    "template that does not exist": (
        page(template='"pages.txt.j2"'),
        """
        rule page: there is no template templates/pages.txt.j2
          hint: did you mean 'page.txt.j2'?
        """,
    ),
    "template with its folder": (
        page(template='"templates/page.txt.j2"'),
        """
        rule page: there is no template templates/templates/page.txt.j2
          hint: did you mean 'page.txt.j2'?
        """,
    ),
    "template outside of its folder": (
        page(template='"../dodo.py"'),
        "rule page: the template '../dodo.py' lies outside of templates/\n",
    ),
    "target outside of its folder": (
        page(target='"../{stem}.txt"'),
        "rule page: the target '../{stem}.txt' lies outside of generated/\n",
    ),
    "absolute target": (
        page(target='"/tmp/{stem}.txt"'),
        "rule page: the target '/tmp/{stem}.txt' lies outside of generated/\n",
    ),
    "target that is a folder": (
        page(target='"{stem}/"'),
        "rule page: the target '{stem}/' names a folder, not a file\n",
    ),
    "target with an equals sign": (
        page(target='"a={stem}.txt"'),
        "rule page: the target 'a={stem}.txt' holds '=', which doit allows in no task's name\n",
    ),
    "two rules that make one target": (
        PAGE + 'codegen.rule("birch", template="plain.txt.j2", target="birch.txt")\n',
        """
        rule birch: makes generated/birch.txt, which rule page makes too
          hint: give one of them another target=
        """,
    ),
    "two rules, one of which compiles the target": (
        'codegen.rule("one", template="plain.txt.j2", target="a.py", compile="python")\n'
        'codegen.rule("two", template="plain.txt.j2", target="a.pyc")\n',
        """
        rule one: makes generated/a.pyc, which rule two makes too
          hint: give one of them another target=
        """,
    ),
    "target where another needs a folder": (
        'codegen.rule("one", template="plain.txt.j2", target="a")\n'
        'codegen.rule("two", template="plain.txt.j2", target="a/b.txt")\n',
        "rule two: makes generated/a/b.txt, but generated/a is itself a target\n",
    ),
    "empty pattern library": (
        page(patterns='["pattern/*.toml", "pattern/*.json"]'),
        """
        rule page: no file matches pattern/*.toml, pattern/*.json
          hint: check the patterns= of the rule, relative to the folder of dodo.py
        """,
    ),
    "filter declared twice": (
        '\n\n@codegen.filter\ndef shout(text):\n    return ""\n',
        "filter shout: is declared twice\n",
    ),
    "filter without a name": (
        "codegen.filter(lambda text: text)\n",
        """
        filter: a function without a name needs one
          hint: use @codegen.filter("name")
        """,
    ),
    "function in place of one of ours": (
        "\n\n@codegen.function\ndef read_text(path):\n    return path\n",
        "function read_text: every template already has one of that name\n",
    ),
    "two Codegen without names": (
        PAGE + 'other = Codegen()\nother.rule("x", template="plain.txt.j2", target="x.txt")\n',
        """
        dodo.py: two Codegen objects lack a name
          hint: tell them apart: Codegen(name="other", ...)
        """,
    ),
}


@pytest.mark.parametrize("kind", RULES)
def test_a_wrong_rule_is_refused_before_any_step(project: Project, kind: str) -> None:
    declared, message = RULES[kind]
    project.write("dodo.py", dodo(declared))
    refused(project, message)


#: What is wrong → how Codegen is called, and the whole message.
CODEGENS = {
    "unknown argument": (
        'Codegen(template="templates")',
        "Codegen: unknown argument 'template'\n  hint: did you mean 'templates'?\n",
    ),
    "unknown option of Jinja2": (
        'Codegen(environment={"trim_block": True})',
        "Codegen environment: unknown option 'trim_block'\n  hint: did you mean 'trim_blocks'?\n",
    ),
    "unknown extension of Jinja2": (
        'Codegen(environment={"extensions": ["jinja2.ext.loopcontrol"]})',
        """
        Codegen environment: unknown extension 'jinja2.ext.loopcontrol'
          hint: did you mean 'jinja2.ext.loopcontrols'?
        """,
    ),
    "extension that is not installed": (
        'Codegen(environment={"extensions": ["no_such_package.Extension"]})',
        "Codegen environment: extension 'no_such_package.Extension':"
        " there is no module 'no_such_package'\n",
    ),
    "extensions that are no list": (
        'Codegen(environment={"extensions": "jinja2.ext.do"})',
        """
        Codegen environment: extensions must be a list
          hint: extensions=['jinja2.ext.do']
        """,
    ),
    "extension without a name": (
        'Codegen(environment={"extensions": [""]})',
        "Codegen environment: extension '': there is no module ''\n",
    ),
    "extensions that are a number": (
        'Codegen(environment={"extensions": 5})',
        "Codegen environment: extensions must be a list of names or classes, not 5\n",
    ),
    "extensions that are nothing": (
        'Codegen(environment={"extensions": None})',
        "Codegen environment: extensions must be a list of names or classes, not None\n",
    ),
    "delimiter that is a number": (
        'Codegen(environment={"block_start_string": 3})',
        "Codegen environment: block_start_string must be a string that is not empty, not 3\n",
    ),
    "prefix that is a number": (
        'Codegen(environment={"line_statement_prefix": 3})',
        "Codegen environment: line_statement_prefix must be a string that is not empty,"
        " or None, not 3\n",
    ),
    "flag that is a string": (
        'Codegen(environment={"trim_blocks": "yes"})',
        "Codegen environment: trim_blocks must be True or False, not 'yes'\n",
    ),
    "undefined that is no class of Jinja2": (
        'Codegen(environment={"undefined": str})',
        "Codegen environment: undefined must be a class derived from jinja2.Undefined,"
        " not <class 'str'>\n",
    ),
    "finalize that is no function": (
        'Codegen(environment={"finalize": 3})',
        "Codegen environment: finalize must be a function or None, not 3\n",
    ),
    "autoescape that is no function": (
        'Codegen(environment={"autoescape": "html"})',
        "Codegen environment: autoescape must be True, False or a function, not 'html'\n",
    ),
    "option that is no string": (
        "Codegen(environment={3: True})",
        "Codegen environment: a key must be a string, not 3\n",
    ),
    "too many arguments without names": (
        'Codegen("templates", "generated", ".codegen", "", {}, {}, False, {}, 1)',
        "Codegen: takes 8 arguments at most, not 9\n  hint: by name: templates=, output=, state=, "
        "name=, environment=, globals=, sandbox=, engines=\n",
    ),
    "delimiters that are the same": (
        'Codegen(environment={"block_start_string": "{{"})',
        "Codegen environment: block_start_string and variable_start_string are both '{{'\n",
    ),
    "unknown line ending": (
        'Codegen(environment={"newline_sequence": "\\\\n\\\\n"})',
        "Codegen environment: newline_sequence cannot be '\\\\n\\\\n'\n",
    ),
    "environment that is no dict": (
        'Codegen(environment=["trim_blocks"])',
        "Codegen: environment must be a dict, not ['trim_blocks']\n",
    ),
    "globals that are no dict": (
        "Codegen(globals=3)",
        "Codegen: globals must be a dict, not 3\n",
    ),
    "global in place of one of our functions": (
        'Codegen(globals={"read_text": str})',
        "Codegen globals: every template already has a function 'read_text'\n",
    ),
    "name with a space": (
        'Codegen(name="two words")',
        "Codegen: name 'two words' must be letters, digits, _ or -\n",
    ),
    "output outside of the project": (
        'Codegen(output="../elsewhere")',
        "Codegen: output must be a folder inside the project, not '../elsewhere'\n",
    ),
    "output among the templates": (
        'Codegen(output="templates/out")',
        "Codegen: output folder 'templates/out' lies in the templates folder 'templates'\n",
    ),
}


@pytest.mark.parametrize("kind", CODEGENS)
def test_a_wrong_codegen_is_refused_before_any_step(project: Project, kind: str) -> None:
    codegen, message = CODEGENS[kind]
    project.write("dodo.py", dodo(codegen=codegen))
    refused(project, message)


@pytest.mark.parametrize("command", ["list", "info", "forget", "clean"])
def test_every_command_refuses_namesakes(project: Project, command: str) -> None:
    declared, message = RULES["two Codegen without names"]
    project.write("dodo.py", dodo(declared))
    refused(project, message, command)


def test_codegens_that_a_function_made_are_told_apart_as_well(project: Project) -> None:
    project.write(
        "make.py",
        'from codegen_tasks import Codegen\n\n\ndef make():\n    return Codegen(name="docs")\n',
    )
    declared = PAGE + "from make import make\n\none = make()\ntwo = make()\n"
    project.write("dodo.py", dodo(declared))
    refused(
        project,
        """
        dodo.py: two Codegen objects have the name 'docs'
          hint: tell them apart: Codegen(name="other", ...)
        """,
    )


def test_doit_info_refuses_a_wrong_rule_in_the_same_words(project: Project) -> None:
    declared, message = RULES["unknown key of a rule"]
    project.write("dodo.py", dodo(declared))
    refused(project, message, "info")


def test_a_missing_templates_folder_is_named(project: Project) -> None:
    shutil.rmtree(project.path / "templates")
    refused(
        project,
        """
        rule page: there is no template templates/page.txt.j2
          hint: there is no folder templates
        """,
    )


def test_two_patterns_that_make_one_target_are_both_named(project: Project) -> None:
    project.write("dodo.py", dodo(page(patterns='"patterns/**/*.toml"')))
    project.write("patterns/tall/birch.toml", 'name = "tall"\n')
    refused(
        project,
        """
        rule page: patterns/birch.toml and patterns/tall/birch.toml both make generated/birch.txt
          hint: tell them apart in target=, with {folder} or a key of the patterns
        """,
    )


def test_two_items_that_make_one_target_are_both_named(project: Project) -> None:
    declared = page(target='"{stem}/{name}.txt"', each='"registers"')
    project.write("dodo.py", dodo(declared))
    for stem in ("ash", "birch", "cedar"):
        names = ("a", "b", "a" if stem == "birch" else "c")
        items = "".join(f'[[registers]]\nname = "{name}"\n' for name in names)
        project.write(f"patterns/{stem}.toml", items)
    refused(
        project,
        """
        patterns/birch.toml: items 1 and 3 of 'registers' both make generated/birch/a.txt
          hint: tell them apart in target= of rule page, with a key of the items
        """,
    )


def test_two_entries_that_make_one_target_are_both_named(project: Project) -> None:
    project.write("dodo.py", dodo(page(target='"{stem}/{name}.txt"', each='"all"')))
    for stem in ("ash", "birch", "cedar"):
        project.write(f"patterns/{stem}.toml", '[all.a]\nname = "x"\n[all.b]\nname = "x"\n')
    refused(
        project,
        """
        patterns/ash.toml: entries 'a' and 'b' of 'all' both make generated/ash/x.txt
          hint: tell them apart in target= of rule page, with a key of the items
        """,
    )


def test_a_rules_target_behind_a_link_is_refused(links: Project) -> None:
    declared = 'codegen.rule("x", template="plain.txt.j2", target="sub/x.txt")\n'
    links.write("dodo.py", dodo(declared))
    refused(
        links,
        "rule x: the target 'sub/x.txt' lies outside of generated/:"
        " generated/sub is behind a link\n",
    )
    assert os.listdir(links.path.parent / "elsewhere") == []


def test_a_yaml_pattern_without_a_parser_says_what_to_install(project: Project) -> None:
    project.write("patterns/elm.yaml", "name: elm\n")
    hide_yaml = 'import sys\n\nsys.modules["yaml"] = None\n'
    project.write("dodo.py", hide_yaml + dodo(page(patterns='"patterns/*.yaml"')))
    refused(
        project,
        """
        rule page: reading patterns/elm.yaml needs PyYAML
          hint: pip install 'codegen-tasks[yaml]'
        """,
    )


def test_a_dodo_without_doit_config_builds_and_one_line_says_so(project: Project) -> None:
    """No DOIT_CONFIG is no error: the same files are made, and the line goes to stderr."""
    assert project.doit().code == 0
    expected = targets(project)
    shutil.rmtree(project.path / "generated")
    shutil.rmtree(project.path / ".codegen")
    project.write("dodo.py", project.read("dodo.py").replace("DOIT_CONFIG", "_unused"))
    result = project.doit()
    assert result.code == 0
    assert result.err == (
        "dodo.py: DOIT_CONFIG is not codegen.doit_config,"
        " so what a killed run had finished is done again\n"
    )
    assert targets(project) == expected


# Settings ---------------------------------------------------------------------------------

SETTINGS = {
    "unknown key": (
        "[tool.codegen]\ntemplate_cahce = false\n",
        """
        pyproject.toml [tool.codegen]: unknown key 'template_cahce'
          hint: did you mean 'template_cache'?
        """,
    ),
    "no number from 1": (
        "[tool.codegen]\ncache_generations = 0\n",
        "pyproject.toml [tool.codegen] cache_generations: must be a whole number from 1, not 0\n",
    ),
    "no boolean": (
        '[tool.codegen]\nbatch = "no"\n',
        "pyproject.toml [tool.codegen] batch: must be true or false, not 'no'\n",
    ),
    "no table": (
        "[tool]\ncodegen = 3\n",
        "pyproject.toml: [tool.codegen] must be a table\n",
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_wrong_setting_is_refused(project: Project, kind: str) -> None:
    toml, message = SETTINGS[kind]
    project.write("pyproject.toml", toml)
    refused(project, message)


def test_a_setting_unlike_any_is_answered_with_all_there_are(project: Project) -> None:
    project.write("pyproject.toml", "[tool.codegen]\nzzz = 1\n")
    known = ", ".join(sorted(settings.Settings.__slots__))
    refused(
        project,
        f"pyproject.toml [tool.codegen]: unknown key 'zzz'\n  hint: known: {known}\n",
    )


#: doit reads pyproject.toml before any of us is loaded, so that these are told by `load`.
BROKEN_SETTINGS = {
    "syntax error": (
        b"[tool.codegen]\nbatch = = 1\n",
        "pyproject.toml:2: invalid value\n  2 | batch = = 1",
    ),
    "not UTF-8": (
        b"[tool.codegen]\n# \xff\n",
        "pyproject.toml:2: not UTF-8 (byte 0xff)\n  hint: save the file as UTF-8",
    ),
    "tool that is no table": (b"tool = 3\n", ""),
}


@pytest.mark.parametrize("kind", BROKEN_SETTINGS)
def test_a_pyproject_that_cannot_be_read_is_named_with_its_line(
    empty_project: Project, kind: str
) -> None:
    toml, message = BROKEN_SETTINGS[kind]
    empty_project.write("pyproject.toml", toml)
    said = ""
    try:
        settings.load(str(empty_project.path), {})
    except DeclarationError as error:
        said = str(error)
    assert said == message


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("CODEGEN_BATCH", "maybe", "true or false"),
        ("CODEGEN_CACHE_GENERATIONS", "many", "a whole number from 1"),
        ("CODEGEN_CACHE_GENERATIONS", "0", "a whole number from 1"),
    ],
)
def test_a_variable_of_the_wrong_type_is_refused(
    project: Project, variable: str, value: str, wanted: str
) -> None:
    refused(project, f"{variable}: must be {wanted}, not '{value}'\n", **{variable: value})


def test_a_misspelt_variable_is_named_and_the_build_goes_on(project: Project) -> None:
    """A variable that resembles a setting is likely meant for us; another one is not."""
    result = project.doit(CODEGEN_TEMPLATE_CAHCE="0", CODEGEN_ZZZ="0", CODEGEN_REMOTE_CACHE_KYE="k")
    assert result.code == 0
    assert sorted(result.err.splitlines()) == [
        "CODEGEN_REMOTE_CACHE_KYE: no such setting, did you mean 'CODEGEN_REMOTE_CACHE_KEY'?",
        "CODEGEN_TEMPLATE_CAHCE: no such setting, did you mean 'CODEGEN_TEMPLATE_CACHE'?",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("-P", "dask", "--sheduler", "tcp://here:8786"),
            "option --sheduler not recognized\n  hint: did you mean '--scheduler'?\n",
        ),
        (("info", "--jsno"), "option --jsno not recognized\n  hint: did you mean '--json'?\n"),
        (
            ("generate", "-n", "3"),
            "option -n not recognized by a task\n"
            "  hint: what is doit's own comes before names: doit -n … generate\n",
        ),
        (("-h",), "option -h not recognized\n  hint: doit help COMMAND lists its options\n"),
        (
            ("--scheduler",),
            "option --scheduler requires argument\n  hint: doit help COMMAND lists its options\n",
        ),
    ],
)
def test_a_misspelt_option_is_told_with_the_nearest_one(
    project: Project, words: tuple[str, ...], said: str
) -> None:
    result = project.doit(*words)
    assert (result.code, result.err) == (3, f"ERROR: {said}")


def test_a_misspelt_option_of_a_command_of_ours_is_told_alike(project: Project) -> None:
    result = project.run(sys.executable, "-m", "codegen_tasks", "cache", "--db-fiel=x")
    said = "option --db-fiel not recognized\n  hint: did you mean '--db-file'?\n"
    assert (result.code, result.err) == (3, f"ERROR: {said}")


# Patterns ---------------------------------------------------------------------------------


def test_a_toml_syntax_error_spoils_no_other_target(built: Project) -> None:
    built.write("patterns/ash.toml", 'name = "ASH"\ngain = 0\n')
    built.write("patterns/birch.toml", 'name = "birch"\ngain = = 1\n')
    built.write("patterns/cedar.toml", 'name = "CEDAR"\ngain = 0\n')
    fails(
        built,
        """
        .  generate:ash.txt
        .  generate:birch.txt
        failed: generate:birch.txt
          patterns/birch.toml:2: invalid value
            2 | gain = = 1
        .  generate:cedar.txt
        .  generate:list.txt
        failed: generate:list.txt
          for the same reason as generate:birch.txt
        2 generated, 1 up to date, 2 failed in N s
        failed:
          patterns/birch.toml:2: invalid value
            generate:birch.txt, generate:list.txt
        to run them again: doit -c generate:birch.txt generate:list.txt
        """,
        changed=["ash.txt", "cedar.txt"],
    )


def test_without_c_the_first_failure_ends_the_run(built: Project) -> None:
    built.write("patterns/ash.toml", "name = \n")
    built.write("patterns/birch.toml", 'name = "BIRCH"\ngain = 0\n')
    fails(
        built,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          patterns/ash.toml:1: invalid value
            1 | name =
        2 up to date, 1 failed in N s
        """,
        "-v1",
    )


#: What is wrong → the file's name and content, the whole message.
PATTERNS: dict[str, tuple[str, bytes, str]] = {
    "TOML that ends too early": (
        "elm.toml",
        b'name = "elm"\ngain = "\n',
        """
        patterns/elm.toml:2: illegal character '\\n'
          2 | gain = "
        """,
    ),
    "TOML without its end": (
        "elm.toml",
        b'name = "elm"\ngain = "',
        """
        patterns/elm.toml:2: unterminated string, at the end of the file
          2 | gain = "
        """,
    ),
    "TOML with a key twice": (
        "elm.toml",
        b"gain = 1\ngain = 2\n",
        """
        patterns/elm.toml:2: cannot overwrite a value
          2 | gain = 2
        """,
    ),
    "JSON syntax error": (
        "elm.json",
        b'{\n  "name": "elm",\n  "gain" 1\n}\n',
        """
        patterns/elm.json:3: expecting ':' delimiter
          3 |   "gain" 1
        """,
    ),
    "JSON that ends too early": (
        "elm.json",
        b'{"name": [1,\n',
        """
        patterns/elm.json:1: expecting value, at the end of the file
          1 | {"name": [1,
        """,
    ),
    "JSON with a control character": (
        "elm.json",
        b'{\n  "name": "el\tm"\n}\n',
        """
        patterns/elm.json:2: invalid control character
          2 |   "name": "el\tm"
        """,
    ),
    "JSON that is empty": (
        "elm.json",
        b"",
        "patterns/elm.json: expecting value, at the end of the file\n",
    ),
    "TOML with a table twice": (
        "elm.toml",
        b'["led strip".nodes]\n["led strip".nodes]\n',
        """
        patterns/elm.toml:2: cannot declare led strip.nodes twice
          2 | ["led strip".nodes]
        """,
    ),
    "JSON that is a list": (
        "elm.json",
        b"[1]\n",
        "patterns/elm.json: must hold a table of keys at its top, not a list\n",
    ),
    "JSON nested without end": (
        "elm.json",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "patterns/elm.json: is nested too deeply\n",
    ),
    "YAML syntax error": (
        "elm.yaml",
        b"name: elm\ngain: [1\n",
        """
        patterns/elm.yaml:2: expected ',' or ']', but got '<stream end>', at the end of the file
          2 | gain: [1
        """,
    ),
    "YAML with two documents": (
        "elm.yaml",
        b"name: elm\n---\nname: oak\n",
        """
        patterns/elm.yaml:2: expected a single document in the stream, but found another document
          2 | ---
        """,
    ),
    "YAML with a key twice": (
        "elm.yaml",
        b"gain: 1\nname: [{x: elm,\n  y: 1, x: oak}]\n",
        """
        patterns/elm.yaml:3: the key 'x' stands here a second time
          3 |   y: 1, x: oak}]
        """,
    ),
    "YAML with a control character": (
        "elm.yaml",
        b"name: elm\ngain: \x01\n",
        """
        patterns/elm.yaml:2: the character '\\x01' is not allowed
          2 | gain: \\x01
        """,
    ),
    "YAML that contains itself": (
        "elm.yaml",
        b"name: &a [*a]\n",
        """
        patterns/elm.yaml: holds a value that no template can rely on: Circular reference detected
        """,
    ),
    "not UTF-8": (
        "elm.toml",
        b'name = "elm"\n# \xe9\n',
        """
        patterns/elm.toml:2: not UTF-8 (byte 0xe9)
          hint: save the file as UTF-8
        """,
    ),
    "reserved key": (
        "elm.toml",
        b'name = "elm"\npattern = 3\n',
        """
        patterns/elm.toml: the key 'pattern' is reserved
          hint: rename it: what templates see as 'pattern' comes from the rule
        """,
    ),
    "unknown format": (
        "elm.ini",
        b"[name]\n",
        """
        patterns/elm.ini: unknown pattern format '.ini'
          hint: use .toml, .json or .yaml
        """,
    ),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_what_is_wrong_with_a_pattern_is_said_with_its_place(
    empty_project: Project, kind: str
) -> None:
    name, content, message = PATTERNS[kind]
    path = empty_project.write(f"patterns/{name}", content)
    with pytest.raises(StepError) as caught:
        patterns.Library(str(empty_project.path)).load(f"patterns/{path.name}")
    assert str(caught.value) + "\n" == screen_of(message)


@pytest.mark.parametrize("kind", ["JSON syntax error", "not UTF-8", "reserved key"])
def test_a_bad_pattern_fails_its_own_target_only(project: Project, kind: str) -> None:
    name, content, message = PATTERNS[kind]
    declared = page(patterns='["patterns/*.toml", "patterns/*.json"]')
    project.write("dodo.py", dodo(declared))
    project.write(f"patterns/{name}", content)
    fails(
        project,
        ".  generate:ash.txt\n"
        ".  generate:birch.txt\n"
        ".  generate:cedar.txt\n"
        ".  generate:elm.txt\n"
        "failed: generate:elm.txt\n"
        f"{textwrap.indent(screen_of(message), '  ')}"
        "3 generated, 1 failed in N s\n",
        changed=["ash.txt", "birch.txt", "cedar.txt"],
    )


#: What is wrong with the key that names the target → its TOML, the whole message.
KEYS = {
    "leads outside": (
        'name = "../elm"\n',
        "patterns/elm.toml: the target '../elm.txt' lies outside of generated/\n",
    ),
    "is absolute": (
        'name = "/elm"\n',
        "patterns/elm.toml: the target '/elm.txt' lies outside of generated/\n",
    ),
    "leads outside by a link": (
        'name = "sub/elm"\n',
        "patterns/elm.toml: the target 'sub/elm.txt' lies outside of generated/:"
        " generated/sub is behind a link\n",
    ),
    "holds a control character": (
        'name = "a\\u0000/elm"\n',
        "patterns/elm.toml: the target 'a\\x00/elm.txt' holds a character that"
        " no file's name should\n",
    ),
    "holds an equals sign": (
        'name = "a=b"\n',
        "patterns/elm.toml: the target 'a=b.txt' holds '=', which doit allows in no task's name\n",
    ),
    "is a list": (
        "name = [1]\n",
        "patterns/elm.toml: the key 'name' names its target, so it cannot be a list\n",
    ),
    "is missing": (
        'nmae = "elm"\n',
        """
        patterns/elm.toml: lacks the key 'name' that names its target '{name}.txt'
          hint: did you mean 'nmae'?
        """,
    ),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_names_no_target_fails_its_pattern_only(links: Project, kind: str) -> None:
    toml, message = KEYS[kind]
    links.write("dodo.py", dodo(page(target='"{name}.txt"')))
    links.write("patterns/elm.toml", toml)
    fails(
        links,
        ".  generate:ash.txt\n"
        ".  generate:birch.txt\n"
        ".  generate:cedar.txt\n"
        ".  generate:patterns/elm.toml\n"
        "failed: generate:patterns/elm.toml\n"
        f"{textwrap.indent(screen_of(message), '  ')}"
        "3 generated, 1 failed in N s\n",
        changed=["ash.txt", "birch.txt", "cedar.txt"],
    )
    assert os.listdir(links.path.parent / "elsewhere") == []


def test_a_pattern_whose_name_holds_an_equals_sign_fails_alone(project: Project) -> None:
    """Not as task `generate:a=b.txt`: doit would refuse the whole project for it."""
    project.write("patterns/a=b.toml", 'name = "ab"\ngain = 1\n')
    project.write("dodo.py", dodo())
    fails(
        project,
        """
        .  generate:patterns/a%3Db.toml
        failed: generate:patterns/a%3Db.toml
          patterns/a=b.toml: the target 'a=b.txt' holds '=', which doit allows in no task's name
        .  generate:ash.txt
        .  generate:birch.txt
        .  generate:cedar.txt
        3 generated, 1 failed in N s
        """,
        changed=["ash.txt", "birch.txt", "cedar.txt"],
    )


#: What is wrong with the second item of two → its TOML, the whole message.
ITEMS = {
    "lacks the key": (
        'nmae = "b"',
        "patterns/elm.toml: item 2 of 'nodes': lacks the key 'name' that names its target"
        " '{name}.txt'\n  hint: did you mean 'nmae'?\n",
    ),
    "has a list for a name": (
        "name = [1]",
        "patterns/elm.toml: item 2 of 'nodes': the key 'name' names its target,"
        " so it cannot be a list\n",
    ),
    "leads outside": (
        'name = "../b"',
        "patterns/elm.toml: item 2 of 'nodes': the target '../b.txt' lies outside of generated/\n",
    ),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_an_item_that_names_no_target_is_told_by_its_number(project: Project, kind: str) -> None:
    toml, message = ITEMS[kind]
    rule = page(patterns='"patterns/elm.toml"', target='"{name}.txt"', each='"nodes"')
    project.write("dodo.py", dodo(rule))
    project.write("templates/page.txt.j2", "{{ name }}\n")
    project.write("patterns/elm.toml", f'[[nodes]]\nname = "a"\n[[nodes]]\n{toml}\n')
    fails(
        project,
        ".  generate:a.txt\n"
        ".  generate:patterns/elm.toml\n"
        "failed: generate:patterns/elm.toml\n"
        f"{textwrap.indent(screen_of(message), '  ')}"
        "1 generated, 1 failed in N s\n",
        changed=["a.txt"],
    )


def test_each_on_a_missing_key_names_the_nearest_one(project: Project) -> None:
    declared = (
        'codegen.rule("unit", template="plain.txt.j2", patterns="patterns/*.toml",\n'
        '             target="{stem}-{name}.txt", each="registers")\n'
    )
    project.write("dodo.py", dodo(declared))
    project.write("patterns/ash.toml", '[[registers]]\nname = "x"\n')
    project.write("patterns/birch.toml", '[[register]]\nname = "x"\n')
    project.write("patterns/cedar.toml", "registers = 3\n")
    fails(
        project,
        """
        .  generate:ash-x.txt
        .  generate:patterns/birch.toml
        failed: generate:patterns/birch.toml
          patterns/birch.toml: lacks the list or table 'registers'
            rule unit makes a target for each of its items
            hint: did you mean 'register'?
        .  generate:patterns/cedar.toml
        failed: generate:patterns/cedar.toml
          patterns/cedar.toml: 'registers' must be a list or a table, not a number
            rule unit makes a target for each of its items
        1 generated, 2 failed in N s
        failed:
          patterns/birch.toml: lacks the list or table 'registers'
            generate:patterns/birch.toml
          patterns/cedar.toml: 'registers' must be a list or a table, not a number
            generate:patterns/cedar.toml
        to run them again: doit -c generate:patterns/birch.toml generate:patterns/cedar.toml
        """,
        changed=["ash-x.txt"],
    )


@pytest.mark.parametrize(
    ("each", "what"),
    [
        ("schemas", "lacks the list or table 'schemas'\n  hint: did you mean 'parts.schemas'?"),
        (
            "parts.schema",
            "lacks the list or table 'parts.schema'\n  hint: did you mean 'parts.schemas'?",
        ),
        ("name.all", "'name' must be a table, not a string"),
        (
            "parts.schemas",
            "entry '/a' of 'parts.schemas': the target '/a.txt' lies outside of generated/",
        ),
    ],
)
def test_each_that_leads_to_no_table_says_where_it_ends(
    project: Project, each: str, what: str
) -> None:
    project.write(
        "dodo.py",
        dodo(
            'codegen.rule("unit", template="plain.txt.j2", patterns="patterns/ash.toml",\n'
            f'             target="{{key}}.txt", each="{each}")\n'
        ),
    )
    project.write("patterns/ash.toml", 'name = "x"\n[parts.schemas]\n"/a" = 1\n')
    said, _, hint = what.partition("\n")
    out = project.doit().out
    assert f"  patterns/ash.toml: {said}\n" in out
    assert hint in out


# Templates --------------------------------------------------------------------------------


def test_a_template_syntax_error_shows_its_line(built: Project) -> None:
    built.write("templates/page.txt.j2", "one\n{% if name %}\n{% endfor %}\n")
    built.write("templates/plain.txt.j2", "plainer\n")
    fails(
        built,
        """
        failed: templates:page.txt.j2
          templates/page.txt.j2:3: encountered unknown tag 'endfor'
            3 | {% endfor %}
              |    ^^^^^^
            jinja was looking for the following tags: 'elif' or 'else' or 'endif'
            the innermost block that needs to be closed is 'if'
        .  generate:plain.txt
        1 generated, 1 up to date, 1 failed, 3 not run in N s
        """,
        changed=["plain.txt"],
    )


def test_an_unknown_tag_names_the_nearest(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n\t{%- fr x in [1] %}\n{% endfor %}\n")
    fails(
        project,
        """
        failed: templates:page.txt.j2
          templates/page.txt.j2:2: encountered unknown tag 'fr'
            2 | \t{%- fr x in [1] %}
              | \t    ^^
            hint: did you mean 'for'?
        1 failed in N s
        """,
        ASH,
    )


def test_a_syntax_error_in_an_included_file_says_who_includes_it(project: Project) -> None:
    project.write("templates/page.txt.j2", 'one\n{% include "part.txt" %}\n')
    project.write("templates/part.txt", "\n{% raw %}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/part.txt:1: missing end of raw directive
            1 | {% raw %}
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_without_the_cache_a_syntax_error_reads_the_same(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ name + }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: unexpected 'end of print statement'
            2 | {{ name + }}
              |           ^^
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
        CODEGEN_TEMPLATE_CACHE="0",
    )


def test_an_unknown_filter_is_found_while_parsing(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ name|shuot }}\n")
    fails(
        project,
        """
        failed: templates:page.txt.j2
          templates/page.txt.j2:2: no filter named 'shuot'
            2 | {{ name|shuot }}
              |         ^^^^^
            hint: did you mean 'shout'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_unknown_test_is_found_while_parsing(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ name is strnig }}\n")
    fails(
        project,
        """
        failed: templates:page.txt.j2
          templates/page.txt.j2:2: no test named 'strnig'
            2 | {{ name is strnig }}
              |            ^^^^^^
            hint: did you mean 'string'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_unknown_filter_in_a_branch_is_found_while_rendering(project: Project) -> None:
    """Jinja2 allows it as long as the branch is not taken."""
    project.write("templates/page.txt.j2", "one\n{% if name %}{{ name|shuot }}{% endif %}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: no filter named 'shuot'
            2 | {% if name %}{{ name|shuot }}{% endif %}
              |                      ^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'shout'?
        1 failed in N s
        """,
        ASH,
    )


def test_a_missing_include_names_the_nearest_template(project: Project) -> None:
    project.write("templates/page.txt.j2", '{{ name }}\n{% include "footr.j2" %}\n')
    project.write("templates/footer.j2", "end\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: there is no template 'footr.j2'
            2 | {% include "footr.j2" %}
              |             ^^^^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'footer.j2'?
        1 failed in N s
        """,
        ASH,
    )


def test_a_missing_include_of_several_names_them_all(project: Project) -> None:
    project.write("templates/page.txt.j2", '{% include ["one.j2", "mecros.j2"] %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: there is no template 'one.j2' or 'mecros.j2'
            1 | {% include ["one.j2", "mecros.j2"] %}
              |              ^^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'macros.j2'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_include_outside_of_the_folder_is_refused(project: Project) -> None:
    project.write("templates/page.txt.j2", '{{ name }}\n{% include "../dodo.py" %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/../dodo.py: a template cannot lie outside the templates folder
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_template_that_includes_itself_is_a_loop(project: Project) -> None:
    project.write("templates/page.txt.j2", 'one\n{% include "page.txt.j2" %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: loops: it includes, extends or calls itself without end
            templates/page.txt.j2:2 → templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_templates_that_include_each_other_are_shown_in_a_circle(project: Project) -> None:
    project.write("templates/page.txt.j2", 'one\n{% include "odd.txt" %}\n')
    project.write("templates/odd.txt", '\n\n{% include "even.txt" %}\n')
    project.write("templates/even.txt", '{% include "odd.txt" %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/odd.txt:2: loops: it includes, extends or calls itself without end
            templates/odd.txt:2 → templates/even.txt:1 → templates/odd.txt:2
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_template_that_extends_itself_is_a_loop(project: Project) -> None:
    project.write("templates/page.txt.j2", '{% extends "page.txt.j2" %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: loops: it includes, extends or calls itself without end
            templates/page.txt.j2:1 → templates/page.txt.j2:1
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_macro_that_calls_itself_is_a_loop(project: Project) -> None:
    project.write("templates/page.txt.j2", "{% macro m(x) %}{{ m(x) }}{% endmacro %}\n{{ m(1) }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: loops: it includes, extends or calls itself without end
            templates/page.txt.j2:1 → templates/page.txt.j2:1
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_template_that_is_not_utf_8_names_the_line(built: Project) -> None:
    built.write("templates/page.txt.j2", b"one\ntwo \xe9\n")
    fails(
        built,
        """
        failed: templates:page.txt.j2
          templates/page.txt.j2:2: not UTF-8 (byte 0xe9)
            hint: save the file as UTF-8
        2 up to date, 1 failed, 3 not run in N s
        """,
    )


# Rendering --------------------------------------------------------------------------------


def test_an_undefined_variable_names_line_pattern_and_nearest(built: Project) -> None:
    built.write("templates/page.txt.j2", "{{ gain }}\n{% if gain == 1 %}{{ nam }}{% endif %}\n")
    fails(
        built,
        """
        .  generate:ash.txt
        .  generate:birch.txt
        failed: generate:birch.txt
          templates/page.txt.j2:2: 'nam' is undefined
            2 | {% if gain == 1 %}{{ nam }}{% endif %}
              |                      ^^^
            pattern patterns/birch.toml
            hint: did you mean 'name'?
        .  generate:cedar.txt
        2 generated, 2 up to date, 1 failed in N s
        """,
        changed=["ash.txt", "cedar.txt"],
    )


def test_an_undefined_variable_shows_the_chain_of_includes_and_imports(project: Project) -> None:
    project.write("templates/page.txt.j2", 'one\n{% include "part.txt" %}\n')
    project.write(
        "templates/part.txt",
        '\n{% import "tools.txt" as tools with context %}\n{{ tools.title() }}\n',
    )
    project.write("templates/tools.txt", "{% macro title() %}\n{{ gaim }}\n{% endmacro %}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/tools.txt:2: 'gaim' is undefined
            2 | {{ gaim }}
              |    ^^^^
            from templates/part.txt:2
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
            hint: did you mean 'gain'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_variable_in_a_block_shows_who_extends_whom(project: Project) -> None:
    project.write(
        "templates/page.txt.j2", '{% extends "base.j2" %}{% block body %}\n{{ nome }}{% endblock %}'
    )
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: 'nome' is undefined
            2 | {{ nome }}{% endblock %}
              |    ^^^^
            from templates/base.j2:2
            from templates/page.txt.j2:1
            pattern patterns/ash.toml
            hint: did you mean 'name'?
        1 failed in N s
        """,
        ASH,
    )


JSON_FILTER = (
    "import json\n\n\n@codegen.filter\ndef literal(value):\n    return json.dumps(value)\n"
)


def test_an_undefined_name_handed_to_a_filter_is_told_as_such(project: Project) -> None:
    """json.dumps says "Object of type Undefined is not JSON serializable"; nobody wants that."""
    project.write("dodo.py", dodo(PAGE + JSON_FILTER))
    project.write("templates/page.txt.j2", "one\n{{ title | literal }}\n")
    project.write("patterns/ash.toml", 'titel = "Ash"\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: 'title' is undefined
            2 | {{ title | literal }}
              |    ^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'titel'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_key_handed_to_a_filter_of_jinja_is_told_as_such(project: Project) -> None:
    project.write("patterns/ash.toml", 'name = "ash"\n[led]\ncount = 3\n')
    project.write("templates/page.txt.j2", "one\n{{ led.cuont | tojson }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: the table has no key 'cuont'
            2 | {{ led.cuont | tojson }}
              |        ^^^^^
            with patterns/ash.toml:2: led = 1 key
            hint: did you mean 'count'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_name_among_the_arguments_of_a_function_is_told(project: Project) -> None:
    declared = "\n\n@codegen.function\ndef total(*values, **more):\n    return sorted(more)[9]\n"
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "{{ total(1, x=gian) }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: 'gian' is undefined
            1 | {{ total(1, x=gian) }}
              |               ^^^^
            pattern patterns/ash.toml
            hint: did you mean 'gain'?
        1 failed in N s
        """,
        ASH,
    )


def test_a_key_that_an_imported_macro_does_not_see_is_told_as_such(project: Project) -> None:
    project.write("templates/page.txt.j2", '{% import "tools.txt" as tools %}{{ tools.title() }}')
    project.write("templates/tools.txt", "{% macro title() %}{{ name }}{% endmacro %}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/tools.txt:1: 'name' is undefined
            1 | {% macro title() %}{{ name }}{% endmacro %}
              |                       ^^^^
            from templates/page.txt.j2:1
            pattern patterns/ash.toml
            hint: not seen where imported without context: hand it on, or add 'with context'
        1 failed in N s
        """,
        ASH,
    )


def test_an_expression_of_several_lines_is_shown_to_the_name(project: Project) -> None:
    project.write(
        "templates/page.txt.j2", "{{ name\n  | replace('a',\n    名前 ~ nam ~ 'nam') }} nam\n"
    )
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: '名前' is undefined
            2 |   | replace('a',
            3 |     名前 ~ nam ~ 'nam') }} nam
              |     ^^^^
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_loop_variable_can_be_the_nearest_name(project: Project) -> None:
    project.write("templates/page.txt.j2", "{% for lamp in [1] %}\n{{ lapm }}{% endfor %}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: 'lapm' is undefined
            2 | {{ lapm }}{% endfor %}
              |    ^^^^
            pattern patterns/ash.toml
            hint: did you mean 'lamp'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_key_of_a_nested_table_names_the_nearest(project: Project) -> None:
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 1\n[led]\ncount = 3\n')
    project.write("templates/page.txt.j2", "one\n{{ led.cuont }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: the table has no key 'cuont'
            2 | {{ led.cuont }}
              |        ^^^^^
            with patterns/ash.toml:3: led = 1 key
            hint: did you mean 'count'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_key_unlike_any_is_answered_with_all_there_are(project: Project) -> None:
    project.write("patterns/ash.toml", 'name = "ash"\ngain = 1\n[led]\ncount = 3\npitch = 7\n')
    project.write("templates/page.txt.j2", 'one\n{{ led["size"].x }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: the table has no key 'size'
            2 | {{ led["size"].x }}
              |         ^^^^
            with patterns/ash.toml:3: led = 2 keys
            hint: known: count, pitch
        1 failed in N s
        """,
        ASH,
    )


def test_a_table_in_a_list_of_another_file_that_lacks_a_key_is_told_by_its_place(
    project: Project,
) -> None:
    leds = '[\n  {"name": "a", "pin": 1},\n  {"name": "b"}\n]'
    project.write("board.json", f'{{"leds": {leds}}}')
    read = '{% for led in read_json("board.json").leds %}{{ led.pin }}{% endfor %}'
    project.write("templates/page.txt.j2", f"{read}\n")
    fails(
        project,
        f"""
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: the table has no key 'pin'
            1 | {read}
              |                                                     ^^^
            in board.json:3: leds[1]
            pattern patterns/ash.toml
            hint: known: name
        1 failed in N s
        """,
        ASH,
    )


def test_a_key_that_a_table_lacks_is_no_method_of_that_name(project: Project) -> None:
    project.write("patterns/ash.toml", 'name = "ash"\n[[led]]\nvalues = 1\n[[led]]\nitems = 2\n')
    project.write("templates/page.txt.j2", '{% for x in led %}{{ x["values"] }}{% endfor %}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: the table has no key 'values'
            1 | {% for x in led %}{{ x["values"] }}{% endfor %}
              |                         ^^^^^^
            with patterns/ash.toml:4: led[1] = 1 key
            hint: known: items
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_attribute_of_text_names_the_nearest(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ name.uper() }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: 'str object' has no attribute 'uper'
            2 | {{ name.uper() }}
              |         ^^^^
            pattern patterns/ash.toml
            hint: did you mean 'upper'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_undefined_macro_names_the_nearest(project: Project) -> None:
    project.write("templates/page.txt.j2", '{% import "macros.j2" as m %}\n{{ m.titel(1) }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: template 'macros.j2' defines no 'titel'
            2 | {{ m.titel(1) }}
              |      ^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'title'?
        1 failed in N s
        """,
        ASH,
    )


def test_an_import_of_an_undefined_macro_names_the_nearest(project: Project) -> None:
    project.write("templates/page.txt.j2", '{% from "macros.j2" import titel %}\n{{ titel(1) }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: template 'macros.j2' defines no 'titel' (imported on line 1)
            2 | {{ titel(1) }}
              |    ^^^^^
            pattern patterns/ash.toml
            hint: did you mean 'title'?
        1 failed in N s
        """,
        ASH,
    )


def test_a_type_error_in_a_template_names_its_line(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ name / 2 }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: TypeError: unsupported operand type(s) for /: 'str' and 'int'
            2 | {{ name / 2 }}
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_an_exception_in_a_filter_names_filter_and_template(project: Project) -> None:
    declared = '\n\n@codegen.filter\ndef picky(text):\n    raise ValueError(f"no {text}")\n'
    project.write("dodo.py", dodo(PAGE + declared))
    project.write(
        "templates/page.txt.j2",
        "{% if gain == 1 %}\n{{ name|picky }}{% endif %}\n",
    )
    fails(
        project,
        """
        .  generate:ash.txt
        .  generate:birch.txt
        failed: generate:birch.txt
          templates/page.txt.j2:2: ValueError in picky (dodo.py:9): no birch
            2 | {{ name|picky }}{% endif %}
              |         ^^^^^
            with patterns/birch.toml:1: name = "birch"
        .  generate:cedar.txt
        2 generated, 1 failed in N s
        """,
        changed=["ash.txt", "cedar.txt"],
    )


def test_a_macro_in_which_an_iteration_ends_is_undefined(project: Project) -> None:
    declared = "\n\n@codegen.filter\ndef first(text):\n    return next(iter([]))\n"
    project.write("dodo.py", dodo(PAGE + declared))
    page = "{% macro head(x) %}{{ x|first }}{% endmacro %}{{ head(name) }}\n"
    project.write("templates/page.txt.j2", page)
    result = project.doit("generate:ash.txt")
    assert result.code == 1
    assert "  templates/page.txt.j2:1: what a macro called raised StopIteration\n" in result.out


def test_an_exception_in_a_library_names_the_projects_own_line(project: Project) -> None:
    declared = (
        "from fractions import Fraction\n\n\n"
        "@codegen.filter\ndef f(text):\n    return Fraction(text)\n"
    )
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "{{ name|f }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: ValueError in f (dodo.py:10): Invalid literal for Fraction: 'ash'
            1 | {{ name|f }}
              |         ^
            with patterns/ash.toml:1: name = "ash"
        1 failed in N s
        """,
        ASH,
    )


def test_a_filter_without_end_is_not_called_a_loop_of_templates(project: Project) -> None:
    declared = "\n\n@codegen.filter\ndef f(text):\n    return f(text)\n"
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "{{ name|f }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:1: RecursionError in f (dodo.py:9): maximum recursion depth exceeded
            1 | {{ name|f }}
              |         ^
            with patterns/ash.toml:1: name = "ash"
        1 failed in N s
        """,
        ASH,
    )


def test_a_filter_that_exits_fails_its_step_and_not_the_run(project: Project) -> None:
    declared = "\n\n@codegen.filter\ndef leave(text):\n    raise SystemExit(7)\n"
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "one\n{{ name|leave }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: SystemExit in leave (dodo.py:9): 7
            2 | {{ name|leave }}
              |         ^^^^^
            with patterns/ash.toml:1: name = "ash"
        1 failed in N s
        """,
        ASH,
    )


def test_a_pattern_error_of_the_project_keeps_its_own_words(project: Project) -> None:
    raised = 'PatternError("ash: node 3", "unknown kind", "see nodes.toml", ["a detail"])'
    declared = f"\n\n@codegen.filter\ndef check(text):\n    raise {raised}\n"
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "one\n{{ name|check }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          ash: node 3: unknown kind
            a detail
            from templates/page.txt.j2:2
            with patterns/ash.toml:1: name = "ash"
            hint: see nodes.toml
        1 failed in N s
        """,
        ASH,
    )


def test_an_error_whose_place_is_the_pattern_names_it_once(project: Project) -> None:
    raised = 'PatternError(pattern["path"] + ": node 3", "unknown kind")'
    declared = f"\n\n@codegen.filter\ndef check(pattern):\n    raise {raised}\n"
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/page.txt.j2", "one\n{{ pattern|check }}\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          patterns/ash.toml: node 3: unknown kind
            from templates/page.txt.j2:2
        1 failed in N s
        """,
        ASH,
    )


EXAMPLE = Path(__file__).parents[1]


@pytest.fixture
def example(empty_project: Project) -> Project:
    """Return a copy of the example library."""
    shutil.copy(EXAMPLE / "dodo.py", empty_project.path)
    shutil.copytree(EXAMPLE / "templates", empty_project.path / "templates")
    return empty_project


@pytest.mark.parametrize("key", ["title", "description"])
def test_the_example_demands_text_for_title_and_description(example: Project, key: str) -> None:
    bloom = "templates/patterns/bloom.toml"
    example.write(bloom, re.sub(rf"(?m)^{key} = .*", f"{key} = 3", example.read(bloom)))
    fails(
        example,
        f"""
        .  generate:bloom.ts
        failed: generate:bloom.ts
          {bloom}: {key} must be a string
        1 failed in N s
        """,
        "generate:bloom.ts",
    )


def test_the_example_tells_a_missing_title_as_such(example: Project) -> None:
    bloom = "templates/patterns/bloom.toml"
    example.write(bloom, re.sub(r"(?m)^title = ", "titel = ", example.read(bloom)))
    result = example.doit("generate:bloom.ts")
    assert result.code == 1
    assert ": 'title' is undefined\n" in result.out
    assert "    hint: did you mean 'titel'?\n" in result.out


def test_an_error_is_the_same_from_a_worker(project: Project) -> None:
    project.write("templates/page.txt.j2", "one\n{{ nam }}\n")
    result = project.doit("-n", "2", "generate:ash.txt")
    assert result.code == 1
    assert tidy(project, result.out) == screen_of("""
        .  generate:ash.txt
        failed: generate:ash.txt
          templates/page.txt.j2:2: 'nam' is undefined
            2 | {{ nam }}
              |    ^^^
            pattern patterns/ash.toml
            hint: did you mean 'name'?
        1 failed in N s
        """)
    assert targets(project) == {}
    assert temporaries(project) == []


def test_a_context_function_must_return_a_dict(project: Project) -> None:
    declared = "\n\ndef extra(data):\n    return [data]\n\n\n" + page(context="extra")
    project.write("dodo.py", dodo(declared))
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          rule page: context function extra (dodo.py:6) must return a dict, not list
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_an_exception_in_a_context_function_names_it(project: Project) -> None:
    declared = '\n\ndef extra(data):\n    return data["nope"]\n\n\n' + page(context="extra")
    project.write("dodo.py", dodo(declared))
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          rule page: context function extra (dodo.py:6): KeyError: 'nope'
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_file_to_read_that_is_not_utf_8_names_the_line(project: Project) -> None:
    project.write("license.txt", b"one\n\n\xe9\n")
    project.write("templates/page.txt.j2", 'one\n{{ read_text("license.txt") }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          license.txt:3: not UTF-8 (byte 0xe9)
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
            hint: save the file as UTF-8
        1 failed in N s
        """,
        ASH,
    )


def test_a_file_to_read_that_is_missing_says_who_reads_it(project: Project) -> None:
    project.write("templates/page.txt.j2", 'one\n{{ read_text("license.txt") }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          license.txt: cannot read: no such file or directory
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_a_file_to_read_outside_of_the_project_is_refused(project: Project) -> None:
    project.write("templates/page.txt.j2", '{{ read_text("../secret") }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          ../secret: a template cannot read outside the project
            from templates/page.txt.j2:1
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


def test_data_to_read_with_a_syntax_error_shows_its_line(project: Project) -> None:
    project.write("units.toml", "a = 1\nb\n")
    project.write("templates/page.txt.j2", 'one\n{{ read_toml("units.toml").a }}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          units.toml:2: expected '=' after a key in a key/value pair
            2 | b
            from templates/page.txt.j2:2
            pattern patterns/ash.toml
        1 failed in N s
        """,
        ASH,
    )


@pytest.mark.parametrize("function", ["read_text", "read_json", "read_toml", "read_yaml"])
def test_a_missing_file_to_read_gets_the_nearest_one_in_its_folder_as_a_hint(
    project: Project, function: str
) -> None:
    project.write("data/units.toml", "a = 1\n")
    project.write("data/other.toml", "a = 1\n")
    project.write("templates/page.txt.j2", f'{{{{ {function}("data/unit.toml") }}}}\n')
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          data/unit.toml: cannot read: no such file or directory
            from templates/page.txt.j2:1
            pattern patterns/ash.toml
            hint: did you mean 'data/units.toml'?
        1 failed in N s
        """,
        ASH,
    )


METHODS = {
    "{{ t.values.first }}": (
        "'method object' has no attribute 'first'",
        "'values' is a method of tables: a key of that name is ['values'], not .values",
    ),
    "{% for x in t.items %}{{ x }}{% endfor %}": (
        "TypeError: 'method' object is not iterable",
        "a table's methods come before its keys: a key 'items' is ['items'], not .items",
    ),
}


@pytest.mark.parametrize("template", METHODS)
def test_a_method_where_a_key_was_meant_gets_a_hint(project: Project, template: str) -> None:
    what, hint = METHODS[template]
    project.write("patterns/ash.toml", 'name = "ash"\n[t]\nvalues = {first = 1}\nitems = [2]\n')
    project.write("templates/page.txt.j2", template)
    result = project.doit("generate:ash.txt")
    assert result.code == 1
    assert f"templates/page.txt.j2:1: {what}\n" in result.out
    assert f"    hint: {hint}\n" in result.out


REFUSED_YAML = {
    "a key that stands twice": (
        "a: 1\nb: {c: 1,\n  c: 2}\n",
        "units.yaml:3: the key 'c' stands here a second time\n    3 |   c: 2}",
    ),
    "an alias bomb": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
        "units.yaml: its aliases make it too large",
    ),
    "what never ends": ("[" * 5000, "units.yaml: is nested too deeply"),
}


@pytest.mark.parametrize("case", REFUSED_YAML)
def test_yaml_to_read_is_refused_as_a_pattern_would_be(project: Project, case: str) -> None:
    text, said = REFUSED_YAML[case]
    project.write("units.yaml", text)
    project.write("templates/page.txt.j2", '{{ read_yaml("units.yaml").a }}\n')
    fails(
        project,
        f"""
.  generate:ash.txt
failed: generate:ash.txt
  {said}
    from templates/page.txt.j2:1
    pattern patterns/ash.toml
1 failed in N s
""",
        ASH,
    )


def test_yaml_to_read_without_a_parser_says_what_to_install(project: Project) -> None:
    project.write("units.yaml", "a: 1\n")
    project.write("templates/page.txt.j2", '{{ read_yaml("units.yaml").a }}\n')
    project.write("dodo.py", 'import sys\n\nsys.modules["yaml"] = None\n' + dodo(page()))
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          units.yaml: to read it needs PyYAML
            from templates/page.txt.j2:1
            pattern patterns/ash.toml
            hint: pip install 'codegen-tasks[yaml]'
        1 failed in N s
        """,
        ASH,
    )


# Writing ----------------------------------------------------------------------------------


def bound_by_permissions() -> list[str]:
    """Return a command's beginning that lets permission bits bind root too."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    with contextlib.suppress(OSError):
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("root without setpriv: permission bits bind nobody")


def test_a_read_only_output_folder_leaves_targets_as_they_were(built: Project) -> None:
    command = [*bound_by_permissions(), sys.executable, "-m", "doit", "-c", "generate"]
    built.write("patterns/birch.toml", 'name = "BIRCH"\ngain = 9\n')
    before = targets(built)
    (built.path / "generated").chmod(0o555)
    try:
        result = built.run(*command)
    finally:
        (built.path / "generated").chmod(0o755)
    assert tidy(built, result.out) == screen_of("""
        .  generate:birch.txt
        failed: generate:birch.txt
          generated/birch.txt: cannot write: permission denied
            hint: the folder generated must be writable
        .  generate:list.txt
        failed: generate:list.txt
          generated/list.txt: cannot write: permission denied
            hint: the folder generated must be writable
        3 up to date, 2 failed in N s
        failed:
          generated/birch.txt: cannot write: permission denied
            generate:birch.txt
          generated/list.txt: cannot write: permission denied
            generate:list.txt
        to run them again: doit -c generate:birch.txt generate:list.txt
        """)
    assert (result.err, result.code) == ("", 1)
    assert targets(built) == before
    assert temporaries(built) == []
    assert built.doit().code == 0
    assert "BIRCH" in built.read("generated/birch.txt")


def test_a_file_in_place_of_the_output_folder_is_left_alone(project: Project) -> None:
    project.write("generated", "mine\n")
    fails(
        project,
        """
        .  generate:ash.txt
        failed: generate:ash.txt
          generated/ash.txt: a file stands where a folder should be
            hint: move generated away
        1 failed in N s
        """,
        ASH,
    )
    assert project.read("generated") == "mine\n"


# Compiling --------------------------------------------------------------------------------


def test_a_toolchain_that_is_not_installed_says_what_to_install(project: Project) -> None:
    chain = 'Toolchain("sass", ["no-such-sassc", "{source}", "{target}"], ".css"%s)'
    project.write("dodo.py", dodo(page(compile=chain % "")))
    fails(
        project,
        """
        .  generate:ash.txt
        .  compile:ash.css
        failed: compile:ash.css
          toolchain sass: 'no-such-sassc' is not installed
            hint: install no-such-sassc, or put it on PATH
        1 generated, 1 failed in N s
        """,
        "-c",
        "compile:ash.css",
        changed=["ash.txt"],
    )
    project.write("dodo.py", dodo(page(compile=chain % ', install="apt install sassc"')))
    fails(
        project,
        """
        .  compile:ash.css
        failed: compile:ash.css
          toolchain sass: 'no-such-sassc' is not installed
            hint: apt install sassc
        1 up to date, 1 failed in N s
        """,
        "-c",
        "compile:ash.css",
    )


def test_the_hint_for_deno_is_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, empty_project: Project
) -> None:
    monkeypatch.setattr(sys, "executable", str(empty_project.path / "python"))
    monkeypatch.setenv("PATH", str(empty_project.path))
    with pytest.raises(StepError) as caught:
        DENO.find()
    assert str(caught.value) == (
        "toolchain deno: 'deno' is not installed\n  hint: pip install 'deno>=2.9,<3'"
    )


def test_a_type_error_in_generated_code_names_line_template_and_pattern(project: Project) -> None:
    declared = page(template='"page.ts.j2"', target='"{stem}.ts"', compile='"deno"')
    project.write("dodo.py", dodo(declared))
    project.write(
        "templates/page.ts.j2",
        'export const name = "{{ name }}";\nexport const gain: number = {{ gain }};\n',
    )
    project.write("patterns/birch.toml", 'name = "birch"\ngain = "\'loud\'"\n')
    made = ["ash.ts", "ash.js", "ash.js.map", "birch.ts", "cedar.ts", "cedar.js", "cedar.js.map"]
    fails(
        project,
        """
        .  generate:ash.ts
        .  generate:birch.ts
        .  generate:cedar.ts
        .  compile:ash.js
        .  compile:birch.js
        .  compile:cedar.js
        failed: compile:birch.js
          generated/birch.ts:2: Type 'string' is not assignable to type 'number' (TS2322)
            2 | export const gain: number = 'loud';
            by templates/page.ts.j2:2
            2 | export const gain: number = {{ gain }};
              |              ^^^^
            with patterns/birch.toml:2: gain = "'loud'"
            made from templates/page.ts.j2 and patterns/birch.toml
        3 generated, 2 compiled, 1 failed in N s
        """,
        changed=made,
    )


def test_a_compilers_own_message_is_shown(project: Project) -> None:
    """The `python` toolchain: line and message are the compiler's."""
    declared = 'codegen.rule("x", template="x.py.j2", target="x.py", compile="python")\n'
    project.write("dodo.py", dodo(PAGE + declared))
    project.write("templates/x.py.j2", "a = 1\nb = = 2\n")
    fails(
        project,
        """
        .  generate:ash.txt
        .  generate:birch.txt
        .  generate:cedar.txt
        .  generate:x.py
        .  compile:x.pyc
        failed: compile:x.pyc
          generated/x.py:2: invalid syntax
            2 | b = = 2
            by templates/x.py.j2:2
            2 | b = = 2
              |     ^
            made from templates/x.py.j2
        4 generated, 1 failed in N s
        """,
        changed=["ash.txt", "birch.txt", "cedar.txt", "x.py"],
    )


@pytest.mark.skipif(os.name == "nt", reason="a signal is no exception there")
@pytest.mark.parametrize("command", ["run", "info"])
def test_an_interrupt_while_it_is_decided_what_to_do_is_no_traceback(
    project: Project, command: str
) -> None:
    dodo = project.read("dodo.py").replace("Codegen(", "Codegen(globals={'it': Impatient()}, ", 1)
    impatient = """
        import os, signal

        class Impatient:
            def __reduce__(self):
                if "NO_TIME" in os.environ:
                    os.kill(os.getpid(), signal.SIGINT)
                return Impatient, ()
        """
    project.write("dodo.py", textwrap.dedent(impatient) + dodo)
    project.write("templates/plain.txt.j2", "{{ it is defined }}")
    assert project.doit().code == 0
    result = project.started_doit(command, NO_TIME="1")
    assert (result.code, result.out, result.err) == (-signal.SIGINT, "", "interrupted\n")
