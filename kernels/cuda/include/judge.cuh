// Finishes the norm of the gradients, decides whether the step is taken, makes its scalars and
// counts it; one block. The kernels after it read `numbers`.
//
//   partial       (count + others,) partial sums of squares, then largest magnitudes
//   norm          the norm if it is known, otherwise negative
//   large         a magnitude is known to be too large
//   most, limit   largest norm; limit of magnitudes of clipping by value
//   same, squared numbers of the first magnitudes in the type of the arithmetic; that are squared
//   skips         skip a step whose gradients are not finite
//   factors       (clipped,) places in `numbers` of the factor that clips
//   adapted       (3,) in and out, if `adapts`: a loss scale, steps since it changed, steps skipped
//   scales        (scaled,) places in `numbers` of the gradients' scale, unless the host gave them
//   scalars, scalars_width, steps, loss_scale, times   see scalars.cuh
//   numbers       (scalars_width,) out: the scalars of the step, with 0 at GA_STEP if it is taken
//   report        (3,) out: norm, factor, skipped
#include "scalars.cuh"

// Combines a number of each thread into one for all of them.
template <typename F>
__device__ inline double reduce(double *lanes, double own, F combine) {
    lanes[threadIdx.x] = own;
    for (int half = GA_BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            lanes[threadIdx.x] = combine(lanes[threadIdx.x], lanes[threadIdx.x + half]).value;
        }
    }
    __syncthreads();
    const double result = lanes[0];
    __syncthreads();
    return result;
}

extern "C" __global__ void gpuadapt_judge(
    const double *__restrict__ partial, long long count, double norm, int large, double most,
    double limit, long long same, long long squared, long long others, int skips,
    const long long *__restrict__ factors, long long clipped, float *adapted, int adapts,
    float growth, float backoff, float interval, float least, const long long *__restrict__ scales,
    long long scaled, const double *__restrict__ scalars, long long scalars_width,
    unsigned long long *steps, const float *loss_scale, double times, double *numbers,
    double *report
) {
    using namespace gpuadapt;
    typedef number<double> D;
    __shared__ double lanes[GA_BLOCK];
    const unsigned long long step = *steps >> 32;
    const double *row = row_of_step(scalars, scalars_width, step);
    // What a replay that nobody has prepared finds belongs to another step.
    const bool known = row[GA_STEP] == double(step);
    for (long long k = threadIdx.x; k < scalars_width; k += GA_BLOCK) {
        numbers[k] = k == GA_STEP ? -1 : row[k];
    }
    __syncthreads();
    for (long long k = threadIdx.x; k < scaled; k += GA_BLOCK) {
        numbers[scales[k]] = (D(ieee::widen(*loss_scale)) * D(times)).value;
    }
    if (!known) {
        if (threadIdx.x == 0) {
            report[0] = 0;
            report[1] = 1;
            report[2] = 1;
        }
        return;
    }
    if (norm < 0) {  // not known yet; `summation.total` has the same lines
        D own = 0.0;
        for (long long k = threadIdx.x; k < count; k += GA_BLOCK) {
            own = maximum(own, D(partial[k]));
        }
        D top = reduce(lanes, own.value, [](D a, D b) { return maximum(a, b); });
        union {
            double number;
            long long bits;
        } power;
        power.number = top.value;
        power.bits &= GA_EXPONENT;
        const D coarse = D(3 * GA_MAX_TERMS) * maximum(D(power.number), D(GA_NORMAL));
        const D fine = coarse * D(GA_SHRINK) * D(2 * GA_MAX_TERMS);
        D upper = 0.0, lower = 0.0;
        for (long long k = threadIdx.x; k < count; k += GA_BLOCK) {
            const D x = partial[k], cut = (x + coarse) - coarse;
            upper = upper + cut;
            lower = lower + (((x - cut) + fine) - fine);
        }
        D sum = reduce(lanes, upper.value, [](D a, D b) { return a + b; });
        sum = sum + D(reduce(lanes, lower.value, [](D a, D b) { return a + b; }));
        if (!(top < D(GA_LARGEST))) {
            sum = where(top != top, top, D(top.value * GA_LARGEST));
        }
        norm = ieee::root(sum.value);
    }
    const bool clips = !(norm <= most) && most - most == 0;  // an infinite limit is none
    const double factor = clips ? ieee::divide(most, norm) : 1.0;
    bool finite = norm - norm == 0 && large == 0;
    if (skips != 0) {  // `overflow.decide` has the same lines
        double own = 0;
        for (long long k = threadIdx.x; k < others; k += GA_BLOCK) {
            const double peak = partial[count + k];
            const S seen = k < same ? minimum(S(D(factor)) * S(D(peak)), S(D(limit)))
                                    : S(minimum(D(factor) * D(peak), D(limit)));
            const bool too_large = k < squared ? seen >= S(GA_SQUARED) : seen - seen != S(0);
            own = too_large ? 1 : own;
        }
        finite &= reduce(lanes, own, [](D a, D b) { return maximum(a, b); }) == 0;
    }
    const bool skip = skips != 0 && !finite;
    for (long long k = threadIdx.x; k < clipped; k += GA_BLOCK) {
        numbers[factors[k]] = factor;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *steps += skip ? 0 : 1ULL << 32;
        numbers[GA_STEP] = skip ? -1 : 0;
        report[0] = norm;
        report[1] = factor;
        report[2] = skip;
        if (adapts != 0) {  // as LossScale
            typedef number<float> S;
            S scale = adapted[0], since = adapted[1];
            since = skip ? S(0) : since + S(1);
            adapted[2] = skip ? (S(adapted[2]) + S(1)).value : 0;
            if (skip) {
                scale = maximum(scale * S(backoff), S(least));
            } else if (since >= S(interval)) {
                scale = minimum(scale * S(growth), S(GA_LARGEST_SCALE));
                since = 0;
            }
            adapted[0] = scale.value;
            adapted[1] = since.value;
        }
    }
}
