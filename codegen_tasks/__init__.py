"""codegen-tasks: templates, patterns and compilers as incremental, parallel doit tasks.

Importing this package loads neither Jinja2 nor anything else that is not needed to declare
a build.
"""

from .codegen import Codegen
from .errors import CodegenError, DeclarationError, PatternError, StepError, known_or_nearest
from .toolchains import Toolchain

__version__ = "0.1.0"

__all__ = [
    "Codegen",
    "CodegenError",
    "DeclarationError",
    "PatternError",
    "StepError",
    "Toolchain",
    "known_or_nearest",
]
