"""The CUDA text of elements at given places of an array, many of which no array here reaches."""

import ctypes
import itertools
import math
import re
from unittest import mock

import hostcupy
import numpy as np
import pytest
from cuda_source import architectures, compile_ptx

import gpuadapt as ga
from gpuadapt.arrays import numpy_dtype
from gpuadapt.kernels.cuda import (
    compile,
    generate,
    host_check,
    multi_tensor,
    rows,
    scalars,
    squares,
    tuning,
)
from gpuadapt.kernels.formats import BLOCK, PLAIN, bfloat16, random_bits
from gpuadapt.kernels.numerics.summation import CHUNK, LANES
from gpuadapt.optimizer import internals

KEY, STEP, LR = 0x0123456789ABCDEF, 9, 2.0**-10
ONE = 0x3F80  # as a bfloat16

ARRAY_RUN = """
extern "C" void run(unsigned long long *addresses, const double *numbers, long long start,
                    long long size, long long) {
    for (threadIdx.x = 0; threadIdx.x < GA_THREADS; ++threadIdx.x) {
        gpuadapt::Update update(addresses + 1, addresses[0]);
        update.read([&](int k) { return numbers[k]; });
        update.seed(%(key)sLL, double(%(step)s));
        gpuadapt::update_chunk(update, start, size);
    }
}
"""

ROW_RUN = """
struct Ones {
    template <int N> gpuadapt::pack<gpuadapt::W, N> at(long long) const {
        gpuadapt::pack<gpuadapt::W, N> x;
        for (int k = 0; k < N; ++k) { x.at[k] = gpuadapt::W(1); }
        return x;
    }
};
extern "C" void run(unsigned long long *addresses, const double *numbers, long long row,
                    long long, long long width) {
    for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x) {
        gpuadapt::Update update = {%(arrays)s, %(key)sLL};
        update.read([&](int k) { return numbers[k]; });
        update.seed(double(%(step)s));
        gpuadapt::update_row<32, GA_ELEMENTS>(update, Ones(), true, row, width);
    }
}
"""


def stochastic_sgd(state):
    """A rule that adds -LR to each element, and formats: its parameter is a bfloat16."""
    optimizer = ga.SGD(
        np.zeros(1, numpy_dtype("bfloat16", "cpu")),
        momentum=0.5, rounding="stochastic", state_dtype=state,
    )  # fmt: skip
    return optimizer.rule, internals(optimizer).parameters["0"].formats_for("bfloat16")


def run(text, rule, formats, place, size, *more):
    """Run a text on `size` elements of 1, as if they began with the number `place`."""
    arrays = [np.zeros(size, kind) for form in formats.every for _, kind in form.parts]
    arrays[0][:] = arrays[1][:] = ONE
    order = [1, 0, *range(2, len(arrays))]
    begin = [(arrays[k].ctypes.data - place * arrays[k].itemsize) % 2**64 for k in order]
    given = {"h_lr": LR}
    numbers = np.array([given.get(name, 1.0) for name in rule.coefficients])
    host_check.library(text).run(
        (ctypes.c_uint64 * len(begin))(*begin),
        ctypes.c_void_p(numbers.ctypes.data),
        *map(ctypes.c_longlong, more),
    )
    return arrays[0]


def rounded(paired, place, size):
    """Elements from `place` on after the step, by NumPy."""
    number, shift = place + np.arange(size), 33 if paired else 32
    element, page = [(number >> by).astype(np.uint32) for by in (shift - 32, shift)]
    seeds = np.array([KEY], np.int64).view(np.uint32)
    keys = [random_bits.key_of(seed, np.uint32(STEP)) for seed in seeds]
    random = random_bits.random_bits(element, *(random_bits.key_on(k, page) for k in keys))
    if paired:
        random <<= ((number & 1) << 4).astype(np.uint32)
    x = np.full(size, np.float32(1 - LR))
    return bfloat16.bfloat16_random(x, random >> np.uint32(16))


@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_chunks_beyond_32_bits_have_random_bits_of_their_own(state):
    """The chunks on both sides of a multiple of 2^32 (of pairs 2^33)."""
    rule, formats = stochastic_sgd(state)
    update = generate.ArrayUpdate(generate.Run(rule, formats))
    text = multi_tensor.source(rule, formats)
    assert update.names == list(update.types)[:1] + list(update.types)[2:]
    text = hostcupy.RAW + text + ARRAY_RUN % {"key": KEY, "step": STEP}
    page, chunk = 2**33 if formats.paired else 2**32, tuning.Launch().chunk
    for place in (0, page - chunk, page, 3 * page):
        for size in (chunk, 37):
            got = run(text, rule, formats, place, size, place, size, 0)
            want = rounded(formats.paired, place, size)
            assert np.array_equal(got, want), (place, size)
            assert len(np.unique(want)) == 2


def test_a_chunk_is_on_one_page():
    """The kernel does not compile with chunks of which one may cross a multiple of 2^32."""
    rule, formats = stochastic_sgd("bfloat16")
    text = multi_tensor.source(rule, formats)
    declared = f"#define GA_CHUNK {tuning.Launch().chunk}\n"
    assert declared in text
    wrong = text.replace(declared, "#define GA_CHUNK 4104\n")
    with pytest.raises(Exception, match="returned non-zero exit status"):
        host_check.library(hostcupy.RAW + wrong)


@pytest.mark.parametrize(("width", "elements"), [(768, 8), (768, 4), (601, 1)])
@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_rows_beyond_32_bits_have_random_bits_of_their_own(state, width, elements):
    """Rows with a multiple of 2^32 (of pairs 2^33) between two of their elements."""
    rule, formats = stochastic_sgd(state)
    update = generate.RowUpdate(generate.Run(rule, formats), False)
    config = rows.LaunchConfig(elements, 32, False)
    types = enumerate(update.types.values(), 1)
    arrays = ", ".join(f"({kind} *)addresses[{k}]" for k, kind in types)
    text = rows.source(rule, formats, config)
    text = hostcupy.RAW + text + ROW_RUN % {"arrays": arrays, "key": KEY, "step": STEP}
    page = 2**33 if formats.paired else 2**32
    assert page % width
    for row in (0, page // width, page // width + 1, 3 * page // width):
        got = run(text, rule, formats, row * width, width, row, 0, width)
        assert np.array_equal(got, rounded(formats.paired, row * width, width)), row


ORDERED = {"float32": 2 * CHUNK + 3 * LANES + 5, "bfloat16": CHUNK + 1, "float64": LANES + 7}
"""Sizes of arrays, by their gradients' formats."""


def partial_sums(numbers, scale):
    """Sums of squares of each chunk in the order of `kernels.numerics.summation`, by NumPy."""
    sums = []
    for begin in range(0, numbers.size, CHUNK):
        chunk = numbers[begin : begin + CHUNK] / numbers.dtype.type(scale)
        filled = np.concatenate([chunk, np.zeros(-chunk.size % LANES, chunk.dtype)])
        lanes = np.zeros(LANES)
        for row in filled.astype(np.float64).reshape(-1, LANES):
            lanes = lanes + row * row
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        sums.append(lanes[0])
    return sums


@pytest.mark.parametrize("kind", ORDERED)
def test_squares_have_one_order_at_any_alignment_and_scale(kind, host):
    """Loads of one element and of several; products with the reciprocal of a power of two."""
    dtype = np.dtype(numpy_dtype(kind, "cpu"))
    compute, size = "float64" if kind == "float64" else "float32", ORDERED[kind]
    random = np.random.default_rng(5)
    number = random.normal(size=size + 8) * 10.0 ** random.integers(-30, 10, size + 8)
    given = number.astype(dtype)
    placed = host.array(given.view(np.uint16) if kind == "bfloat16" else given)
    sums = squares.Squares(compute, PLAIN[kind], [size])
    outputs = [host.array(np.zeros(sums.partials)) for _ in range(2)]
    for scale in (1.0, 2.0**-13, 2.0**100, 3.0, 1.0 + 2.0**-20):
        step = scalars.numbers(())
        step.scale_by(host.array(np.array([scale], np.float32)))
        for offset in (0, 1, 2, 3, 4, 7):
            start = np.uint64(placed.data.ptr + offset * dtype.itemsize)
            sums(host.array(np.array([start])), step, *outputs)
            chosen = given[offset : offset + size].astype(compute)
            where = scale, offset
            assert np.array_equal(host.numpy(outputs[0]), partial_sums(chosen, scale)), where
            largest = np.abs(chosen / chosen.dtype.type(scale)).max()
            assert host.numpy(outputs[1]).max() == largest, where


@pytest.mark.parametrize("access", [8, 16])
@pytest.mark.parametrize("threads", [64, 256])
@pytest.mark.parametrize("most", [512, 4096, 2**17])
def test_few_elements_are_cut_into_more_chunks(most, threads, access):
    """Never into less than one access of each thread, if the largest chunk has that."""
    launch = tuning.Launch(chunk=most, threads=threads, access=access)
    formats = stochastic_sgd("bfloat16")[1]
    sizes = [tuning.chunk(launch, formats, 4**k) for k in range(16)]
    least = min(most, threads * access // 2)
    assert sizes == sorted(sizes) and sizes[0] == least and sizes[-1] == most
    for k, size in enumerate(sizes):
        assert 2**32 % size == 0
        assert size == least or tuning.BLOCKS * size <= 4**k


@pytest.mark.parametrize("element", ["float32", "float64"])
def test_chunks_are_not_cut_within_a_block_of_codes(element):
    """Whatever is tuned: chunks that have elements of one block would find it two scales."""
    optimizer = ga.Adam(np.zeros(8, element), state_dtype="8bit")
    formats = internals(optimizer).parameters["0"].formats_for(element)
    allowed = (tuning.ALLOWED[name] for name in ("chunk", "threads", "access"))
    for most, threads, access in itertools.product(*allowed):
        launch = tuning.Launch(chunk=most, threads=threads, access=access)
        for total in (1, 300, 10_000, 10**9):
            assert tuning.chunk(launch, formats, total) % BLOCK == 0, (launch, total)


@pytest.mark.parametrize("architecture", architectures()[-1:])
def test_rows_that_are_not_clipped_have_no_code_for_it(architecture):
    """The norm of a row is the only root in float64."""
    rule, formats = stochastic_sgd("float32")
    for clipped in (False, True):
        config = rows.launch_config(64, 4, False)._replace(clipped=clipped)
        compiled = compile_ptx(rows.source(rule, formats, config), architecture, compile.OPTIONS)
        assert ("sqrt.rn.f64" in compiled) == clipped


def test_rows_are_clipped_by_a_kernel_of_its_own(host, monkeypatch):
    configs = []

    def chosen(rule, formats, config):
        configs.append(config)
        return mock.MagicMock()

    monkeypatch.setattr(rows, "kernel", chosen)
    table, values = host.array(np.ones((10, 8), np.float32)), np.ones((3, 8), np.float32)
    gradient = ga.RowGrad(host.array(np.arange(3)), host.array(values))
    for limit in (math.inf, 0.5, 1.0):
        ga.SGD(table, max_row_norm=limit).step(gradient)
        assert configs[-1].clipped == (limit < math.inf)


@pytest.mark.parametrize("architecture", architectures()[-1:])
def test_the_norm_loads_several_rows_of_sums_at_once(architecture):
    """Loads of 16 bytes of float32, none of which waits for arithmetic on the one before."""
    source = squares.source("float32", PLAIN["float32"])
    compiled = compile_ptx(source, architecture, compile.OPTIONS)
    loads = re.compile(r"(?:ld\.global\.(?:nc\.)?v4[^\n]*\n(?:\s*(?:add|mov|shl)[^\n]*\n)*){8}")
    assert loads.search(re.sub(r"^\s+", "", compiled, flags=re.M))
