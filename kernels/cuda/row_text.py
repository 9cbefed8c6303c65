"""The CUDA text of rows; `gpuadapt.kernels.cuda.rows` fills it in."""

KEYS = r"""
extern "C" __global__ void gpuadapt_keys(
    const %(index)s *rows, long long stride, long long n, const long long *used, int counted,
    long long count, int shift, unsigned long long *keys, unsigned long long *wrong
) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    const bool unused = counted != 0 && i >= *used;
    long long row = unused ? count + 1 : rows[i * stride];
    if (!unused && (row < 0 || row >= count)) {
        row = count;
        atomicAdd(wrong, 1ULL);
        atomicMax(wrong + 1, (unsigned long long)(n - i));
    }
    keys[i] = (unsigned long long)row << shift | (unsigned long long)i;
}
"""
"""A key is a row's number above its position; ``wrong`` gets how many are out of range, and
how far from the end the first of them is. Rows that are not in use have a larger number still."""

HELPERS = r"""
// Where the keys of key i's row end; doubling steps, then halving.
__device__ inline long long end_of(
    const unsigned long long *keys, long long i, long long n, int shift
) {
    const unsigned long long row = keys[i] >> shift;
    long long step = 1;
    while (i + step < n && keys[i + step] >> shift == row) {
        i += step;
        step *= 2;
    }
    for (step /= 2; step > 0; step /= 2) {
        if (i + step < n && keys[i + step] >> shift == row) {
            i += step;
        }
    }
    return i + 1;
}

// The gradients of one row, and N elements of their sum, in order of occurrence. As they are
// kept they are of type G.
typedef %(type)s F;
typedef %(kept)s G;
typedef number<F> T;
__device__ inline %(wide)s loaded(G x) { return %(load)s; }

struct occurrences {
    const G *values;
    const long long width;
    const unsigned long long *keys, mask;
    const long long first, end;

    template <int N>
    __device__ pack<%(wide)s, N> load(long long k, long long j) const {
        const pack<G, N> x =
            *reinterpret_cast<const pack<G, N> *>(values + place(width, keys[k] & mask, j));
        pack<%(wide)s, N> result;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            result.at[e] = loaded(x.at[e]);
        }
        return result;
    }

    // AHEAD are asked for at once.
    template <int N, int AHEAD>
    __device__ pack<%(wide)s, N> summed(long long j) const {
        pack<%(wide)s, N> total = load<N>(first, j);
        long long k = first + 1;
        for (; k + AHEAD <= end; k += AHEAD) {
            pack<%(wide)s, N> next[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                next[a] = load<N>(k + a, j);
            }
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
#pragma unroll
                for (int e = 0; e < N; ++e) {
                    total.at[e] = total.at[e] + next[a].at[e];
                }
            }
        }
        for (; k < end; ++k) {
            const pack<%(wide)s, N> next = load<N>(k, j);
#pragma unroll
            for (int e = 0; e < N; ++e) {
                total.at[e] = total.at[e] + next.at[e];
            }
        }
        return total;
    }
};

// A frequent row is one that has keys at two neighbouring multiples of OFTEN; its number is
// that of the first of them.
constexpr long long OFTEN = %(often)d;

// The gradient of one row, of which N elements at a time are looked at.
struct gradient {
    const occurrences all;
    const %(held)s *totals;
    const bool mean;
    %(wide)s factor;

    template <int N>
    __device__ pack<%(wide)s, N> at(long long j) const {
        const long long k = (all.first + OFTEN - 1) / OFTEN;
        pack<%(wide)s, N> total = (k + 1) * OFTEN < all.end
            ? *reinterpret_cast<const pack<%(wide)s, N> *>(totals + place(all.width, k, j))
            : all.template summed<N, 8>(j);
#pragma unroll
        for (int e = 0; e < N; ++e) {
            if (mean) {
                total.at[e] = total.at[e] / %(wide)s(%(held)s(all.end - all.first));
            }
            total.at[e] = total.at[e] * factor;
        }
        return total;
    }
};

// A row's sum of squares, in the order that the CPU has: element j adds to sum j %% %(sums)d,
// then the upper half of the sums is added to the lower half, until one is left. A lane has
// every LANES-th of the sums; if there are fewer lanes than sums, a row has no more than N
// elements for each lane, and the other sums are zero.
template <int LANES, int N, typename V>
__device__ inline number<double> squares(bool here, long long width, V value) {
    constexpr int SUMS = %(sums)d, OWN = N < SUMS / LANES ? N : SUMS / LANES;
    const int lane = threadIdx.x %% LANES;
    number<double> own[OWN];
#pragma unroll
    for (int q = 0; q < OWN; ++q) {
        own[q] = 0.0;
        for (long long j = lane + q * LANES; here && j < width; j += SUMS) {
            const number<double> x = ieee::widen(value(j).value);
            own[q] = own[q] + x * x;
        }
    }
#pragma unroll
    for (int half = OWN / 2; half > 0; half /= 2) {
#pragma unroll
        for (int q = 0; q < half; ++q) {
            own[q] = own[q] + own[q + half];
        }
    }
    double sum = own[0].value;
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {
        sum = ieee::add(sum, __shfl_down_sync(0xffffffff, sum, half, LANES));
    }
    return __shfl_sync(0xffffffff, sum, 0, LANES);
}

}  // namespace gpuadapt
"""

ROW_SQUARES = r"""
extern "C" __global__ void gpuadapt_row_squares(
    const unsigned long long *__restrict__ keys, long long n, int shift, long long count,
    long long width, const %(type)s *__restrict__ totals, int mean, int clipped, double most,
    const double *__restrict__ numbers, const %(kept)s *__restrict__ values, double *squared
) {
    using namespace gpuadapt;
    constexpr int N = %(elements)d, LANES = %(lanes)d;
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    const long long row = i < n ? keys[i] >> shift : count;
    const bool here = row < count && (i == 0 || keys[i - 1] >> shift != row);
    const gradient row_gradient = {
        {values, width, keys, (1ULL << shift) - 1, i, here ? end_of(keys, i, n, shift) : i},
        totals, mean != 0, F(1)
    };
    T scale;
    ieee::narrow(numbers[%(scale)d], scale.value);
    T factor = F(1), top = F(0);
    if (clipped) {  // as in the update
        const number<double> norm = ieee::root(squares<LANES, N>(here, width, [&](long long j) {
            return row_gradient.at<1>(j).at[0];
        }).value);
        const number<double> largest = number<double>(most) * number<double>(numbers[%(scale)d]);
        if (norm > largest) {
            ieee::narrow((largest / norm).value, factor.value);
        }
    }
    const number<double> sum = squares<LANES, N>(here, width, [&](long long j) {
        const T x = row_gradient.at<1>(j).at[0], value = x / scale;
        const T size = abs(clipped ? x * factor / scale : value);
        top = size > top ? size : top;
        return value;
    });
    double peak = ieee::widen(top.value);
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {
        const double other = __shfl_down_sync(0xffffffff, peak, half, LANES);
        peak = other > peak ? other : peak;
    }
    if (i < n && threadIdx.x %% LANES == 0) {
        squared[i] = here ? sum.value : 0;
        squared[n + i] = here ? peak : 0;
    }
}
"""
"""The sum of squares of each row's gradient, where its first key is, 0 elsewhere; in the second
half the largest magnitude of what a limit on the row's norm leaves of it."""

FREQUENT = r"""
extern "C" __global__ void gpuadapt_frequent(
    const unsigned long long *__restrict__ keys, long long n, int shift, long long count,
    long long width, const %(kept)s *__restrict__ values, %(type)s *totals
) {
    using namespace gpuadapt;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long k = thread / width, j = thread %% width, i = k * OFTEN;
    if (i + OFTEN >= n) {
        return;
    }
    const long long row = keys[i] >> shift;
    if (row >= count || keys[i + OFTEN] >> shift != row
        || (k > 0 && keys[i - OFTEN] >> shift == row)) {
        return;
    }
    long long first = i;
    while (first > 0 && keys[first - 1] >> shift == row) {
        --first;
    }
    const occurrences found = {
        values, width, keys, (1ULL << shift) - 1, first, end_of(keys, i, n, shift)
    };
    totals[thread] = found.summed<1, 32>(j).at[0].value;
}
"""
"""The sums of frequent rows, a thread for each element."""

ROWS = r"""
extern "C" __global__ void %(name)s(
    const unsigned long long *__restrict__ keys, long long n, int shift, long long count,
    long long width, const %(summed)s *__restrict__ totals, int mean, int clipped, double most,
    unsigned long long *skipped, long long first, const double *__restrict__ numbers,
    %(arguments)s
) {
    using namespace gpuadapt;
    constexpr int N = %(elements)d, LANES = %(lanes)d;
    if (numbers[%(skip)d] != 0) {
        return;
    }
%(coefficients)s
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    const int lane = threadIdx.x %% LANES;
    const long long row = i < n ? keys[i] >> shift : count;
    if (i < n && row == count && lane == 0%(counted)s) {
        atomicAdd(skipped, 1ULL);
    }
    // The lanes of other occurrences of a row have nothing to do, but a warp stays together.
    const bool here = row < count && (i == 0 || keys[i - 1] >> shift != row);
%(missed)s    gradient row_gradient = {
        {%(gradient)s, width, keys, (1ULL << shift) - 1,
         i, here ? end_of(keys, i, n, shift) : i},
        totals, mean != 0, %(held)s(1)
    };
    if (clipped) {
        const number<double> norm = ieee::root(squares<LANES, N>(here, width, [&](long long j) {
            return row_gradient.at<1>(j).at[0];
        }).value);
        // The gradients are still to be divided by their scale.
        const number<double> largest = number<double>(most) * number<double>(numbers[%(scale)d]);
        if (norm > largest) {
            ieee::narrow((largest / norm).value, row_gradient.factor.value);
        }
    }
%(update)s
}
"""

UPDATE = r"""%(mean_square)s
%(row_states)s
%(keys)s%(run)s
%(after)s"""

ELEMENTS = r"""    for (long long j = lane * N; here && j < width; j += LANES * N) {
        const pack<%(wide)s, N> gradients = row_gradient.at<N>(j);
%(load)s
#pragma unroll
        for (int k = 0; k < N; ++k) {
            %(random)s
%(numbers)s
            %(call)s
%(put)s
        }
%(store)s
    }
"""

BLOCKS = r"""    for (long long column = 0; here && column < width; column += %(shared)d) {
        const int n = width - column < %(shared)d ? int(width - column) : %(shared)d;
        const long long begin = row * width + column;
        const long long block = row * ((width + %(shared)d - 1) / %(shared)d) + column / %(shared)d;
%(update)s
    }
"""

MEAN_SQUARE = r"""    T mean_square;
    ieee::narrow((squares<LANES, N>(here, width, [&](long long j) {
        T x = %(parameter)s;
        %(squared)s<T>(%(given)s);
        return x;
    }) / number<double>(double(width))).value, mean_square.value);
"""

ROW_STATES = r"""
    // Written after every lane has read it.
    __syncwarp();
    if (here && lane == 0) {
%s
    }
"""
