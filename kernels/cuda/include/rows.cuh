// Updates the rows of a table that occur in a batch, each once: LANES threads of a warp for each
// key, of which those of a row's first key work.
//
//   keys      GA_KEY, (n,) sorted; row << shift | position in the batch
//   count     rows of the table; the row of a key that is out of range
//   hot_sums  GA_MERGED, (n / HOT, width)
//   mean      divide sums of gradients by the number of occurrences
//   max_norm  limit of the norm of each row's gradient, if GA_CLIPPED
//   skipped   (1,) added to: keys that are out of range
//   offset    of the first coefficient in the step's scalars; GA_SCALE is that of the scale. The
//             number of the table's update is after the coefficients.
//   GA_SCALARS    see scalars.cuh; nothing is written if the step is not taken
//   GA_ARGUMENTS  values, (n, width); arrays of parameter and states, (count, width), GA_ARRAYS;
//                 those of exact rows
#include "row_update.cuh"
#include "scalars.cuh"

extern "C" __global__ void GA_NAME(
    const GA_KEY *__restrict__ keys, long long n, int shift, long long count, long long width,
    const GA_MERGED *__restrict__ hot_sums, int mean, double max_norm, unsigned long long *skipped,
    long long offset, GA_SCALARS, GA_ARGUMENTS
) {
    using namespace gpuadapt;
    constexpr int N = GA_ELEMENTS, LANES = GA_LANES;
    const double *numbers = scalars_of_step(scalars, scalars_width, steps);
    if (numbers == nullptr) {
        count_step(false, steps, report, last);
        return;
    }
    Update update = {GA_ARRAYS};
    update.read([&](int k) { return numbers[offset + k]; });
    update.seed(numbers[offset + GA_COEFFICIENTS]);
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    const int lane = threadIdx.x % LANES;
    const long long row = i < n ? keys[i] >> shift : count;
    // The lanes of a row's other keys have nothing to do, but a warp stays together.
    const bool active = row < count && (i == 0 || keys[i - 1] >> shift != row);
#ifdef GA_EXACT
    catch_up<LANES, N>(
        update, active, row, width, last_step, history, moments, ends, mask, step_count, mode
    );
    if (mode == READ) {  // every key gets a copy of its row
        const long long end = active ? end_of_row(keys, i, n, shift) : i;
        for (long long k = i; k < end; ++k) {
            const long long position = keys[k] & ((1ULL << shift) - 1);
            for (long long j = lane; j < width; j += LANES) {
                out[position * width + j] = GA_PARAMETER[row * width + j];
            }
        }
    }
    if (mode != UPDATE) {
        return;
    }
#endif
    if (i < n && row == count && lane == 0) {
        atomicAdd(skipped, 1ULL);
    }
    RowGradient gradient = {
        {values, width, keys, (1ULL << shift) - 1, i, active ? end_of_row(keys, i, n, shift) : i},
        hot_sums,
        mean != 0,
        GA_MERGED(1)
    };
#if GA_CLIPPED
    const auto value = [&](long long j) { return gradient.at<1>(j).at[0]; };
    const number<double> norm = ieee::root(sum_of_squares<LANES, N>(active, width, value).value);
    // The gradients are still to be divided by their scale.
    const number<double> limit = number<double>(max_norm) * number<double>(numbers[GA_SCALE]);
    if (norm > limit) {
        ieee::narrow((limit / norm).value, gradient.factor.value);
    }
#endif
    update_row<LANES, N>(update, gradient, active, row, width);
    count_step(true, steps, report, last);
}
