"""Formats by NumPy: what numbers are after a load and a store, by their definition."""

import numpy as np

import gpuadapt as ga
from gpuadapt.kernels.formats import BLOCK, DRAWN


class Reference:
    """A state or a parameter: read, then written, by NumPy and the definition of conversions."""

    def __init__(self, form, arrays, width, draw):
        self.form, self.arrays, self.width, self.draw = form, arrays, width, draw

    def read(self):
        if not self.form.block:
            return self.form.decode(self.arrays)
        return ga.Quantized(*self.arrays, "un" not in self.form.block).decoded()

    def write(self, values, random):
        values = np.asarray(values)
        random = random * np.uint32(pow(DRAWN, self.draw, 2**32))
        if self.form.block:
            codes, scales = self.arrays
            rows = values.reshape(-1, self.width).astype(np.float32)
            call = {part: self.form.conversion(part)
                    for part in ("scale", "base", "random")}  # fmt: skip
            for block in range(scales.shape[1]):
                part = slice(block * BLOCK, (block + 1) * BLOCK)
                largest = np.abs(rows[:, part]).view(np.uint32).max(axis=1)
                scales[:, block] = call["scale"](largest)
            base = np.repeat(call["base"](scales), BLOCK, axis=1)[:, : self.width]
            codes[...] = call["random"](rows, base, random.reshape(rows.shape)).reshape(codes.shape)
            return
        names = {conversion.name: conversion for conversion in self.form.conversions}
        names |= {"S": np.float32, "D": np.float64, "x": values, "few": random >> np.uint32(16)}
        for array, text in zip(self.arrays, self.form.store, strict=True):
            array[...] = eval(text.format(x="x", r16="few"), names)
