// Where a kernel finds the scalars of its step, and who counts the step.
//
// All kernels of a step have the arguments
//
//   scalars        rows of scalars, the row of a step at its number modulo GA_ROWS. GA_STEP is the
//                  place of the step's number; a step whose row has another one is not taken.
//   scalars_width  length of a row; 0 if there is one row, for any step
//   steps          (1,) steps taken, modulo 2**32, in the upper half of the word
//
// Those that update have two more:
//
//   report         (3,) out: the last number is whether the step was skipped
//   last           1 for the last kernel of the step: it counts the step
//
// Those that measure gradients have two more:
//
//   loss_scale, times  (1,) the gradients' scale is loss_scale * times; if `times` is 0, it is
//                      among the scalars
//
// Every block of the last kernel adds to `steps`, and together they add 1 to the upper half.
// Whatever others have added, a block that has not finds the number of its own step there. So a
// step that was captured in a CUDA graph reads the next row in every replay, and nobody waits.
#include "ieee.cuh"

namespace gpuadapt {

__device__ inline const double *row_of_step(
    const double *scalars, long long scalars_width, unsigned long long step
) {
    return scalars + (long long)(step % GA_ROWS) * scalars_width;
}

// The scalars of the step at hand; null if it is not taken. All threads of a block call this.
__device__ inline const double *scalars_of_step(
    const double *scalars, long long scalars_width, const unsigned long long *steps
) {
    __shared__ unsigned long long word;
    if (threadIdx.x == 0) {
        word = *(const volatile unsigned long long *)steps;
    }
    __syncthreads();
    const unsigned long long step = word >> 32;
    const double *row = row_of_step(scalars, scalars_width, step);
    return row[GA_STEP] == double(step) ? row : nullptr;
}

// Counts the step at hand if this is its last kernel. A thread calls this after `scalars_of_step`.
__device__ inline void count_step(bool taken, unsigned long long *steps, double *report, int last) {
    if (last != 0 && threadIdx.x == 0) {
        if (taken) {
            const unsigned long long others = gridDim.x - 1;
            atomicAdd(steps, blockIdx.x == 0 ? (1ULL << 32) - others : 1ULL);
        }
        if (blockIdx.x == 0) {
            report[2] = !taken;
        }
    }
}

// The scale of the gradients of the step at hand.
__device__ inline double scale_of_step(
    const double *scalars, long long scalars_width, const unsigned long long *steps,
    const float *loss_scale, double times
) {
    if (times != 0) {
        typedef number<double> D;
        return (D(ieee::widen(*loss_scale)) * D(times)).value;
    }
    return row_of_step(scalars, scalars_width, *steps >> 32)[GA_SCALE];
}

}  // namespace gpuadapt
