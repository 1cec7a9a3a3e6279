"""The site: what Sphinx makes of these pages, and of those at the root of the repository.

    sphinx-build -W -n -b html docs docs/_build

Every page is plain Markdown that a code host shows as it is.  So navigation is kept here, not in
the pages, and a page that lies at the root takes the place of the stub that links to it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx

project = "codegen-tasks"
author = "the authors of codegen-tasks"
project_copyright = author
html_title = project
root_doc = "index"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4  # those of code hosts, so that one link is right in both
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False

navigation = {
    "Begin": ["overview", "Tutorial: ten minutes <tutorial>"],
    "How to": [
        "Add a toolchain <how-to/toolchain>",
        "Use it in CI <how-to/ci>",
        "Share caches <how-to/share-caches>",
        "Share outputs in a team <how-to/remote-cache>",
        "Build on Dask <how-to/build-on-dask>",
        "Render untrusted templates <how-to/untrusted-templates>",
        "Migrate from a script <how-to/from-a-script>",
        "Migrate from Make <how-to/from-make>",
        "Migrate from a one-shot generator <how-to/from-one-shot-generators>",
    ],
    "Examples": ["examples/registers", "examples/openapi", "examples/kubernetes"],
    "Reference": ["reference", "glossary"],
    "Explanation": [
        "What is stale <staleness>",
        "Where the time goes <speed>",
        "What holds <promises>",
        "benchmarks",
        "measuring",
    ],
    "Project": ["changelog", "contributing", "security"],
}
#: Pages from elsewhere in the repository, and the stubs that give them a place and a title.
_FROM_ELSEWHERE = {
    "README.md": "overview",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "benchmarks/README.md": "measuring",
    "examples/kubernetes/README.md": "examples/kubernetes",
    "examples/openapi/README.md": "examples/openapi",
    "examples/registers/README.md": "examples/registers",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")


def _navigation(app: Sphinx) -> str:
    """Return the trees of pages, for the end of the index."""
    trees = (
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])
        for caption, pages in app.config.navigation.items()
    )
    return "\n\n".join(["", *trees, ""])


def _relinked(text: str, path: str, docname: str, root: Path) -> str:
    """Return the page at a path of the repository with links that are right at its place here."""

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1]))
        if not (root / target).exists():
            return found[0]  # for Sphinx to complain about
        folder = posixpath.dirname(f"docs/{docname}")
        if target in _FROM_ELSEWHERE:
            target = f"docs/{_FROM_ELSEWHERE[target]}.md"
        elif target.endswith(".md") and not target.startswith("docs/"):
            return f"path:{posixpath.relpath(target, folder)}"  # a page that is only a file here
        return posixpath.relpath(target, folder) + (found[2] or "")

    return _LINK.sub(link, text)


def _without_title(text: str) -> str:
    return text.partition("\n")[2]


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    root = Path(app.srcdir).parent
    path = f"docs/{docname}.md"
    for elsewhere, page in _FROM_ELSEWHERE.items():
        if page == docname:
            path, title = elsewhere, source[0].partition("\n")[0]
            source[0] = title + "\n" + _without_title((root / path).read_text(encoding="utf-8"))
            app.env.note_dependency(root / path)
    source[0] = _relinked(source[0], path, docname, root)
    if docname == root_doc:
        source[0] += _navigation(app)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is above; called by Sphinx."""
    app.add_config_value("navigation", {}, "env")  # another one makes every page anew
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
