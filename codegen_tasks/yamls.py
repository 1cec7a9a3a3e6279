"""YAML read as data: a key that stands twice and an alias bomb are refused.

Imports PyYAML where something is parsed; unaware of files.
"""

from __future__ import annotations

from typing import Any

#: What to do where PyYAML is missing.
HINT = "pip install 'codegen-tasks[yaml]'"
#: Characters and values of a text with all aliases replaced; more is taken for an attack.
_LARGEST = 10_000_000


def load(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        ValueError: it is not YAML, or is refused; ends with the line where that is known, as
            `(at line 3)`.
        ImportError: PyYAML is not installed, see `HINT`.
    """
    import yaml

    try:
        return _constructed(yaml.SafeLoader(text), len(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        what = error.problem or "invalid YAML"
        if what.startswith("but "):  # the second half of a sentence
            what = f"{error.context}, {what}"
        raise ValueError(f"{what} (at line {line})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character {chr(error.character)!a} is not allowed"
        raise ValueError(f"{what} (at line {line})") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _constructed(loader: Any, length: int) -> Any:
    """Return the data of a YAML text; its aliases are looked at before they are followed."""
    try:
        node = loader.get_single_node()
        _refuse_twins(node, set())
        _refuse_bomb(node, length)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_twins(node: Any, seen: set[int]) -> None:
    """Refuse a key that stands twice in one table: the parser would take the last one."""
    if node is None or id(node) in seen or isinstance(node.value, str):
        return
    seen.add(id(node))
    known: set[tuple[str, str]] = set()
    for part in node.value:
        key, value = part if type(part) is tuple else (None, part)
        # `<<` may stand more than once: each merges another table.
        if key is not None and isinstance(key.value, str) and not key.tag.endswith(":merge"):
            if (key.tag, key.value) in known:
                line = key.start_mark.line + 1
                raise ValueError(
                    f"the key '{key.value}' stands here a second time (at line {line})"
                )
            known.add((key.tag, key.value))
        _refuse_twins(value, seen)


def _refuse_bomb(node: Any, length: int) -> None:
    """Refuse a document that a few aliases make larger than anybody could have written.

    Each alias counts with all it stands for, as templates and digests would meet it.
    """
    if _expanded(node, {}) > max(_LARGEST, 10 * length):
        raise ValueError("its aliases make it too large")


def _expanded(node: Any, sizes: dict[int, int]) -> int:
    """Return the characters and values of a YAML node; one that holds itself counts once."""
    if id(node) not in sizes:
        sizes[id(node)] = 1
        value = getattr(node, "value", "")
        if isinstance(value, str):
            sizes[id(node)] += len(value)
        else:
            parts = (part for item in value for part in (item if type(item) is tuple else (item,)))
            sizes[id(node)] += sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]
