// Updates many arrays by their gradients in one launch: a block of GA_THREADS threads per chunk.
//
//   spans      (chunks, 3) array, first element, number of elements
//   addresses  (arrays, GA_ARRAYS) of parameters and states
//   gradients  (arrays,) addresses; 0 where there is none
//   offsets    (arrays,) of the first coefficient in the step's scalars; the number of the array's
//              update is after the GA_COEFFICIENTS coefficients
//   GA_SCALARS see scalars.cuh; nothing is written if the step is not taken
//   GA_TABLES  keys, (arrays,) of random bits; widths, (arrays,) elements of a row
#include "scalars.cuh"
#include "update.cuh"

extern "C" __global__ void GA_NAME(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const unsigned long long *__restrict__ gradients, const long long *__restrict__ offsets,
    GA_SCALARS GA_TABLES
) {
    using namespace gpuadapt;
    const double *numbers = scalars_of_step(scalars, scalars_width, steps);
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long size = spans[3 * (long long)blockIdx.x + 2];
    if (numbers != nullptr && gradients[a] != 0) {
        Update update(addresses + GA_ARRAYS * a, gradients[a]);
        update.read([&](int k) { return numbers[offsets[a] + k]; });
#if GA_RANDOM
        update.seed(keys[a], numbers[offsets[a] + GA_COEFFICIENTS]);
#endif
#if GA_BLOCK
        update_chunk(update, start, size, widths[a]);
#else
        update_chunk(update, start, size);
#endif
    }
    // At the end, since the compiler needs half as many registers again at the beginning.
    count_step(numbers != nullptr, steps, report, last);
}
