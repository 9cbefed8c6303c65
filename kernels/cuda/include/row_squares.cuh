// Sums the squares of each row's gradient, LANES threads for each key.
//
//   keys      GA_KEY, (n,) sorted; row << shift | position in the batch
//   count     rows of the table
//   hot_sums  GA_MERGED, (n / HOT, width)
//   max_norm  limit of the norm of each row's gradient, if GA_CLIPPED
//   GA_SCALARS    the gradients' scale, see scalars.cuh
//   values    GA_GRADIENT, (n, width)
//   squared   (2, n) out: at the first key of each row the sum of squares of the gradient divided
//             by the scale, then its largest magnitude after clipping; 0 at other keys
#include "row_gradients.cuh"
#include "scalars.cuh"

extern "C" __global__ void gpuadapt_row_squares(
    const GA_KEY *__restrict__ keys, long long n, int shift, long long count, long long width,
    const GA_MERGED *__restrict__ hot_sums, int mean, double max_norm, GA_SCALARS,
    const GA_GRADIENT *__restrict__ values, double *squared
) {
    using namespace gpuadapt;
    constexpr int N = GA_ELEMENTS, LANES = GA_LANES;
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    const long long row = i < n ? keys[i] >> shift : count;
    const bool active = row < count && (i == 0 || keys[i - 1] >> shift != row);
    const RowGradient gradient = {
        {values, width, keys, (1ULL << shift) - 1, i, active ? end_of_row(keys, i, n, shift) : i},
        hot_sums,
        mean != 0,
        F(1)
    };
    const double wide_scale = scale_of_step(scalars, scalars_width, steps, loss_scale, times);
    T scale;
    ieee::narrow(wide_scale, scale.value);
    T factor = F(1), largest = F(0);
    if (GA_CLIPPED) {  // as in the update
        const auto value = [&](long long j) { return gradient.at<1>(j).at[0]; };
        const number<double> norm =
            ieee::root(sum_of_squares<LANES, N>(active, width, value).value);
        const number<double> limit = number<double>(max_norm) * number<double>(wide_scale);
        if (norm > limit) {
            ieee::narrow((limit / norm).value, factor.value);
        }
    }
    const number<double> sum = sum_of_squares<LANES, N>(active, width, [&](long long j) {
        const T x = gradient.at<1>(j).at[0], value = x / scale;
        const T size = abs(GA_CLIPPED ? x * factor / scale : value);
        largest = size > largest ? size : largest;
        return value;
    });
    double magnitude = ieee::widen(largest.value);
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) {
        const double other = __shfl_down_sync(0xffffffff, magnitude, half, LANES);
        magnitude = other > magnitude ? other : magnitude;
    }
    if (i < n && threadIdx.x % LANES == 0) {
        squared[i] = active ? sum.value : 0;
        squared[n + i] = active ? magnitude : 0;
    }
}
