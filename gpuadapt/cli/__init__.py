"""Compare optimizers on real data, and show what this machine offers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import Error
from . import compare, info

COMMANDS = {"compare": compare, "info": info}
"""Each command's module. It has `HELP` (one line), `add_arguments(parser)` and `run(given)`, which
returns the exit status. A module imports what takes time, or is an extra, in `run`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, or 2 for an error."""
    parser = _Parser(prog="gpuadapt", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=f"{module.HELP}.")
        module.add_arguments(command)
    given = parser.parse_args(arguments)
    try:
        status: int = COMMANDS[given.command].run(given)
    except (Error, OSError) as error:
        print(f"gpuadapt {given.command}: {error}", file=sys.stderr)
        return 2
    return status
