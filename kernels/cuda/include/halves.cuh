// Elements of 16 bits in registers.
#include "ieee.cuh"

namespace gpuadapt {

// N of one access, two in a word: a compiler that has them one by one takes words apart and widens
// halves, where a shift or a mask of the word does.
template <int N>
struct alignas(N * 2 < 16 ? N * 2 : 16) halves {
    U words[N / 2];

    struct half {
        U &word;
        const bool upper;
        __device__ operator U() const { return upper ? word >> 16 : word & 0xFFFF; }
        __device__ void operator=(U code) {
            word = upper ? (word & 0xFFFF) | code << 16 : (word & 0xFFFF0000) | (code & 0xFFFF);
        }
    };
    __device__ half operator[](int k) { return {words[k / 2], k % 2 != 0}; }
};

template <>
struct halves<1> {
    unsigned short word;

    __device__ unsigned short &operator[](int) { return word; }
};

}  // namespace gpuadapt
