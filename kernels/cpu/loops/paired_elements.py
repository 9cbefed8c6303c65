"""The loop over pairs of elements that share a word of memory and the 32 bits of a hash.

A pair is elements 2 k and 2 k + 1, with k its number. Elements without their pair at the ends are
updated one by one.
"""

from numba import njit

from .interface import (
    OPTIONS,
    U,
    key_on,
    pair_count,
    pairs_of,
    random_bits,
    size_of,
    slice_of,
    update,
    update_pair,
)


@njit(**OPTIONS)
def update_singles(arrays, scalars, number, first_key, second_key):
    for i in range(size_of(arrays)):
        bits = random_bits(U((number + i) >> 1), first_key, second_key)
        update(i, arrays, scalars, U(bits << U(((number + i) & 1) << 4)))


@njit(**OPTIONS)
def update_pairs(arrays, scalars, number, first_key, second_key):
    element = U(number >> 1)
    for i in range(pair_count(arrays)):
        update_pair(i, arrays, scalars, random_bits(element, first_key, second_key))
        element = U(element + U(1))


@njit(**OPTIONS)
def update_span(arrays, scalars, begin, keys, buffers):
    done = 0
    while done < size_of(arrays):  # once, unless pairs' numbers pass a multiple of 2^32
        number = begin + done
        stop = min(done + 2**33 - (number & (2**33 - 1)), size_of(arrays))
        first, second = key_on(keys[0], U(number >> 33)), key_on(keys[1], U(number >> 33))
        if number & 1 == 0:
            update_pairs(pairs_of(slice_of(arrays, done, stop)), scalars, number, first, second)
            number += (stop - done) // 2 * 2
            done += (stop - done) // 2 * 2
        update_singles(slice_of(arrays, done, stop), scalars, number, first, second)
        done = stop
    return ()
