"""The `consistent4d` command: everything besides `ns-train`, `ns-viewer`, `ns-render` and `ns-eval`."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from consistent4d_ns import __version__
from consistent4d_ns.cli.endings import one_line_endings
from consistent4d_ns.errors import DEBUG, InputError, did_you_mean, hide_nerfstudio_warnings

DESCRIPTION = """Everything besides `ns-train`, `ns-viewer`, `ns-render` and `ns-eval`.

For a command's options, use `consistent4d COMMAND --help`; for the version, `consistent4d --version`. To see where an
error comes from, use `consistent4d --debug COMMAND`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script.

    Args:
        arguments: Command-line arguments without the program's name; default: those of the process.

    Raises:
        SystemExit: the exit code, unless it is 0.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--debug"]:
        os.environ[DEBUG] = "1"  # Processes that the command starts see it, too.
        del arguments[0]
    # On a shared machine, threads that spin while waiting for each other make every step many times slower. This must
    # be set before torch starts its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Otherwise the garbage collection of all imported modules takes two seconds at exit.
    atexit.register(gc.freeze)
    hide_nerfstudio_warnings()
    with one_line_endings():
        if arguments == ["--version"]:
            print(f"consistent4d_ns {__version__}")
            return
        check_folder()
        from consistent4d_ns.cli.commands import COMMANDS, app  # here, so that Ctrl-C during imports is one line too
        from consistent4d_ns.cli.help_rules import RULES, folded
        from consistent4d_ns.docstrings import is_help

        check_command(arguments, COMMANDS)
        with folded() if is_help(arguments) else nullcontext():
            app.cli(prog="consistent4d", description=DESCRIPTION, args=arguments, registry=RULES)


def check_command(arguments: Sequence[str], commands: Mapping[str, Any], program: str = "consistent4d") -> None:
    """Check that the first argument is a command, unless it is an option; and so on in commands that have their own.

    Args:
        arguments: What follows the program's name.
        commands: By name; those that have commands of their own are a tyro `SubcommandApp`.
        program: What precedes the first argument.

    Raises:
        InputError: it is not; the message names the commands that are spelt nearly so.
    """
    if not arguments or arguments[0].startswith("-"):
        return
    name = arguments[0]
    if name in commands:
        own = getattr(commands[name], "_subcommands", {})
        return check_command(arguments[1:], own, f"{program} {name}") if own else None
    remedy = did_you_mean(name, commands) or f"`{program} --help` lists the commands."
    raise InputError(f"{name} is not a command of {program}: {remedy}")


def check_folder() -> None:
    """Check that the folder in which the command runs is still there: PyTorch would end the process without it.

    Raises:
        InputError: it is not.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the current folder does not exist any more: change to another one (cd).") from error


if __name__ == "__main__":
    main()
