"""`python -m codegen_tasks COMMAND ...`: every command, in projects that did not opt in too."""

from __future__ import annotations

import sys

#: The commands a project opts in to, and where they are.
COMMANDS = {
    "cache": "codegen_tasks.commands.cache:Cache",
    "diff": "codegen_tasks.commands.diff:Diff",
    "help": "codegen_tasks.commands.help:Help",
    "lint": "codegen_tasks.commands.lint:Lint",
    "manifest": "codegen_tasks.commands.manifest:Manifest",
    "new": "codegen_tasks.commands.new:New",
    "prune": "codegen_tasks.commands.prune:Prune",
    "report": "codegen_tasks.commands.report:Report",
    "tabcompletion": "codegen_tasks.commands.completion:TabCompletion",
    "watch": "codegen_tasks.commands.watch:Watch",
    "where": "codegen_tasks.commands.where:Where",
}


def main() -> int:
    """Run doit with all our commands; return its exit code."""
    from doit.doit_cmd import DoitMain

    doit = DoitMain(extra_config={"COMMAND": COMMANDS})
    doit.BIN_NAME = "python -m codegen_tasks"
    arguments = sys.argv[1:]
    code = doit.run(["help"] if arguments == ["--help"] else arguments)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
