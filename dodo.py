"""Light patterns for LED strips: node graphs in TOML become classes in TypeScript.

`doit` renders templates/patterns/*.toml into generated/*.ts and compiles them to JavaScript.
Below the declaration is what the templates call: a few filters, and `in_order`, which turns the
nodes of a pattern into a checked graph whose every node comes after those it reads.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from codegen_tasks import Codegen, PatternError, known_or_nearest

Table = Mapping[str, Any]


def checked(data: Table) -> Table:
    """Demand text where the templates write text; add nothing to what they see.

    Raises:
        PatternError: names the pattern and the key.
    """
    for key in ("title", "description"):
        if not isinstance(data.get(key, ""), str):
            raise PatternError(data["pattern"]["path"], f"{key} must be a string")
    return {}


codegen = Codegen(
    templates="templates",
    output="generated",
    environment={"trim_blocks": True, "lstrip_blocks": True},
)
codegen.rule(
    "pattern",
    template="pattern.ts.j2",
    patterns="templates/patterns/*.toml",
    target="{stem}.ts",
    context=checked,
    compile="deno",
)
codegen.rule(
    "index",
    template="index.ts.j2",
    patterns="templates/patterns/*.toml",
    target="index.ts",
    compile="deno",
)
codegen.rule("runtime", template="runtime.ts.j2", target="runtime.ts", compile="deno")
codegen.rule("preview", template="preview.html.j2", target="preview.html")

DOIT_CONFIG = codegen.doit_config


# --- filters ----------------------------------------------------------------------------------


@codegen.filter
def pascal_case(text: str) -> str:
    """Return SoftBloom for soft-bloom, soft_bloom or soft bloom."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", text))


@codegen.filter
def camel_case(text: str) -> str:
    """Return softBloom for soft-bloom, soft_bloom or soft bloom."""
    name = pascal_case(text)
    return name[:1].lower() + name[1:]


@codegen.filter
def class_name(pattern: Table) -> str:
    """Return SoftBloomPattern for soft-bloom.toml; the suffix keeps clear of names like `Map`."""
    name = pascal_case(pattern["stem"]) + "Pattern"
    if not name.isidentifier():
        what = f"{pattern['stem']!r} makes no class name"
        raise PatternError(pattern["path"], what, hint="begin the file's name with a letter")
    return name


@codegen.filter
def literal(value: object) -> str:
    """Write a string, number, boolean or list as TypeScript does."""
    return json.dumps(value, ensure_ascii=False)


@codegen.filter
def doc(text: str) -> str:
    """Make a TSDoc comment, in lines of at most 96 columns."""
    lines = textwrap.wrap(text.replace("*/", "*\\/"), 90)
    if len(lines) == 1:
        return f"/** {lines[0]} */"
    return "\n".join(["/**", *(f" * {line}" for line in lines), " */"])


# --- what the templates see of a graph --------------------------------------------------------


class Port(NamedTuple):
    """What a node's method takes: an input, the frame or the strip."""

    name: str
    type: str
    value: str  # the expression handed in


class Parameter(NamedTuple):
    """A setting of a node, a public field of the pattern's class."""

    summary: str
    range: str  # with the unit, "0 to 1 per frame"; or empty
    field: str
    type: str
    value: str
    told: Table  # what a page needs that offers to set it


class State(NamedTuple):
    """What a node keeps from frame to frame, a private field."""

    field: str
    type: str


class Node(NamedTuple):
    """A node whose parameters are resolved and whose inputs are connected."""

    id: str
    kind: str
    summary: str
    ports: list[Port]
    parameters: list[Parameter]
    states: list[State]
    members: dict[str, str]  # name of a parameter or state -> the expression for it
    output: str  # its type, or void
    variable: str  # holds the output in `render`; empty if no node reads it
    buffer: str  # the private field that the output lives in, or empty
    per_led: int  # values in that buffer
    types: list[str]  # of the runtime
    helpers: list[str]  # of the runtime


@codegen.function
def in_order(pattern: Table, nodes: Sequence[Table], catalogue: Table) -> list[Node]:
    """Check the nodes of a pattern and put each after those it reads; otherwise in file order.

    Args:
        pattern: its `path` begins every message.
        nodes: `id` and `kind`, `inputs` (port -> id of the node it reads), `params`.
        catalogue: `types` and `kinds`, as templates/nodes.toml describes them.

    Raises:
        PatternError: names the pattern and the node, and the nearest name if one is unknown.
    """
    path, kinds = pattern["path"], catalogue["kinds"]
    check_nodes(path, nodes, kinds)
    check_strip(path, nodes, kinds)
    by_id = {node["id"]: node for node in nodes}
    for node in nodes:
        check_inputs(at(path, node["id"]), node, by_id, kinds)
        check_params(at(path, node["id"]), node, kinds)
    return [resolve(by_id[name], by_id, catalogue) for name in ordered_ids(path, nodes)]


def ordered_ids(path: str, nodes: Sequence[Table]) -> list[str]:
    """Sort the ids topologically; of the nodes that are ready, the first in the file is next."""
    waiting = {node["id"]: sources(node) for node in nodes}
    done: list[str] = []
    while waiting:
        ready = [name for name, reads in waiting.items() if not reads & waiting.keys()]
        if not ready:
            cycle = find_cycle(waiting)
            raise PatternError(
                at(path, cycle[0]),
                f"is in a cycle, {' -> '.join([*cycle, cycle[0]])}",
                hint="no node can read what comes of its own output",
            )
        done.append(ready[0])
        del waiting[ready[0]]
    return done


def find_cycle(waiting: Mapping[str, set[str]]) -> list[str]:
    """Return a cycle, in the direction of flow; every node here waits for another one."""
    trail: list[str] = []
    name = next(iter(waiting))
    while name not in trail:
        trail.append(name)
        name = min(waiting[name] & waiting.keys())
    cycle = trail[trail.index(name) :][::-1]
    first = cycle.index(next(name for name in waiting if name in cycle))
    return cycle[first:] + cycle[:first]


def sources(node: Table) -> set[str]:
    """Return the ids of the nodes it reads."""
    return set(node.get("inputs", {}).values())


# --- from a checked node to TypeScript --------------------------------------------------------


def resolve(node: Table, by_id: Mapping[str, Table], catalogue: Table) -> Node:
    """Return the node as templates see it."""
    kind = catalogue["kinds"][node["kind"]]
    specs, given = kind.get("params", {}), node.get("params", {})
    parameters = {
        name: parameter(field(node, name), spec, given.get(name, spec["default"]))
        for name, spec in specs.items()
    }
    states = {
        name: State("#" + field(node, name), type_) for name, type_ in kind.get("state", {}).items()
    }
    members: dict[str, Parameter | State] = {**parameters, **states}
    ports = ports_of(node, kind, by_id, catalogue["kinds"])
    output = pascal_case(kind.get("output", ""))
    per_led = catalogue["types"].get(kind.get("output"), {}).get("per_led", 0)
    colored = any(spec["type"] in ("color", "colors") for spec in specs.values())
    is_read = any(node["id"] in sources(other) for other in by_id.values())
    return Node(
        id=node["id"],
        kind=node["kind"],
        summary=kind["summary"],
        ports=ports,
        parameters=list(parameters.values()),
        states=list(states.values()),
        members={name: f"this.{it.field}" for name, it in members.items()},
        output=output or "void",
        variable=field(node, output) if is_read else "",
        buffer="#" + field(node, output) if per_led else "",
        per_led=per_led,
        types=[port.type for port in ports]
        + kind.get("types", [])
        + [output] * bool(output)
        + ["Color"] * colored,
        helpers=kind.get("helpers", []) + ["rgb"] * colored,
    )


def ports_of(node: Table, kind: Table, by_id: Mapping[str, Table], kinds: Table) -> list[Port]:
    """Return what the node's method takes, and what `render` hands to it."""
    ports = []
    for name, type_ in kind.get("inputs", {}).items():
        source = by_id[node["inputs"][name]]
        ports.append(Port(name, pascal_case(type_), field(source, kinds[source["kind"]]["output"])))
    if kind.get("reads_frame"):
        ports.append(Port("frame", "Frame", "frame"))
    if "output" not in kind:
        ports.append(Port("leds", "Leds", "leds"))
    return ports


def field(node: Table, name: str) -> str:
    """Name something of a node, as in glowDecay: two words, so never a reserved one."""
    return camel_case(f"{node['id']}_{name}")


def parameter(name: str, spec: Table, value: Any) -> Parameter:
    """Return the parameter, its value written in TypeScript."""
    match spec["type"]:
        case "color":
            type_, text = "Color", color(value)
        case "colors":
            stops = "".join(f"  {color(item)},\n" for item in value)
            type_, text = "readonly Color[]", f"[\n{stops}]"
        case "choice":
            type_, text = " | ".join(map(literal, spec["choices"])), literal(value)
        case "boolean":
            type_, text = "boolean", literal(value)
        case _:
            type_, text = "number", f"{value}"
    told = {key: spec[key] for key in ("min", "max", "unit", "choices") if key in spec}
    told = {"field": name, "summary": spec["summary"], "type": spec["type"], **told}
    return Parameter(spec["summary"], range_of(spec), name, type_, text, told)


def color(text: str) -> str:
    """Return rgb(0xff4f8b) for #ff4f8b."""
    return f"rgb(0x{text[1:].lower()})"


def range_of(spec: Table) -> str:
    """Return a range like 0 to 1 per frame, or nothing for a parameter without one."""
    if "min" not in spec:
        return ""
    return f"{spec['min']:g} to {spec['max']:g} {spec.get('unit', spec['type'])}"


# --- checks: the first fault found, by pattern and node ---------------------------------------


def at(path: str, node_id: str) -> str:
    """Say where a fault is."""
    return f"{path}: node '{node_id}'"


def check_nodes(path: str, nodes: Sequence[Table], kinds: Table) -> None:
    """Demand of each node an id of its own, a kind that exists and no meaningless key."""
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise PatternError(path, "nodes are not a list of tables", hint="begin each with [[nodes]]")
    seen: set[str] = set()
    for number, node in enumerate(nodes, start=1):
        name, kind = node.get("id", ""), node.get("kind", "")
        if not re.fullmatch("[a-z][a-z0-9]*", str(name)):
            what = f"id {name!r} is not one lower-case word" if name else "has no id"
            raise PatternError(f"{path}: node {number}", what)
        if name in seen:
            raise PatternError(at(path, name), "has the id of another node")
        if str(kind) not in kinds:
            what = f"unknown kind '{kind}'" if kind else "has no kind"
            raise PatternError(at(path, name), what, hint=known_or_nearest(str(kind), kinds))
        check_keys(at(path, name), node)
        seen.add(name)


def check_keys(where: str, node: Table) -> None:
    """Demand of a node no key but the known four, two of which are tables."""
    known = ["id", "kind", "inputs", "params"]
    for key in node:
        if key not in known:
            raise PatternError(where, f"unknown key '{key}'", hint=known_or_nearest(key, known))
    for key in ("inputs", "params"):
        if not isinstance(node.get(key, {}), dict):
            raise PatternError(where, f"{key} is not a table", hint=f"write {key}.<name> = ...")


def check_strip(path: str, nodes: Sequence[Table], kinds: Table) -> None:
    """Demand exactly one node that writes to the strip."""
    writers = [node["id"] for node in nodes if "output" not in kinds[node["kind"]]]
    if not writers:
        raise PatternError(path, "no node writes to the strip", hint="add one of kind 'output'")
    if len(writers) > 1:
        what = f"writes to the strip, as node '{writers[0]}' does already"
        raise PatternError(at(path, writers[1]), what, hint="merge them with 'add' or 'mix'")


def check_inputs(where: str, node: Table, by_id: Mapping[str, Table], kinds: Table) -> None:
    """Demand that each port of the kind, and no other, reads a node of the port's type."""
    ports, given = kinds[node["kind"]].get("inputs", {}), node.get("inputs", {})
    gives = {name: kinds[other["kind"]].get("output", "nothing") for name, other in by_id.items()}
    for port, source in given.items():
        if port not in ports:
            what = f"kind '{node['kind']}' has no input '{port}'"
            raise PatternError(where, what, hint=known_or_nearest(port, ports) if ports else "")
        if str(source) not in by_id:
            what = f"input '{port}' reads an unknown node '{source}'"
            raise PatternError(where, what, hint=known_or_nearest(str(source), by_id))
        if gives[source] != ports[port]:
            what = f"input '{port}' takes {ports[port]}, but node '{source}' gives {gives[source]}"
            fitting = [name for name, kind in kinds.items() if kind.get("output") == ports[port]]
            hint = f"{ports[port]} is what these kinds give: {', '.join(fitting)}"
            raise PatternError(where, what, hint=hint)
    for port, type_ in ports.items():
        if port not in given:
            fitting = [name for name in by_id if gives[name] == type_ and name != node["id"]]
            hint = f'add inputs.{port} = "{next(iter(fitting), "<id of a node>")}"'
            raise PatternError(where, f"input '{port}' is not connected", hint=hint)


def check_params(where: str, node: Table, kinds: Table) -> None:
    """Demand that each parameter is one of the kind, has its type and lies in its range."""
    specs = kinds[node["kind"]].get("params", {})
    for name, value in node.get("params", {}).items():
        if name not in specs:
            what = f"kind '{node['kind']}' has no parameter '{name}'"
            raise PatternError(where, what, hint=known_or_nearest(name, specs) if specs else "")
        spec = specs[name]
        if not has_type(spec["type"], value):
            what = f"parameter '{name}' is {literal(value)}, not {PARAMETER_TYPES[spec['type']]}"
            raise PatternError(where, what)
        if value not in spec.get("choices", [value]):
            what = f"parameter '{name}' cannot be '{value}'"
            raise PatternError(where, what, hint=known_or_nearest(value, spec["choices"]))
        size = len(value) if isinstance(value, list) else value
        if "min" in spec and not spec["min"] <= size <= spec["max"]:
            what = f"parameter '{name}' is {size}, outside {range_of(spec)}"
            raise PatternError(where, what)


PARAMETER_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "choice": "a string",
    "color": 'a color like "#ff8000"',
    "colors": 'a list of colors like "#ff8000"',
}


def has_type(type_: str, value: object) -> bool:
    """Tell whether a parameter of this type can have the value; true and false are no numbers."""
    match type_, value:
        case "boolean", bool():
            return True
        case _, bool():
            return False
        case ("number", int() | float()) | ("integer", int()) | ("choice", str()):
            return True
        case "color", str():
            return re.fullmatch("#[0-9a-fA-F]{6}", value) is not None
        case "colors", list():
            return all(has_type("color", item) for item in value)
    return False
