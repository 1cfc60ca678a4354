"""The entry point: runs a command, and ends the process with its exit code."""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from unfused_ray import __version__, extras, storage
from unfused_ray.cli import COMMANDS, columns, wants_help
from unfused_ray.cli.streams import outlived
from unfused_ray.machine import memory

logger = logging.getLogger(__name__)


def main(command: str = "") -> NoReturn:
    """Run the command that the command line names, or this one with all of its arguments.

    The process ends with the command's exit code: 0 if it succeeded, 1 if a training failed, 2 for an error of the
    user, which is shown as one message without a traceback, 143 for a training that a signal stopped, and 130 for
    another command that Ctrl-C ended. Failures of printing do not change the exit code.
    """
    atexit.register(gc.freeze)  # at its end the interpreter would search all imports for garbage, for three seconds
    with outlived():
        sys.exit(_start(command, sys.argv[1:]))


def _start(command: str, arguments: Sequence[str]) -> int:
    if not command:
        if not arguments or arguments[0] in ("-h", "--help"):
            sys.stdout.write(_overview())
            return 0
        if arguments[0] == "--version":
            sys.stdout.write(f"unfused-ray {__version__}\n")
            return 0
        command, *arguments = arguments
    if command not in COMMANDS:
        close = get_close_matches(command, COMMANDS)
        meant = f"did you mean {', '.join(close)}? Or " if close else ""
        return _fail(f"{command} is no command: {meant}start with one of {', '.join(COMMANDS)}")
    try:
        extras.require("train", "tyro", f"the command {command}")
    except extras.MissingExtraError as error:
        return _fail(str(error))
    run: Callable[[Sequence[str]], int] = import_module(f"unfused_ray.cli.{command}").run
    return run(arguments) if wants_help(arguments) else _run(run, arguments)


def _run(run: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    from unfused_ray import logs  # here, as is lease, because the core has neither rich nor psutil
    from unfused_ray.lease import InUseError

    memory.keep_freed()
    try:
        logs.configure()
        _refuse_repeated(arguments)
        return run(arguments)
    except (ValueError, OSError, InUseError, extras.MissingExtraError) as error:
        logger.debug("%s", error, exc_info=True)
        return _fail(storage.masked(str(error)))
    except KeyboardInterrupt as error:
        logger.warning(str(error) or "interrupted: the same command resumes the job")
        return 128 + signal.SIGINT


def _refuse_repeated(arguments: Sequence[str]) -> None:
    """Refuse an option given twice, or with its opposite: the parser would silently use the last one.

    Raises:
        ValueError: an option is repeated or contradicted; names it.
    """
    given = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    if repeated := [option for option, times in Counter(given).items() if times > 1]:
        raise ValueError(f"{repeated[0]} is given more than once, and only the last would be used: give it once")
    for option in given:
        *groups, name = option.removeprefix("--").split(".")
        if (opposite := "--" + ".".join([*groups, f"no-{name}"])) in given:
            raise ValueError(f"{option} and {opposite} contradict each other: give one of them")


def _overview() -> str:
    return "\n".join(["usage: unfused-ray COMMAND …  (COMMAND --help says more)", "", *columns(COMMANDS), ""])


def _fail(message: str) -> int:
    try:
        from rich.text import Text

        from unfused_ray.progress import plain_console
    except ModuleNotFoundError:  # only the core is installed
        sys.stderr.write(f"error: {message}\n")
        return 2
    plain_console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)
    return 2
