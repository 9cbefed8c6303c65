"""What the head of a module offers to the loops: written by `gpuadapt.kernels.cpu.generate`.

The declarations below are for readers and linters. A head defines those that its loops import. In
it, ``arrays`` is the tuple of the contiguous arrays of one update: the parts of the parameter, the
gradient, the parts of each state. A state with one number for a table's row is that number.
"""

import numpy as np
from numba import types

ENTRY = {"error_model": "numpy", "nogil": True, "cache": True}
"""Options of functions that Python calls: IEEE division, no lock."""

OPTIONS = {"error_model": "numpy", "nogil": True}
OPTIONS |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of all others: what lets Python call them takes longer to compile than they do."""

INLINE = {"forceinline": True, **OPTIONS}
"""Options of functions called for every row or block: tuples would be copied at each call."""

U, S, D = np.uint32, np.float32, np.float64

T = np.float32
"""The compute type."""

BLOCK = 256
"""Elements that share a scale."""

LANES = 256
"""Partial sums of a chunk."""

AHEAD, LINE = 1024, 16
"""Elements between what is updated and what is asked for, and elements of a cache line."""

DATA = DIMENSIONS = SHAPE = DTYPE = FLAGS = ITEMS = TYPE = WRITEABLE = SCALAR_TYPE = BYTE_ORDER = 0
"""Offsets of fields of NumPy's arrays, in bytes, and a flag; see `loops.array_headers`."""

SWAPPED = 0
"""A byte order; see `loops.object_fields`."""

MEMORY = ADDRESS = DEVICE = 0
"""Offsets of fields of CuPy's arrays and memory pointers; see `loops.cupy_headers`."""

ARGUMENTS = types.Tuple([])
"""The type of a kernel's own arguments, which `run_chunks` gets."""

TABLES = 0
"""The number of tables that `keys_at` and `width_of` read."""


def run_chunks(first, last, chunks, arguments):
    """Do the work of the chunks from ``first`` on, before ``last``."""


def update_chunk(array, start, size, addresses, gradients, scalars, keys, tables, buffers, long):
    """Update ``size`` elements of an array from its element ``start`` on."""


def update_span(arrays, scalars, begin, keys, buffers):
    """Update contiguous arrays of one size; returns the new states of their row.

    ``begin`` is the number of the first element and ``keys`` are two words, for random bits;
    ``buffers`` are arrays for a block's new elements, one for each state in 8 bits.
    """


def update(i, arrays, scalars, random):
    """Update element ``i``: load it, apply the rule, store it; returns the row's new states."""


def update_pair(i, arrays, scalars, random):
    """Update elements ``2 i`` and ``2 i + 1``; types of 16 bits are arrays of words of 32."""


def update_buffered(i, arrays, bases, buffers, scalars, random):
    """As `update`, but states in 8 bits are written to ``buffers``, not yet encoded."""


def encode(i, arrays, bases, buffers, random):
    """Store element ``i`` of the states in 8 bits."""


def encode_quickly(i, arrays, bases, buffers, random):
    """As `encode`, for blocks for which `is_quick` holds."""


def is_quick(buffers, bases, size):
    """Whether no element of a block lies between zero and the smallest code's number."""


def bases_of(arrays, block):
    """The bases of a block, one for each state in 8 bits."""


def store_scales(arrays, block, buffers, size):
    """Write the scales of a block, from the largest magnitudes among its new elements."""


def block_buffers():
    """New buffers for the elements of a block, which the caller has to `keep`."""


def views_of(buffers):
    """The buffers as views without an owner, whose references Numba does not count."""


def size_of(arrays):
    """The number of elements."""


def slice_of(arrays, start, stop):
    """The arrays without the elements before ``start`` and from ``stop`` on, but all scales."""


def pairs_of(arrays):
    """The arrays with those of 16 bits as words of 32."""


def pair_count(arrays):
    """The number of whole pairs."""


def row_states(arrays):
    """The states with one number for the row, as they are; an empty tuple if there are none."""


def prefetch_ahead(arrays, index):
    """Ask for the cache lines that hold element ``index``."""


def arrays_at(array, start, size, block, addresses, gradients):
    """The arrays of an update at these addresses, from element ``start`` and ``block`` on."""


def coefficients_at(numbers, offset):
    """The rule's coefficients as numbers of the compute type."""


def keys_at(tables, array, numbers, offset):
    """The keys of an array's random bits; an empty tuple if there are none."""


def width_of(tables, array):
    """The number of elements of a row whose blocks are its own."""


def elements_at(address, start, size):
    """A gradient's elements in memory."""


def value_of(x, k):
    """Element ``k`` of a gradient as a number of the compute type."""


def random_bits(element, first_key, second_key):
    """32 bits for an element's number; with what follows, `gpuadapt.kernels.formats` has it."""


def key_on(key, high):
    """A key for elements whose numbers have these upper bits."""


def larger_magnitude(largest, x):
    """The bits of the larger magnitude; NaN is the largest."""


def all_representable(largest):
    """Whether (1) 8 bits hold every element of a block with that largest magnitude."""


def larger_representable(largest, x):
    """As `larger_magnitude`, of the numbers that 8 bits hold."""


def block_limit(largest):
    """The same, but not zero where a block has infinities beside zeros alone."""


def representable(x, largest):
    """The number that 8 bits hold in the place of x."""


def smaller_magnitude(smallest, x):
    """The bits of the smaller magnitude other than zero."""


# Rows of a table; ``arrays`` are the parts of the parameter, and the gradient last.

W = np.float32
"""The type in which a row's gradients are merged: T or wider."""

SUMS = 32
"""Partial sums of a row."""

GRADIENTS, MERGED = (types.Array(types.float32, 2, "C", readonly=r) for r in (True, False))
"""Numba's types of a batch's gradients in memory, and of merged gradients."""


def squared_value(i, arrays, scalars):
    """The expression of a rule that is squared and averaged over a row, for element ``i``."""


PLAIN = True
"""Whether gradients in memory are numbers of type W."""


def unmerged(values, merged, position, k):
    """Row ``position`` of the values, if they are plain; else the k-th buffer."""


def thread_storage(arguments):
    """New arrays for a thread's updates, which it has to `keep`."""


def thread_arguments(arguments, storage):
    """The arguments of a thread's updates: views without an owner, rounded coefficients."""


def prefetch_row(arguments, row, width):
    """Ask for a row of the parameter and of the states."""


def update_row(arguments, row, gradient, partial):
    """Update a row of the table; ``partial`` (SUMS,) is scratch."""


def process_row(arguments, batch, i, end, row, k):
    """Do what is to be done to a row whose keys are keys[i:end]; ``batch`` as in `loops.rows`."""


MAX_REPLAY = REPLAYED = NO_END = STATES = TERMS = 0
SHRINK = CORRECTION = WEIGHT = RELATIVE = LEFT_OUT = FIRST_SUM = 0
ERROR = LEAST_LEFT_OUT = LEAST_U = MAX_GROWTH = MAX_RATIO = MIN_SIZE = NEGLIGIBLE = (
    SMALLEST_NORMAL
) = 0.0
"""Constants of `gpuadapt.kernels.catchup.plan`, and the number of a rule's states."""

MOVES = True
"""Whether skipped steps change the parameter."""


def history_of(arguments):
    """The last step of each row, the number of steps, the ring's mask, the ends of segments."""


def moments_of(arguments, step):
    """The moments of the segment that begins with a step."""


def output_of(arguments):
    """Whether rows are only read, and the array (occurrences, width) for them."""


def buffer_of(arguments):
    """A thread's memory, (1, width)."""


def parameter_row(arguments, row):
    """The row of the parameter."""


def state_rows(arguments, row):
    """The rows of the states; for a state with one number for the row, that number."""


def catch_up(arguments, row, sums):
    """Take all steps that the row has skipped."""


def replay_step(arguments, row, past_step, sums):
    """Take one step by the rule, with its coefficients and a gradient of zero."""


def decay_states(arguments, row, step):
    """Multiply states by the products of all factors of the segment that begins with a step."""


def displacement_at(i, states, coefficients):
    """The displacement of element ``i``."""


def displacement_coefficients(arguments, step):
    """The coefficients of `displacement_at` in a step, of the compute type."""


def inverse_at(i, states, coefficients):
    """One divided by the powers of the states of element ``i`` in the correction."""


def _normal(x):
    """``x``, or +0 if it is subnormal."""
