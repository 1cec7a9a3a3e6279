"""A TypeScript client of an HTTP API, made from its OpenAPI document."""

import json

from deno import find_deno_bin

from codegen_tasks import Codegen, PatternError, known_or_nearest

codegen = Codegen(environment={"trim_blocks": True, "lstrip_blocks": True})
API = {
    "patterns": "openapi.yaml",
    "compile": "deno",
    "format": ["deno", "fmt", "--ext", "ts", "-"],
}

# In OpenAPI, schemas are a table: a target for each of its entries, `key` and `item`.
codegen.rule(
    "schema",
    template="schema.ts.j2",
    each="components.schemas",
    target="schemas/{key}.ts",
    **API,
)
# Tags are a list: a module for each of its items, with the operations that have the tag.
codegen.rule(
    "tag",
    template="tag.ts.j2",
    each="tags",
    target="{name}.ts",
    **API,
)
# Without a placeholder, one target that sees all patterns.
codegen.rule("errors", template="errors.ts.j2", target="errors.ts", **API)
codegen.rule("index", template="index.ts.j2", target="index.ts", **API)
# Without patterns, a template that is rendered once: here plain TypeScript.
codegen.rule("runtime", template="runtime.ts", target="runtime.ts", compile="deno")


def task_check():
    """Run the compiled client against a server (a task of our own, when any target changed)."""
    return {
        "actions": [[find_deno_bin(), "run", "--allow-net=127.0.0.1", "check/client.js"]],
        "file_dep": ["check/client.js", "check/server.js", ".codegen/manifest.json"],
        "task_dep": ["output"],
    }


SIMPLE = {
    "boolean": "boolean",
    "integer": "number",
    "null": "null",
    "number": "number",
    "string": "string",
}


@codegen.filter
def typescript(schema):
    """Return the TypeScript type of a schema."""
    if "$ref" in schema:
        return name_of(schema["$ref"])
    if "const" in schema or "enum" in schema:
        return " | ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    if "discriminator" in schema:
        field = schema["discriminator"]["propertyName"]
        kinds = schema["discriminator"]["mapping"].items()
        return " | ".join(f"{{ {field}: {json.dumps(k)} }} & {name_of(ref)}" for k, ref in kinds)
    if "oneOf" in schema or "anyOf" in schema:
        return " | ".join(map(typescript, schema.get("oneOf", []) + schema.get("anyOf", [])))
    if "allOf" in schema:
        return " & ".join(
            f"({one})" if "|" in one else one for one in map(typescript, schema["allOf"])
        )
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(typescript({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"Array<{typescript(schema['items'])}>"
    if kind == "object" and "additionalProperties" in schema:
        return f"Record<string, {typescript(schema['additionalProperties'])}>"
    if kind == "object":
        required = schema.get("required", [])
        fields = schema["properties"].items()
        marks = {name: "" if name in required else "?" for name, _ in fields}
        return f"{{ {'; '.join(f'{name}{marks[name]}: {typescript(of)}' for name, of in fields)} }}"
    if kind not in SIMPLE:
        hint = known_or_nearest(str(kind), [*SIMPLE, "array", "object"])
        raise PatternError("openapi.yaml", f"unknown type '{kind}'", hint)
    return SIMPLE[kind]


@codegen.filter
def name_of(reference):
    """Return Parcel for #/components/schemas/Parcel."""
    return reference.rpartition("/")[2]


@codegen.filter
def references(part, kind="schemas"):
    """Return the names of what a part of the document refers to."""
    if not isinstance(part, (dict, list)):
        return []
    found = [name for one in _parts(part) for name in references(one, kind)]
    if isinstance(part, dict) and f"/{kind}/" in part.get("$ref", ""):
        found.append(name_of(part["$ref"]))
    return found


def _parts(part):
    return part.values() if isinstance(part, dict) else part


@codegen.filter
def resolved(parameters, known):
    """Return parameters, those that are references looked up among the known ones."""
    return [known[name_of(one["$ref"])] if "$ref" in one else one for one in parameters]


DOIT_CONFIG = codegen.doit_config
