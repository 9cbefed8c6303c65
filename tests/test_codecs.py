"""Loads and stores of 16 and 8 bits alone, over every code and against brute force."""

import ctypes
from importlib import import_module
from pkgutil import iter_modules
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import ptx
import pytest
from cuda_source import architectures, compile_ptx

from gpuadapt.kernels import formats
from gpuadapt.kernels.cpu import compile
from gpuadapt.kernels.cpu import generate as cpu_generate
from gpuadapt.kernels.cuda import compile as cuda_compile
from gpuadapt.kernels.cuda import generate, host_check
from gpuadapt.kernels.formats.conversion import Conversion, needed
from gpuadapt.oracle import any_bits

SHORT = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
FILES = [import_module(f"{formats.__name__}.{one.name}") for one in iter_modules(formats.__path__)]
ALL = {name: one for module_ in FILES for name, one in vars(module_).items()
       if isinstance(one, Conversion)}  # fmt: skip
CODES16 = np.arange(2**16, dtype=np.uint32)
CODES8 = np.arange(2**8, dtype=np.uint32)
HALF = np.uint32(2**31)
np_ = SimpleNamespace(**ALL)


def called(name, *given):
    """A conversion as NumPy runs it, by its name."""
    return getattr(np_, name)(*given)


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def some_numbers(random, size):
    """Any bits, and numbers of every size near what 16 bits can hold."""
    near = random.normal(size=size) * 2.0 ** random.integers(-30, 20, size)
    return np.concatenate([any_bits(random, size, np.dtype(np.float32)), near.astype(np.float32)])


@pytest.mark.parametrize("name", SHORT)
def test_16_bits_are_those_of_ml_dtypes_and_numpy(name):
    """Every code is loaded as they do, and comes back; numbers are rounded as they do."""
    wanted = CODES16.astype(np.uint16).view(SHORT[name]).astype(np.float32)
    loaded = called(f"{name}_load", CODES16)
    ordinary = ~np.isnan(wanted)
    assert np.array_equal(bits(loaded)[ordinary], bits(wanted)[ordinary])
    assert np.isnan(loaded[~ordinary]).all()
    assert np.array_equal(called(f"{name}_store", loaded)[ordinary], CODES16[ordinary])
    x = some_numbers(np.random.default_rng(0), 200_000)
    with np.errstate(all="ignore"):
        nearest = x.astype(SHORT[name]).view(np.uint16)
    stored = called(f"{name}_store", x)
    assert np.array_equal(stored[~np.isnan(x)], nearest[~np.isnan(x)])
    assert np.isnan(called(f"{name}_load", stored)[np.isnan(x)]).all()


@pytest.mark.parametrize("name", SHORT)
def test_16_bits_are_monotone_and_nearest(name):
    """Between every two neighbours: 33 numbers, by brute force over the neighbours."""
    positive = called(f"{name}_load", CODES16[: 2**15])
    positive = positive[np.isfinite(positive)]
    assert (np.diff(positive) > 0).all()
    below, above = positive[:-1, None].astype(float), positive[1:, None].astype(float)
    x = (below + (above - below) * np.linspace(0, 1, 33)).astype(np.float32)
    got = called(f"{name}_load", called(f"{name}_store", x))
    nearest = np.where(x.astype(float) - below < above - x, below, above)
    ties = x.astype(float) - below == above - x
    assert np.array_equal(got[~ties], nearest[~ties])
    assert np.array_equal(called(f"{name}_store", -x), called(f"{name}_store", x) | 0x8000)


def test_a_split_float32_is_whole():
    x = some_numbers(np.random.default_rng(1), 200_000)
    x = x[~np.isnan(x)]
    high, low = called("split_high", x), called("split_low", x)
    assert np.array_equal(bits(called("split_load", high, low)), bits(x))
    x = x[np.isfinite(x) & (np.abs(x) > 1e-37) & (np.abs(x) < 3e38)].astype(float)
    error = np.abs(called("bfloat16_load", called("split_high", x)).astype(float) - x)
    assert (error <= np.abs(x) * 2.0**-8).all()
    lost = called("split_load", *(called(f"split_{part}", np.float32([np.nan])) for part in
                                  ("high", "low")))  # fmt: skip
    assert np.isnan(lost).all()


@pytest.mark.parametrize("name", SHORT)
def test_what_rounding_leaves_out_is_kept_beside(name):
    x = np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    high, rest = called(f"{name}_store", x), called(f"{name}_residual", x)
    both = called(f"{name}_load", high) + called(f"{name}_load", rest)
    digits = {"bfloat16": 16, "float16": 22}[name]
    # A float16's rest may be below its smallest number.
    assert (np.abs(both - x) <= np.abs(x) * 2.0**-digits + 2.0**-25 * (name == "float16")).all()


EIGHT = {"signed8": 15, "unsigned8": 31}
"""The largest exponent of each format's codes."""


def decoded(name, scale):
    """What codes stand for, from the definition."""
    sign = np.where((name == "signed8") & (CODES8 >= 128), -1.0, 1.0)
    size = CODES8 & 127 if name == "signed8" else CODES8
    values = (1 + (size & 7) / 8) * 2.0 ** ((size >> 3).astype(float) - EIGHT[name]) * scale
    return sign * np.where(size == 0, 0.0, values)


@pytest.mark.parametrize("scale", [1.0, 2.0**-40, 2.0**100])
@pytest.mark.parametrize("name", EIGHT)
def test_8_bits_are_what_their_definition_says(name, scale):
    """Codes come back, with whatever random bits; zero is exact; numbers go to the nearest."""
    base = called(f"{name}_base", np.float32(scale))
    loaded = called(f"{name}_load", CODES8, base)
    assert np.array_equal(loaded, decoded(name, scale))
    assert loaded[0] == 0 and np.array_equal(np.signbit(loaded), decoded(name, 1.0) < 0)
    for random in (0, 1, 2**31, 2**32 - 1):
        again = called(f"{name}_random", loaded, base, np.full(256, random, np.uint32))
        assert np.array_equal(called(f"{name}_load", again, base), loaded)
    numbers = np.unique(loaded)
    below, above = numbers[:-1, None].astype(float), numbers[1:, None].astype(float)
    x = (below + (above - below) * np.linspace(0, 1, 31)).astype(np.float32)
    got = called(f"{name}_load", called(f"{name}_random", x, base, HALF), base)
    middle = (below + above) / 2
    sure = np.abs(x - middle) > 1e-6 * (above - below)
    if name == "unsigned8":
        sure[0] = False  # between zero and the smallest number
    assert np.array_equal(got[sure], np.where(x < middle, below, above)[sure])


@pytest.mark.parametrize("name", EIGHT)
def test_a_block_has_the_scale_that_holds_its_largest(name):
    largest = np.random.default_rng(3).uniform(1, 2, 10_000).astype(np.float32) * 2.0**-7
    scale = called(f"{name}_scale", bits(largest))
    assert np.array_equal(scale, 2.0 ** np.floor(np.log2(scale)))
    # What rounds up has a code too.
    assert (np.where(largest <= 1.875 * 2.0**-7, 2.0**-7, 2.0**-6) == scale).all()
    most = called(f"{name}_random", largest, called(f"{name}_base", scale), np.uint32(2**32 - 1))
    assert (called(f"{name}_load", most, called(f"{name}_base", scale)) >= largest).all()


@pytest.mark.parametrize("name", EIGHT)
def test_a_block_keeps_what_is_finite_beside_what_is_not(name):
    """Infinities and what is too large become the largest code, NaN becomes zero."""
    most = np.float32(1.875 * 2.0**127)
    for given, wanted in (
        ([1.0, 0.5, np.inf, np.nan], [1.0, 0.5, 1.875, 0.0]),
        ([0.0, np.inf], [0.0, most]),
        ([np.nan, 0.0], [0.0, 0.0]),
        ([2.0**125, 3.4e38], [2.0**125, most]),
    ):
        block = np.float32(given)
        for sign in (1, -1)[: 1 + (name == "signed8")]:
            largest = np.uint32(0)
            for x in block:
                largest = called("larger_magnitude", largest, np.float32(x))
            assert called("all_representable", largest) == 0
            largest = np.uint32(0)
            for x in block:
                largest = called("larger_representable", largest, np.float32(x))
            largest = called("block_limit", largest)
            kept = called("representable", sign * block, largest)
            base = called(f"{name}_base", called(f"{name}_scale", largest))
            for random in (0, 2**32 - 1):
                code = called(f"{name}_random", kept, base, np.uint32(random))
                assert np.array_equal(called(f"{name}_load", code, base), sign * np.float32(wanted))
    for x in (1.0, 1e-40, most):
        assert called("all_representable", bits(np.float32(x))) == 1


@pytest.mark.parametrize("name", SHORT)
def test_states_of_16_bits_do_not_become_infinite(name):
    """Nothing finite does; a float16 keeps 65504 of what is larger, of an infinity too."""
    x = some_numbers(np.random.default_rng(5), 50_000)
    x = np.concatenate([x, np.float32([65504, 65519, 65520, 1e5, np.inf, 3.4e38, 3.39e38])])
    x[np.isnan(x)] = np.nan  # as arithmetic makes them
    store = {"bfloat16": "bfloat16_random", "float16": "float16_saturated"}[name]
    plain = f"{name}_random"
    for random in (0, 2**15, 2**16 - 1):
        code = called(store, x, np.uint32(random))
        kept = called(f"{name}_load", code)
        assert (np.isfinite(kept) | ~np.isfinite(x)).all()
        assert np.array_equal(np.isnan(kept), np.isnan(x))
        if name == "float16":
            assert not np.isinf(kept).any() and kept[-3] == 65504
            usual = np.abs(x) <= 65504
            assert np.array_equal(code[usual], called(plain, x[usual], np.uint32(random)))


@pytest.mark.parametrize("name", SHORT)
def test_what_is_kept_beside_a_parameter_counts_as_long_as_it_agrees(name):
    """Of every two parameters, what one had beside it is not the other's; its own always is."""
    x = some_numbers(np.random.default_rng(6), 50_000)
    code = called(f"{name}_store", x)
    load, rest = called(f"{name}_load", code), called(f"{name}_residual", x)
    other = np.random.default_rng(7).permutation(len(x))
    own = called(f"{name}_master", code, x)
    assert np.array_equal(bits(own)[~np.isnan(x)], bits(x)[~np.isnan(x)])
    assert np.isnan(own[np.isnan(x)]).all()
    written = called(f"{name}_master", code, x[other])
    agrees = code == code[other]
    assert np.array_equal(bits(written)[agrees], bits(x[other])[agrees])
    assert np.array_equal(bits(written)[~agrees], bits(load)[~agrees])
    # Rounding leaves out half of the last place at most, which is 2^-9 or 2^-12 of what leads it.
    finite = np.isfinite(load)
    both = called(f"{name}_kahan", code, rest)
    beside = called(f"{name}_load", rest)
    assert np.array_equal(both[finite], load[finite] + beside[finite])
    assert np.array_equal(bits(both)[np.isinf(load)], bits(load)[np.isinf(load)])
    stale = beside[other].astype(float)
    places = {"bfloat16": 8, "float16": 11}[name]
    with np.errstate(all="ignore"):
        half = np.where(load == 0, 0.0, 2.0 ** (np.frexp(load.astype(float))[1] - 1 - places))
    small = np.abs(load) < np.float32(2.0**-126)
    half[small] = 0
    keeps = np.abs(stale) <= half
    wanted = (load + np.where(keeps, stale, 0).astype(np.float32))[finite]
    assert np.array_equal(called(f"{name}_kahan", code, rest[other])[finite], wanted)


def test_a_split_parameter_that_its_owner_writes_is_what_was_written():
    """To half of the last place, whatever the lower half is of; zeros are no NaN."""
    high = CODES16[np.isfinite(called("bfloat16_load", CODES16))]
    value = called("bfloat16_load", high).astype(float)
    place = np.spacing(np.abs(called("bfloat16_load", high))).astype(float) * 2.0**16
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        got = called("split_load", high, np.uint32(low)).astype(float)
        assert (np.abs(got - value) <= place / 2).all(), low
    for written in (0x7F80, 0xFF80):
        got = called("split_load", np.uint32(written), np.uint32(0x1234))
        assert got == called("bfloat16_load", np.uint32(written))


def test_what_is_divided_by_does_not_become_zero():
    """Numbers of 8 bits without a sign, below the smallest; with one they are right in the mean."""
    base = called("unsigned8_base", np.float32(1))
    least = np.float32(1.125 * 2.0**-31)
    for x, want in ((least / 2, least), (1e-30, least), (1e-44, least), (0.0, 0.0), (-0.0, 0.0)):
        for random in (0, 2**32 - 1):
            code = called("unsigned8_random", np.float32(x), base, np.uint32(random))
            assert called("unsigned8_load", code, base) == want, x


def drawn(elements, seed=5, step=1, page=0):
    keys = [called("key_of", np.uint32(seed), np.uint32(step)), np.uint32(99)]
    return called(
        "random_bits", elements, *(called("key_on", key, np.uint32(page)) for key in keys)
    )


@pytest.mark.parametrize("name", ["bfloat16", "float16", *EIGHT])
def test_stochastic_rounding_is_right_in_the_mean(name):
    """The mean over many draws lies within 4 sigma; also between zero and the smallest number."""
    draws = 20_000
    tiny = {"bfloat16": 1e-41, "float16": 2e-8, "signed8": 1e-5, "unsigned8": 2e-9}[name]
    numbers = [1.0009, 0.7771, 0.3333, 1e-3, 7e-5, tiny]
    numbers += [] if name == "unsigned8" else [-0.1234]
    for k, number in enumerate(np.float32(numbers)):
        random = drawn(np.arange(draws, dtype=np.uint32), seed=k)
        random = random if name in EIGHT else random >> np.uint32(16)
        given = [np.full(draws, number)]
        if name in EIGHT:
            base = called(f"{name}_base", np.float32(1))
            given.append(np.full(draws, base))
        load = [] if name not in EIGHT else [base]
        got = called(f"{name}_load", called(f"{name}_random", *given, random), *load)
        values = np.unique(got).astype(float)
        assert len(values) == 2 and values[0] < number < values[1], number
        sigma = np.sqrt((number - values[0]) * (values[1] - number) / draws)
        assert abs(got.astype(float).mean() - number) < 4 * sigma, number


def test_random_bits_are_independent():
    """Of each other between elements, steps, seeds and arrays: correlations of every bit used."""
    count = 2**16
    elements = np.arange(count, dtype=np.uint32)
    x = drawn(elements)
    others = [
        drawn(elements + np.uint32(1)),
        drawn(elements + np.uint32(16)),
        drawn(elements, step=2),
        drawn(elements, seed=6),
        x * np.uint32(0x93D765DD),
        x * np.uint32(pow(0x93D765DD, 2, 2**32)),
        drawn(elements, page=1),
    ]  # fmt: skip
    for bit in range(12, 32):
        own = (x >> np.uint32(bit)) & 1
        assert abs(own.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
        for other in others:
            theirs = (other >> np.uint32(bit)) & 1
            assert abs((own == theirs).mean() - 0.5) < 5 * 0.5 / np.sqrt(count), bit
    # As numbers: all pairs of upper bytes equally often.
    for other in others:
        pairs = np.bincount((x >> np.uint32(28) << np.uint32(4)) | (other >> np.uint32(28)),
                            minlength=256)  # fmt: skip
        expected = count / 256
        assert ((pairs - expected) ** 2 / expected).sum() < 255 + 5 * np.sqrt(2 * 255)


FEW = ("bfloat16_random", "float16_random", "float16_saturated")
"""Those that take 16 random bits."""


def test_numba_and_the_cuda_text_have_numpys_bits():
    """Every conversion in three spellings of its one text, for any bits."""
    random = np.random.default_rng(4)
    size = 20_000
    loops, cuda, inputs = "", "", {}
    for name, one in ALL.items():
        kinds = [kind for _, kind in one.arguments]
        inputs[name] = [
            some_numbers(random, size // 2)
            if kind == "S"
            else random.integers(0, 2 ** (16 if name in FEW else 32), size, np.uint32)
            for kind in kinds
        ]
        given = [f"a{k}" for k in range(len(kinds))]
        result = {"U": "uint32", "S": "float32"}
        types = ", ".join(
            f"types.Array(types.{result[kind]}, 1, 'C')" for kind in [*kinds, one.kind]
        )
        loops += (
            f"\n\n@njit([types.void({types})], **ENTRY)\n"
            f"def loop_{name}({', '.join(given)}, result):\n"
            f"    for i in range(result.size):\n"
            f"        result[i] = {name}({', '.join(f'{a}[i]' for a in given)})\n"
        )
        ctype = {"U": "unsigned", "S": "float"}
        pointers = ", ".join(
            f"{ctype[kind]} *{a}" for a, kind in zip([*given, "r"], [*kinds, one.kind], strict=True)
        )
        value = ".value" * (one.kind == "S")
        cuda += (
            f'extern "C" void loop_{name}(long size, {pointers}) {{ using namespace gpuadapt; '
            f"for (long i = 0; i < size; ++i) {{ "
            f"r[i] = {name}({', '.join(f'{a}[i]' for a in given)}){value}; }} }}\n"
        )
    every = needed(tuple(ALL.values()))
    compiled = compile.load(
        "conversions", compile.link("conversions", cpu_generate.preamble("float32", every) + loops)
    )
    head = "#include <cmath>\n#include <cstddef>\n#define __device__\n"
    library = host_check.library(head + generate.PREAMBLE + generate.codecs(every) + "}\n" + cuda)
    for name, one in ALL.items():
        with np.errstate(all="ignore"):
            wanted = np.asarray(one(*inputs[name]))
        results = [np.empty_like(wanted) for _ in range(2)]
        getattr(compiled, f"loop_{name}")(*inputs[name], results[0])
        arrays = [*inputs[name], results[1]]
        getattr(library, f"loop_{name}")(
            ctypes.c_long(size), *(ctypes.c_void_p(array.ctypes.data) for array in arrays)
        )
        for result in results:
            same = result.view(np.uint32) == wanted.view(np.uint32)
            if one.kind == "S":
                same |= np.isnan(result) & np.isnan(wanted)
            assert same.all(), (name, [array[~same][:3] for array in inputs[name]])


PACKED = r"""
static unsigned __shfl_xor_sync(unsigned, unsigned x, int, int) { return x; }
"""

PACKED_LOOPS = r"""
using namespace gpuadapt;
extern "C" void unpack_NAME(long words, const U *codes, U base, float *numbers) {
    for (long i = 0; i < words; ++i) {
        for (int k = 0; k < 4; ++k) {
            numbers[4 * i + k] = Codec::unpacked(codes[i], k, base).value;
        }
    }
}
extern "C" void pack_NAME(
    long blocks, const float *numbers, const U *random, U drawn, U *bases, U *codes, U *quickly,
    unsigned char *quick
) {
    for (long i = 0; i < blocks; ++i) {
        Coded<NAME> block(S(1.0f));
        for (int q = 0; q < 8; ++q) {
            block.numbers[q] = numbers[8 * i + q];
        }
        block.scale(8);
        bases[i] = block.base;
        quick[i] = block.quick;
        for (int part = 0; part < 2; ++part) {
            const U *bits = random + 8 * i + 4 * part;
            codes[2 * i + part] = block.packed(4 * part, bits, drawn);
            quickly[2 * i + part] = block.packed_quickly(4 * part, bits, drawn);
        }
    }
}
"""
"""A lane alone: its 8 numbers are a block."""


@pytest.fixture(scope="module")
def packed_codes():
    """Functions of the two formats of ``blocks.cuh``, on the host."""
    every = needed(tuple(ALL.values()))
    macros = {"block": 256, "neighbours": 4} | dict.fromkeys(EIGHT, 1)
    loops = "".join(PACKED_LOOPS.replace("NAME", name).replace("Codec", name) for name in EIGHT)
    head = "#include <cmath>\n#include <cstddef>\n#define __device__\n" + PACKED
    text = cuda_compile.link(macros, generate.namespace(generate.codecs(every)), "blocks.cuh")
    return host_check.library(head + text + loops)


def pointers(*arrays):
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


@pytest.mark.parametrize("scale", [1.0, 2.0**-60, 2.0**-87, 2.0**127, np.nan])
@pytest.mark.parametrize("name", EIGHT)
def test_codes_of_a_word_are_loaded_as_one_is(name, scale, packed_codes):
    """All codes in every place of a word, beside any others; also with old snapshots' scales."""
    base = called(f"{name}_base", np.float32(scale))
    codes = np.random.default_rng(8).integers(0, 256, (4, 256, 4), np.uint8)
    for k in range(4):
        codes[k, :, k] = CODES8
    codes = codes.reshape(-1, 4)
    numbers = np.empty(codes.shape, np.float32)
    unpack = getattr(packed_codes, f"unpack_{name}")
    words = codes.view(np.uint32)
    unpack(ctypes.c_long(len(words)), *pointers(words), ctypes.c_uint(base), *pointers(numbers))
    wanted = called(f"{name}_load", codes.astype(np.uint32), base)
    assert np.array_equal(bits(numbers), bits(wanted))


@pytest.mark.parametrize("name", EIGHT)
def test_codes_of_a_word_are_stored_as_one_is(name, packed_codes):
    """Of numbers around every code's bounds, and of any bits; quickly where that is said to do."""
    random = np.random.default_rng(9)
    codes = CODES8[:128] if name == "signed8" else CODES8
    ulps = np.array([-2, -1, 0, 1, 2, 2**18, 2**19 - 1, 2**19, 2**19 + 1], np.int64)
    near = []
    for scale in (1.0, 2.0**-60, 2.0**-87, 2.0**120):
        base = int(called(f"{name}_base", np.float32(scale)))
        size = base + (codes.astype(np.int64)[:, None] << 20) + ulps
        size = np.clip(size, 0, int(bits(np.float32(1.8 * scale)))).astype(np.uint32)
        x = np.resize(size.reshape(-1), (len(size) * len(ulps) // 7, 7)).view(np.float32)
        near.append(np.column_stack([x, np.full(len(x), scale, np.float32)]))
    near.append((near[0][::-1] * np.float32(2.0**-3)).astype(np.float32))
    usual = np.abs(random.normal(size=(20_000, 8))).astype(np.float32)
    numbers = np.concatenate([*near, usual, any_bits(random, 80_000, usual.dtype).reshape(-1, 8)])
    if name == "signed8":
        numbers = np.copysign(numbers, random.choice(np.float32([-1, 1]), numbers.shape))
    for low, high in ((0, 1), (2**32 - 1, 2**32), (0, 2**32)):
        bits_ = random.integers(low, high, numbers.shape, np.uint32)
        check_packed(name, packed_codes, numbers, bits_, np.uint32(0x93D765DD if low == 0 else 1))


def check_packed(name, packed_codes, numbers, random, drawn):
    count = len(numbers)
    bases, quick = np.empty(count, np.uint32), np.empty(count, np.uint8)
    codes, quickly = np.empty((2, count, 8), np.uint8)
    getattr(packed_codes, f"pack_{name}")(
        ctypes.c_long(count), *pointers(numbers, random), ctypes.c_uint(drawn),
        *pointers(bases, codes, quickly, quick),
    )  # fmt: skip
    size = bits(numbers) & 0x7FFFFFFF
    largest = size.max(axis=1)
    usual = largest < 0x7F700001
    base = called(f"{name}_base", called(f"{name}_scale", largest))
    assert np.array_equal(bases[usual], base[usual])
    with np.errstate(over="ignore"):
        mixed = random * drawn
    wanted = called(f"{name}_random", numbers, bases[:, None], mixed)[usual].astype(np.uint8)
    assert np.array_equal(codes[usual], wanted)
    fits = usual & (size.min(axis=1) >= base + 0x00100000)
    if name == "unsigned8":
        fits &= (numbers >= 0).all(axis=1)
    assert np.array_equal(quick == 1, fits)
    assert 0.2 < quick.mean() < 0.9
    assert np.array_equal(quickly[quick == 1], codes[quick == 1])


WORD_KERNEL = r"""
extern "C" __global__ void word(
    const unsigned *codes, const unsigned *numbers_0, const unsigned *numbers_1,
    const unsigned *numbers_2, const unsigned *numbers_3, const unsigned *random,
    unsigned *loaded_0, unsigned *loaded_1, unsigned *loaded_2, unsigned *loaded_3,
    unsigned *stored, unsigned base, unsigned drawn
) {
    using namespace gpuadapt;
    Coded<NAME> block(S(1.0f));
    block.base = base;
    const U word = *codes, x[4] = {*numbers_0, *numbers_1, *numbers_2, *numbers_3};
    const U draws[4] = {*random, *random + 0x3000, *random * 5, *random ^ 0x80f000};
    for (int k = 0; k < 4; ++k) {
        block.numbers[k] = real(x[k]);
    }
    *stored = block.packed_quickly(0, draws, drawn);
    *loaded_0 = bits(block.unpacked(word, 0));
    *loaded_1 = bits(block.unpacked(word, 1));
    *loaded_2 = bits(block.unpacked(word, 2));
    *loaded_3 = bits(block.unpacked(word, 3));
}
"""


@pytest.mark.parametrize("architecture", architectures()[-1:])
@pytest.mark.parametrize("name", EIGHT)
def test_the_gpus_instructions_for_a_word_give_the_same_codes(name, architecture):
    """Where they are not what a host compiler gets; the PTX is interpreted."""
    random = np.random.default_rng(10)
    formats_of = needed(tuple(ALL.values()))
    text = cuda_compile.link(
        {"block": 256, "neighbours": 4, name: 1},
        generate.namespace(generate.codecs(formats_of)),
        "blocks.cuh",
    )
    kernel = compile_ptx(text + WORD_KERNEL.replace("NAME", name), architecture,
                         cuda_compile.OPTIONS)  # fmt: skip
    scale = np.float32(2.0**-9)
    base, drawn = called(f"{name}_base", scale), np.uint32(0x93D765DD)
    codes = np.resize(CODES8.astype(np.uint8), (256, 4))
    codes[:] += np.arange(256, dtype=np.uint8)[:, None] * np.uint8([0, 3, 1, 7])
    words = codes.view(np.uint32)[:, 0].copy()
    most = int(bits(scale)) + 0x00700000
    size = random.integers(int(base) + 0x00100000, most, (4, 256)).astype(np.uint32)
    if name == "signed8":
        size |= random.integers(0, 2, size.shape, np.uint32) << np.uint32(31)
    draw = random.integers(0, 2**32, 256, np.uint32)
    loaded, stored = np.empty((4, 256), np.uint32), np.empty(256, np.uint32)
    ptx.run(kernel, [words, *size, draw, *loaded, stored], [base, drawn])
    assert np.array_equal(loaded.T, bits(called(f"{name}_load", codes.astype(np.uint32), base)))
    with np.errstate(over="ignore"):
        draws = [draw, draw + np.uint32(0x3000), draw * np.uint32(5), draw ^ np.uint32(0x80F000)]
        mixed = np.array(draws) * drawn
    wanted = called(f"{name}_random", size.view(np.float32), base, mixed).astype(np.uint8)
    assert np.array_equal(stored.view(np.uint8).reshape(-1, 4), wanted.T)
