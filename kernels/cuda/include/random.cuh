// Random bits of the elements of an access, see formats/random_bits.py.
//
// Defined before this file: key_on and random_bits.
// GA_PAIRED: 1 if two neighbours share a hash of 32 bits; an odd element gets the lower half.
#include "ieee.cuh"

namespace gpuadapt {

// Elements whose numbers differ in no more than the lower PAGE bits have the same keys.
constexpr int PAGE = 32 + GA_PAIRED;

__device__ inline U key_at(U key, long long element) { return key_on(key, U(element >> PAGE)); }

// Random bits of element `first + k`, of an access of N elements. `first` is a multiple of N, a
// power of two, so that these elements are on one page; and if N > 1, then `first` is even.
template <int N>
__device__ inline U random_at(long long first, int k, U first_key, U second_key) {
#if GA_PAIRED
    const int odd = N > 1 ? k & 1 : int(first & 1);
    return random_bits(U(first >> 1) + U(k >> 1), first_key, second_key) << (16 * odd);
#else
    return random_bits(U(first) + U(k), first_key, second_key);
#endif
}

}  // namespace gpuadapt
