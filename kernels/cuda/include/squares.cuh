// Sums the squares of arrays and finds their largest magnitudes; a block for each chunk. Each
// thread sums every GA_LANES-th element, then the upper half of the sums is added to the lower half
// until one is left.
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

extern "C" __global__ void GA_NAME(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const long long *__restrict__ layout, GA_SCALARS, double *partial, double *peaks
) {
    using namespace gpuadapt;
    __shared__ double lanes[GA_LANES], tops[GA_LANES];
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long end = start + spans[3 * (long long)blockIdx.x + 2];
    T scale;
    ieee::narrow(scale_of_step(scalars, scalars_width, steps, loss_scale, times), scale.value);
    number<double> own = 0.0;
    T top = 0;
    if (addresses[a] != 0) {
        const G *x = in_global(reinterpret_cast<const G *>(addresses[a]));
#pragma unroll 4
        for (long long j = start + threadIdx.x; j < end; j += GA_LANES) {
            const T element = loaded(x[GA_STRIDED ? place(layout, 0, j) : j]) / scale;
            const number<double> value = ieee::widen(element.value);
#if GA_SQUARED
            own = own + value * value;
            const T size = abs(element);
#else
            own = own + value;
            const T size = T(in_global(reinterpret_cast<const double *>(addresses[1]))[j]);
#endif
            top = size > top ? size : top;
        }
    }
    lanes[threadIdx.x] = own.value;
    tops[threadIdx.x] = ieee::widen(top.value);
    for (int half = GA_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            lanes[threadIdx.x] = ieee::add(lanes[threadIdx.x], lanes[threadIdx.x + half]);
            const double other = tops[threadIdx.x + half];
            tops[threadIdx.x] = other > tops[threadIdx.x] ? other : tops[threadIdx.x];
        }
    }
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = lanes[0];
        peaks[blockIdx.x] = tops[0];
    }
}
