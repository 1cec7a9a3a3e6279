"""doit tabcompletion: core's script, in which bash knows the options and both the defaults."""

from __future__ import annotations

from typing import Any

from doit.cmd_completion import TabCompletion as CoreTabCompletion

from .piped import Piped

_OPTIONS = """
            if [[ $cur == -* ]] ; then
                COMPREPLY=( $(compgen -W "{options}" -- $cur) )
                return 0
            fi"""
_WORDS = """
            if [[ ${{cword}} == 2 ]] ; then
                COMPREPLY=( $(compgen {files} -W "{words}" -- $cur) )
                return 0
            fi"""


class TabCompletion(Piped, CoreTabCompletion):
    """Core's `tabcompletion`, with more to complete."""

    name = "tabcompletion"

    @classmethod
    def _bash_cmd_args(cls, cmd: Any) -> str:
        """Return core's case for a command; before what it says, the options and words."""
        given = [option for option in cmd.get_options() if option.long]
        options = [f"--{option.long}" for option in given]
        options += [f"--{option.inverse}" for option in given if option.inverse]
        more = _OPTIONS.format(options=" ".join(options))
        words = getattr(cmd, "words", ())
        if words:
            files = "-f" if "DIR" in cmd.doc_usage else ""
            more += _WORDS.format(files=files, words=" ".join(words))
        core = str(super()._bash_cmd_args(cmd))
        head = f"{cmd.name})"
        return core.replace(head, head + more, 1)

    @staticmethod
    def _zsh_arg_line(opt: Any) -> str:
        """Return core's line, its default told."""
        line = str(CoreTabCompletion._zsh_arg_line(opt))
        return line.replace("%(default)s", str(opt.default))

    @classmethod
    def _zsh_arg_list(cls, cmd: Any) -> list[str]:
        """Return core's arguments, and the words of ours."""
        words = getattr(cmd, "words", ())
        more = [f"'1:what:({' '.join(words)})'"] if words else []
        return [*super()._zsh_arg_list(cmd), *more]
