"""The loops over blocks of elements that share scales: update, find the scale, encode."""

from numba import njit

from .interface import (
    BLOCK,
    INLINE,
    OPTIONS,
    S,
    T,
    U,
    all_representable,
    bases_of,
    block_limit,
    encode,
    encode_quickly,
    is_quick,
    key_on,
    larger_magnitude,
    larger_representable,
    random_bits,
    representable,
    row_states,
    size_of,
    slice_of,
    store_scales,
    update_buffered,
)


@njit(**OPTIONS)
def make_representable(numbers, size):
    """Replace elements that 8 bits do not represent; returns the bits of the largest magnitude."""
    largest = U(0)
    for i in range(size):
        largest = larger_representable(largest, S(numbers[i]))
    largest = block_limit(largest)
    for i in range(size):
        numbers[i] = T(representable(S(numbers[i]), largest))
    return largest


@njit(**OPTIONS)
def largest_of(numbers, size):
    """The bits of the largest magnitude, after `make_representable` if needed."""
    largest = U(0)
    for i in range(size):
        largest = larger_magnitude(largest, S(numbers[i]))
    if all_representable(largest) == U(0):
        largest = make_representable(numbers, size)
    return largest


@njit(**INLINE)
def update_block(arrays, bases, buffers, scalars, element, first_key, second_key):
    states = row_states(arrays)
    for i in range(size_of(arrays)):
        random = random_bits(element, first_key, second_key)
        states = update_buffered(i, arrays, bases, buffers, scalars, random)
        element = U(element + U(1))
    return states


@njit(**INLINE)
def encode_block(arrays, bases, buffers, element, first_key, second_key):
    for i in range(size_of(arrays)):
        encode(i, arrays, bases, buffers, random_bits(element, first_key, second_key))
        element = U(element + U(1))


@njit(**INLINE)
def encode_block_quickly(arrays, bases, buffers, element, first_key, second_key):
    for i in range(size_of(arrays)):
        encode_quickly(i, arrays, bases, buffers, random_bits(element, first_key, second_key))
        element = U(element + U(1))


@njit(**OPTIONS)
def update_span(arrays, scalars, begin, keys, buffers):
    """Begin with a whole block; the arrays of scales begin with that block's."""
    states = row_states(arrays)
    for block in range((size_of(arrays) + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        stop = min(start + BLOCK, size_of(arrays))
        low, high = U(begin + start), U((begin + start) >> 32)
        first, second = key_on(keys[0], high), key_on(keys[1], high)
        inside = slice_of(arrays, start, stop)
        states = update_block(inside, bases_of(arrays, block), buffers, scalars, low, first, second)
        store_scales(arrays, block, buffers, stop - start)
        bases = bases_of(arrays, block)
        if is_quick(buffers, bases, stop - start):
            encode_block_quickly(inside, bases, buffers, low, first, second)
        else:
            encode_block(inside, bases, buffers, low, first, second)
    return states
