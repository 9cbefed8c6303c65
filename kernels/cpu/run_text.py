"""The text of an update of a run of elements on the CPU; `run_source` fills it in."""

DRAWN = "random = random_bits(element, first_key, second_key)"
NEXT = "element = U(element + U(1))"
"""A counter of its own: as a function of ``i``, LLVM would compute it in 64 bits."""

KEYS = """

@njit(**OPTIONS)
def keys_of(key, step):
    return key_of(U(key), step), key_of(U(key >> 32), step)
"""

SPAN = """

@njit(**OPTIONS)
def {name}({given}):{begin}
    for i in range({size}.size):
{lines}
"""

PAGES = """

@njit(**OPTIONS)
def span({given}):{kept}
    done = 0
    while done < {size}.size:  # once, unless elements' numbers pass a multiple of 2^32
        number = begin + done
        stop = min(done + 2**32 - (number & (2**32 - 1)), {size}.size)
        page = U(number >> 32)
        {new}on_page({sliced}, U(number), key_on(first_key, page), key_on(second_key, page))
        done = stop
"""

HASH = "random_bits(U((number + i) >> 1), first_key, second_key)"
DRAWN_HALF = f"random = U({HASH} << U(((number + i) & 1) << 4))"

PAIRS = """

@njit(**OPTIONS)
def on_pairs({pairs}, number, first_key, second_key):
    element = U(number >> 1)
    for i in range({word}.size):
        random = random_bits(element, first_key, second_key)
{lines}
        element = U(element + U(1))


@njit(**OPTIONS)
def span({given}):
    done = 0
    while done < {size}.size:
        number = begin + done
        stop = min(done + 2**33 - (number & (2**33 - 1)), {size}.size)
        first, second = key_on(first_key, U(number >> 33)), key_on(second_key, U(number >> 33))
        if number & 1 == 0:
            on_pairs({words}, number, first, second)
            number += (stop - done) // 2 * 2
            done += (stop - done) // 2 * 2
        on_page({sliced}, number, first, second)
        done = stop
"""
"""Two neighbours at a time, if the first one's number is even, and what is left one by one."""

BLOCKS = """

@njit(**OPTIONS)
def all_made_held(numbers, size):
    largest = U(0)
    for i in range(size):
        largest = larger_representable(largest, S(numbers[i]))
    largest = block_limit(largest)
    for i in range(size):
        numbers[i] = T(representable(S(numbers[i]), largest))
    return largest


@njit(**OPTIONS)
def largest_of(numbers, size):
    largest = U(0)
    for i in range(size):
        largest = larger_magnitude(largest, S(numbers[i]))
    if all_representable(largest) == U(0):
        largest = all_made_held(numbers, size)
    return largest


@njit(**OPTIONS)
def update_block({inside}):{kept}
    for i in range({size}.size):
{lines}
{returned}

@njit(**OPTIONS)
def encode_block({coded}, element, first_key, second_key):
    for i in range({first}.size):
{encode}


{quickly}
@njit(**OPTIONS)
def span({given}):{kept}
    for block in range(({size}.size + {block} - 1) // {block}):
        start = block * {block}
        stop = min(start + {block}, {size}.size)
        low, page = U(begin + start), U((begin + start) >> 32)
        first, second = key_on(first_key, page), key_on(second_key, page)
{bases}
        {new}update_block({sliced})
{extents}
{encoded}
{encode_call}
"""

QUICKLY = """
@njit(**OPTIONS)
def smallest_of(held, size):
    smallest = U(2**32 - 1)
    for i in range(size):
        smallest = smaller_magnitude(smallest, S(held[i]))
    return smallest


@njit(**OPTIONS)
def encode_quickly({coded}, element, first_key, second_key):
    for i in range({first}.size):
{quickly}

"""

QUICK_CALL = """if {quick}:
    encode_quickly({parts}, low, first, second)
else:
    encode_block({parts}, low, first, second)"""
