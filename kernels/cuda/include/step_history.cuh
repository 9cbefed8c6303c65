// The history of a table's steps: a ring buffer of `mask + 1` steps (a power of two), by columns.
//
//   GA_SCALARS  see scalars.cuh; nothing is written if the step is not taken
//   offset      of the first coefficient in the scalars of the step at hand. The number of the step
//               is between the rule's `coefficients` and the other columns.
//   start       number of steps before the first one of the history
//   step_count  (1,) out: the number of the step at hand
//   history     (width + 2, mask + 1) out: the numbers of each step, see
//   catchup.plan.HistoryLayout;
//               then the two ratios of a step's displacement to that of the step before
//   products    (states + 2, mask + 1) out: for each step the product of the decay factors of all
//               later steps of its segment, for each state and for the displacement; then the sum
//               of the latter, which is all displacements to come as a multiple of its own
//   ends        (mask + 1,) out: the last step of the segment of each step, GA_NO_END if it goes on
#include "scalars.cuh"

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

// Appends the step at hand to the history and lists the rows that it refreshes. A thread for each
// step of the ring: that of the step at hand writes its numbers, the others update products and
// ends. And a thread for each row that is due: `keys` gets (due,) rows, the next ones in every
// step.
extern "C" __global__ void gpuadapt_append(
    GA_SCALARS, long long offset, long long coefficients, long long decay, long long scale,
    long long width, long long mask, long long start, long long period, long long due,
    long long *step_count, double *history, double *products, long long *ends,
    unsigned long long *keys
) {
    const double *numbers = gpuadapt::scalars_of_step(scalars, scalars_width, steps);
    gpuadapt::count_step(numbers != nullptr, steps, report, last);
    if (numbers == nullptr) {
        return;
    }
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x, size = mask + 1;
    const long long now = (long long)numbers[offset + coefficients], here = now & mask;
    if (k == 0) {
        *step_count = now;
    }
    if (k < due) {
        keys[k] = now % period * due + k;
    }
    if (k > mask) {
        return;
    }
    const gpuadapt::Step step = {numbers + offset + 1, history, size,
                                 (now - 1) & mask,     scale,   width};
    if (k == here) {
        for (long long c = 0; c < coefficients; ++c) {
            history[c * size + here] = numbers[offset + c];
        }
    }
    if (width == coefficients) {
        return;
    }
    const bool first = now - 1 == start, continues = step.continues(first);
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
        ends[k] = now - 1;
    } else if (continues && ends[k] == GA_NO_END) {
        for (long long c = 0; c < states; ++c) {
            products[c * size + k] *= step.now(decay + c);
        }
        products[states * size + k] *= ratio;
        products[(states + 1) * size + k] += products[states * size + k];
    }
}
