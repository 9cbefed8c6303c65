"""The command line: `gpuadapt COMMAND`, or `python -m gpuadapt COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .. import __version__
from ..errors import Error
from ..suggest import asked, near
from . import benchmark, compare, info, source

COMMANDS = {"benchmark": benchmark, "compare": compare, "source": source, "info": info}
"""Each command's module. It has `HELP` (one line), `add_arguments(parser)` and `run(given)`, which
returns the exit status. A module imports what takes time, or is an extra, in `run`."""

INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit statuses: 128 and the number of the signal, as a shell has them."""


class _Parser(argparse.ArgumentParser):
    """A parser whose messages are one line, and which suggests the option that was meant."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # That of a command too: otherwise the options that are suggested were the program's.
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for name in unknown if name.startswith("-")]
            name = (options or unknown)[0].partition("=")[0]
            if not options:
                self.error(f"unexpected argument {name!r}")
            known = [*self._option_string_actions]
            begun = [option for option in known if option.startswith(name)]
            instead = begun[0] if len(begun) == 1 else near(name, known)
            self.error(f"{asked(instead)}there is no option {name}")
        return given, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words behind the program's name; by default those that it was started with.

    Returns
    -------
    int
        The exit status: 0; 2 for an error; 130 if the user has interrupted it, 141 if the reader
        of its output has gone.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]
    name = " ".join(["gpuadapt", *[word for word in given[:1] if word in COMMANDS]])
    try:
        with _printable():
            status = _run(given)
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (Error, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        try:
            print(end="", flush=True)
        except OSError:  # the output is what has failed
            _drop_output()
        return 2
    return status


def _run(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="gpuadapt",
        description="Work with gpuadapt's optimizers and kernels.",
        epilog="Each command has a --help of its own: gpuadapt COMMAND --help.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"gpuadapt {__version__}", help="show the version"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in COMMANDS.items():
        said = f"{module.HELP[0].upper()}{module.HELP[1:]}."
        command = commands.add_parser(name, help=module.HELP, description=said, allow_abbrev=False)
        module.add_arguments(command)
    try:
        word = next(iter(arguments), "-")
        if not word.startswith("-") and word not in COMMANDS:
            question, known = asked(near(word, COMMANDS)), ", ".join(COMMANDS)
            parser.error(f"{question}there is no command {word!r}; the commands are {known}")
        given = parser.parse_args(arguments)
    except SystemExit as stop:  # help, version or an error has been printed
        return stop.code if isinstance(stop.code, int) else 0
    if given.command is None:
        parser.print_help()
        return 0
    status: int = COMMANDS[given.command].run(given)
    return status


@contextmanager
def _printable() -> Iterator[None]:
    """Let a standard output that lacks a character (µ in ASCII) print its code instead."""
    stream: Any = sys.stdout
    if not hasattr(stream, "reconfigure"):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)


def _drop_output() -> None:
    """Let the interpreter's end not fail by what can no longer be written."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        pass  # there is no such output, or it is not the system's
