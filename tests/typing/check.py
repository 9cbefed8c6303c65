"""Run mypy --strict and pyright on right.py, wrong.py and the code of documents.

``python tests/typing/check.py`` prints what is not as it should be; the exit status is then 1.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

DOCUMENTS = ("README.md", "docs/types.md", "docs/own_rule.md")
"""Whose blocks of Python with types are checked."""

Found = dict[tuple[str, int], set[str]]
"""Kinds of errors, by file and line."""


def by_mypy(files: list[Path]) -> Found:
    """The errors of ``mypy --strict``, without this project's settings."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--output=json",
               "--follow-imports=silent", "--show-error-codes"]  # fmt: skip
    run = subprocess.run(
        [*command, *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ | {"MYPYPATH": str(ROOT)},
    )
    if run.returncode not in (0, 1):
        sys.exit(run.stdout + run.stderr)
    found: Found = {}
    for each in map(json.loads, run.stdout.splitlines()):
        if each["severity"] == "error":
            place = str(Path(each["file"]).resolve()), each["line"]
            found.setdefault(place, set()).add(each["code"])
    return found


def by_pyright(files: list[Path]) -> Found:
    """The errors of pyright, in its standard mode."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--level", "error",
               "--pythonpath", sys.executable]  # fmt: skip
    run = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, cwd=ROOT)
    if run.returncode not in (0, 1):
        sys.exit(run.stdout + run.stderr)
    result = json.loads(run.stdout)
    if result["summary"]["filesAnalyzed"] != len(files):
        sys.exit(f"pyright looked at {result['summary']['filesAnalyzed']} of {len(files)} files")
    found: Found = {}
    for each in result["generalDiagnostics"]:
        place = str(Path(each["file"]).resolve()), each["range"]["start"]["line"] + 1
        found.setdefault(place, set()).add(each.get("rule", each["message"]))
    return found


def marked(file: Path) -> list[Found]:
    """The errors that a file says it has: of mypy, of pyright."""
    both: list[Found] = [{}, {}]
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.search(r"# wrong: ([\w -]+), (\w+)", line)
        for found, kind in zip(both, mark.groups() if mark else (), strict=False):
            found[str(file.resolve()), number] = {*kind.split()}
    return both


def blocks(folder: Path) -> list[Path]:
    """Write the documents' blocks with a rule to files, as a reader would."""
    files = []
    for page in DOCUMENTS:
        text = (ROOT / page).read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
            if re.search(r": (Number|ga\.typing|list)", block):
                file = folder / f"{Path(page).stem}_{number}.py"
                file.write_text(block, encoding="utf-8")
                files.append(file)
    return files


def main() -> int:
    """Compare what is found with what is marked; return the exit status."""
    wrong = HERE / "wrong.py"
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        documents = blocks(Path(folder))
        files = [HERE / "right.py", wrong, HERE / "check.py", *documents]
        for name, run, expected in zip(
            ("mypy", "pyright"), (by_mypy, by_pyright), marked(wrong), strict=True
        ):
            found = run(files)
            for place in sorted(found.keys() | expected.keys()):
                if found.get(place) != expected.get(place):
                    status = 1
                    said = ", ".join(sorted(found.get(place, {"nothing"})))
                    wanted = ", ".join(sorted(expected.get(place, {"nothing"})))
                    print(f"{place[0]}:{place[1]}: {name} finds {said}, expected {wanted}")
            print(f"{name}: {len(expected)} wrong lines, {len(files) - 1} files without an error")
        ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet"]
        status |= subprocess.run(ruff, cwd=folder).returncode
        if len(documents) < 2:
            sys.exit("too few documents have a rule with types")
    return status


if __name__ == "__main__":
    sys.exit(main())
