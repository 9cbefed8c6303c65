// Makes the scalars of the step at hand, one block.
//
//   ring          (GA_ROWS, width) the scalars of steps to come, at their number modulo GA_ROWS
//   belongs       (GA_ROWS,) the number of the step that each row of the ring is of
//   scale         (1,) the gradients' scale; numbers[scales[k]], k < scaled, become scale * times
//   steps         (1,) in and out: steps taken
//   numbers       (width,) out; GA_SKIP is the place of the flag that the step is not taken
//   report        (3,) out: norm 0, factor 1, skipped
#include "ieee.cuh"

extern "C" __global__ void gpuadapt_begin(
    const double *__restrict__ ring, const long long *__restrict__ belongs, long long width,
    const float *__restrict__ scale, const long long *__restrict__ scales, long long scaled,
    double times, long long *steps, double *numbers, double *report
) {
    // What a replay that nobody has prepared finds belongs to another step: it is skipped.
    const long long step = *steps, row = step % GA_ROWS;
    const bool known = belongs[row] == step;
    for (long long k = threadIdx.x; k < width; k += GA_BLOCK) {
        numbers[k] = k == GA_SKIP ? !known : ring[row * width + k];
    }
    __syncthreads();
    for (long long k = threadIdx.x; k < scaled; k += GA_BLOCK) {
        typedef gpuadapt::number<double> D;
        numbers[scales[k]] = (D(gpuadapt::ieee::widen(*scale)) * D(times)).value;
    }
    if (threadIdx.x == 0) {
        *steps = step + known;
        report[0] = 0;
        report[1] = 1;
        report[2] = !known;
    }
}
