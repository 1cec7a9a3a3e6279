"""Kubernetes manifests of services in environments, from YAML; each is validated as it changes."""

import hashlib
import json
import sys

from codegen_tasks import Codegen, Toolchain

ENVIRONMENTS = ("dev", "staging", "prod")

codegen = Codegen(environment={"trim_blocks": True, "lstrip_blocks": True})

# No compiler, but works like one: it leaves an empty file for each manifest that is right.
validator = Toolchain(
    "validator",
    [sys.executable, "tools/validate.py", "schemas/manifest.schema.json", "{folder}", "{sources}"],
    suffix=".valid",
    version=[sys.executable, "--version"],
    batch=True,
)

# A file for each overlay of each service, such as generated/prod/shop/cart.yaml.
codegen.rule(
    "service",
    template="service.yaml.j2",
    patterns="services/**/*.yaml",
    each="overlays",
    target="{environment}/{folder}/{stem}.yaml",
    schema="schemas/service.schema.json",
    compile=validator,
)
# For each environment, one that names them all: `kubectl apply -k generated/prod`.
for environment in ENVIRONMENTS:
    codegen.rule(
        f"kustomization-{environment}",
        template="kustomization.yaml.j2",
        patterns="services/**/*.yaml",
        target=f"{environment}/kustomization.yaml",
        context={"environment": environment},
        compile=validator,
    )


@codegen.filter
def quoted(text):
    """Return a text as YAML takes it for nothing but a text."""
    return json.dumps(text, ensure_ascii=False)


@codegen.filter
def checksum(text):
    """Return a digest that changes with the text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


DOIT_CONFIG = codegen.doit_config
