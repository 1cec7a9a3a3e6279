"""The example of manifests builds, all of them are valid, and an edit rebuilds what it must."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import Project
from example_project import begun, change, copy_into


@pytest.fixture
def example(empty_project: Project) -> Project:
    """Return a copy of the example, built."""
    copy_into(empty_project, "kubernetes")
    built = empty_project.doit()
    assert (built.code, built.err) == (0, "")
    assert "11 generated, 11 compiled in " in built.out
    return empty_project


def manifests(project: Project, name: str) -> dict[str, Any]:
    """Return what a generated file declares, by kind."""
    documents = yaml.safe_load_all(project.read(f"generated/{name}"))
    return {each["kind"]: each for each in documents}


def test_each_service_is_declared_as_its_overlays_say_and_a_second_run_has_nothing_to_do(
    example: Project,
) -> None:
    dev, prod = (manifests(example, f"{each}/shop/cart.yaml") for each in ("dev", "prod"))
    assert list(prod) == ["ConfigMap", "Deployment", "Service", "Ingress"]
    assert (dev["Deployment"]["spec"]["replicas"], prod["Deployment"]["spec"]["replicas"]) == (1, 6)
    assert dev["ConfigMap"]["data"] == {"CURRENCY": "EUR", "LOG_LEVEL": "debug"}
    assert prod["Ingress"]["spec"]["rules"][0]["host"] == "www.example.com"
    for environment, names in {
        "dev": ["shop/cart.yaml", "shop/catalog.yaml"],
        "prod": ["platform/mailer.yaml", "shop/cart.yaml", "shop/catalog.yaml"],
    }.items():
        kustomization = manifests(example, f"{environment}/kustomization.yaml")["Kustomization"]
        assert kustomization["resources"] == names
        assert all(example.exists(f"generated/{environment}/{name}") for name in names)
    again = example.doit()
    assert (again.code, begun(again.out)) == (0, [])
    assert "22 up to date in " in again.out


def test_a_setting_changes_the_checksum_where_it_is_not_overridden(example: Project) -> None:
    def checksum(environment: str) -> str:
        deployment = manifests(example, f"{environment}/shop/cart.yaml")["Deployment"]
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    before = {each: checksum(each) for each in ("dev", "staging", "prod")}
    change(example, "services/shop/cart.yaml", "LOG_LEVEL: info", "LOG_LEVEL: warning")
    done = example.doit()
    assert done.code == 0
    assert begun(done.out) == [
        "compile:prod/shop/cart.valid",
        "compile:staging/shop/cart.valid",
        "generate:dev/shop/cart.yaml",  # its pattern is validated whole; the bytes stay
        "generate:prod/shop/cart.yaml",
        "generate:staging/shop/cart.yaml",
    ]
    assert "3 generated, 2 compiled, 3 of them unchanged, 17 up to date" in done.out
    after = {each: checksum(each) for each in ("dev", "staging", "prod")}
    assert [each for each in before if before[each] != after[each]] == ["staging", "prod"]


def test_an_environment_rebuilds_its_own_manifests(example: Project) -> None:
    change(example, "environments/dev.toml", "dev.example.com", "dev.example.net")
    assert begun(example.doit("generate").out) == [
        "generate:dev/shop/cart.yaml",
        "generate:dev/shop/catalog.yaml",
    ]


def test_what_yaml_takes_for_something_else_and_what_is_secret_is_refused(
    example: Project,
) -> None:
    change(example, "services/shop/catalog.yaml", '"on"', "on")
    change(example, "services/platform/mailer.yaml", "FROM: no-reply", "MAIL_PASSWORD: no-reply")
    done = example.doit("-c", "generate")
    assert done.code == 1
    assert "shop/catalog.yaml:6: config.CACHE: true is a boolean, not a string\n" in done.out
    forbidden = 'platform/mailer.yaml:4: config: "MAIL_PASSWORD" is what the schema forbids\n'
    assert forbidden in done.out


def test_a_manifest_that_is_not_valid_is_told_by_the_line_of_its_template(
    example: Project,
) -> None:
    change(example, "templates/service.yaml.j2", "containerPort", "containerport")
    done = example.doit("compile:dev/shop/cart.valid")
    assert done.code == 1
    told = "generated/dev/shop/cart.yaml:30: Deployment: 'containerPort' is a required property"
    assert told in done.out
    assert "    by templates/service.yaml.j2:31\n" in done.out
    assert "    with services/shop/cart.yaml:3: port = 8080\n" in done.out
    assert example.exists("generated/dev/shop/cart.yaml")


def test_a_secret_is_no_manifest_of_ours(example: Project) -> None:
    change(example, "templates/service.yaml.j2", "kind: ConfigMap", "kind: Secret")
    done = example.doit("compile:dev/shop/cart.valid")
    assert done.code == 1
    assert "generated/dev/shop/cart.yaml:2: a Secret is none of what we render\n" in done.out
