"""Writes the table of docs/formats.md: which formats the tests have tried together.

python docs/formats.py
"""

from __future__ import annotations

import runpy
from pathlib import Path

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- made by `python docs/formats.py` -->", "<!-- end -->"


def table() -> str:
    """A row for each way to keep a parameter, a column for each way to keep states."""
    tried = runpy.run_path(str(PAGE.parent.parent / "tests" / "formats_table.py"))
    states = tried["STATES"]
    rows = [["parameter", *states], ["---"] * (1 + len(states))]
    for parameter in tried["PARAMETERS"]:
        cells = []
        for state in states:
            always = tried["always"](parameter, state)
            by_rows = always and (parameter, state) in tried["ROWS"]
            cells.append("dense, rows" if by_rows else "dense" if always else "○")
        rows.append([parameter.name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(text: str) -> str:
    """The page with the table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
