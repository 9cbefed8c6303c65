// Loads and stores of packs, with the hint that they are not needed again soon where GA_STREAMING
// says so: 0 nowhere, 1 for gradients, 2 for all arrays. It changes no bits.
#include "ieee.cuh"

#ifndef GA_STREAMING
#define GA_STREAMING 0
#endif

namespace gpuadapt {

#ifdef __CUDACC_RTC__
// The type of one access.
template <int SIZE> struct access {};
template <> struct access<1> {
    typedef unsigned char type;
};
template <> struct access<2> {
    typedef unsigned short type;
};
template <> struct access<4> {
    typedef unsigned int type;
};
template <> struct access<8> {
    typedef uint2 type;
};
template <> struct access<16> {
    typedef uint4 type;
};

template <typename P> union accesses {
    enum : int { SIZE = sizeof(P) < 16 ? sizeof(P) : 16, COUNT = sizeof(P) / SIZE };
    typedef typename access<SIZE>::type type;
    P pack;
    type at[COUNT];
    __device__ accesses() {}
};

template <bool STREAMED, typename P> __device__ inline P load_pack(const P &place) {
    if (!STREAMED) {
        return place;
    }
    accesses<P> x;
#pragma unroll
    for (int k = 0; k < accesses<P>::COUNT; ++k) {
        x.at[k] = __ldcs(reinterpret_cast<const typename accesses<P>::type *>(&place) + k);
    }
    return x.pack;
}

template <bool STREAMED, typename P> __device__ inline void store_pack(P &place, const P &value) {
    if (!STREAMED) {
        place = value;
        return;
    }
    accesses<P> x;
    x.pack = value;
#pragma unroll
    for (int k = 0; k < accesses<P>::COUNT; ++k) {
        __stcs(reinterpret_cast<typename accesses<P>::type *>(&place) + k, x.at[k]);
    }
}
#else
template <bool STREAMED, typename P> inline P load_pack(const P &place) { return place; }
template <bool STREAMED, typename P> inline void store_pack(P &place, const P &value) {
    place = value;
}
#endif

}  // namespace gpuadapt
