"""The text of CPU kernels for rows; `row_source` fills it in."""

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
        copy_merged(part(buffers, k, 0, width), part(totals, known, 0, width))
    if mean:
        divide(part(buffers, k, 0, width), W(end - i))
    if most < np.inf:
        clip(part(buffers, k, 0, width), most, part(partial, k, 0, {sums}))
    total = part(merged, k, 0, width)"""

ROWS = """

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
