"""Dense updates on the CPU by NumPy, which compile nothing: for tests of what is around them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpuadapt.oracle import evaluate

Bind = Callable[..., Any]
"""A function of `gpuadapt.launch`, of (rule, backend, formats, operands)."""


def update(rule: Any, arrays: Sequence[np.ndarray], gradient: np.ndarray, numbers: Any) -> None:
    """Update a parameter and its states; ``numbers`` begins with the coefficients."""
    parameter, *states = arrays
    given = [parameter, gradient.reshape(parameter.shape), *states]
    results = evaluate(rule, given, numbers[: len(rule.coefficients)])
    for array, values in zip(arrays, results, strict=True):
        array[...] = values


class Many:
    """As `gpuadapt.kernels.cpu.multi_tensor.MultiTensor`, compiling nothing."""

    def __init__(self, rule: Any, operands: Any) -> None:
        self.rule, self.arrays = rule, [operand.arrays for operand in operands]

    def calls(self, *given: Any) -> list[Any]:
        return [(self.update, *given)]

    def update(self, gradients: Any, firsts: Any, numbers: Any) -> None:
        for arrays, address, first in zip(self.arrays, gradients.tolist(), firsts, strict=True):
            if address:
                kind = ctypes.c_byte * arrays[0].nbytes
                gradient = np.frombuffer(kind.from_address(address), arrays[0].dtype)
                update(self.rule, arrays, gradient, numbers[first:])


class Strided:
    """As `gpuadapt.kernels.cpu.strided.Strided`, compiling nothing."""

    def __init__(self, rule: Any, operand: Any) -> None:
        self.rule, self.arrays = rule, operand.arrays

    def calls(self, *given: Any) -> list[Any]:
        return [(self.update, *given)]

    def update(self, gradient: Any, first: int, numbers: Any) -> None:
        update(self.rule, self.arrays, gradient, numbers[first:])


def in_place_of(kind: type, compiled: Bind) -> Bind:
    """A function of `gpuadapt.launch` with one of these classes for elements of one type."""

    def bind(rule: Any, where: str, formats: Any, operands: Any, *threads: Any) -> Any:
        if where == "cpu" and formats.uniform:
            return kind(rule, operands)
        return compiled(rule, where, formats, operands, *threads)

    return bind
