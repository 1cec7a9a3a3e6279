"""A pytest plugin that runs Jinja2's own tests on our template cache and loader.

Wherever a test makes a `FileSystemBytecodeCache` or a `FileSystemLoader`, it gets ours in their
place; what is left out, and why, is in `NOT_OURS`.  Used by `test_security_cache.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jinja2.bccache
import jinja2.loaders
import pytest

from codegen_tasks import templates
from codegen_tasks.bytecode import TemplateCache
from codegen_tasks.engines.base import Reader, Spec
from codegen_tasks.errors import StepError

#: Tests of what ours does not offer: by name, and why.
NOT_OURS = {
    "test_filesystem_loader_overlapping_names": "ours has one folder, not a search path",
    "test_searchpath_as_list_including_pathlib": "ours has one folder, not a search path",
    "test_uses_specified_encoding": "templates are UTF-8",
    "test_caches_template_based_on_mtime": "an edit within a run counts from the next run on",
    "test_filename_normpath": "file names are project-relative, for messages",
    "test_error_includes_paths": "ours words its own message",
    "TestMemcachedBytecodeCache": "ours is not for memcached",
    "test_package_": "PackageLoader is not replaced",
    "test_pep_451_import_hook": "PackageLoader is not replaced",
}
_asked: set[str] = set()


class Loader(templates._Loader):
    """Ours, made as a `FileSystemLoader` is."""

    def __init__(self, searchpath: Any, *rest: Any, **more: Any):
        root, folder = os.path.split(os.fspath(searchpath))
        super().__init__(Reader(Spec(root, folder, {}, {}, {}, {}, False)))

    def get_source(self, environment: Any, template: str) -> Any:
        _asked.add("get_source")
        try:
            return super().get_source(environment, template)
        except StepError as error:
            raise jinja2.TemplateNotFound(template) from error

    def list_templates(self) -> list[str]:
        return self._reader.template_names()


class Cache(templates._Bytecode):
    """Ours, made as a `FileSystemBytecodeCache` is."""

    def __init__(self, directory: str, *rest: Any):
        folder = os.path.join(directory, "templates")
        super().__init__(TemplateCache(folder, os.path.join(directory, "log"), 5), "shape")

    def get_bucket(self, *given: Any) -> Any:
        _asked.add("get_bucket")
        return super().get_bucket(*given)


def pytest_configure() -> None:
    jinja2.bccache.FileSystemBytecodeCache = Cache  # type: ignore[misc, assignment]
    jinja2.loaders.FileSystemLoader = Loader  # type: ignore[misc, assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        why = next((why for name, why in NOT_OURS.items() if name in item.nodeid), None)
        if why is not None:
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    for name in sorted(_asked):
        terminalreporter.write_line(f"ours: {name}")
    return iter(())
