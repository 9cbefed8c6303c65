// The gradient of one row of a table: values of the batch, duplicates merged, in a defined order.
//
// Generated before this file: F and T = number<F> (arithmetic), G (an element of a gradient in
// memory), W (the number that gradients are merged in: T or wider), W loaded(G).
#include "layout.cuh"

namespace gpuadapt {

// The index after the last key of the row of keys[i]: steps are doubled, then halved.
__device__ inline long long end_of_row(const GA_KEY *keys, long long i, long long n, int shift) {
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

// The values of one row: those at the positions of keys[first] to keys[end - 1].
struct Occurrences {
    const G *values;  // (n, width)
    const long long width;
    const GA_KEY *keys;
    const unsigned long long position_mask;
    const long long first, end;

    // Elements j to j + N - 1 of the k-th key's value.
    template <int N>
    __device__ pack<W, N> load(long long k, long long j) const {
        const pack<G, N> x = *reinterpret_cast<const pack<G, N> *>(
            values + place(width, keys[k] & position_mask, j)
        );
        pack<W, N> result;
#pragma unroll
        for (int e = 0; e < N; ++e) {
            result.at[e] = loaded(x.at[e]);
        }
        return result;
    }

    // Their sum in order of occurrence; AHEAD values are loaded at once.
    template <int N, int AHEAD>
    __device__ pack<W, N> sum(long long j) const {
        pack<W, N> total = load<N>(first, j);
        long long k = first + 1;
#pragma unroll 1
        for (; k + AHEAD <= end; k += AHEAD) {
            pack<W, N> next[AHEAD];
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
            const pack<W, N> next = load<N>(k, j);
#pragma unroll
            for (int e = 0; e < N; ++e) {
                total.at[e] = total.at[e] + next.at[e];
            }
        }
        return total;
    }
};

// A hot row has keys at two neighbouring multiples of HOT. The first of these multiples, divided
// by HOT, is its number among hot sums.
constexpr long long HOT = GA_HOT;

// The merged gradient of one row, clipped.
struct RowGradient {
    const Occurrences occurrences;
    const GA_MERGED *hot_sums;  // (n / HOT, width); only the rows of hot rows are written
    const bool mean;            // divide by the number of occurrences
    W factor;                   // of clipping, if GA_CLIPPED

    template <int N>
    __device__ pack<W, N> at(long long j) const {
        const long long k = (occurrences.first + HOT - 1) / HOT;
        pack<W, N> total = (k + 1) * HOT < occurrences.end
            ? *reinterpret_cast<const pack<W, N> *>(hot_sums + place(occurrences.width, k, j))
            : occurrences.template sum<N, 8>(j);
#pragma unroll
        for (int e = 0; e < N; ++e) {
            if (mean) {
                total.at[e] = total.at[e] / W(GA_MERGED(occurrences.end - occurrences.first));
            }
            if (GA_CLIPPED) {
                total.at[e] = total.at[e] * factor;
            }
        }
        return total;
    }
};

// A row's sum of squares of value(j), by LANES threads, in the order that the CPU has: element j
// adds to sum j % SUMS, then the upper half of the sums is added to the lower half until one is
// left. A lane has every LANES-th of the sums. If there are fewer lanes than sums, then a row has
// at most N elements for each lane, and the other sums are zero.
template <int LANES, int N, typename V>
__device__ inline number<double> sum_of_squares(bool active, long long width, V value) {
    constexpr int SUMS = GA_SUMS, OWN = N < SUMS / LANES ? N : SUMS / LANES;
    const int lane = threadIdx.x % LANES;
    number<double> own[OWN];
#pragma unroll
    for (int q = 0; q < OWN; ++q) {
        own[q] = 0.0;
        for (long long j = lane + q * LANES; active && j < width; j += SUMS) {
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
