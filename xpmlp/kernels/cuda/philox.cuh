// Philox4x32-10 (Salmon et al. 2011), the same numbers as xpmlp/random.py.
#ifndef XPMLP_PHILOX_CUH
#define XPMLP_PHILOX_CUH

#include "types.cuh"

struct Words {
    unsigned at[4];

    // Word i where i is not known when compiling: an index would move the words to local memory.
    __device__ unsigned pick(int i) const {
        unsigned low = i & 1 ? at[1] : at[0], high = i & 1 ? at[3] : at[2];
        return i & 2 ? high : low;
    }
};

__device__ inline unsigned high_product(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}

__device__ inline Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0,
                               unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned high0 = high_product(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
        unsigned high1 = high_product(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

#endif
