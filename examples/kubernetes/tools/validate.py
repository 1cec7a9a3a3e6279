"""Hold manifests against a schema of their kind: validate.py SCHEMA FOLDER MANIFEST...

A fault is told as compilers do, `file:line: error: what`, so that doit tells which template line
and which keys made that place. Each manifest that is right leaves an empty file in FOLDER.
"""

import json
import sys
from pathlib import Path

import jsonschema
import yaml


def faults(schema, text):
    """Yield line and message of what is wrong in a text of one or more documents."""
    loader = yaml.SafeLoader(text)
    while loader.check_node():
        node = loader.get_node()
        manifest = loader.construct_document(node)
        kind = manifest.get("kind")
        if kind not in schema["$defs"]:
            yield node.start_mark.line + 1, f"a {kind} is none of what we render"
            continue
        validator = jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{kind}"})
        for error in validator.iter_errors(manifest):
            yield line_of(node, error.absolute_path), f"{kind}: {error.message}"


def line_of(node, path):
    """Return the line of what a path of keys and places leads to."""
    for key in path:
        if isinstance(node, yaml.MappingNode):
            node = next(value for name, value in node.value if name.value == key)
        else:
            node = node.value[key]
    return node.start_mark.line + 1


def main(schema, folder, *names):
    """Return 1 if any of the named manifests is wrong."""
    schema = json.loads(Path(schema).read_text(encoding="utf-8"))
    failed = False
    for name in names:
        found = list(faults(schema, Path(name).read_text(encoding="utf-8")))
        for line, what in found:
            print(f"{name}:{line}: error: {what}")
        if not found:
            Path(folder, Path(name).stem + ".valid").touch()
        failed = failed or bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
