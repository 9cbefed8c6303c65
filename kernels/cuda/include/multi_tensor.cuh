// Updates many arrays by their gradients in one launch: a block of GA_THREADS threads per chunk.
//
//   spans      (chunks, 3) array, first element, number of elements
//   addresses  (arrays, GA_ARRAYS) of parameters and states
//   gradients  (arrays,) addresses; 0 where there is none; unless they are by value
//   offsets    (arrays,) of the first coefficient in the step's scalars; the number of the array's
//              update is after the GA_COEFFICIENTS coefficients
//   values     what the launch takes by value; with scalars, the step is taken, and others count it
//   GA_SCALARS see scalars.cuh; nothing is written if the step is not taken
//   GA_BOUNDS  threads of a block and blocks that an SM has at once, or nothing
//   GA_TABLES  keys, (arrays,) of random bits; widths, (arrays,) elements of a row
#include "scalars.cuh"
#include "update.cuh"

namespace gpuadapt {

// So few numbers need no copy to the GPU before the launch.
struct ByValue {
    long long has_scalars, has_gradients;
    double scalars[GA_BY_VALUE];
    unsigned long long gradients[GA_BY_VALUE];
};

}  // namespace gpuadapt

extern "C" __global__ void GA_BOUNDS GA_NAME(
    const long long *__restrict__ spans, const unsigned long long *__restrict__ addresses,
    const unsigned long long *__restrict__ gradients, const long long *__restrict__ offsets,
    gpuadapt::ByValue values, GA_SCALARS GA_TABLES
) {
    using namespace gpuadapt;
    const bool given = values.has_scalars != 0;
    const double *numbers = given ? nullptr : scalars_of_step(scalars, scalars_width, steps);
    const bool taken = given || numbers != nullptr;
    const long long a = spans[3 * (long long)blockIdx.x];
    const long long start = spans[3 * (long long)blockIdx.x + 1];
    const long long size = spans[3 * (long long)blockIdx.x + 2];
    unsigned long long gradient;
    // Of each place that it may come from, the compiler has to know that it is in global memory.
    if (values.has_gradients) {
        gradient = (unsigned long long)in_global((char *)values.gradients[a]);
    } else {
        gradient = (unsigned long long)in_global((char *)gradients[a]);
    }
    if (taken && gradient != 0) {
        Update update(addresses + GA_ARRAYS * a, gradient);
        const auto read = [&](const auto &at) {
            update.read(at);
#if GA_RANDOM
            update.seed(keys[a], at(GA_COEFFICIENTS));
#endif
        };
        // Apart, which takes fewer registers than a choice for each number.
        if (given) {
            read([&](int k) { return values.scalars[offsets[a] + k]; });
        } else {
            read([&](int k) { return numbers[offsets[a] + k]; });
        }
#if GA_BLOCK
        update_chunk(update, start, size, widths[a]);
#else
        update_chunk(update, start, size);
#endif
    }
    // At the end, since the compiler needs half as many registers again at the beginning.
    count_step(taken, steps, report, last);
}
