// Updates one row of a table by its gradient, by LANES threads of a warp.
//
// Generated before this file, for a rule and its formats:
//
//   struct Update {
//       (the arrays of parameter and states, the rule's coefficients, keys of random bits)
//       void read(at)                  coefficients: at(k) is the k-th one
//       void seed(step)                keys of the random bits of a step
//       void load_row(row, active)     states with one number for a row
//       void store_row(row)            by one lane, after all lanes have loaded them
//       T squared(row, width, j, W)    the element whose mean of squares the rule takes
//       Elements<N> load<N>(row, width, j)
//       void apply(Elements<N> &, k, W, first)      the rule on the k-th of them, whose number is
//                                                   first + k; in registers
//       void store(const Elements<N> &, row, width, j)
//       void update_block(gradient, row, width, column, start, block, n)   8-bit formats, by a warp
//   };
//
// GA_BLOCK: elements that share a scale, or 0. GA_MEAN_SQUARE, GA_ROW_STATES: 0 or 1.
#include "row_gradients.cuh"

namespace gpuadapt {

template <int LANES, int N, typename Gradient>
__device__ inline void update_row(
    Update &update, const Gradient &gradient, bool active, long long row, long long width
) {
    const int lane = threadIdx.x % LANES;
#if GA_MEAN_SQUARE
    const auto value = [&](long long j) {
        return update.squared(row, width, j, gradient.template at<1>(j).at[0]);
    };
    const number<double> sum = sum_of_squares<LANES, N>(active, width, value);
    ieee::narrow((sum / number<double>(double(width))).value, update.mean_square.value);
#endif
    update.load_row(row, active);
#if GA_BLOCK
    for (long long column = 0; active && column < width; column += GA_BLOCK) {
        const int n = width - column < GA_BLOCK ? int(width - column) : GA_BLOCK;
        const long long blocks = (width + GA_BLOCK - 1) / GA_BLOCK;
        update.update_block(
            gradient, row, width, column, row * width + column, row * blocks + column / GA_BLOCK, n
        );
    }
#else
    for (long long j = lane * N; active && j < width; j += LANES * N) {
        // Before the sum of gradients, which waits for memory too.
        auto x = update.template load<N>(row, width, j);
        const pack<W, N> gradients = gradient.template at<N>(j);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            update.apply(x, k, gradients.at[k], row * width + j);
        }
        update.store(x, row, width, j);
    }
#endif
#if GA_ROW_STATES
    __syncwarp();  // every lane has loaded them
    if (active && lane == 0) {
        update.store_row(row);
    }
#endif
}

}  // namespace gpuadapt
