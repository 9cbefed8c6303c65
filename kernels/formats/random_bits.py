"""Random bits of stochastic rounding: a hash of the element's index with two keys.

The keys are hashes of the parameter's seed and the step. Multipliers and shifts are those of
"lowbias32", the 32-bit hash of two rounds with the least bias that Wellons' hash-prospector found.
"""

import hashlib

from .conversion import U, conversion, where

DRAWN = 0x93D765DD
"""Random bits of the n-th array = hash * DRAWN**n (mod 2**32): a multiplier of good lattices
(Steele & Vigna, Computationally easy, spectrally good multipliers, 2022)."""


@conversion
def scrambled(x: U) -> U:
    """Return a hash of 32 bits."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@conversion
def key_of(seed: U, step: U) -> U:
    """Return one of the two keys of a parameter in a step, from half of its seed."""
    return scrambled(scrambled(seed) + step)


@conversion
def key_on(key: U, page: U) -> U:
    """Return the key for elements whose index has ``page`` as its upper 32 bits."""
    return where(page == 0, key, scrambled(key + page * 0x9E3779B9))


@conversion
def random_bits(element: U, first: U, second: U) -> U:
    """Return random bits from the lower half of an element's index and two keys.

    The upper bits are the best ones.
    """
    x = element + first
    x = (x ^ (x >> 16)) * 0x7FEB352D ^ second
    return (x ^ (x >> 15)) * 0x846CA68B


def parameter_key(seed: int, name: str) -> int:
    """Return 64 bits for a parameter that depend on the optimizer's seed and its name alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
