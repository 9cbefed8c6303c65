// Counts a step that no kernel of an update has counted, one thread; see scalars.cuh.
#include "scalars.cuh"

extern "C" __global__ void gpuadapt_count_step(GA_SCALARS) {
    using namespace gpuadapt;
    const bool taken = scalars_of_step(scalars, scalars_width, steps) != nullptr;
    count_step(taken, steps, report, last);
}
