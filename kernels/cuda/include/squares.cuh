// Sums the squares of arrays and finds their largest magnitudes; a block of GA_THREADS threads for
// each chunk. Element j of a chunk is added to sum j % GA_LANES, then the upper half of the sums is
// added to the lower half until one is left. A thread has neighbouring sums.
//
//   spans      (chunks, 3) array, first element, number of elements
//   addresses  (arrays,) of elements of type G; 0 for an array of zeros
//   layout     of one array with gaps, if GA_STRIDED; see layout.cuh
//   GA_SCALARS the scale that elements are divided by, see scalars.cuh
//   partial    (chunks,) out: sums
//   peaks      (chunks,) out: largest magnitudes
//
// If not GA_SQUARED, numbers of the first array are summed as they are, and the second array has
// the magnitudes. Generated before this file: see row_gradients.cuh.
#include "layout.cuh"
#include "scalars.cuh"

namespace gpuadapt {

constexpr int OWN = GA_LANES / GA_THREADS;

// What a thread has of a chunk.
struct Sums {
    number<double> own[OWN];
    T top;

    __device__ void add(int q, T element, T size) {
        const number<double> x = ieee::widen(element.value);
        own[q] = own[q] + (GA_SQUARED ? x * x : x);
        top = ieee::larger(top.value, size.value);
    }
};

// Adds the elements `start` to `end` - 1 of x, each after `scaled`. OWN elements are loaded at once
// where x is aligned.
template <typename Scaled>
__device__ inline void add_elements(
    Sums &sums, const G *x, const unsigned long long *addresses, const long long *layout,
    long long start, long long end, Scaled scaled
) {
    long long j = start + threadIdx.x * OWN;
    if (GA_SQUARED && !GA_STRIDED && (reinterpret_cast<size_t>(x + start) & 15) == 0) {
        constexpr int AHEAD = 32 / sizeof(G);  // 128 bytes are under way
        const auto add = [&](const pack<G, OWN> &y) {
#pragma unroll
            for (int q = 0; q < OWN; ++q) {
                const T element = scaled(loaded(y.at[q]));
                sums.add(q, element, abs(element));
            }
        };
        const auto load = [&](long long k) {
            return *reinterpret_cast<const pack<G, OWN> *>(x + k);
        };
        for (; j + (AHEAD - 1) * GA_LANES + OWN <= end; j += AHEAD * GA_LANES) {
            pack<G, OWN> next[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                next[a] = load(j + a * GA_LANES);
            }
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                add(next[a]);
            }
        }
#pragma unroll 1
        for (; j + OWN <= end; j += GA_LANES) {
            add(load(j));
        }
    }
#pragma unroll 1
    for (; j < end; j += GA_LANES) {
#pragma unroll
        for (int q = 0; q < OWN; ++q) {
            if (j + q < end) {
                const T element = scaled(loaded(x[GA_STRIDED ? place(layout, 0, j + q) : j + q]));
#if GA_SQUARED
                sums.add(q, element, abs(element));
#else
                const double *sizes = in_global(reinterpret_cast<const double *>(addresses[1]));
                sums.add(q, element, T(sizes[j + q]));
#endif
            }
        }
    }
}

// Whether a product with the reciprocal has the bits of a quotient: both are then the one number
// that is nearest to the exact result.
__device__ inline bool is_power_of_two(double x) {
    const union {
        double number;
        unsigned long long bits;
    } word = {x};
    return word.bits << 12 == 0 && x >= 1e-30 && x <= 1e30;
}

}  // namespace gpuadapt

extern "C" __global__ void GA_NAME(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const long long *__restrict__ layout, GA_SCALARS, double *partial, double *peaks
) {
    using namespace gpuadapt;
    __shared__ double lanes[GA_LANES], tops[GA_THREADS];
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long end = start + spans[3 * (long long)blockIdx.x + 2];
    T scale;
    ieee::narrow(scale_of_step(scalars, scalars_width, steps, loss_scale, times), scale.value);
    Sums sums;
#pragma unroll
    for (int q = 0; q < OWN; ++q) {
        sums.own[q] = 0.0;
    }
    sums.top = F(0);
    if (addresses[a] != 0) {
        const G *x = in_global(reinterpret_cast<const G *>(addresses[a]));
        const T inverse = T(1) / scale;
        if (is_power_of_two(ieee::widen(scale.value))) {
            const auto scaled = [=](T element) { return element * inverse; };
            add_elements(sums, x, addresses, layout, start, end, scaled);
        } else {
            const auto scaled = [=](T element) { return element / scale; };
            add_elements(sums, x, addresses, layout, start, end, scaled);
        }
    }
#pragma unroll
    for (int q = 0; q < OWN; ++q) {
        lanes[threadIdx.x * OWN + q] = sums.own[q].value;
    }
    tops[threadIdx.x] = ieee::widen(sums.top.value);
    for (int half = GA_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int lane = threadIdx.x; lane < half; lane += GA_THREADS) {
            lanes[lane] = ieee::add(lanes[lane], lanes[lane + half]);
        }
        if (half < GA_THREADS && threadIdx.x < half) {
            tops[threadIdx.x] = ieee::larger(tops[threadIdx.x], tops[threadIdx.x + half]);
        }
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = lanes[0];
        peaks[blockIdx.x] = tops[0];
    }
}
