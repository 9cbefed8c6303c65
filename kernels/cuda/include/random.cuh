// Random bits of the elements of an access, see formats/random_bits.py.
//
// Defined before this file: key_on and random_bits.
// GA_PAIRED: 1 if two neighbours share the 32 bits of a hash; an odd element gets the lower half.
#include "ieee.cuh"

namespace gpuadapt {

// Elements whose numbers differ in no more than the lower PAGE bits have the same keys.
constexpr int PAGE = 32 + GA_PAIRED;

__device__ inline U key_at(U key, long long element) { return key_on(key, U(element >> PAGE)); }

// In the functions below an access has N elements, and `first` is a multiple of N, a power of two.
// So the elements are on one page; and if N > 1, then `first` is even.

// Random bits of element `first + k`; neighbours that share them have the same variable in the end.
template <int N>
__device__ inline U random_at(long long first, int k, U first_key, U second_key) {
#if GA_PAIRED
    return random_bits(U(first >> 1) + U(k >> 1), first_key, second_key);
#else
    return random_bits(U(first) + U(k), first_key, second_key);
#endif
}

// Which of the halves is the element's own, if it shares them.
template <int N> __device__ inline bool has_lower_half(long long first, int k) {
    return ((N > 1 ? k : int(first)) & 1) != 0;
}

}  // namespace gpuadapt
