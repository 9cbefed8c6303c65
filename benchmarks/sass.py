"""Machine code of NVIDIA's GPUs (SASS): the instructions of a kernel, and its fast path.

The fast path is found without running anything. A kernel is cut into basic blocks. A *way* is a
sequence of blocks from a loop's first to the one that branches back, or from a kernel's beginning
to its end; branches back within it are not taken, so that an inner loop counts once. No way enters
a block that calls a subroutine: those are the rare cases of division and root. The fast path is the
way that moves the most bytes by vector accesses; of several, it computes the most elements; of
several, it has the fewest instructions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from gpuadapt.kernels.cuda import disassembly


class Instruction(NamedTuple):
    """One instruction."""

    guard: str
    """The predicate that it is subject to, such as "!P0", or nothing."""
    name: str
    """With its modifiers, such as "LDG.E.128"."""
    operands: str

    @property
    def operation(self) -> str:
        """The name without modifiers."""
        return self.name.partition(".")[0]

    @property
    def calls(self) -> bool:
        """It calls a subroutine in any case."""
        return self.operation == "CALL" and not self.guard and not self.branches

    @property
    def branches(self) -> bool:
        """It ends a block. Code for sm_80 leaves a loop by a call of a label in the kernel."""
        jumps = self.operation == "CALL" and "`(.L" in self.operands
        return jumps or self.operation in ("BRA", "EXIT", "RET", "BRX", "JMP")

    @property
    def width(self) -> int:
        """Bytes that a load or store moves."""
        parts = self.name.split(".")
        return next((WIDTHS[part] for part in parts if part in WIDTHS), 4)

    @property
    def registers(self) -> tuple[set[int], set[int]]:
        """Registers that a load writes (of others: none), and those that are read."""
        numbers = [int(n) for n in re.findall(r"\bR(\d+)", self.operands)]
        if self.operation not in LOADS:
            return set(), set(numbers)
        first, *others = numbers
        return set(range(first, first + max(1, self.width // 4))), set(others)


WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
LOADS, STORES = ("LDG", "LD"), ("STG", "ST")
"""Accesses to global memory, with an address that is known to be global and one that is not."""


class Block(NamedTuple):
    """Instructions of which either all or none are executed, but for guards."""

    label: str
    instructions: list[Instruction]
    following: list[int]
    """The blocks that may come next."""


class Wanted(NamedTuple):
    """What distinguishes the fast path from others."""

    accesses: tuple[str, ...]
    """Operations whose bytes count: of `LOADS` and `STORES`."""
    least: int
    """Bytes of an access that counts."""
    kept: tuple[str, ...]
    """Operations of the elements' arithmetic, where a test of the element's number skips it."""

    def computing(self, given: Iterable[Instruction]) -> int:
        """Return how many instructions are those that are kept."""
        return sum(one.operation in self.kept for one in given)


@lru_cache(1)
def disassembled(cubin: bytes) -> list[Block]:
    """Return the basic blocks of the only kernel of an ELF file.

    Raises
    ------
    BackendError
        There is no disassembler.
    """
    return blocks(disassembly.disassembled(cubin))


def blocks(text: str) -> list[Block]:
    """Cut what nvdisasm has written into blocks."""
    pieces: list[tuple[list[str], list[Instruction]]] = [([], [])]
    for line in text.splitlines():
        if label := re.match(r"(\S+):$", line):
            if pieces[-1][1]:
                pieces.append(([], []))
            pieces[-1][0].append(label[1])
        elif found := INSTRUCTION.match(line):
            guard, name, operands = found.groups()
            pieces[-1][1].append(Instruction((guard or "").strip("@ "), name, operands))
            if pieces[-1][1][-1].branches:
                pieces.append(([], []))
    pieces = [piece for piece in pieces if piece[1]]
    number = {label: k for k, (labels, _) in enumerate(pieces) for label in labels}
    return [
        Block(labels[0] if labels else "", given, list(_following(k, given, number, len(pieces))))
        for k, (labels, given) in enumerate(pieces)
    ]


INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?([A-Z][\w.]*)\s*(.*?)\s*;")


def _following(
    k: int, given: Sequence[Instruction], number: dict[str, int], count: int
) -> Iterator[int]:
    last = given[-1]
    if last.branches and (target := re.search(r"`\((\S+)\)", last.operands)):
        yield number[target[1]]
    # "BRA P1, `(...)" depends on a predicate too, "BRA.DIV" on whether a warp is together.
    always = not last.guard and not re.match(r"!?U?P\d", last.operands) and ".DIV" not in last.name
    if k + 1 < count and not (last.branches and always):
        yield k + 1


def moved(given: Iterable[Instruction], kinds: Sequence[str], least: int) -> int:
    """Return the bytes that instructions load or store, by accesses of at least ``least`` bytes.

    What a guard may forbid does not count.
    """
    widths = (one.width for one in given if one.operation in kinds and not one.guard)
    return sum(width for width in widths if width >= least)


def fast_path(code: Sequence[Block], wanted: Wanted, loop: bool) -> list[Instruction]:
    """Return the fast path of a kernel; see the module.

    Parameters
    ----------
    code : sequence of Block
    wanted : Wanted
    loop : bool
        Look for a loop's path, else for one from the kernel's beginning to its end.
    """
    ends = [
        (target, k)
        for k, block in enumerate(code)
        for target in (block.following if loop else [0])
        if target <= k and (loop or block.instructions[-1].operation == "EXIT")
    ]
    found = [_best_way(code, first, last, wanted) for first, last in ends]
    score, way = max((one for one in found if one), key=lambda one: one[0])
    assert score[0] > 0, "no path has the accesses"
    return [one for k in way for one in code[k].instructions]


def _best_way(
    code: Sequence[Block], first: int, last: int, wanted: Wanted
) -> tuple[tuple[int, int, int], list[int]] | None:
    """The best way between two blocks and its score; None if there is no way."""
    ways: dict[int, tuple[tuple[int, int, int], list[int]]] = {first: ((0, 0, 0), [])}
    for k in range(first, last + 1):
        given = code[k].instructions
        if k not in ways or any(one.calls for one in given):
            ways.pop(k, None)
            continue
        score, way = ways[k]
        own = moved(given, wanted.accesses, wanted.least), wanted.computing(given), -len(given)
        ways[k] = reached = (tuple(map(sum, zip(score, own, strict=True))), [*way, k])
        for target in code[k].following:
            if k < target <= last and (target not in ways or ways[target][0] < reached[0]):
                ways[target] = reached
    return ways.get(last)
