"""Which engine renders a template, by its suffix; knows of the engines and imports none.

Each engine is a module that is imported where something is rendered: `..templates` for Jinja2,
`mako` and `mustache` here.  What they have in common is in `base`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..errors import DeclarationError, StepError, refuse_unknown

#: What an option may be: whether a value is such, and what that is called.
Option: TypeAlias = tuple[Callable[[Any], bool], str]


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One template format.

    Args:
        name: as inputs and `engines=` have it.
        label: as people call it.
        suffixes: of its templates, on their own account.
        module: of ours, whose `Engine` it is.
        package: the module that it needs.
        packages: distributions of which a render may tell the version.
        extra: of ours, that brings it; "" if it always comes with us.
        unsafe: why it has no sandbox; "" if it has one.
        options: that `engines=` may give it.
    """

    name: str
    label: str
    suffixes: tuple[str, ...]
    module: str
    package: str
    packages: tuple[str, ...]
    extra: str = ""
    unsafe: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_escape(value: Any) -> bool:
    return isinstance(value, bool) or callable(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


_HERE = __name__
JINJA2 = Kind(
    *("jinja2", "Jinja2", (".j2", ".jinja", ".jinja2")),
    *(f"{_HERE.rpartition('.')[0]}.templates", "jinja2", ("jinja2",)),
)
MAKO = Kind(
    *("mako", "Mako", (".mako",), f"{_HERE}.mako", "mako", ("mako", "markupsafe")),
    extra="mako",
    unsafe="Mako templates are Python, which no sandbox holds",
    options={
        "buffer_filters": (_is_texts, "a list of names"),
        "default_filters": (_is_texts, "a list of names"),
        "enable_loop": (_is_flag, "True or False"),
        "imports": (_is_texts, "a list of import statements"),
    },
)
MUSTACHE = Kind(
    *("mustache", "Mustache", (".mustache",), f"{_HERE}.mustache", "pystache", ("pystache",)),
    extra="mustache",
    options={
        "escape": (_is_escape, "True, False or a function"),
        "strict_sections": (_is_flag, "True or False"),
    },
)
KINDS = {kind.name: kind for kind in (JINJA2, MAKO, MUSTACHE)}
_BY_SUFFIX = {suffix: kind for kind in KINDS.values() for suffix in kind.suffixes}
_HANDLEBARS = (".hbs", ".handlebars")


def owner_of(template: str) -> Kind | None:
    """Return the engine that a name claims by its suffix; None if it claims none."""
    dot = template.rfind(".")
    return _BY_SUFFIX.get(template[dot:]) if dot >= 0 else None


def kind_of(template: str) -> Kind:
    """Return the engine that renders a template; whatever claims no other is Jinja2's."""
    return owner_of(template) or JINJA2


def is_template(path: str, kinds: Collection[Kind] | None = None) -> bool:
    """Tell whether a file below the templates folder is a template of one of the engines."""
    owner = owner_of(path)
    return owner is not None and (kinds is None or owner in kinds)


def check(where: str, template: str, sandbox: bool) -> None:
    """Refuse a rule's template that no engine can render here.

    Args:
        where: the rule.
        template: its name.
        sandbox: templates are not trusted.

    Raises:
        DeclarationError: there is no such engine, it is not installed, or it has no sandbox.
    """
    if template.endswith(_HANDLEBARS):
        what = f"template '{template}' is Handlebars, for which there is no engine"
        raise DeclarationError(where, what, "write it in Mustache (.mustache) or Jinja2 (.j2)")
    kind = kind_of(template)
    if sandbox and kind.unsafe:
        what = f"template '{template}' cannot be rendered in the sandbox: {kind.unsafe}"
        raise DeclarationError(where, what, "write it in Jinja2 (.j2) or Mustache (.mustache)")
    if kind.extra and not _is_installed(kind.package):
        hint = f"pip install 'codegen-tasks[{kind.extra}]'"
        raise DeclarationError(where, f"template '{template}' needs {kind.label}", hint)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def checked_options(given: Any) -> dict[str, dict[str, Any]]:
    """Return the options of engines other than Jinja2, by engine.

    Raises:
        DeclarationError: an unknown engine or option, or an unusable value.
    """
    where = "Codegen engines"
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DeclarationError("Codegen", f"engines must be a dict, not {given!r}")
    if JINJA2.name in given:
        raise DeclarationError(where, "Jinja2's options have a place of their own", "environment=")
    refuse_unknown(where, map(str, given), [name for name in KINDS if name != "jinja2"], "engine")
    found: dict[str, dict[str, Any]] = {}
    for name, options in given.items():
        own = f"{where} {name}"
        if not isinstance(options, Mapping):
            raise DeclarationError(own, f"options must be a dict, not {options!r}")
        known = KINDS[name].options
        refuse_unknown(own, map(str, options), known, "option")
        for key, value in options.items():
            fits, noun = known[key]
            if not fits(value):
                raise DeclarationError(own, f"{key} must be {noun}, not {value!r}")
        found[name] = dict(options)
    return found


def refuse_foreign(kind: Kind, name: str, path: str) -> None:
    """Refuse that an engine loads a template whose suffix says that it is another's.

    Raises:
        StepError: it is.
    """
    owner = owner_of(name)
    if owner is not None and owner is not kind:
        what = f"is a {owner.label} template, which a {kind.label} template cannot load"
        raise StepError(path, what, f"rename it, or write it in {kind.label}")
