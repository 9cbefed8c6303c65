// Where an element of a row is.
#include "ieee.cuh"

namespace gpuadapt {

// Element j of a row, in an array of rows without gaps, by their width, or of any others, by
// a layout: the number of dimensions of a row, the stride of rows, then the extent and the
// stride of each dimension, the last one first.
__device__ inline long long place(long long width, long long row, long long j) {
    return row * width + j;
}
__device__ inline long long place(const long long *layout, long long row, long long j) {
    long long at = row * layout[1];
    for (long long d = 0; d < layout[0]; ++d) {
        at += j % layout[2 + 2 * d] * layout[3 + 2 * d];
        j /= layout[2 + 2 * d];
    }
    return at;
}

}  // namespace gpuadapt
