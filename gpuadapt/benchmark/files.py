"""Measurements as JSON and CSV: a record for each, with the same columns in both."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    records = [record(each) for each in measurements]
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def write(text: str, path: str | Path) -> None:
    """Write a text to a file, in one go, or to the standard output for ``-``."""
    if str(path) == OUT:
        sys.stdout.write(text)
        return
    path = Path(path)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
