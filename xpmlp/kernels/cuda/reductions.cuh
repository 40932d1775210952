// Sums and maxima over lanes and blocks, always in the same order: the same input gives the same
// bits. Blocks are whole warps, and every thread of a block takes part.
#ifndef XPMLP_REDUCTIONS_CUH
#define XPMLP_REDUCTIONS_CUH

#include "types.cuh"

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;
constexpr int MOST_WARPS = 32;

struct Sum {
    __device__ static A of(A a, A b) { return a + b; }
};
struct Maximum {
    __device__ static A of(A a, A b) { return larger(a, b); }
};
struct Minimum {
    __device__ static int of(int a, int b) { return a < b ? a : b; }
};

// Over groups of LANES neighbouring lanes (a power of two); every lane gets the result.
template <class Op, int LANES, class V>
__device__ inline V reduce_lanes(V value) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
        value = Op::of(value, __shfl_xor_sync(ALL_LANES, value, step));
    }
    return value;
}

__device__ inline int flat_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ inline int block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

// Over the block; `scratch` has MOST_WARPS places and may be used again at once.
template <class Op, class V>
__device__ inline V reduce_block(V value, V* scratch) {
    value = reduce_lanes<Op, WARP>(value);
    int thread = flat_thread(), warps = block_threads() / WARP;
    if (thread % WARP == 0) scratch[thread / WARP] = value;
    __syncthreads();
    value = scratch[0];
    for (int warp = 1; warp < warps; warp++) value = Op::of(value, scratch[warp]);
    __syncthreads();  // nobody may write the next value before everybody has read this one
    return value;
}

#endif
