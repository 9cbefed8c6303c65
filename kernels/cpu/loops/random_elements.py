"""The loop over elements with random bits: a hash of each element's number."""

from numba import njit

from .interface import (
    OPTIONS,
    U,
    key_on,
    random_bits,
    row_states,
    size_of,
    slice_of,
    update,
)


@njit(**OPTIONS)
def update_range(arrays, scalars, element, first_key, second_key):
    states = row_states(arrays)
    for i in range(size_of(arrays)):
        states = update(i, arrays, scalars, random_bits(element, first_key, second_key))
        # A counter of its own: as a function of i, LLVM would compute it in 64 bits.
        element = U(element + U(1))
    return states


@njit(**OPTIONS)
def update_span(arrays, scalars, begin, keys, buffers):
    states = row_states(arrays)
    done = 0
    while done < size_of(arrays):  # once, unless elements' numbers pass a multiple of 2^32
        number = begin + done
        stop = min(done + 2**32 - (number & (2**32 - 1)), size_of(arrays))
        high = U(number >> 32)
        states = update_range(
            slice_of(arrays, done, stop), scalars, U(number),
            key_on(keys[0], high), key_on(keys[1], high),
        )  # fmt: skip
        done = stop
    return states
