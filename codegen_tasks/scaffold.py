"""Where projects begin: the files of a small one, a pattern like another; replaces nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources

from . import patterns
from .errors import DeclarationError, StepError, cause, nearest
from .model import Rule
from .toolchains import names as built_in

#: Without a compiler, the files are the result.
NONE = "none"
#: What is generated for each toolchain.
_SUFFIXES = {NONE: ".md", "deno": ".ts", "cc": ".c", "c++": ".cpp", "python": ".py"}
_PLAIN = re.compile(r"\w[\w.-]*")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def toolchains() -> list[str]:
    """Return the names that `files_of` takes."""
    return [NONE, *built_in()]


def files_of(toolchain: str, commands: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a small project, by path.

    Args:
        toolchain: one of `toolchains()`.
        commands: doit's commands that the project opts in to, and where they are.
    """
    import tomli_w

    suffix = _SUFFIXES[toolchain]
    compile_line = f'    compile="{toolchain}",\n' if toolchain != NONE else ""
    opted = tomli_w.dumps({"tool": {"doit": {"plugins": {"command": dict(commands)}}}})
    pattern, light = "patterns/traffic-light.toml", f"templates/light{suffix}.j2"
    plain = (light, "templates/macros.j2", "templates/list.md.j2")
    return {
        "dodo.py": _text("dodo.txt").replace("@COMPILE@", compile_line).replace("@SUFFIX@", suffix),
        "pyproject.toml": f"# Commands of doit that this project opts in to.\n{opted}",
        ".gitignore": _text("gitignore.txt"),
        pattern: _text(pattern).replace("@SUFFIX@", suffix),
        **{path: _text(path) for path in plain},
    }


def _text(path: str) -> str:
    file = resources.files("codegen_tasks").joinpath("starter", *path.split("/"))
    return file.read_text(encoding="utf-8")


def write_new(folder: str, files: Mapping[str, str]) -> None:
    """Write files that are not there yet, all of them or none.

    Args:
        folder: where; made if it is not there.
        files: text by path below it.

    Raises:
        DeclarationError: one of them is there already, or cannot be written.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise DeclarationError(folder, "is there already, and is no folder")
    there = [path for path in files if os.path.lexists(os.path.join(folder, path))]
    if there:
        where, names = _joined(folder, there[0]), ""
        if len(files) > 1:
            where, names = folder, ", ".join(there) + " "
        is_there = "is there" if len(there) == 1 else "are there"
        hint = "give the folder of a new project" if len(files) > 1 else "give another name"
        what = f"{names}{is_there} already, and nothing is overwritten"
        raise DeclarationError(where, what, hint)
    written: list[str] = []
    try:
        for path, text in files.items():
            full = os.path.join(folder, path)
            os.makedirs(os.path.dirname(full) or ".", exist_ok=True)
            with open(full, "x", encoding="utf-8", newline="\n") as file:
                written.append(full)
                file.write(text)
    except (OSError, ValueError) as error:
        for full in written:
            os.unlink(full)
        said = cause(error) if isinstance(error, OSError) else str(error)
        raise DeclarationError(folder, f"cannot be written: {said}") from None


def _joined(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/")


# A pattern like another -----------------------------------------------------------------


def library(root: str, rules: Mapping[str, Rule], output: str) -> list[str]:
    """Return the paths of the patterns that somebody wrote, those of the first rule first.

    Args:
        root: absolute path of the project.
        rules: by name.
        output: the folder of what is generated, patterns included.
    """
    found = [p for rule in rules.values() for p in patterns.discover(root, rule.patterns)]
    return [path for path in dict.fromkeys(found) if not path.startswith(f"{output}/")]


def model_of(known: Sequence[str], like: str) -> str:
    """Return the pattern that a new one is to resemble.

    Args:
        known: paths of the pattern library.
        like: a path or a stem; "" for the first.

    Raises:
        DeclarationError: there is none, or none of that name.
    """
    if not known:
        what = "the project has no pattern whose shape could be copied"
        raise DeclarationError("new pattern", what, "write the first one by hand")
    if not like:
        return known[0]
    named = [path for path in known if like in (path, patterns.stem(path), os.path.basename(path))]
    if len(named) == 1:
        return named[0]
    if named:
        raise DeclarationError(f"--like {like}", f"can be {' or '.join(named)}", "give the path")
    hint = nearest(like, [*known, *map(patterns.stem, known)]) or f"such as {known[0]}"
    raise DeclarationError(f"--like {like}", "there is no such pattern", hint)


def like(root: str, model: str, name: str, rules: Iterable[Rule]) -> tuple[str, str]:
    """Return path and text of a new pattern: another's, comments included.

    Keys that name the targets say the new name, so that the two make files apart; so do those
    that said the other's, and comments.

    Args:
        root: absolute path of the project.
        model: path of the other.
        name: of the new one.
        rules: those of the project.

    Raises:
        DeclarationError: the name is none for a pattern, or the other cannot be read.
    """
    suffix = os.path.splitext(model)[1]
    plain = name.removesuffix(suffix)
    if not _PLAIN.fullmatch(plain) or plain.endswith("."):
        what = "must be letters, digits, '_', '-' and '.', and begin with no '-' or '.'"
        raise DeclarationError(f"new pattern {name!r}", what, _better(plain))
    folder = os.path.dirname(model)
    path = f"{folder}/{plain}{suffix}" if folder else f"{plain}{suffix}"
    taking = [rule for rule in rules if any(patterns.matches(model, g) for g in rule.patterns)]
    if not any(patterns.matches(path, glob) for rule in taking for glob in rule.patterns):
        globs = ", ".join(dict.fromkeys(glob for rule in taking for glob in rule.patterns))
        raise DeclarationError(path, f"no rule would see it: they look for {globs}")
    return path, _renamed(root, model, plain, _naming(taking))


def _better(name: str) -> str:
    found = re.sub(r"[^\w.-]+", "-", os.path.basename(name)).strip("-.")
    return f"such as {found}" if found else ""


def _naming(rules: Iterable[Rule]) -> set[str]:
    """Return the keys by which rules name their targets."""
    found = {key for rule in rules if not rule.each for key in _PLACEHOLDER.findall(rule.target)}
    return found - {"stem", "folder"}


def _renamed(root: str, model: str, name: str, keys: Collection[str]) -> str:
    """Return a pattern's text in which each of the keys says the new name."""
    try:
        with open(os.path.join(root, model), "rb") as file:
            raw = file.read()
        data = patterns.parse(model, raw)
    except OSError as error:
        raise DeclarationError(model, f"cannot be read: {cause(error)}") from None
    except StepError as error:
        raise DeclarationError(error.where, error.what, "give a whole one with --like") from None
    text = raw.decode("utf-8-sig")
    old = patterns.stem(model)
    for key, value in data.items():
        if isinstance(value, str) and (key in keys or _bare(value) == _bare(old)):
            said = name if key in keys else _written_like(value, name)
            text = _with_value(text, key, said)
    word = rf"(?<![\w-]){re.escape(old)}(?![\w-])"
    return re.sub(r"(?m)^\s*#.*$", lambda found: re.sub(word, name, found[0]), text)


def _bare(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


def _written_like(text: str, name: str) -> str:
    """Return a name as a text was made of another: Cross walk, where it is Traffic light."""
    if " " in text:
        name = re.sub(r"[\W_]+", " ", name)
    if text.istitle():
        return name.title()
    return name[:1].upper() + name[1:] if text[:1].isupper() else name


def _with_value(text: str, key: str, value: str) -> str:
    """Return a text of TOML, YAML or JSON in which the first value of a key is another."""
    said = json.dumps(value, ensure_ascii=False)
    word = rf"""(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')"""
    string = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s"'#,{}\[\]][^#,\n}]*?)"""
    found = re.compile(rf"(?m)(^\s*|[{{,]\s*)({word}\s*[=:]\s*){string}(?=\s*(?:#|,|\}}|$))")
    return found.sub(lambda match: match[1] + match[2] + said, text, count=1)
