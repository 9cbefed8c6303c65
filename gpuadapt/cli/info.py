"""`gpuadapt info`."""

from __future__ import annotations

import argparse

HELP = "show versions, backends, devices, threads and the cache of this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command: none."""


def run(given: argparse.Namespace) -> int:
    """Show versions, backends, devices, threads and the folder of compiled kernels."""
    from ..machine import describe_machine

    for key, value in describe_machine().items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{key.replace('_', ' '):<16} {shown}")
    return 0
