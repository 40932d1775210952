// Sums and maxima over lanes, blocks and clusters, always in the same order: the same input gives
// the same bits. Blocks are whole warps, and every thread of a block takes part.
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

// Over groups of LANES neighbouring lanes (a power of two); every lane gets the result.
template <class Op, int LANES>
__device__ inline A reduce_lanes(A value) {
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
template <class Op>
__device__ inline A reduce_block(A value, A* scratch) {
    value = reduce_lanes<Op, WARP>(value);
    int thread = flat_thread(), warps = block_threads() / WARP;
    if (thread % WARP == 0) scratch[thread / WARP] = value;
    __syncthreads();
    value = scratch[0];
    for (int warp = 1; warp < warps; warp++) value = Op::of(value, scratch[warp]);
    __syncthreads();  // nobody may write the next value before everybody has read this one
    return value;
}

// Over a cluster of BLOCKS blocks. `place` is one word of shared memory, used for this sum only;
// a cluster_barrier must stand between the last such sum and a block's end, lest a block be gone
// when the others read its word.
template <class Op, int BLOCKS>
__device__ inline A reduce_cluster(A value, A* scratch, A* place) {
    value = reduce_block<Op>(value, scratch);
#ifdef XPMLP_CLUSTERS
    if constexpr (BLOCKS > 1) {
        if (flat_thread() == 0) *place = value;
        cluster_barrier();
        value = cluster_load(place, 0);
#pragma unroll
        for (int rank = 1; rank < BLOCKS; rank++) value = Op::of(value, cluster_load(place, rank));
    }
#endif
    return value;
}

#endif
