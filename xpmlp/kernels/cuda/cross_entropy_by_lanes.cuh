// C ≤ 1024, in float64 512: some lanes of a warp hold a row in registers.
#ifndef XPMLP_CROSS_ENTROPY_BY_LANES_CUH
#define XPMLP_CROSS_ENTROPY_BY_LANES_CUH

#include "cross_entropy_row.cuh"
#include "reductions.cuh"
#include "vectors.cuh"

template <bool PROBABILITIES, int LANES, int PIECES>
__device__ inline void rows_by_lanes(const Arguments& a) {
    constexpr int STEP = LANES * VECTOR;
    Index row = ((Index)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    // Lanes beyond the last row repeat it, so that whole warps shuffle, and write nothing.
    bool writes = row < a.rows;
    if (!writes) row = a.rows - 1;
    int classes = a.classes;
    const T* logits = a.logits + row * a.logit_stride;
    int shift = shift_of(logits), begin = (int)(threadIdx.x % LANES) * VECTOR - shift;

    A x[PIECES][VECTOR];
    A peak = minus_infinity();
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
        load_piece(logits, begin + k * STEP, classes, minus_infinity(), x[k]);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) peak = larger(peak, x[k][i]);
    }
    peak = reduce_lanes<Maximum, LANES>(peak);

    Target<PROBABILITIES> target(a, row);
    Sums sums;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            int c = begin + k * STEP + i;
            if (c >= 0 && c < classes) x[k][i] = add_class(sums, target, c, x[k][i], peak);
        }
    }
    reduce_sums(sums, a.hits, [](A value, int) { return reduce_lanes<Sum, LANES>(value); });
    RowResult result(a, target, row, sums, peak);
    if (!writes) return;
    if (threadIdx.x % LANES == 0) result.report(a, row);
    if (!a.dlogits) return;

    T* gradient = a.dlogits + row * a.gradient_stride;
    bool aligned = shift_of(gradient) == shift;
#pragma unroll
    for (int k = 0; k < PIECES; k++) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            x[k][i] = result.gradient(target, inside(begin + k * STEP + i, classes), x[k][i]);
        }
        store_piece(gradient, begin + k * STEP, classes, aligned, x[k]);
    }
}

#endif
