"""`python -m benchmarks.predict`: how fast kernels should be on GPUs, from their machine code.

Nothing runs on a GPU. Every kernel of `families` is compiled by NVRTC as CuPy compiles it, for
three architectures. Registers and spills are what its assembler says; the rest is counted in the
instructions (see `sass`). The results are predictions. `predictions.md` has the model and names the
compiler; `predictions.json` has all counts.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpuadapt.kernels.cuda import disassembly, nvrtc
from gpuadapt.kernels.cuda.compile import OPTIONS

from . import sass
from .families import Family, families

HERE = Path(__file__).parent
TABLE, PAGE = HERE / "predictions.json", HERE / "predictions.md"
ARCHITECTURES = (80, 90, 100)


class Gpu(NamedTuple):
    """What the model takes of a GPU with the architecture sm_90."""

    name: str
    copy: float
    """Bytes per second that a device-to-device copy moves: 0.9 of the data sheet's bandwidth."""


GPUS = (Gpu("H100", 0.9 * 3.35e12), Gpu("H200", 0.9 * 4.8e12))
SMS, CLOCK = 132, 1.755e9
"""Multiprocessors; cycles per second under load (at most 1.98e9 by the data sheet)."""

LATENCY, L2_LATENCY = 2 * 479, 2 * 261
"""Cycles of a load from memory and from the L2 cache under load: twice those without any load, Luo
et al. 2024, Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, table of latencies."""

LANES = {"issue": 128, "ALU": 64, "FP32": 128, "IMAD": 64, "XU": 16, "FP64": 64}
"""Results per cycle of an SM, sm_90: CUDA C++ Programming Guide, arithmetic instructions."""

XU = ("MUFU", "FCHK", "F2F", "F2I", "I2F", "FRND", "POPC", "FLO", "BREV")
FP32 = ("FADD", "FMUL", "FFMA")
FP64 = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")
ALU = (
    *("IADD", "IADD3", "VIADD", "LOP3", "LOP", "SHF", "SHL", "SHR", "LEA", "PRMT", "SEL", "FSEL"),
    *("ISETP", "FSETP", "FMNMX", "IMNMX", "VIMNMX", "VIADDMNMX", "IABS", "SGXT", "BMSK", "MOV"),
    *("PLOP3", "P2R", "R2P", "I2FP", "F2FP", "FSET", "HSETP2", "VABSDIFF"),
)
"""Operations of each unit. A unit's instructions are issued too, and all others are only issued."""

PER_SM = {  # architecture: threads, blocks, registers, bytes of shared memory
    80: (2048, 32, 65536, 164 * 1024),
    90: (2048, 32, 65536, 228 * 1024),
    100: (2048, 32, 65536, 228 * 1024),
}
"""CUDA C++ Programming Guide, technical specifications per compute capability."""

RESERVED = 1024
"""Bytes of shared memory that the system takes of each block."""


def main(arguments: Sequence[str]) -> int:
    """Write the table; with parts of families' names only print these, for sm_90.

    Returns
    -------
    int
        2 if there is no disassembler.
    """
    if disassembly.disassembler() is None:
        print("nvdisasm is neither on the PATH nor in a package: pip install triton", flush=True)
        return 2
    rows, version = [], ""
    for family in families():
        if arguments and not any(part in family.name for part in arguments):
            continue
        entry: dict[str, Any] = {"name": family.name, "bytes": round(family.moved, 3)}
        for architecture in ARCHITECTURES if not arguments else [90]:
            compiled = nvrtc.compile(family.source, architecture, OPTIONS)
            version = nvrtc.version(compiled.ptx)
            entry[f"sm_{architecture}"] = counts(family, architecture, compiled)
        entry["predicted"] = predicted(family, entry["sm_90"])
        rows.append(entry)
        print(line(entry), flush=True)
    if not arguments:
        result = {"compiler": version, "families": rows}
        TABLE.write_text(text(result), encoding="utf-8")
        PAGE.write_text(page(result), encoding="utf-8")
    return 0


def text(result: dict[str, Any]) -> str:
    """Return the table as JSON, with a line for each family."""
    rows = ",\n".join(json.dumps(entry) for entry in result["families"])
    return f'{{"compiler": {json.dumps(result["compiler"])}, "families": [\n{rows}\n]}}\n'


def counts(family: Family, architecture: int, compiled: nvrtc.Compiled) -> dict[str, Any]:
    """Return what is counted in a compiled kernel.

    Without a disassembler the counts of instructions other than PTX's are missing.
    """
    result: dict[str, Any] = {
        "ptx": ptx_instructions(compiled.ptx),
        "registers": compiled.registers,
        "spilled": compiled.spilled,
        "threads": resident(architecture, family.threads, compiled.registers, compiled.shared),
    }
    if disassembly.disassembler() is None:
        return result
    code = sass.disassembled(compiled.cubin)
    path = sass.fast_path(code, family.wanted, family.loop)
    elements = family.elements(path)
    units = {unit: round(n / elements, 2) for unit, n in per_unit(path).items()}
    waited = waits(path, family.wanted.least)
    under_way = (family.moved - family.stored) * elements / waited * result["threads"]
    return result | {
        "sass": sum(len(block.instructions) for block in code),
        "elements": elements,
        "per element": units,
        "waits": round(waited, 3),
        "in flight": round(under_way),
    }


def ptx_instructions(ptx: str) -> int:
    """Return how many instructions a PTX text has."""
    lines = (line.strip() for line in ptx[ptx.index("{") :].splitlines())
    return sum(line.endswith(";") and not line.startswith((".", "//")) for line in lines)


def resident(architecture: int, block: int, registers: int, shared: int) -> int:
    """Return how many threads an SM has at once, from what a block of them takes."""
    threads, blocks, file, memory = PER_SM[architecture]
    warp = -(-registers * 32 // 256) * 256  # registers are given to warps, 256 at a time
    quarter = file // 4 // warp  # each of the four parts of an SM has its own registers and warps
    by_registers = 4 * quarter // (block // 32)
    by_shared = memory // (shared + RESERVED)
    return block * min(threads // block, blocks, by_registers, by_shared)


def per_unit(given: Sequence[sass.Instruction]) -> dict[str, int]:
    """Return how many instructions each unit has to execute."""
    count = dict.fromkeys(LANES, 0)
    for one in given:
        count["issue"] += 1
        if one.operation in XU:
            count["XU"] += 1
        elif one.operation in FP32:
            count["FP32"] += 1
        elif one.operation == "IMAD":
            count["IMAD"] += 1
        elif one.operation in FP64:
            count["FP64"] += 1
        elif one.operation in ALU:
            count["ALU"] += 1
    return count


def waits(given: Sequence[sass.Instruction], least: int) -> float:
    """Return how often a thread waits for memory on its way.

    It waits where an instruction reads what a load writes, for all loads before it. A wait for
    accesses of fewer than ``least`` bytes alone counts as a part of a wait: they are of keys,
    addresses, scales and coefficients, which the L2 cache has. If they are guarded, they are of the
    slow path, and are not waited for.
    """
    count, widest = 0.0, 0
    pending: set[int] = set()
    for one in given:
        written, read = one.registers
        if pending & read:
            count += 1.0 if widest >= least else L2_LATENCY / LATENCY
            pending, widest = set(), 0
        if written and (one.width >= least or not one.guard):
            pending |= written
            widest = max(widest, one.width)
    return max(count, 1.0)


def predicted(family: Family, of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each GPU the share of the copy rate, and what bounds it; see `page`."""
    units = {unit: n / LANES[unit] for unit, n in of["per element"].items()}
    unit = max(units, key=lambda one: units[one])
    loaded = family.moved - family.stored
    result = {}
    for gpu in GPUS:
        copy = family.moved / (gpu.copy / SMS / CLOCK)  # cycles of an SM for an element
        waiting = loaded / of["in flight"] * LATENCY
        bounds = {"memory": copy, unit: units[unit], "latency": waiting}
        result[gpu.name] = {
            "share": round(copy / math.hypot(*bounds.values()), 3),
            "at most": round(copy / max(bounds.values()), 3),
            "bound": max(bounds, key=lambda one: bounds[one]),
            "needed": round(loaded / copy * LATENCY),
        }
    return result


def line(entry: dict[str, Any]) -> str:
    """Return one family as text."""
    of = entry["sm_90"]
    shares = ", ".join(f"{gpu} {of['share']:.0%}" for gpu, of in entry["predicted"].items())
    issue = of["per element"]["issue"]
    return f"{entry['name']:<45} {of['registers']:>3} registers, {issue:>6} instructions: {shares}"


HEAD = """\
# Predictions

Made by `python -m benchmarks.predict`, from machine code by NVRTC {compiler}. **Nothing here has
been measured**: no GPU was there.

For each family of kernels: bytes that an element moves; registers of a thread on sm_80, sm_90 and
sm_100 (with the bytes that are spilled, if any). On sm_90: resident threads of an SM; instructions
for an element on the fast path, and of them those of the units ALU, XU and FP64; KB of loads under
way in an SM, and how many are needed for the rate of a copy on an H100 SXM and an H200. Then the
predicted share of the rate of a device-to-device copy on both, with what bounds it.

| family | bytes | registers | threads | instructions | ALU | XU | FP64 | KB under way | {gpus} |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | {dashes} |
"""

FOOT = """
## The model

An element takes the cycles of an SM

    memory  = bytes / (rate of a copy / 132 SMs / clock)
    compute = the largest of instructions / 128, ALU / 64, FP32 / 128, IMAD / 64, XU / 16, FP64 / 64
    latency = bytes that are loaded / bytes under way * 958 cycles (Little's law)
    share   = memory / sqrt(memory^2 + compute^2 + latency^2)

The root of the sum of squares lies between full overlap (the largest of the three, in
`predictions.json` as "at most") and none (their sum). No measurement stands behind that choice.

- Rate of a copy: 0.9 of the data sheets' 3.35 and 4.8 TB/s. Clock: 1.755 GHz, below the 1.98 GHz
  of the data sheet's 67 TFLOPS, as under load.
- Lanes of the units: CUDA C++ Programming Guide, table of arithmetic instructions, compute
  capability 9.0. FCHK, the test before a division, is counted for the XU.
- Bytes under way: resident threads times what a thread loads between two waits, in the order of
  the instructions. CUB's `DeviceTransform` wants 32 KB in an SM of an H100 and 48 KB of an H200
  (its `min_bytes_in_flight`); by this model a copy then reaches 98 %.
- 958 cycles: twice the latency of idle memory in Luo et al. 2024, Benchmarking and Dissecting the
  Nvidia Hopper GPU Architecture. A kernel of rows waits for keys, gradients and states in turn,
  for those in the L2 cache 522 cycles.
- Instructions: the fast path of the vector loop (of a kernel of rows: of the whole kernel, for a
  row that occurs once), divided by its elements; `sass.py` says how it is found. The rare cases of
  division and root are not counted.

What the model leaves out: the beginning of a block (addresses, coefficients), stores, the L2 cache,
the tail of a launch, other kernels of a step (for rows: the sort), conflicts of banks and
partitions, and that rows drawn at random move more bytes than their own.
"""


def page(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    names = [gpu.name for gpu in GPUS]
    head = HEAD.format(
        compiler=result["compiler"], gpus=" | ".join(names), dashes=" | ".join(["---"] * len(names))
    )
    return head + "".join(_row(entry) for entry in result["families"]) + FOOT


def _row(entry: dict[str, Any]) -> str:
    of = entry["sm_90"]
    per = of["per element"]
    registers = []
    for architecture in ARCHITECTURES:
        each = entry[f"sm_{architecture}"]
        spilled = f" ({each['spilled']} B)" if each["spilled"] else ""
        registers.append(f"{each['registers']}{spilled}")
    needed = [f"{each['needed'] / 1024:.0f}" for each in entry["predicted"].values()]
    cells = [
        entry["name"],
        f"{entry['bytes']:.4g}",
        " / ".join(registers),
        str(of["threads"]),
        *(f"{per[unit]:.3g}" for unit in ("issue", "ALU", "XU", "FP64")),
        f"{of['in flight'] / 1024:.0f} ({' / '.join(needed)})",
        *(f"{each['share']:.0%} ({each['bound']})" for each in entry["predicted"].values()),
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
