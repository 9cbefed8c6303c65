// The history of a table's steps: a ring buffer of `mask + 1` steps (a power of two). The
// mathematics is in catchup/plan.py.
//
//   GA_SCALARS  see scalars.cuh; nothing is written if the step is not taken
//   offset      of the first coefficient in the scalars of the step at hand. The number of the
//               step, modulo 2**32, is between the rule's `coefficients` and the other columns.
//   decay, shrink, scale, width   columns of catchup.plan.HistoryLayout
//   step_count  (1,) in and out: the number of the last step, then of the step at hand
//   history     (width, mask + 1) out: the numbers of each step
//   moments     (mask + 1, states + GA_FIRST_SUM + GA_TERMS + 1) out: of the segment that begins
//               with each step
//   ends        (mask + 1,) out: the last step of that segment, GA_NO_END if it goes on; the step
//               before if no segment begins there
#include "scalars.cuh"

namespace gpuadapt {

// The step at hand and the step before it.
struct Step {
    const double *numbers, *history;
    long long size, previous, scale;

    __device__ double now(long long c) const { return numbers[c]; }
    __device__ double before(long long c) const { return history[c * size + previous]; }

    // The displacement divided by that of the step before, of the product of powers.
    __device__ double ratio() const { return now(scale) / before(scale) * before(scale - 2); }
    // The same of its correction.
    __device__ double growth() const {
        const bool none = now(scale + 1) == 0 && before(scale + 1) == 0;
        return none ? 1 : now(scale + 1) / before(scale + 1) * before(scale - 1);
    }
    // Whether a segment can begin with it.
    __device__ bool begins() const {
        const double form = now(scale + 3), size = now(scale) < 0 ? -now(scale) : now(scale);
        return form == form && size >= GA_MIN_SIZE;
    }
    // Whether it continues the segment of the step before.
    __device__ bool continues() const {
        const double largest = 1.7976931348623157e308;
        return now(scale + 3) == before(scale + 3) && ratio() >= 0 && ratio() <= largest
            && growth() >= 1 && growth() <= largest;
    }
};

// Adds a step to the moments of a segment.
__device__ inline void add_step(double *moments, int states, const Step &step, long long decay) {
    for (int k = 0; k < states; ++k) {
        moments[k] *= step.now(decay + k);
    }
    const double shrink = step.now(decay + states), exponent = step.now(step.scale + 2);
    double *const own = moments + states;
    own[GA_WEIGHT] *= step.ratio();
    const double relative = own[GA_RELATIVE] * step.growth();
    own[GA_RELATIVE] = relative < GA_MAX_RATIO ? relative : GA_MAX_RATIO;
    double term = own[GA_WEIGHT];
    const double size = term < 0 ? -term : term, sum = own[GA_FIRST_SUM];
    if (shrink == 1 && size <= GA_NEGLIGIBLE * (sum < 0 ? -sum : sum)) {
        return;
    }
    own[GA_SHRINK] *= shrink;
    const double error = own[GA_RELATIVE] == GA_MAX_RATIO ? size : 0.0;
    own[GA_LEFT_OUT] = own[GA_LEFT_OUT] * shrink + error;
    double *const sums = own + GA_FIRST_SUM;
    sums[0] = sums[0] * shrink + term;
    for (int j = 1; j <= GA_TERMS; ++j) {
        term *= (own[GA_RELATIVE] - 1) * ((exponent - (j - 1)) / j);
        sums[j] = sums[j] * shrink + term;
    }
}

}  // namespace gpuadapt

// Appends the step at hand to the history and lists the rows that it refreshes. A thread for each
// step of the ring: that of the step at hand writes its numbers, the others update moments and
// ends. And a thread for each row that is due: `keys` gets (due,) rows, the next ones in every
// step.
extern "C" __global__ void gpuadapt_append(
    GA_SCALARS, long long offset, long long coefficients, long long decay, long long shrink,
    long long scale, long long width, long long mask, long long period, long long due,
    long long *step_count, double *history, double *moments, long long *ends,
    unsigned long long *keys
) {
    const double *numbers = gpuadapt::scalars_of_step(scalars, scalars_width, steps);
    gpuadapt::count_step(numbers != nullptr, steps, report, last);
    if (numbers == nullptr) {
        return;
    }
    const long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x, size = mask + 1;
    // The scalars have the lower half of the step's number. `step_count` is that number already if
    // the thread below has been faster, else the one before.
    const unsigned int half = (unsigned int)numbers[offset + coefficients];
    const long long known = *(const volatile long long *)step_count;
    const long long now = known + (long long)(half - (unsigned int)known), here = now & mask;
    if (k == 0) {
        *step_count = now;
    }
    if (k < due) {
        keys[k] = now % period * due + k;
    }
    if (k > mask) {
        return;
    }
    const gpuadapt::Step step = {numbers + offset + 1, history, size, (now - 1) & mask, scale};
    if (k == here) {
        for (long long c = 0; c < coefficients; ++c) {
            history[c * size + here] = numbers[offset + c];
        }
    }
    if (width == coefficients) {
        return;
    }
    const int states = int(shrink - decay);
    double *const moments_k = moments + k * (states + GA_FIRST_SUM + GA_TERMS + 1);
    if (k == here) {
        for (long long c = coefficients; c < width; ++c) {
            history[c * size + here] = step.now(c);
        }
        for (int q = 0; q < states; ++q) {
            moments_k[q] = step.now(decay + q);
        }
        double *const own = moments_k + states;
        own[GA_SHRINK] = step.now(shrink);
        own[GA_CORRECTION] = step.now(scale + 1);
        own[GA_WEIGHT] = own[GA_FIRST_SUM] = step.now(shrink + 1);
        own[GA_RELATIVE] = 1;
        own[GA_LEFT_OUT] = 0;
        for (int j = 1; j <= GA_TERMS; ++j) {
            own[GA_FIRST_SUM + j] = 0;
        }
        ends[k] = step.begins() ? GA_NO_END : now - 1;
    } else if (ends[k] == GA_NO_END && step.begins() && step.continues()) {
        gpuadapt::add_step(moments_k, states, step, decay);
    } else if (ends[k] == GA_NO_END) {
        ends[k] = now - 1;
    }
}
