"""An interpreter for straight-line PTX: what a GPU computes, on NumPy arrays, without one.

It knows the instructions that NVRTC makes of a rule and refuses any other, so that nothing
passes unseen. Flushing (``.ftz``), approximation and contraction are not among them.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

TYPES = {"f32": np.float32, "f64": np.float64, "s32": np.int32, "u32": np.uint32, "b32": np.uint32}
ARITHMETIC = {
    "add.rn": np.add,
    "sub.rn": np.subtract,
    "mul.rn": np.multiply,
    "div.rn": np.divide,
    "sqrt.rn": np.sqrt,
    "neg": np.negative,
    "abs": np.abs,
}
COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "neu": np.not_equal,  # true for NaN, as in C
    "ne": np.not_equal,
}
LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def permuted(a: Any, b: Any, selector: Any) -> Any:
    """Bytes of two words, as a selector of digits 0 to 7 says."""
    both = a | b << 32
    return sum((both >> 8 * (selector >> 4 * k & 7) & 0xFF) << 8 * k for k in range(4))


WORDS = {
    "add.s32": np.add,
    "sub.s32": np.subtract,
    "mul.lo.s32": np.multiply,
    "mad.lo.u32": lambda a, b, c: a * b + c,
    "mad.lo.s32": lambda a, b, c: a * b + c,
    "shl.b32": np.left_shift,
    "shr.u32": np.right_shift,
    "prmt.b32": permuted,
    **{f"{name}.b32": function for name, function in LOGIC.items()},
}
"""Of 32 bits, where those that are left do not depend on signs."""


def run(ptx: str, memory: list[np.ndarray], scalars: list[Any]) -> None:
    """Execute the only kernel of a PTX text, once for each element.

    Parameters
    ----------
    ptx
        Its kernel takes pointers first, then scalars.
    memory
        What the pointers point to, one array each, indexed by element; updated in place.
    scalars
        The other arguments.
    """
    body = ptx[ptx.index("{") :]
    registers: dict[str, Any] = {}
    arguments = [*range(len(memory)), *scalars]

    def word(operand: str) -> Any:
        return np.asarray(value(operand)).astype(np.int64).astype(np.uint64) & 0xFFFFFFFF

    def value(operand: str) -> Any:
        if operand.startswith("0f"):
            return np.float32(struct.unpack(">f", bytes.fromhex(operand[2:]))[0])
        if operand.startswith("0d"):
            return np.float64(struct.unpack(">d", bytes.fromhex(operand[2:]))[0])
        return int(operand) if re.fullmatch(r"-?\d+", operand) else registers[operand]

    with np.errstate(all="ignore"):
        for line in re.findall(r"[^;{}]+(?=;)", re.sub(r"//.*", "", body)):
            guard, line = re.fullmatch(r"(?:@(\w+) )?(.*)", line.strip(), re.DOTALL).groups()
            operation, _, rest = line.partition(" ")
            operation, *trailing = operation.split("\t")
            operands = [o.strip() for o in " ".join([*trailing, rest]).split(",")]
            name, kind = operation.rpartition(".")[::2]
            before = registers.get(operands[0])
            match name.split("."):
                case ["", "reg"] | ["ret"] | [""]:
                    assert operation in ("ret", ".reg"), line
                case ["ld", "param"]:
                    index = int(re.findall(r"_param_(\d+)", operands[1])[0])
                    registers[operands[0]] = arguments[index]
                case ["cvta", "to", "global"] | ["mov"]:
                    registers[operands[0]] = value(operands[1])
                case ["ld", "global"]:
                    registers[operands[0]] = memory[registers[operands[1].strip("[]")]].copy()
                case ["st", "global"]:
                    memory[registers[operands[0].strip("[]")]][...] = value(operands[1])
                case ["setp", test]:
                    a, b = (value(o) for o in operands[1:])
                    registers[operands[0]] = COMPARISONS[test](a, b)
                case ["selp"]:
                    a, b, condition = (value(o) for o in operands[1:])
                    registers[operands[0]] = np.where(condition, TYPES[kind](a), TYPES[kind](b))
                case [logic] if logic in LOGIC and kind == "pred":
                    registers[operands[0]] = LOGIC[logic](*map(value, operands[1:]))
                case _ if operation in WORDS:
                    result = WORDS[operation](*map(word, operands[1:]))
                    registers[operands[0]] = (result & 0xFFFFFFFF).astype(np.uint32)
                case _ if name in ARITHMETIC:
                    inputs = [value(o) for o in operands[1:]]
                    assert all(np.asarray(i).dtype == TYPES[kind] for i in inputs), line
                    registers[operands[0]] = ARITHMETIC[name](*inputs)
                case _:
                    raise AssertionError(f"not known to the interpreter: {line.strip()}")
            if guard:
                registers[operands[0]] = np.where(registers[guard], registers[operands[0]], before)
