// The history of a table's steps: a ring buffer of `mask + 1` steps (a power of two), by columns.
//
//   numbers     the scalars of the step at hand; `offset` is the place of its first coefficient.
//               GA_SKIP is the place of the flag that says that the step is not taken.
//   step_count  (1,) steps taken so far
//   history     (width + 2, mask + 1) out: the numbers of each step, see
//   catchup.plan.HistoryLayout;
//               then the two ratios of a step's displacement to that of the step before
//   products    (states + 2, mask + 1) out: for each step the product of the decay factors of all
//               later steps of its segment, for each state and for the displacement; then the sum
//               of the latter, which is all displacements to come as a multiple of its own
//   ends        (mask + 1,) out: the last step of the segment of each step, GA_NO_END if it goes on
#include "ieee.cuh"

namespace gpuadapt {

// The step at hand and the step before it.
struct Step {
    const double *numbers, *history;
    long long size, previous, scale, width;

    __device__ double now(long long c) const { return numbers[c]; }
    __device__ double before(long long c) const { return history[c * size + previous]; }

    // d[t] / d[t-1] of the product of powers in a displacement d.
    __device__ double ratio() const { return now(scale) / before(scale) * before(scale - 2); }
    // The same of its correction.
    __device__ double correction() const {
        const bool none = now(scale + 1) == 0 && before(scale + 1) == 0;
        return none ? 1 : now(scale + 1) / before(scale + 1) * before(scale - 1);
    }
    // Whether its displacement is a multiple of the one before, or can be the first.
    __device__ bool continues(bool first) const {
        const double form = now(scale + 2), size = now(scale) < 0 ? -now(scale) : now(scale);
        const double largest = 1.7976931348623157e308;
        if (!(size >= GA_MIN_PRODUCT) || form != (first ? form : before(scale + 2))) {
            return false;
        }
        return first
            || (ratio() >= 0 && ratio() <= largest && correction() >= 1 && correction() <= largest);
    }
};

}  // namespace gpuadapt

// Appends the step at hand to the history. A thread for each step of the ring: that of the step
// at hand writes its numbers, the others update products and ends.
extern "C" __global__ void gpuadapt_append(
    const double *__restrict__ numbers, long long offset, long long coefficients, long long decay,
    long long scale, long long width, long long mask, long long start,
    const long long *__restrict__ step_count, double *history, double *products, long long *ends
) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x, size = mask + 1;
    if (numbers[GA_SKIP] != 0 || k > mask) {
        return;
    }
    const long long here = (*step_count + 1) & mask;
    // The number of the step is between the coefficients and the other columns.
    const gpuadapt::Step step = {numbers + offset + 1, history, size,
                                 *step_count & mask,   scale,   width};
    if (k == here) {
        for (long long c = 0; c < coefficients; ++c) {
            history[c * size + here] = numbers[offset + c];
        }
    }
    if (width == coefficients) {
        return;
    }
    const bool first = *step_count == start, continues = step.continues(first);
    const double ratio = first ? 1 : step.ratio(), correction = first ? 1 : step.correction();
    const long long states = scale - 2 - decay;
    if (k == here) {
        for (long long c = coefficients; c < width; ++c) {
            history[c * size + here] = step.now(c);
        }
        history[width * size + here] = ratio;
        history[(width + 1) * size + here] = correction;
        for (long long c = 0; c < states + 2; ++c) {
            products[c * size + k] = 1;
        }
        ends[k] = GA_NO_END;
    } else if (!continues && ends[k] == GA_NO_END) {
        ends[k] = *step_count;
    } else if (continues && ends[k] == GA_NO_END) {
        for (long long c = 0; c < states; ++c) {
            products[c * size + k] *= step.now(decay + c);
        }
        products[states * size + k] *= ratio;
        products[(states + 1) * size + k] += products[states * size + k];
    }
}

// Counts the step at hand.
extern "C" __global__ void gpuadapt_count(
    const double *__restrict__ numbers, long long *step_count
) {
    *step_count += numbers[GA_SKIP] == 0;
}

// Lists the `rows` rows that the step at hand refreshes, a thread for each.
extern "C" __global__ void gpuadapt_rows_due(
    const long long *__restrict__ step_count, long long period, long long rows,
    unsigned long long *keys
) {
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k < rows) {
        keys[k] = *step_count % period * rows + k;
    }
}
