"""Measurements as JSON and CSV: a record for each, with the same columns in both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..record_output import csv_text
from .measurement import Measurement

OUT = "-"
"""In a path's place: the standard output."""


def record(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as columns of plain values, such as a table of pandas has.

    Those of the table and the machine begin with ``table_`` and ``machine_``; several values of
    one column are joined by semicolons.
    """
    found = measurement.as_dict()
    table, machine = found.pop("table"), found.pop("machine")
    names = ("rows", "width", "batch", "kind")
    found |= {f"table_{name}": table and table[name] for name in names}
    found |= {f"machine_{name}": value for name, value in machine.items()}
    return {
        name: "; ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in found.items()
    }


def as_json(measurements: Iterable[Measurement]) -> str:
    """A list of records: `pandas.read_json` makes a table of it."""
    return json.dumps([record(each) for each in measurements], indent=1) + "\n"


def as_csv(measurements: Iterable[Measurement]) -> str:
    """A line of names, then one for each record: `pandas.read_csv` makes a table of it."""
    return csv_text([record(each) for each in measurements])


def write(text: str, path: str | Path) -> None:
    """Write a text to a file, in one go, or to the standard output for ``-``.

    A symbolic link stays, and the file that it leads to is replaced; a pipe or a device is written.
    """
    if str(path) == OUT:
        sys.stdout.write(text)
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
