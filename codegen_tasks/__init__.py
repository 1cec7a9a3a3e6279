"""codegen-tasks: templates, patterns and compilers as incremental, parallel doit tasks.

Importing this package loads neither Jinja2 nor anything else that is not needed to declare
a build.
"""

from typing import TYPE_CHECKING, Any

from .codegen import Codegen
from .errors import CodegenError, DeclarationError, PatternError, StepError, known_or_nearest
from .toolchains import Toolchain

if TYPE_CHECKING:
    from .formats import Formatter
    from .toolchains.cfamily import CC, CXX

__version__ = "0.1.0"

__all__ = [
    "CC",
    "CXX",
    "Codegen",
    "CodegenError",
    "DeclarationError",
    "Formatter",
    "PatternError",
    "StepError",
    "Toolchain",
    "known_or_nearest",
]


def __getattr__(name: str) -> Any:
    """Import what few declarations need when one asks for it."""
    if name in ("CC", "CXX"):
        from .toolchains import cfamily

        return getattr(cfamily, name)
    if name != "Formatter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .formats import Formatter

    return Formatter
