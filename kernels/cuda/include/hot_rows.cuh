// Sums the gradients of hot rows, a thread for each element of each of them.
//
//   keys      GA_KEY, (n,) sorted; row << shift | position in the batch
//   count     rows of the table
//   values    GA_GRADIENT, (n, width)
//   hot_sums  GA_MERGED, (n / HOT, width) out: only the rows of hot rows are written
#include "row_gradients.cuh"

extern "C" __global__ void gpuadapt_hot_rows(
    const GA_KEY *__restrict__ keys, long long n, int shift, long long count, long long width,
    const GA_GRADIENT *__restrict__ values, GA_MERGED *hot_sums
) {
    using namespace gpuadapt;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long k = thread / width, j = thread % width, i = k * HOT;
    if (i + HOT >= n) {
        return;
    }
    const long long row = keys[i] >> shift;
    if (row >= count || keys[i + HOT] >> shift != row || (k > 0 && keys[i - HOT] >> shift == row)) {
        return;
    }
    long long first = i;
    while (first > 0 && keys[first - 1] >> shift == row) {
        --first;
    }
    const Occurrences occurrences = {
        values, width, keys, (1ULL << shift) - 1, first, end_of_row(keys, i, n, shift)
    };
    hot_sums[thread] = occurrences.sum<1, 32>(j).at[0].value;
}
