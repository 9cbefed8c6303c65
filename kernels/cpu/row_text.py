"""The text of CPU kernels for rows; `row_source` fills it in."""

ADDITIONS = """

@njit(**OPTIONS)
def copy(target, source):
    for j in range(target.size):
        target[j] = {value}


@njit(**OPTIONS)
def add(target, source):
    for j in range(target.size):
        target[j] += {value}


@njit(**OPTIONS)
def take(target, source):
    for j in range(target.size):
        target[j] = source[j]
"""

FREQUENT = """

@njit(**OPTIONS)
def sum_columns(keys, mask, spans, values, totals, k, first, last):
    start, stop = spans[k]
    copy(part(totals, k, first, last), part(values, np.intp(keys[start] & mask), first, last))
    for i in range(start + 1, stop):
        add(part(totals, k, first, last), part(values, np.intp(keys[i] & mask), first, last))


SIGNATURE = types.void(
    types.Array(types.uint64, 1, "C"), types.uint64, types.Array(types.int64, 2, "C"),
    types.Array(types.{kept}, 2, "C", readonly=True), types.Array(types.{dtype}, 2, "C"),
    types.int64, types.boolean,
)


@njit([SIGNATURE], parallel=True, cache=True, **OPTIONS)
def sum_frequent(keys, mask, spans, values, totals, block, serial):
    width = values.shape[1]
    pieces = (width + block - 1) // block
    modes = default_modes()
    if serial:
        for k in range(spans.shape[0]):
            sum_columns(keys, mask, spans, values, totals, k, 0, width)
    else:
        for task in prange(spans.shape[0] * pieces):
            own_modes = default_modes()
            k, first = np.intp(task) // pieces, np.intp(task) % pieces * block
            sum_columns(keys, mask, spans, values, totals, k, first, min(first + block, width))
            restore_modes(own_modes)
    restore_modes(modes)
"""
"""Shared out by columns, so that the order of a sum stays as it is."""

MAGNITUDES = """

@njit(**OPTIONS)
def measured(x, scale, partial, tops):
    partial[:] = 0
    tops[:] = 0
    for start in range(0, x.size, {sums}):
        for k in range(min({sums}, x.size - start)):
            i = start + k
            value = np.float64(x[i] / scale)
            partial[k] += value * value
            size = np.abs(value)
            tops[k] = size if size > tops[k] else tops[k]
    return fold(partial)


# The largest number of what a limit on the row's norm leaves of it; ``most`` is of numbers that
# are still to be divided by their scale.
@njit(**OPTIONS)
def clipped_top(x, scale, most, partial, tops):
    norm = np.sqrt(squares(x, partial))
    if norm > most:
        factor = T(most / norm)
        tops[:] = 0
        for start in range(0, x.size, {sums}):
            for k in range(min({sums}, x.size - start)):
                size = np.abs(np.float64(x[start + k] * factor / scale))
                tops[k] = size if size > tops[k] else tops[k]
    return fold_largest(tops)
"""
"""The sum of squares of a row's numbers, and the largest of them."""

SQUARES = """

@njit(**OPTIONS)
def {name}({arguments}, partial):
    partial[:] = 0
    for start in range(0, {first}.size, {sums}):
        for k in range(min({sums}, {first}.size - start)):
            i = start + k
            value = np.float64({value})
            partial[k] += value * value
    return fold(partial)
"""

MERGED = """# Its gradient: as it is, or merged in a buffer.
at = np.intp(keys[i] & mask)
total = {alone}
if end > i + 1 or most < np.inf{whole}:
    known = -1
    if end - i > often:  # only these may be among the frequent ones, which are few
        for candidate in range(frequent.shape[0]):
            if frequent[candidate, 0] == i:
                known = candidate
    if known < 0:
        copy(part(buffers, k, 0, width), part({gradient}, at, 0, width))
        for other in range(i + 1, end):
            at = np.intp(keys[other] & mask)
            add(part(buffers, k, 0, width), part({gradient}, at, 0, width))
    else:
        take(part(buffers, k, 0, width), part(totals, known, 0, width))
    if mean:
        divide(part(buffers, k, 0, width), {wide}(end - i))
    if most < np.inf:
        clip(part(buffers, k, 0, width), most, part(partial, k, 0, {sums}))
    total = part(merged, k, 0, width)"""

ROWS = """

@njit(**OPTIONS)
def divide(x, count):
    for i in range(x.size):
        x[i] /= count


@njit(**OPTIONS)
def clip(x, most, partial):
    norm = np.sqrt(squares(x, partial))
    if norm > most:
        factor = {wide}(most / norm)
        for i in range(x.size):
            x[i] *= factor


# Arrays are not handed from function to function here: Numba would count references to them,
# in one place for all threads, for every row.
@njit(**OPTIONS)
def work(counter, piece, keys, shift, frequent, totals, often, mean, most,
         buffers, merged, partial, k, {arguments}):
{rounded}
{before}
    n, width, mask = keys.size, {gradient}.shape[1], (np.uint64(1) << shift) - np.uint64(1)
    followed = min(width, {followed})
    while True:
        i = claim(counter, piece)
        if i >= n:
            break
        stop = min(i + piece, n)
        # A row that began before belongs to whoever has its beginning.
        while 0 < i < stop and keys[i] >> shift == keys[i - 1] >> shift:
            i += 1
        while i < stop:
            # Find where this row ends, asking meanwhile for what comes soon.
            number = keys[i] >> shift
            end = i
            while end < n and keys[end] >> shift == number:
                later = min(end + {ahead}, n - 1)
                begin = np.intp(keys[later] & mask) * width
                for j in range(0, followed, {line}):
                    prefetch({gradient}, begin + j)
                prefetch({gradient}, begin + width - 1)
                if later == 0 or keys[later - 1] >> shift != keys[later] >> shift:
                    begin = np.intp(keys[later] >> shift) * width
{asked}
                end += 1
            row = np.intp(number)
{work}
            i = end


MATRIX = types.Array(types.{dtype}, 2, "C")
KEYS = types.Array(types.uint64, 1, "C")
NUMBERS = types.Array(types.int64, 1, "C")
PLACES = types.Array(types.int64, 2, "C")
PARTIAL = types.Array(types.float64, 2, "C")


@njit([types.void({types})], parallel=True, cache=True, **OPTIONS)
def rows(counter, piece, keys, shift, frequent, totals, often, mean, most, buffers, merged, partial,
         {arguments}, serial):
    modes = default_modes()
    counter[0] = 0
    if serial or buffers.shape[0] == 1:
        work(counter, piece, keys, shift, frequent, totals, often, mean, most,
             buffers, merged, partial, np.intp(0), {arguments})
    else:
        for k in prange(buffers.shape[0]):
            own_modes = default_modes()
            work(counter, piece, keys, shift, frequent, totals, often, mean, most,
                 buffers, merged, partial, np.intp(k), {arguments})
            restore_modes(own_modes)
    restore_modes(modes)
"""

TYPES = (
    "NUMBERS, types.int64, KEYS, types.uint64, PLACES, MATRIX, types.int64, types.boolean, "
    "types.float64, MATRIX, types.Array(types.{dtype}, 2, 'C', readonly=True), PARTIAL"
)
